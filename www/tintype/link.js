// The page's end of a worker: numbered calls, their answers, and what happens to them when the worker dies.

import { TintypeError } from "./error.js";

/**
 * Whether the browser refuses a worker from a script of this origin: in a page that a service worker isolates, in whose folder it is
 * not, for its answer lacks the policy. A worker that was made otherwise for that has to make its own so, too.
 */
function isBeyond({ href }) {
  const { crossOriginIsolated, location, navigator, document } = globalThis;
  if (!crossOriginIsolated) return false;
  if (document === undefined) return location.protocol === "blob:";
  const isolating = navigator.serviceWorker?.controller?.scriptURL;
  return isolating !== undefined && !href.startsWith(new URL(".", isolating).href);
}

/**
 * Starts a worker of this folder. `here` makes one from the script itself; where such a worker is refused, as one from another origin
 * is, a module that is imported isn't: a small local worker imports it.
 */
export function startWorker(script, name, here) {
  if (new URL(import.meta.url).origin === globalThis.location.origin && !isBeyond(script)) return here();
  const source = `import ${JSON.stringify(script.href)};`;
  const wrapper = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  return new Worker(wrapper, { type: "module", name });
}

/** A lock's name that no other worker has. */
export const lockName = () => `tintype-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;

export class Link {
  #worker;
  #calls = new Map();
  /** Jobs that were aborted and may yet be answered. */
  #abandoned = new Set();
  #nextJob = 1;
  /** Set once, when nothing more can be asked: what every later call rejects with. */
  #end = null;
  #watch = new AbortController();
  #lock;
  #onMessage;
  #onDeath;

  /**
   * `start` gives the worker, which holds the lock `lock` from when it says that it is `ready`. `onMessage` hears what is no
   * call's; `onDeath` that the worker ended by itself.
   */
  constructor(start, { lock, onMessage = () => {}, onDeath = () => {} }) {
    this.#lock = lock;
    this.#onMessage = onMessage;
    this.#onDeath = onDeath;
    try {
      this.#worker = start();
    } catch (error) {
      throw new TintypeError("unsupported", `the worker could not be started: ${error.message}`, { cause: error });
    }
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const where = event.filename ? ` (${event.filename}:${event.lineno})` : "";
      const unloadable = "its script could not be loaded: is it beside tintype.js, and allowed here?";
      this.#fail("internal", `the worker failed: ${event.message ? `${event.message}${where}` : unloadable}`);
    };
    this.#worker.onmessageerror = () => this.#fail("internal", "a message of the worker could not be read");
  }

  /** Why the worker ended by itself, if it did: `{ code, message }`. */
  death = null;

  /** When the worker said that it is ready. */
  readyAt = Infinity;

  get isOpen() {
    return this.#end === null;
  }

  post(message, transfer = []) {
    if (!this.#end) this.#worker.postMessage(message, transfer);
  }

  /**
   * Asks the worker for `type`, which messages call `what`. `onSent` hears that it was asked, `onEvent` what it reports on the way.
   * An abort rejects at once; the worker, told of it, stops at its next pause.
   */
  call(type, payload = {}, { what = type, signal, onSent, onEvent, transfer = [] } = {}) {
    return new Promise((resolve, reject) => {
      if (this.#end) return reject(this.#end());
      if (signal?.aborted) return reject(cancelled(what, signal));
      const job = this.#nextJob++;
      const onAbort = () => {
        this.#settle(job)?.reject(cancelled(what, signal));
        this.#abandoned.add(job);
        this.#worker.postMessage({ type: "cancel", job });
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      const release = () => signal?.removeEventListener("abort", onAbort);
      this.#calls.set(job, { resolve, reject, onEvent, release });
      try {
        this.#worker.postMessage({ type, job, ...payload }, transfer);
      } catch (error) {
        return this.#settle(job).reject(new TintypeError("invalid-argument", `${what}: ${error.message}`, { cause: error }));
      }
      onSent?.();
    });
  }

  /** Ends the worker. Each of the two makes an error: for the calls under way, and for those that come later. */
  close(now, later) {
    if (this.#end) return;
    this.#end = later;
    this.#watch.abort();
    this.#worker.terminate();
    for (const job of [...this.#calls.keys()]) this.#settle(job).reject(now());
  }

  /** The browser tells nobody that a worker died; the lock which it held while it lived does. */
  async #watchLock() {
    if (!globalThis.navigator?.locks) return;
    try {
      await navigator.locks.request(this.#lock, { signal: this.#watch.signal }, () => this.#fail("internal", "the worker died"));
    } catch {
      // Aborted by close(), or locks are refused in this context: nothing to watch.
    }
  }

  #settle(job) {
    const call = this.#calls.get(job);
    this.#calls.delete(job);
    call?.release();
    return call;
  }

  #receive(message) {
    const { type, job } = message;
    if (type === "ready") {
      this.readyAt = performance.now();
      return this.#watchLock();
    }
    if (type === "fatal") return this.#fail("internal", message.message);
    if (type === "event") return this.#calls.get(job)?.onEvent?.(message.value);
    if (type !== "answer" && type !== "failure") return this.#onMessage(message);
    // Without its device the worker is of no more use than a dead one, even where nobody waits for the job.
    if (type === "failure" && message.error.code === "device-lost") return this.#fail("device-lost", message.error.message);
    if (this.#abandoned.delete(job)) {
      // Loaded all the same, since the abort came too late: nobody has a handle to let go of it.
      if (type === "answer" && message.value?.id !== undefined) {
        this.#worker.postMessage({ type: "unload", job: this.#nextJob++, id: message.value.id });
      }
      return;
    }
    const call = this.#settle(job);
    if (type === "answer") call?.resolve(message.value);
    else call?.reject(new TintypeError(message.error.code, message.error.message));
  }

  #fail(code, message) {
    if (this.#end) return;
    this.death = { code, message };
    const error = () => new TintypeError(code, message);
    this.close(error, error);
    this.#onDeath(this.death);
  }
}

function cancelled(what, signal) {
  return new TintypeError("cancelled", `${what} was cancelled`, { cause: signal.reason });
}
