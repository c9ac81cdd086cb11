// Runs inside the browser, on an empty page: a keeper, and a client of it that the tests drive.
import { Files } from "/tintype/files.js";

let worker;
let files;
let jobs = 0;
const asked = new Map();
const sessions = new Map();
const streams = new Map();
const module = WebAssembly.compileStreaming(fetch("/tintype/wasm/tintype_bg.wasm")).then((module) => ({ build: "plain", module }));

const hex = (bytes) => [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

async function sha256(chunks) {
  return hex(await crypto.subtle.digest("SHA-256", await new Blob(chunks).arrayBuffer()));
}

function receive({ data }) {
  if (data.type === "notice") window.notices.push(data.detail);
  else if (data.type === "fatal") window.fatal = data.message;
  else if (data.type === "event") asked.get(data.job).events.push(data.value);
  else if (data.type === "answer") asked.get(data.job).resolve(data.value);
  else if (data.type === "failure") asked.get(data.job).reject(Object.assign(new Error(data.error.message), { code: data.error.code }));
}

const calls = {
  async start({ module: other, ...options } = {}) {
    window.notices = [];
    window.fatal = undefined;
    worker?.terminate();
    worker = new Worker("/tintype/keeper.js", { type: "module" });
    const ready = new Promise((resolve) => {
      worker.onmessage = (event) => {
        receive(event);
        if (["ready", "fatal"].includes(event.data.type)) resolve();
      };
    });
    worker.postMessage({ type: "start", module: other ?? (await module), options });
    calls.connect();
    await ready;
    return window.fatal;
  },

  connect() {
    const { port1, port2 } = new MessageChannel();
    worker.postMessage({ type: "connect", port: port1 }, [port1]);
    files = new Files(port2);
  },

  stop() {
    worker.terminate();
    worker = undefined;
  },

  disconnect: () => worker.postMessage({ type: "disconnect" }),

  /** Asks for it, and at once to stop it. */
  async stopped(command) {
    const asking = calls.store(command);
    worker.postMessage({ type: "cancel", job: jobs });
    return asking;
  },

  async store(command, ...args) {
    const job = ++jobs;
    const events = [];
    const value = await new Promise((resolve, reject) => {
      asked.set(job, { resolve, reject, events });
      worker.postMessage({ type: "store", job, command, args });
    });
    return command === "verify" ? { ...value, events } : value;
  },

  begin: (key) => void sessions.set(key, files.begin(key)),

  async open(key, url, place, expected) {
    const stream = await sessions.get(key).open(url, place, expected);
    const { size, sha256, stored } = stream;
    streams.set(place, { stream, chunks: [], length: 0 });
    return { size, sha256, stored };
  },

  /** Reads until there are at least `bytes`, or to the end. */
  async read(place, bytes = Infinity) {
    const reading = streams.get(place);
    while (reading.length < bytes) {
      const chunk = await reading.stream.read();
      if (!chunk) return { length: reading.length, sha256: await sha256(reading.chunks), told: reading.stream.sha256 };
      reading.length += chunk.length;
      reading.chunks.push(chunk);
    }
    return { length: reading.length };
  },

  /** Reads to the end and keeps nothing. */
  async skim(place) {
    const { stream } = streams.get(place);
    for (let bytes; (bytes = await stream.read()); ) stream.recycle(bytes);
    return stream.sha256;
  },

  /** MiB/s of reading a stored file through files.js in a worker, and in a raw loop, in turns. */
  async speed(url, sha256) {
    const reader = new Worker("/test/keeper-reader.js", { type: "module" });
    const ask = (message, transfer = []) =>
      new Promise((resolve) => {
        reader.onmessage = ({ data }) => resolve(data);
        reader.postMessage(message, transfer);
      });
    const { port1, port2 } = new MessageChannel();
    worker.postMessage({ type: "connect", port: port1 }, [port1]);
    await ask({ type: "connect", port: port2 }, [port2]);
    const result = { stored: [], raw: [] };
    for (let round = 0; round < 7; round++) {
      result.stored.push(await ask({ type: "stored", url }));
      result.raw.push(await ask({ type: "raw", sha256 }));
    }
    reader.terminate();
    return result;
  },

  cancel: (place) => streams.get(place).stream.cancel(),
  skip: (place) => streams.get(place).stream.skip(),

  /** Opens a file and gives its load up at once; the milliseconds until that has ended. */
  async hasty(key, url) {
    const session = files.begin(key);
    const opening = session.open(url, "unet/x").catch(({ code }) => code);
    const started = performance.now();
    await session.abort("cancelled");
    return { code: await opening, milliseconds: performance.now() - started };
  },

  /** How many promises were left alone of a load that is given up while its keeper dies. */
  async orphans() {
    let count = 0;
    addEventListener("unhandledrejection", (event) => (event.preventDefault(), (count += 1)));
    const files = new Files(new MessageChannel().port1);
    files.begin("a").abort("cancelled");
    files.begin("b").commit({});
    files.close(new Error("the keeper died"));
    await new Promise((resolve) => setTimeout(resolve, 100));
    return count;
  },

  /** The store's index as an earlier version made it. */
  async ancient() {
    const done = (request) => new Promise((resolve, reject) => Object.assign(request, { onsuccess: () => resolve(request.result), onerror: reject }));
    await done(indexedDB.deleteDatabase("tintype"));
    const request = indexedDB.open("tintype", 1);
    request.onupgradeneeded = () => {
      const keys = { urls: "url", blobs: "sha256", partials: "url", checkpoints: "id" };
      for (const [store, keyPath] of Object.entries(keys)) request.result.createObjectStore(store, { keyPath });
    };
    const database = await done(request);
    const checkpoint = { id: "ancient", name: "Ancient", url: "x", files: [], lastUsed: 0 };
    await done(database.transaction("checkpoints", "readwrite").objectStore("checkpoints").put(checkpoint));
    database.close();
  },
  commit: (key, checkpoint) => sessions.get(key).commit(checkpoint),
  abort: (key, code) => sessions.get(key).abort(code),
  warnings: (key) => sessions.get(key).warnings,

  /** A whole load: opens and reads each file, then commits, or aborts with what went wrong. */
  async load(id, list) {
    const session = files.begin(id);
    sessions.set(id, session);
    try {
      const read = await Promise.all(
        list.map(async ({ url, place, ...expected }) => {
          const opened = await calls.open(id, url, place, expected);
          return { ...opened, ...(await calls.read(place)) };
        }),
      );
      await session.commit({ id, name: id, url: list[0].url, bytes: read.reduce((sum, { length }) => sum + length, 0) });
      return { files: read, warnings: session.warnings };
    } catch (error) {
      await session.abort(error.code);
      throw error;
    }
  },

  /** The names and sizes of what lies in the store's folders. */
  async disk() {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("tintype", { create: true });
    const found = {};
    for (const name of ["blobs", "partial"]) {
      found[name] = {};
      for await (const [file, handle] of (await root.getDirectoryHandle(name, { create: true })).entries()) {
        found[name][file] = (await handle.getFile()).size;
      }
    }
    return found;
  },

  /** Makes a stored file `size` bytes long, or changes the byte at `flip`. */
  async damage(sha256, { size, flip }) {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("tintype");
    const handle = await (await root.getDirectoryHandle("blobs")).getFileHandle(sha256);
    const writable = await handle.createWritable({ keepExistingData: true });
    if (size !== undefined) await writable.truncate(size);
    if (flip !== undefined) {
      const byte = new Uint8Array(await (await handle.getFile()).slice(flip, flip + 1).arrayBuffer());
      await writable.write({ type: "write", position: flip, data: byte.map((value) => value ^ 1) });
    }
    await writable.close();
  },

  async lose(sha256) {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("tintype");
    await (await root.getDirectoryHandle("blobs")).removeEntry(sha256);
  },
};

window.call = async (name, args) => {
  try {
    return { value: await calls[name](...args) };
  } catch (error) {
    return { error: { code: error.code, message: error.message } };
  }
};
