// A worker that reads a stored file, through files.js or by itself, and says how many MiB a second that gave.
import { Files } from "/tintype/files.js";

const CHUNK = 2 << 20;
let files;

const rate = (bytes, started) => bytes / (1 << 20) / ((performance.now() - started) / 1000);

const calls = {
  connect({ port }) {
    files = new Files(port);
    return true;
  },

  async stored({ url }) {
    const session = files.begin("speed");
    const started = performance.now();
    const stream = await session.open(url, "x");
    let length = 0;
    for (let bytes; (bytes = await stream.read()); ) {
      length += bytes.length;
      stream.recycle(bytes);
    }
    const result = rate(length, started);
    await session.abort("cancelled");
    return result;
  },

  async raw({ sha256 }) {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("tintype");
    const handle = await (await root.getDirectoryHandle("blobs")).getFileHandle(sha256);
    const started = performance.now();
    const access = await handle.createSyncAccessHandle({ mode: "read-only" });
    const buffer = new Uint8Array(CHUNK);
    let at = 0;
    for (let count; (count = access.read(buffer, { at })) > 0; ) at += count;
    access.close();
    return rate(at, started);
  },
};

onmessage = async ({ data }) => postMessage(await calls[data.type](data));
