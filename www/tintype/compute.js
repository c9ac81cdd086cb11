// The worker that computes, and another in its place when it dies or its GPU is lost: what was asked of it is asked once more.

import { Link, lockName, startWorker } from "./link.js";

const SCRIPT = new URL("./worker.js", import.meta.url);

// Written out in one expression: bundlers look for exactly this.
const start = () =>
  startWorker(SCRIPT, "tintype", () => new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "tintype" }));

/** Losses of the GPU, or workers that died by their threads, in a row, without a picture in between, after which it is done without. */
const LOSSES = 2;

/** How a worker died that a thread of its failed. */
const BY_A_THREAD = /one of its threads failed/;

export class Compute {
  #options;
  #hooks;
  #link = null;
  #starting = null;
  #losses = 0;
  #module = null;
  /** What calls reject with from when it was closed: those under way, and those that come later. */
  #closed = null;

  /**
   * `onStarted(started)` hears what each worker that starts has; `onDeath()` that one ended by itself; `onMessage` what is no
   * call's answer; `onNotice(kind, message)` what a person should know; `connect(port)` hands the keeper the other end of a port.
   */
  constructor(options, hooks) {
    this.#options = options;
    this.#hooks = hooks;
  }

  /** The compiled module and which build it is of, once the first worker has started. */
  get module() {
    return this.#module;
  }

  /** Starts the first worker. */
  start() {
    return this.#alive();
  }

  /**
   * Asks the worker for `type`; if it dies over it, or before, asks another one once more. `payload` is made for the worker
   * that is asked: `known` is a set of its own, for what it was told before; `onSent(known)` hears that it was told.
   */
  async call(type, payload, options = {}) {
    if (this.#closed) throw this.#closed.later();
    for (let again = false; ; again = true) {
      const link = await this.#alive();
      try {
        const value = await link.call(type, payload(link.known), { ...options, onSent: () => options.onSent?.(link.known) });
        if (type === "generate") this.#losses = 0;
        return value;
      } catch (error) {
        if (this.#closed) throw this.#closed.now();
        if (!link.death || again || options.signal?.aborted) throw error;
      }
    }
  }

  /** Connects the worker that there is to a keeper that took another's place. */
  reconnect() {
    if (this.#link?.isOpen) this.#connect(this.#link);
  }

  /** Tells it that there is no keeper any more. */
  disconnect(message) {
    this.#link?.post({ type: "no files", message });
  }

  close(now, later) {
    this.#closed = { now, later };
    this.#link?.close(now, later);
  }

  async #alive() {
    if (this.#closed) throw this.#closed.now();
    // One that is starting is open, and not ready.
    if (!this.#starting && this.#link?.isOpen) return this.#link;
    return (this.#starting ??= this.#start().finally(() => (this.#starting = null)));
  }

  async #start() {
    const death = this.#link?.death;
    if (death?.code === "device-lost") {
      // Finding out may be what it was lost by.
      this.#options = { ...this.#options, settled: true };
      if (++this.#losses >= LOSSES) Object.assign(this.#options, { backend: "cpu", reason: "the GPU was lost twice, so the CPU is used" });
    }
    if (death && BY_A_THREAD.test(death.message) && ++this.#losses >= LOSSES) this.#options = { ...this.#options, threads: 1 };
    const lock = lockName();
    const link = new Link(start, { lock, onMessage: this.#hooks.onMessage, onDeath: () => this.#hooks.onDeath() });
    link.known = new Set();
    // From now on close() ends it too.
    this.#link = link;
    try {
      const { module, ...started } = await link.call("create", { lock, options: this.#options, module: this.#module });
      this.#module = module;
      this.#connect(link);
      this.#hooks.onStarted(started);
      if (death) this.#announce(death, started.backend);
      return link;
    } catch (error) {
      const same = () => error;
      link.close(same, same);
      // What a browser's WebGPU throws in the midst of the engine's own work ends a worker.
      if (!link.death || link.death.code === "device-lost" || this.#closed || (this.#options.backend ?? "auto") !== "auto") throw error;
      this.#options = { ...this.#options, backend: "cpu", reason: `the GPU could not be set up (${link.death.message}), so the CPU is used` };
      return this.#start();
    }
  }

  #connect(link) {
    const { port1, port2 } = new MessageChannel();
    link.post({ type: "files", port: port1 }, [port1]);
    this.#hooks.connect(port2, this.#module);
  }

  #announce({ code, message }, backend) {
    if (code !== "device-lost") return this.#hooks.onNotice("worker", `${message}; another one took its place`);
    const now = backend.kind === "webgpu" ? "it was set up anew" : "the CPU took its place";
    this.#hooks.onNotice(backend.kind === "webgpu" ? "device" : "backend", `${message}; ${now}`);
  }
}
