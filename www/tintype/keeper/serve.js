// The keeper's end of the port to the worker that computes: sessions, and streams that send no more than was asked for.
//   in    begin { session, label }   open { session, stream, url, place, size, sha256, credit }
//         credit { stream, bytes, buffer }   skip { stream }   cancel { stream }
//         commit { session, job, checkpoint }   abort { session, job, code }
//   out   opened { stream, size, sha256, stored }   chunk { stream, bytes }   end { stream, size, sha256 }
//         failed { stream, error }   warning { session, message }   answer { job }   failure { job, error }

import { failure, sendable } from "./failure.js";
import { Session } from "./session.js";

/** One open file on its way. */
class Stream {
  #port;
  #id;
  #file = null;
  #credit;
  #onEnd;
  #running = false;
  #cancelled = false;

  constructor(port, id, credit, onEnd) {
    this.#port = port;
    this.#id = id;
    this.#credit = credit;
    this.#onEnd = onEnd;
  }

  #send(type, values, transfer = []) {
    if (!this.#cancelled) this.#port.postMessage({ type, stream: this.#id, ...values }, transfer);
  }

  async start(opening) {
    try {
      this.#file = await opening;
    } catch (error) {
      this.#onEnd();
      return this.#send("failed", { error: sendable(error) });
    }
    if (this.#cancelled) return this.#file.cancel();
    const { size, sha256, stored } = this.#file;
    this.#send("opened", { size, sha256, stored });
    await this.#run();
  }

  /** The reader took `bytes`. */
  grant(bytes) {
    this.#credit += bytes;
    this.#run();
  }

  skip() {
    this.#file?.skip();
  }

  async cancel() {
    this.#cancelled = true;
    await this.#file?.cancel();
  }

  async #run() {
    if (this.#running || !this.#file) return;
    this.#running = true;
    try {
      while (this.#credit > 0 && !this.#cancelled) {
        const bytes = await this.#file.next();
        if (bytes === null) {
          const { size, sha256 } = this.#file;
          this.#onEnd();
          return this.#send("end", { size, sha256 });
        }
        this.#credit -= bytes.length;
        this.#send("chunk", { bytes }, [bytes.buffer]);
      }
      this.#running = false;
    } catch (error) {
      this.#onEnd();
      this.#send("failed", { error: sendable(error) });
    }
  }
}

export class Connection {
  #keeper;
  #port;
  #sessions = new Map();
  #streams = new Map();

  constructor(keeper, port) {
    this.#keeper = keeper;
    this.#port = port;
    port.onmessage = ({ data }) => this.#receive(data);
  }

  /** The other end is gone: whatever it was reading is cancelled; what has come stays. */
  async end() {
    this.#port.onmessage = null;
    this.#port.close();
    const streams = [...this.#streams.values()];
    const sessions = [...this.#sessions.values()];
    this.#streams.clear();
    this.#sessions.clear();
    await Promise.all(streams.map((stream) => stream.cancel()));
    await Promise.all(sessions.map((session) => session.abort("cancelled")));
  }

  #receive(message) {
    const { type, session, stream } = message;
    if (type === "begin") {
      const warn = (text) => this.#port.postMessage({ type: "warning", session, message: text });
      this.#sessions.set(session, new Session(this.#keeper, message.label, warn));
    } else if (type === "open") {
      this.#open(message);
    } else if (type === "credit") {
      if (message.buffer) this.#keeper.pool.give(message.buffer);
      this.#streams.get(stream)?.grant(message.bytes);
    } else if (type === "skip") {
      this.#streams.get(stream)?.skip();
    } else if (type === "cancel") {
      this.#streams.get(stream)?.cancel();
      this.#close(stream);
    } else if (type === "commit") {
      this.#finish(message, (session) => session.commit(message.checkpoint));
    } else if (type === "abort") {
      this.#finish(message, (session) => session.abort(message.code));
    }
  }

  #open({ session, stream: id, url, place, size, sha256, credit }) {
    const stream = new Stream(this.#port, id, credit, () => this.#close(id));
    this.#streams.set(id, stream);
    this.#keeper.pool.use(this.#streams.size);
    const owner = this.#sessions.get(session);
    const opening = owner
      ? owner.open(url, place, { size, sha256 })
      : Promise.reject(failure("cancelled", `${place}: the load has ended`));
    stream.start(opening);
  }

  #close(stream) {
    this.#streams.delete(stream);
    this.#keeper.pool.use(this.#streams.size);
  }

  async #finish({ session, job }, how) {
    const ending = this.#sessions.get(session);
    this.#sessions.delete(session);
    try {
      if (ending) await how(ending);
      this.#port.postMessage({ type: "answer", job });
    } catch (error) {
      this.#port.postMessage({ type: "failure", job, error: sendable(error) });
    }
  }
}
