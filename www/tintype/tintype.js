// Tintype: image-generation checkpoints in a web page. This is the module a site imports; worker.js does the work.

import { catalogue } from "./catalogue.js";
import { Compute } from "./compute.js";
import { TintypeError } from "./error.js";
import { resolveLoras } from "./lora.js";
import {
  CREATE,
  GENERATE,
  INSPECT,
  LOAD,
  MOMENTS,
  PROFILE,
  SET_LORAS,
  check,
  guarded,
  invalid,
  loras as checkLoras,
  shown,
} from "./options.js";
import { pictures } from "./picture.js";
import { ANY, Sources } from "./source.js";
import { Storage, storeOf } from "./storage.js";
import { resolveVae } from "./vae.js";

export { TintypeError };

/** Only this module makes handles. */
const OURS = Symbol("tintype");

/** A checkpoint, as `load` gives it. It may leave memory; drawn with again, it comes back. */
export class Checkpoint {
  #unload;
  #setLoras;
  #defaults;

  constructor(ours, info, { unload, setLoras }) {
    if (ours !== OURS) throw invalid("Checkpoint: load() makes these");
    this.id = info.id;
    this.name = info.name;
    this.family = info.family;
    this.components = info.components;
    this.#defaults = Object.freeze(info.defaults);
    this.bytes = info.bytes;
    this.warnings = info.warnings ?? [];
    this.#unload = unload;
    this.#setLoras = setLoras;
    Object.freeze(this);
  }

  /** What `generate` takes for everything left out; others, where a LoRA over it brings its own. */
  get defaults() {
    return this.#defaults;
  }

  /**
   * Puts these LoRAs over the checkpoint in place of those that lie there; an empty list takes them all off. Pictures asked for
   * before are drawn before. Gives `{ warnings, defaults }`.
   */
  async setLoras(loras, options) {
    return this.#setLoras(loras, options, (defaults) => (this.#defaults = Object.freeze(defaults)));
  }

  /** Lets go of its memory. Drawn with again, it comes back. */
  unload() {
    return this.#unload();
  }
}

/** Of something that no engine has to look at to refuse it. */
function unsupportedIsSaid(error) {
  if (error.code !== "unsupported") throw error;
  const nothing = { family: null, components: [], bytes: 0, predictionType: null, defaults: null, memory: null };
  return { kind: null, layout: "single-file", name: "", ...nothing, unsupported: [error.message], warnings: [] };
}

const randomSeed = () => String(crypto.getRandomValues(new Uint32Array(1))[0]);

const CLOSED = "this Tintype is closed: make a new one";
const wasClosed = () => new TintypeError("cancelled", "this Tintype was closed");

const toImageData = ({ width, height, rgba }) => new ImageData(rgba, width, height);

export class Tintype extends EventTarget {
  #compute;
  #storage;
  #sources;
  #store;
  #debug;
  #backend;
  #samplers;
  /** Each checkpoint that was loaded, by its id, and how it is loaded again. */
  #handles = new Map();
  #recipes = new WeakMap();
  /** The last change of each checkpoint's LoRAs, done or not. */
  #changes = new WeakMap();
  #residents = [];
  #memory = null;
  #closed = false;
  /** What ends, for each call that still finds out what it was given, when this closes. */
  #resolving = new Set();

