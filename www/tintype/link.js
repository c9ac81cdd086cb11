// The page's end of the worker: numbered calls, their answers, and what happens to them when the worker dies.

import { TintypeError } from "./error.js";

/** A worker from another origin is refused, a module imported from there isn't: a small local worker imports it. */
function startWorker() {
  if (new URL(import.meta.url).origin === globalThis.location.origin) {
    // Written out in one expression: bundlers look for exactly this.
    return new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "tintype" });
  }
  const script = `import ${JSON.stringify(new URL("./worker.js", import.meta.url).href)};`;
  const wrapper = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  return new Worker(wrapper, { type: "module", name: "tintype" });
}

export class Link {
  #worker;
  #calls = new Map();
  /** Jobs that were aborted and may yet be answered. */
  #abandoned = new Set();
  #nextJob = 1;
  /** Set once, when nothing more can be asked: what every later call rejects with. */
  #end = null;
  #watch = new AbortController();

  constructor() {
    try {
      this.#worker = startWorker();
    } catch (error) {
      throw new TintypeError("unsupported", `the worker could not be started: ${error.message}`, { cause: error });
    }
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const where = event.filename ? ` (${event.filename}:${event.lineno})` : "";
      const unloadable = "its script could not be loaded: is worker.js beside tintype.js, and allowed here?";
      this.#fail(`the worker failed: ${event.message ? `${event.message}${where}` : unloadable}`);
    };
    this.#worker.onmessageerror = () => this.#fail("a message of the worker could not be read");
  }

  /**
   * Asks the worker for `type`. `onEvent` hears what it reports on the way. An abort rejects at once; the worker, told
   * of it, stops at its next pause.
   */
  call(type, payload = {}, { signal, onEvent, transfer = [] } = {}) {
    return new Promise((resolve, reject) => {
      if (this.#end) return reject(this.#end());
      if (signal?.aborted) return reject(cancelled(type, signal));
      const job = this.#nextJob++;
      const onAbort = () => {
        this.#settle(job)?.reject(cancelled(type, signal));
        this.#abandoned.add(job);
        this.#worker.postMessage({ type: "cancel", job });
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      const release = () => signal?.removeEventListener("abort", onAbort);
      this.#calls.set(job, { resolve, reject, onEvent, release });
      try {
        this.#worker.postMessage({ type, job, ...payload }, transfer);
      } catch (error) {
        this.#settle(job).reject(new TintypeError("invalid-argument", `${type}: ${error.message}`, { cause: error }));
      }
    });
  }

  /** The browser tells nobody that a worker died; the lock which it held while it lived does. */
  async watch(lock) {
    if (!globalThis.navigator?.locks) return;
    try {
      await navigator.locks.request(lock, { signal: this.#watch.signal }, () => this.#fail("the worker died"));
    } catch {
      // Aborted by close(), or locks are refused in this context: nothing to watch.
    }
  }

  /** Ends the worker. Each of the two makes an error: for the calls under way, and for those that come later. */
  close(now, later) {
    if (this.#end) return;
    this.#end = later;
    this.#watch.abort();
    this.#worker.terminate();
    for (const job of [...this.#calls.keys()]) this.#settle(job).reject(now());
  }

  #settle(job) {
    const call = this.#calls.get(job);
    this.#calls.delete(job);
    call?.release();
    return call;
  }

  #receive(message) {
    if (message.type === "fatal") return this.#fail(message.message);
    if (message.type === "event") return this.#calls.get(message.job)?.onEvent?.(message.value);
    if (this.#abandoned.delete(message.job)) {
      // Loaded all the same, since the abort came too late: nobody has a handle to let go of it.
      if (message.type === "answer" && message.value?.id !== undefined) {
        this.#worker.postMessage({ type: "unload", job: this.#nextJob++, id: message.value.id });
      }
      return;
    }
    const call = this.#settle(message.job);
    if (message.type === "answer") call?.resolve(message.value);
    else call?.reject(new TintypeError(message.error.code, message.error.message));
  }

  #fail(message) {
    const internal = (text) => () => new TintypeError("internal", text);
    this.close(internal(message), internal(`${message}; make a new Tintype to go on`));
  }
}

function cancelled(type, signal) {
  return new TintypeError("cancelled", `${type} was cancelled`, { cause: signal.reason });
}
