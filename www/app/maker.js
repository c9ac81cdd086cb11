// Between the page and Tintype: one engine, and the checkpoints that were loaded or are on their way. Knows no document.
//   "change"  anything that a card shows, progress included
//   "held"    what is in memory, or how much of it is used
//   "notice"  what Tintype wants a person to know: its text

import { Tintype } from "../tintype/tintype.js";
import { Layers } from "./layers.js";
import { permit } from "./permit.js";

export class Maker extends EventTarget {
  #tintype = null;
  #starting = null;
  /** What was loaded or is on its way, by entry: { promise, controller, progress, done, users, drawing }. */
  #loads = new Map();
  /** What entries go back to if they can't be reloaded: { load, fields }, and the `last` load in its place. */
  #good = new Map();
  /** The LoRAs over them. */
  layers = new Layers();

  /** Starts the engine, in place of the one there was. Gives what it runs on; nothing if another start overtook it. */
  async start(backend) {
    this.#tintype?.close();
    this.#tintype = null;
    this.#loads.clear();
    this.#good.clear();
    const starting = Tintype.create({ backend });
    this.#starting = starting;
    const overtaken = () => this.#starting !== starting;
    try {
      const tintype = await starting;
      if (overtaken()) return void tintype.close();
      this.#tintype = tintype;
      tintype.addEventListener("change", () => this.#tintype === tintype && this.#tell("change", "held"));
      tintype.addEventListener("notice", ({ detail }) => this.#notice(detail.message));
      this.#tell("change", "held");
      return tintype.backend;
    } catch (error) {
      if (!overtaken()) throw error;
    }
  }

  get backend() {
    return this.#tintype?.backend;
  }

  get samplers() {
    return this.#tintype?.samplers ?? [];
  }

  /** What is kept on this device; nothing before the engine has started. */
  get store() {
    return this.#tintype?.store;
  }

  /** In bytes; nothing before something was loaded. */
  get memory() {
    return this.#tintype?.memory;
  }

  /** The checkpoints in memory. */
  get residents() {
    return this.#tintype?.checkpoints ?? [];
  }

  /** "absent", "coming" (with how far it is) or "ready"; with its handle, wherever there is one. */
  state(entry) {
    const load = this.#loads.get(entry);
    if (!load) return { state: "absent" };
    if (!load.done) return { state: "coming", progress: load.progress };
    return { state: this.residents.includes(load.done) ? "ready" : "absent", checkpoint: load.done };
  }

  /** The entry that is being loaded, if one is. */
  get coming() {
    return [...this.#loads].find(([, { done }]) => !done)?.[0];
  }

  /** Brings an entry's checkpoint into memory, unless it is there or on its way. */
  load(entry) {
    const known = this.#loads.get(entry);
    // One that gave way and is drawn with is coming back already.
    if (known && (known.drawing > 0 || this.state(entry).state !== "absent")) return known.promise;
    const controller = new AbortController();
    const load = { controller, done: null, progress: null, users: 0, drawing: 0 };
    this.#loads.set(entry, load);
    load.promise = this.#load(entry, load).catch((error) => {
      if (this.#loads.get(entry) === load) this.#loads.delete(entry);
      this.#tell("change");
      throw error;
    });
    this.#tell("change");
    return load.promise;
  }

  async #load(entry, load) {
    const tintype = await this.#starting;
    const onProgress = (progress) => {
      load.progress = progress;
      this.#tell("change");
    };
    const { name, variant, predictionType, vae, loras } = entry;
    // Asked now, as long as it is known that a person has just chosen it; without a LoRA it can be loaded all the same.
    for (const thing of [entry, vae]) if (thing) await permit(thing);
    for (const lora of loras) if (lora.on) await permit(lora).catch(() => {});
    // LoRAs are laid afterwards, an entry's own among them: a person may have taken them off.
    const options = { name, variant, predictionType, loras: [], ...(vae && { vae: vae.source }), signal: load.controller.signal, onProgress };
    load.done = await tintype.load(entry.source, options);
    for (const warning of load.done.warnings) this.#notice(`${entry.name}: ${warning}`);
    this.#tell("change");
    // What could not be laid is told; the checkpoint draws without it.
    await this.layers.lay(entry, load.done).catch(() => {});
    return load.done;
  }

  /** What a thing is and would need here, from its headers alone. */
  async inspect(thing, { variant, predictionType, vae, signal }) {
    const tintype = await this.#starting;
    for (const each of [thing, vae]) if (each) await permit(each);
    return tintype.inspect(thing.source, { variant, predictionType, ...(vae && { vae: vae.source }), signal });
  }

  /** Lays the LoRAs that an entry wishes over its checkpoint; if that is not there, they come with it. */
  async lay(entry) {
    const load = this.#loads.get(entry);
    if (load?.done) await this.layers.lay(entry, load.done);
    else await this.load(entry);
  }

  /**
   * Loads an entry's checkpoint anew, after `changes` to the entry. What it shares with the former one is not read again. If it
   * can't be loaded so, all is as it was. Gives false if a later one overtook it: what comes of that one counts.
   */
  async reload(entry, changes) {
    const former = this.#loads.get(entry);
    // Of several at once, each goes back to what there was before the first.
    const good = this.#good.get(entry) ?? { load: former, fields: {} };
    this.#good.set(entry, good);
    good.fields = { ...Object.fromEntries(Object.keys(changes).map((key) => [key, entry[key]])), ...good.fields };
    Object.assign(entry, changes);
    this.#loads.delete(entry);
    if (former && !former.done) former.controller.abort();
    const loading = this.load(entry);
    const load = this.#loads.get(entry);
    good.last = load;
    const isOvertaken = () => good.last !== load;
    try {
      await loading;
    } catch (error) {
      if (isOvertaken()) return false;
      const isOfUse = this.#forgetGood(entry, good);
      if (error.code === "cancelled") good.load?.done?.unload();
      else if (isOfUse) {
        Object.assign(entry, good.fields);
        if (good.load?.done) this.#loads.set(entry, good.load);
        this.#tell("change");
      }
      throw error;
    }
    if (isOvertaken()) {
      load.done.unload();
      return false;
    }
    this.#forgetGood(entry, good);
    good.load?.done?.unload();
    return true;
  }

  /** Gives false where it was another engine's. */
  #forgetGood = (entry, good) => this.#good.get(entry) === good && this.#good.delete(entry);

  /** Lets go of an entry's checkpoint, loaded or on its way. */
  remove(entry) {
    const load = this.#loads.get(entry);
    this.#loads.delete(entry);
    load?.controller.abort();
    load?.done?.unload();
  }

  /** Gives up the downloads that no picture waits for, but for `entry`'s. */
  keepOnly(entry) {
    for (const [other, load] of this.#loads) {
      if (other !== entry && load.users === 0) this.#giveUp(other, load);
    }
  }

  /** Forgets a download at once: who asks for it in the next moment starts a new one. */
  #giveUp(entry, load) {
    if (load.done) return;
    if (this.#loads.get(entry) === load) this.#loads.delete(entry);
    load.controller.abort();
  }

  /** Draws one picture, after the download that it may need. */
  async draw(entry, recipe, { signal, onLoading, onLoaded, onStep }) {
    // One that gave way to others comes back by itself.
    const checkpoint = this.#loads.get(entry)?.done ?? (await this.#loaded(entry, { signal, onLoading }));
    await this.layers.lay(entry, checkpoint);
    const { loras } = this.layers.over(checkpoint);
    const { vae } = entry;
    onLoaded(checkpoint);
    const began = performance.now();
    const hear = (event) => (event.step === undefined ? onLoading(event) : onStep(event));
    const request = { ...recipe, sampler: recipe.sampler || null, checkpoint, signal, onStep: hear, preview: true };
    const load = this.#loads.get(entry);
    if (load) load.drawing += 1;
    try {
      const { images, warnings } = await this.#tintype.generate(request);
      const [{ imageData, parameters, toBlob }] = images;
      return { imageData, parameters, blob: await toBlob(), ms: performance.now() - began, warnings, loras, vae };
    } finally {
      if (load) load.drawing -= 1;
    }
  }

  /** The checkpoint, for a picture that waits for it; if that is given up and no other waits, so is the download. */
  async #loaded(entry, { signal, onLoading }) {
    const promise = this.load(entry);
    const load = this.#loads.get(entry);
    const hear = () => !load.done && onLoading(load.progress);
    const giveUp = () => load.users === 1 && this.#giveUp(entry, load);
    load.users += 1;
    signal.addEventListener("abort", giveUp);
    this.addEventListener("change", hear);
    try {
      hear();
      return await promise;
    } finally {
      load.users -= 1;
      signal.removeEventListener("abort", giveUp);
      this.removeEventListener("change", hear);
    }
  }

  #notice(message) {
    this.dispatchEvent(new CustomEvent("notice", { detail: message }));
  }

  #tell(...types) {
    for (const type of types) this.dispatchEvent(new Event(type));
  }
}
