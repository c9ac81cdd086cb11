// The client of keeper.js: files by their address, from the store or from their host, over a port.

/** Bytes of one file that may be on their way; the buffers that they come in may be twice as large. */
const WINDOW = 8 << 20;

const typed = ({ code, message }) => Object.assign(new Error(message), { code });

/** A file's bytes, in order. */
class FileStream {
  #port;
  #id;
  #place;
  #forget;
  #chunks = [];
  #waiting = null;
  /** Bytes that were read and not asked for anew. */
  #owed = 0;
  /** Set once: `{ error }`, or `{}` at the file's end. */
  #end = null;
  /** Bytes; undefined where the host does not say. */
  size;
  /** Of all of it: known beforehand in the store, by a catalogue or from the hub; always after the last byte. */
  sha256;
  stored;

  constructor(port, { id, place, forget }, { size, sha256, stored }) {
    this.#port = port;
    this.#id = id;
    this.#place = place;
    this.#forget = forget;
    Object.assign(this, { size, sha256, stored });
  }

  /** The next bytes, or null when all have come and their length and hash were checked. */
  async read() {
    this.#repay();
    while (this.#chunks.length === 0) {
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return null;
      await new Promise((resolve) => (this.#waiting = resolve));
    }
    const bytes = this.#chunks.shift();
    this.#owed = bytes.length;
    return bytes;
  }

  /** Lets as much more come as was read. */
  #repay(buffer) {
    if (this.#owed === 0 && !buffer) return;
    const message = { type: "credit", stream: this.#id, bytes: this.#owed, buffer };
    this.#owed = 0;
    this.#port.postMessage(message, buffer ? [buffer] : []);
  }

  /** Gives the memory of bytes that `read` gave back to the keeper, which fills it anew: faster than new memory. */
  recycle(bytes) {
    if (bytes.buffer.byteLength > 0) this.#repay(bytes.buffer);
  }

  /** Ends it; what has come stays in the store, to go on from. */
  cancel() {
    if (this.#end) return;
    this.#port.postMessage({ type: "cancel", stream: this.#id });
    this.#forget();
    this.receive({ type: "failed", error: { code: "cancelled", message: `${this.#place}: the load was cancelled` } });
    this.#chunks.length = 0;
  }

  /** Ends it, for its content is known and here already: if it is stored, it belongs to what the session loads. */
  skip() {
    if (!this.#end) this.#port.postMessage({ type: "skip", stream: this.#id });
    this.cancel();
  }

  receive(message) {
    if (this.#end) return;
    if (message.type === "chunk") this.#chunks.push(message.bytes);
    else if (message.type === "end") {
      this.#end = {};
      this.size = message.size;
      this.sha256 = message.sha256;
    } else this.#end = { error: typed(message.error) };
    this.#waiting?.();
    this.#waiting = null;
  }
}

/** One load. */
class FileSession {
  #files;
  #id;
  /** What a person should know, such as that something was not stored. */
  warnings = [];

  constructor(files, id) {
    this.#files = files;
    this.#id = id;
  }

  /** The file at `url`, which messages call `place`; `size` and `sha256` are what it must have. */
  open(url, place, { size, sha256 } = {}) {
    return this.#files.open({ session: this.#id, url, place, size, sha256 });
  }

  /**
   * The load succeeded: the files that were read to their end are `checkpoint`, `{ id, name, url, bytes, part }`. With
   * `part` they are only some of a checkpoint's, which may be kept under that address.
   */
  commit({ id, name, url, bytes, part }) {
    return this.#end({ type: "commit", checkpoint: { id, name, url, bytes, part } });
  }

  /** The load failed with `code`, or was given up. */
  abort(code) {
    return this.#end({ type: "abort", code });
  }

  #end(message) {
    const ended = this.#files.ask({ session: this.#id, ...message });
    // Whoever gave it up may not wait: that the keeper died before its answer is no error of theirs.
    ended.catch(() => {});
    return ended;
  }
}

export class Files {
  #port;
  #next = 1;
  #sessions = new Map();
  /** stream → `{ place, resolve, reject }` while it is being opened, the FileStream then. */
  #streams = new Map();
  #asked = new Map();
  #dead = null;

  constructor(port) {
    this.#port = port;
    port.onmessage = ({ data }) => this.#receive(data);
    const unreadable = { code: "internal", message: "a message of the keeper could not be read" };
    port.onmessageerror = () => this.close(typed(unreadable));
  }

  /** Begins a load; `label` names it in messages. */
  begin(label) {
    const id = this.#next++;
    const session = new FileSession(this, id);
    this.#sessions.set(id, session);
    this.#port.postMessage({ type: "begin", session: id, label });
    return session;
  }

  open(request) {
    return new Promise((resolve, reject) => {
      if (this.#dead) return reject(this.#dead);
      const stream = this.#next++;
      this.#streams.set(stream, { place: request.place, resolve, reject });
      this.#port.postMessage({ type: "open", stream, credit: WINDOW, ...request });
    });
  }

  ask(message) {
    return new Promise((resolve, reject) => {
      if (this.#dead) return reject(this.#dead);
      const job = this.#next++;
      this.#asked.set(job, { resolve, reject, session: message.session });
      this.#port.postMessage({ job, ...message });
    });
  }

  /** Nothing more comes, for the keeper died or is replaced: whatever waits for it rejects with `error`. */
  close(error) {
    this.#dead = error;
    this.#port.onmessage = null;
    this.#port.close();
    for (const waiting of [...this.#streams.values(), ...this.#asked.values()]) {
      if (waiting instanceof FileStream) waiting.receive({ type: "failed", error });
      else waiting.reject(error);
    }
    this.#streams.clear();
    this.#asked.clear();
  }

  #receive(message) {
    const { type, stream, job } = message;
    if (type === "warning") return this.#sessions.get(message.session)?.warnings.push(message.message);
    if (type === "answer" || type === "failure") {
      const { resolve, reject, session } = this.#asked.get(job);
      this.#asked.delete(job);
      this.#sessions.delete(session);
      return type === "answer" ? resolve() : reject(typed(message.error));
    }
    const waiting = this.#streams.get(stream);
    if (type === "opened") {
      const forget = () => this.#streams.delete(stream);
      const opened = new FileStream(this.#port, { id: stream, place: waiting.place, forget }, message);
      this.#streams.set(stream, opened);
      return waiting.resolve(opened);
    }
    if (type !== "chunk") this.#streams.delete(stream);
    if (waiting instanceof FileStream) waiting.receive(message);
    else waiting?.reject(typed(message.error));
  }
}