  constructor(ours, { store, stallTimeout, hub, debug, ...options }) {
    if (ours !== OURS) throw invalid("Tintype: use Tintype.create()");
    super();
    const onNotice = (kind, message) => this.#dispatch("notice", { kind, message });
    this.#storage = new Storage(
      { store, stallTimeout, hub },
      {
        onNotice: ({ kind, message }) => onNotice(kind, message),
        onDeath: (again, { message }) => {
          onNotice("worker", again ? `${message}; another one took its place` : message);
          if (again) this.#compute.reconnect();
          else this.#compute.disconnect(message);
        },
        onReturn: () => this.#compute.reconnect(),
      },
    );
    this.#compute = new Compute(options, {
      onStarted: (started) => this.#started(started),
      // What it held went with it.
      onDeath: () => this.#changed({ residents: [], memory: null }),
      onMessage: (message) => {
        if (message.type === "state") this.#changed(message);
        else if (message.type === "notice") onNotice(message.kind, message.message);
      },
      onNotice,
      connect: (port, module) => this.#storage.connect(port, module),
    });
    this.#store = storeOf(this.#storage);
    this.#sources = new Sources((command, about, signal) => this.#storage.command(command, [about], { signal }), hub?.url);
    if (!debug) return;
    const counts = () => this.#compute.call("counts", () => ({}));
    const sweep = (request) => this.#compute.call("sweep", () => ({ request }));
    this.#debug = Object.freeze({ loseDevice: this.#harm("lose-device"), killWorker: this.#harm("kill"), counts, sweep });
  }

  /** Starts the workers, one with an engine in it. */
  static async create(options) {
    const checked = check("create", CREATE, options);
    const tintype = new Tintype(OURS, checked);
    try {
      await tintype.#compute.start();
    } catch (error) {
      tintype.close();
      throw error;
    }
    tintype.#announce(checked);
    return tintype;
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
    return this.#residents.map((id) => this.#handles.get(id)).filter((checkpoint) => checkpoint !== undefined);
  }

  /** What is held, in bytes: `{ budget, weights, working, gpu, wasm }`. */
  get memory() {
    return this.#memory;
  }

  /** The names that `sampler` takes, for a menu. */
  get samplers() {
    return this.#samplers;
  }

  /** What is kept on this device. */
  get store() {
    return this.#store;
  }

  /** For tests, where `create` was asked for them: `{ loseDevice(moment), killWorker(moment), counts() }`. */
  get debug() {
    return this.#debug;
  }

  async load(source, options) {
    const { signal, onProgress, loras: over = [], vae: other, ...rest } = check("load", LOAD, options);
    if (this.#closed) throw invalid(CLOSED);
    const find = (signal) =>
      Promise.all([
        this.#sources.find(source, { signal }),
        resolveLoras(this.#sources, over, "load", signal),
        resolveVae(this.#sources, other, "load", signal),
      ]);
    const resolved = await this.#resolve(find, signal);
    if (this.#closed) throw wasClosed();
    const [{ source: found, hints }, { loras }, { vae }] = resolved;
    const recipe = { source: found, options: { ...hints, ...rest }, loras, vae };
    const info = await this.#fetching(() =>
      this.#compute.call(
        "load",
        // Ids of those that are not in memory are taken too.
        () => ({ recipe: { ...recipe, options: { ...recipe.options, taken: [...this.#handles.keys()] } } }),
        { signal, onEvent: onProgress && guarded(onProgress) },
      ),
    );
    if (this.#closed) throw wasClosed();
    const told = { ...info, warnings: [...resolved.flatMap(({ warnings }) => warnings), ...(info.warnings ?? [])] };
    const checkpoint = new Checkpoint(OURS, told, {
      unload: () => this.#unload(checkpoint),
      setLoras: (...args) => this.#setLoras(checkpoint, ...args),
    });
    this.#handles.set(info.id, checkpoint);
    this.#recipes.set(checkpoint, recipe);
    this.#dispatch("change");
    return checkpoint;
  }

  async generate(options) {
    const { checkpoint, signal, onProgress, onStep, image, mask, ...request } = check("generate", GENERATE, options);
    this.#ours(checkpoint, "generate");
    request.checkpoint = checkpoint.id;
    request.prompt ??= "";
    request.seed ??= randomSeed();
    if (image !== undefined || mask !== undefined) {
      const resolving = this.#resolve((signal) => pictures({ image, mask }, "generate", signal), signal, "generate");
      Object.assign(request, await resolving);
      if (this.#closed) throw wasClosed();
    }
    const [progressed, stepped] = [onProgress, onStep].map((callback) => callback && guarded(callback));
    const onEvent = ({ preview, ...event }) => {
      if (event.phase) progressed?.(event);
      else stepped?.({ ...event, preview: preview ? toImageData(preview) : undefined });
    };
    const { images, ...rest } = await this.#ask("generate", checkpoint, request, { signal, onEvent });
    return {
      ...rest,
      images: images.map(({ png, parameters, ...pixels }) => ({
        imageData: toImageData(pixels),
        parameters,
        toBlob: async () => png,
      })),
    };
  }

  /** What a checkpoint is and would need here, from its headers alone. */
  async inspect(source, options) {
    const { signal, vae: other, ...rest } = check("inspect", INSPECT, options);
    if (this.#closed) throw invalid(CLOSED);
    const find = (signal) =>
      Promise.all([
        this.#sources.find(source, { kind: ANY, signal }).catch(unsupportedIsSaid),
        resolveVae(this.#sources, other, "inspect", signal),
      ]);
    const resolved = await this.#resolve(find, signal, "inspect");
    if (this.#closed) throw wasClosed();
    const [{ source: found, hints, instead, ...rejected }, { vae }] = resolved;
    if (!found) return rejected;
    const recipe = { source: found, options: { ...hints, ...rest }, vae };
    const inspecting = this.#fetching(() => this.#compute.call("inspect", () => ({ recipe }), { signal }));
    const said = await inspecting.catch((error) => {
      if (instead && error.code === "not-found") return {};
      throw error;
    });
    if (instead && said.kind !== "vae") return unsupportedIsSaid(instead);
    return { ...said, warnings: [...resolved.flatMap(({ warnings }) => warnings), ...said.warnings] };
  }

  /** Times a step of the UNet and the decoder, node by node, beside what the device can do at most. */
  async profile(options) {
    const { checkpoint, signal, onProgress, ...request } = check("profile", PROFILE, options);
    this.#ours(checkpoint, "profile");
    request.checkpoint = checkpoint.id;
    const onEvent = onProgress && guarded(onProgress);
    const { unet, vae, text, ...rest } = await this.#ask("profile", checkpoint, request, { signal, onEvent });
    return { backend: this.#backend, ...rest, unet: unet ?? null, vae: vae ?? null, text: text ?? null };
  }

  /** What was found out about the adapter so far, for `create({ tuning })`: `{ choices, leftOut }`. Null on the CPU. */
  async tuning() {
    if (this.#closed) throw invalid(CLOSED);
    return this.#compute.call("tuning", () => ({}));
  }

  /** Ends the worker. What is under way rejects with `cancelled`. */
  async close() {
    this.#closed = true;
    this.#residents = [];
    for (const stop of this.#resolving) stop(wasClosed());
    for (const worker of [this.#compute, this.#storage]) worker.close(wasClosed, () => invalid(CLOSED));
  }

  #ours(checkpoint, call) {
    if (this.#closed) throw invalid(CLOSED);
    if (this.#recipes.has(checkpoint)) return;
    const found = checkpoint instanceof Checkpoint ? `"${checkpoint.name}", which another Tintype loaded` : shown(checkpoint);
    throw invalid(`${call}: checkpoint: expected what load() gave, found ${found}`);
  }

  /** Asks the worker for something with a checkpoint, and tells it how that is read: once, for thousands of picked files may be in it. */
  #ask(type, checkpoint, request, options) {
    const payload = (known) => ({ request, recipe: known.has(checkpoint.id) ? undefined : this.#recipes.get(checkpoint) });
    const onSent = (known) => known.add(checkpoint.id);
    return this.#fetching(() => this.#compute.call(type, payload, { ...options, onSent }));
  }

  /** What the engine is to read; an abort or close() rejects at once, whatever a host or a disk is still asked. */
  async #resolve(work, signal, call = "load") {
    const controller = new AbortController();
    let stop, aborted;
    const stopped = new Promise((_, reject) => {
      stop = (error) => {
        reject(error);
        controller.abort(error);
      };
      aborted = () => stop(new TintypeError("cancelled", `${call} was cancelled`, { cause: signal.reason }));
    });
    this.#resolving.add(stop);
    signal?.addEventListener("abort", aborted);
    try {
      if (signal?.aborted) aborted();
      return await Promise.race([stopped, work(controller.signal)]);
    } finally {
      this.#resolving.delete(stop);
      signal?.removeEventListener("abort", aborted);
    }
  }

  async #unload(checkpoint) {
    if (this.#closed || !this.#residents.includes(checkpoint.id)) return;
    await this.#compute.call("unload", () => ({ id: checkpoint.id }));
  }

  /** `onDefaults` hears what the checkpoint draws with from then on, before whoever asked hears that it is done. */
  async #setLoras(checkpoint, loras, options, onDefaults) {
    const asked = checkLoras(loras, "setLoras: loras");
    const { onProgress } = check("setLoras", SET_LORAS, options);
    if (this.#closed) throw invalid(CLOSED);
    const change = async () => {
      if (this.#closed) throw wasClosed();
      const find = (signal) => resolveLoras(this.#sources, asked, "setLoras", signal);
      const { loras: resolved, warnings: others } = await this.#resolve(find, undefined, "setLoras");
      if (this.#closed) throw wasClosed();
      const recipe = this.#recipes.get(checkpoint);
      const told = (known) => (known.has(checkpoint.id) ? undefined : recipe);
      const payload = (known) => ({ id: checkpoint.id, loras: resolved, recipe: told(known) });
      const onSent = (known) => known.add(checkpoint.id);
      const onEvent = onProgress && guarded(onProgress);
      const set = await this.#fetching(() => this.#compute.call("set-loras", payload, { onSent, onEvent }));
      // A worker that takes another's place is told these.
      this.#recipes.set(checkpoint, { ...recipe, loras: resolved });
      onDefaults(set.defaults);
      this.#dispatch("change");
      return { ...set, warnings: [...others, ...set.warnings] };
    };
    // One after the other, in the order in which they are asked for.
    const before = this.#changes.get(checkpoint) ?? Promise.resolve();
    const done = before.then(change, change);
    this.#changes.set(checkpoint, done);
    return done;
  }

  /** Does `work` once more if the worker that fetches died over it. */
  async #fetching(work) {
    const { deaths } = this.#storage;
    try {
      return await work();
    } catch (error) {
      if (this.#storage.deaths === deaths || this.#closed || error.code !== "network") throw error;
      return work();
    }
  }

  #started({ backend, samplers }) {
    this.#backend = Object.freeze(backend);
    this.#samplers = Object.freeze(samplers);
    this.#changed({ residents: [], memory: null });
  }

  #changed({ residents, memory }) {
    this.#residents = residents;
    this.#memory = memory && Object.freeze(memory);
    this.#dispatch("change");
  }

  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #harm = (action) => async (moment = "idle") => {
    if (!MOMENTS.includes(moment)) throw invalid(`debug: expected ${MOMENTS.join(", ")}, found ${shown(moment)}`);
    await this.#compute.call("debug", () => ({ action, moment }));
  };

  /** Says that `auto` found no GPU; after create() has resolved, when someone can be listening. */
  #announce({ backend = "auto" }) {
    if (backend !== "auto" || this.#backend.kind === "webgpu") return;
    setTimeout(() => this.#dispatch("notice", { kind: "backend", message: this.#backend.reason }));
  }
}
