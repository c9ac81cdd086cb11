// Between the page and Tintype: one engine, and the checkpoints that it has or is getting. Knows no document.

import { Tintype } from "../tintype/tintype.js";

export class Maker extends EventTarget {
  #tintype = null;
  #starting = null;
  /** What is loaded or on its way, by entry, the one used last at the end: { promise, controller, progress, done, users }. */
  #loads = new Map();

  /** Starts the engine, in place of the one there was. Gives what it runs on; nothing if another start overtook it. */
  async start(backend) {
    this.#tintype?.close();
    this.#tintype = null;
    this.#loads.clear();
    const starting = Tintype.create({ backend });
    this.#starting = starting;
    const overtaken = () => this.#starting !== starting;
    try {
      const tintype = await starting;
      if (overtaken()) return void tintype.close();
      this.#tintype = tintype;
      this.dispatchEvent(new Event("change"));
      return tintype.backend;
    } catch (error) {
      if (!overtaken()) throw error;
    }
  }

  get samplers() {
    return this.#tintype?.samplers ?? [];
  }

  /** "absent", "coming" (with how far it is) or "ready" (with its handle). */
  state(entry) {
    const load = this.#loads.get(entry);
    if (!load) return { state: "absent" };
    return load.done ? { state: "ready", checkpoint: load.done } : { state: "coming", progress: load.progress };
  }

  /** The checkpoint of an entry: the one in memory, the one on its way, or a new download. */
  load(entry) {
    const known = this.#loads.get(entry);
    if (known) {
      this.#loads.delete(entry);
      this.#loads.set(entry, known);
      return known.promise;
    }
    const controller = new AbortController();
    const load = { controller, done: null, progress: null, users: 0 };
    this.#loads.set(entry, load);
    load.promise = this.#load(entry, load).catch((error) => {
      if (this.#loads.get(entry) === load) this.#loads.delete(entry);
      this.dispatchEvent(new Event("change"));
      throw error;
    });
    this.dispatchEvent(new Event("change"));
    return load.promise;
  }

  async #load(entry, load) {
    const tintype = await this.#starting;
    const onProgress = (progress) => {
      load.progress = progress;
      this.dispatchEvent(new Event("change"));
    };
    const attempt = () => tintype.load(entry.source, { name: entry.name, signal: load.controller.signal, onProgress });
    try {
      load.done = await attempt();
    } catch (error) {
      const wanted = () => this.#loads.get(entry) === load;
      if (error.code !== "out-of-memory" || !wanted() || !(await this.#makeRoom(entry)) || !wanted()) throw error;
      load.done = await attempt();
    }
    this.dispatchEvent(new Event("change"));
    return load.done;
  }

  /** Lets go of what is in memory, the one unused for longest first, and tells: "room". Gives false where nothing is. */
  async #makeRoom(entry) {
    const others = [...this.#loads].filter(([, { done }]) => done);
    for (const [other, { done }] of others) {
      this.#loads.delete(other);
      await done.unload();
    }
    if (others.length === 0) return false;
    this.dispatchEvent(new CustomEvent("room", { detail: { entry, gone: others.map(([other]) => other) } }));
    return true;
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
    const promise = this.load(entry);
    const load = this.#loads.get(entry);
    const hear = () => !load.done && onLoading(load.progress);
    const giveUp = () => load.users === 1 && this.#giveUp(entry, load);
    let checkpoint;
    load.users += 1;
    signal.addEventListener("abort", giveUp);
    this.addEventListener("change", hear);
    try {
      hear();
      checkpoint = await promise;
    } finally {
      load.users -= 1;
      signal.removeEventListener("abort", giveUp);
      this.removeEventListener("change", hear);
    }
    onLoaded(checkpoint);
    const began = performance.now();
    const request = { ...recipe, sampler: recipe.sampler || null, checkpoint, signal, onStep, preview: true };
    const { images, warnings } = await this.#tintype.generate(request);
    const [{ imageData, parameters, toBlob }] = images;
    return { imageData, parameters, blob: await toBlob(), ms: performance.now() - began, warnings };
  }
}
