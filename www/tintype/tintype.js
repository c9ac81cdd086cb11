// Tintype: image-generation checkpoints in a web page. This is the module a site imports; worker.js does the work.

import { TintypeError } from "./error.js";
import { Link } from "./link.js";
import { CREATE, GENERATE, LOAD, check, invalid, shown } from "./options.js";
import { catalogue, resolve } from "./source.js";

export { TintypeError };

/** Only this module makes handles. */
const OURS = Symbol("tintype");

/** A checkpoint in memory, as `load` gives it. */
export class Checkpoint {
  #unload;

  constructor(ours, info, unload) {
    if (ours !== OURS) throw invalid("Checkpoint: load() makes these");
    this.id = info.id;
    this.name = info.name;
    this.family = info.family;
    this.components = info.components;
    this.defaults = info.defaults;
    this.bytes = info.bytes;
    this.warnings = info.warnings ?? [];
    this.#unload = unload;
    Object.freeze(this);
  }

  /** Puts these LoRAs over the checkpoint; an empty list takes them all off. */
  async setLoras(loras) {
    check("setLoras", LOAD, { loras });
  }

  /** Lets go of its memory. The handle is of no use afterwards. */
  unload() {
    return this.#unload();
  }
}

const unsupported = (what) => Promise.reject(new TintypeError("unsupported", `${what} is not implemented`));

/** What is kept on this device: nothing, as long as keeping is not implemented. */
const STORE = Object.freeze({
  list: async () => [],
  remove: () => unsupported("store.remove"),
  persist: () => unsupported("store.persist"),
});

const randomSeed = () => String(crypto.getRandomValues(new Uint32Array(1))[0]);

/** A callback of the page's must not end the work; what it throws is reported as any other error of the page's is. */
const guarded = (callback) => (value) => {
  try {
    callback(value);
  } catch (error) {
    reportError(error);
  }
};

const CLOSED = "this Tintype is closed: make a new one";
const wasClosed = () => new TintypeError("cancelled", "this Tintype was closed");

const toImageData = ({ width, height, rgba }) => new ImageData(rgba, width, height);

export class Tintype extends EventTarget {
  #link;
  #backend;
  #samplers;
  #checkpoints = new Map();
  #closed = false;
  /** What ends, for each `load` that still finds out what its source is, when this closes. */
  #resolving = new Set();

  constructor(ours, link, started) {
    if (ours !== OURS) throw invalid("Tintype: use Tintype.create()");
    super();
    const { backend, samplers } = started;
    this.#link = link;
    this.#backend = Object.freeze(backend);
    this.#samplers = Object.freeze(samplers);
  }

  /** Starts a worker with an engine in it. */
  static async create(options) {
    const checked = check("create", CREATE, options);
    const link = new Link();
    try {
      const lock = `tintype-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
      const started = await link.call("create", { lock, options: checked });
      link.watch(lock);
      const tintype = new Tintype(OURS, link, started);
      tintype.#announce(checked);
      return tintype;
    } catch (error) {
      link.close(
        () => error,
        () => error,
      );
      throw error;
    }
  }

  /** The entries of a `checkpoints.json`, ready for `load`: their addresses made absolute. */
  static async catalogue(url, options) {
    return catalogue(url, options);
  }

  /** What the work runs on, and why: `{ kind, name, software, features, threads, reason }`. */
  get backend() {
    return this.#backend;
  }

  /** The checkpoints in memory. */
  get checkpoints() {
    return [...this.#checkpoints.values()];
  }

  /** The names that `sampler` takes, for a menu. */
  get samplers() {
    return this.#samplers;
  }

  get store() {
    return STORE;
  }

  async load(source, options) {
    const { signal, onProgress, ...rest } = check("load", LOAD, options);
    if (this.#closed) throw invalid(CLOSED);
    const resolved = await this.#resolve(source, signal);
    if (this.#closed) throw wasClosed();
    const info = await this.#link.call(
      "load",
      { source: resolved.source, options: { ...resolved.hints, ...rest } },
      { signal, onEvent: onProgress && guarded(onProgress) },
    );
    const checkpoint = new Checkpoint(OURS, info, () => this.#unload(checkpoint));
    this.#checkpoints.set(info.id, checkpoint);
    return checkpoint;
  }

  async generate(options) {
    const { checkpoint, signal, onStep, ...request } = check("generate", GENERATE, options);
    if (this.#closed) throw invalid(CLOSED);
    if (!checkpoint || this.#checkpoints.get(checkpoint.id) !== checkpoint) {
      const found = checkpoint instanceof Checkpoint ? `"${checkpoint.name}", which is not loaded` : shown(checkpoint);
      throw invalid(`generate: checkpoint: expected what load() gave, found ${found}`);
    }
    request.checkpoint = checkpoint.id;
    request.prompt ??= "";
    request.seed ??= randomSeed();
    const hear = onStep && guarded(onStep);
    const onEvent =
      hear && (({ preview, ...step }) => hear({ ...step, preview: preview ? toImageData(preview) : undefined }));
    const { images, ...rest } = await this.#link.call("generate", { request }, { signal, onEvent });
    return {
      ...rest,
      images: images.map(({ png, parameters, ...pixels }) => ({
        imageData: toImageData(pixels),
        parameters,
        toBlob: async () => png,
      })),
    };
  }

  async inspect() {
    return unsupported("inspect");
  }

  async profile() {
    return unsupported("profile");
  }

  /** Ends the worker. What is under way rejects with `cancelled`. */
  async close() {
    this.#closed = true;
    this.#checkpoints.clear();
    for (const stop of this.#resolving) stop(wasClosed());
    this.#link.close(wasClosed, () => invalid(CLOSED));
  }

  /** What the engine is to read; an abort or close() rejects at once, whatever a host or a disk is still asked. */
  async #resolve(source, signal) {
    const controller = new AbortController();
    let stop, aborted;
    const stopped = new Promise((_, reject) => {
      stop = (error) => {
        reject(error);
        controller.abort(error);
      };
      aborted = () => stop(new TintypeError("cancelled", "load was cancelled", { cause: signal.reason }));
    });
    this.#resolving.add(stop);
    signal?.addEventListener("abort", aborted);
    try {
      if (signal?.aborted) aborted();
      return await Promise.race([stopped, resolve(source, controller.signal)]);
    } finally {
      this.#resolving.delete(stop);
      signal?.removeEventListener("abort", aborted);
    }
  }

  async #unload(checkpoint) {
    if (this.#checkpoints.get(checkpoint.id) !== checkpoint) return;
    this.#checkpoints.delete(checkpoint.id);
    await this.#link.call("unload", { id: checkpoint.id });
  }

  /** Says that `auto` found no GPU; after create() has resolved, when someone can be listening. */
  #announce({ backend = "auto" }) {
    if (backend !== "auto" || this.#backend.kind === "webgpu") return;
    const detail = { kind: "backend", message: this.#backend.reason };
    setTimeout(() => this.dispatchEvent(new CustomEvent("notice", { detail })));
  }
}
