// A worker that reads the store's files as plainly as can be, to compare with: `{ bytes, milliseconds }`. It is asked for
// `access` (a synchronous handle and one buffer, which is no more than a copy where the system has the file in memory) or
// `stream` (as pages read a file).

const BUFFER = 4 << 20;

async function access(handle) {
  const file = await handle.createSyncAccessHandle({ mode: "read-only" });
  const [size, buffer] = [file.getSize(), new Uint8Array(BUFFER)];
  let at = 0;
  while (at < size) {
    const count = file.read(buffer, { at });
    if (count === 0) throw new Error(`${handle.name}: ${at} bytes of ${size}`);
    at += count;
  }
  file.close();
  return at;
}

async function stream(handle) {
  let bytes = 0;
  for await (const piece of (await handle.getFile()).stream()) bytes += piece.length;
  return bytes;
}

onmessage = async ({ data: way }) => {
  const root = await navigator.storage.getDirectory();
  const blobs = await (await root.getDirectoryHandle("tintype")).getDirectoryHandle("blobs");
  const files = [];
  for await (const handle of blobs.values()) files.push(handle);
  const started = performance.now();
  let bytes = 0;
  for (const handle of files) bytes += await { access, stream }[way](handle);
  postMessage({ bytes, milliseconds: performance.now() - started });
};
