// A worker that reads the store's files as plainly as can be, to compare with: `{ bytes, milliseconds }`.

const BUFFER = 4 << 20;

onmessage = async () => {
  const root = await navigator.storage.getDirectory();
  const blobs = await (await root.getDirectoryHandle("tintype")).getDirectoryHandle("blobs");
  const files = [];
  for await (const handle of blobs.values()) files.push(handle);
  const buffer = new Uint8Array(BUFFER);
  const started = performance.now();
  let bytes = 0;
  for (const handle of files) {
    const access = await handle.createSyncAccessHandle({ mode: "read-only" });
    const size = access.getSize();
    for (let at = 0; at < size; ) {
      const count = access.read(buffer, { at });
      if (count === 0) throw new Error(`${handle.name}: ${at} bytes of ${size}`);
      at += count;
      bytes += count;
    }
    access.close();
  }
  postMessage({ bytes, milliseconds: performance.now() - started });
};
