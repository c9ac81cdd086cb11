// LoRAs over checkpoints: brings what lies there to what a person wishes. One change at a time, and the last wish wins.
// An entry's `loras` are the wish, never changed in place: [{ name, source, scale, on }].
//   "laying"  it began (without progress), or went on: { entry, checkpoint, progress }
//   "laid"    it is as was wished: { entry, checkpoint, loras, warnings }
//   "failed"  what lay there before stays, and is the wish again: { entry, error }

import { permit } from "./permit.js";

const on = (loras) => loras.filter((lora) => lora.on && lora.scale !== 0);

const same = (one, other) =>
  one.length === other.length && one.every(({ source, scale }, index) => source === other[index].source && scale === other[index].scale);

export class Layers extends EventTarget {
  /** What lies over each checkpoint, by its handle: { loras, warnings }. */
  #laid = new WeakMap();
  #running = new WeakMap();

  /** What lies over a checkpoint now. */
  over(checkpoint) {
    return this.#laid.get(checkpoint) ?? { loras: [], warnings: [] };
  }

  /** Resolves once an entry's LoRAs lie over its checkpoint as they are wished by then. */
  lay(entry, checkpoint) {
    const running = this.#running.get(checkpoint);
    if (running) return running;
    const laying = this.#lay(entry, checkpoint).finally(() => this.#running.delete(checkpoint));
    this.#running.set(checkpoint, laying);
    return laying;
  }

  async #lay(entry, checkpoint) {
    for (;;) {
      const wish = entry.loras;
      const before = this.#laid.get(checkpoint);
      const wanted = on(wish);
      if (same(wanted, on(before?.loras ?? []))) {
        this.#laid.set(checkpoint, { warnings: [], ...before, loras: wish });
        return;
      }
      try {
        const { warnings } = await this.#set(entry, checkpoint, wanted);
        this.#laid.set(checkpoint, { loras: wish, warnings });
        this.#tell("laid", { entry, checkpoint, loras: wish, warnings });
      } catch (error) {
        // A wish that came meanwhile may be one that can be.
        if (entry.loras !== wish) continue;
        entry.loras = before?.loras ?? wish.map((lora) => ({ ...lora, on: false }));
        this.#tell("failed", { entry, error });
        throw error;
      }
    }
  }

  async #set(entry, checkpoint, wanted) {
    const onProgress = (progress) => this.#tell("laying", { entry, checkpoint, progress });
    onProgress(null);
    await Promise.all(wanted.map(permit));
    return checkpoint.setLoras(wanted.map(({ source, scale }) => ({ source, scale })), { onProgress });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
