// Whether a file fits into what the browser lets this site keep, and what gives way where it doesn't.

/** Bytes as a person reads them. */
export function readable(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

export class Room {
  #store;
  #evicts;
  #onEvicted;
  /** Files that are being written → the bytes they will have. */
  #promised = new Map();
  #turn = Promise.resolve();

  /** `onEvicted` hears the names of the checkpoints that gave way. */
  constructor(store, evicts, onEvicted) {
    this.#store = store;
    this.#evicts = evicts;
    this.#onEvicted = onEvicted;
  }

  /** Undefined where `partial` may grow to `size` bytes; else why not, in words. Each call counts those before it. */
  take(partial, size) {
    const taken = this.#turn.then(() => this.#take(partial, size));
    this.#turn = taken.catch(() => {});
    return taken;
  }

  async #take(partial, size) {
    const { usage = 0, quota = Infinity } = await navigator.storage.estimate();
    const outstanding = [...this.#promised].reduce((sum, [other, size]) => sum + Math.max(0, size - other.size), 0);
    const needed = size - partial.size;
    const short = usage + outstanding + needed - quota;
    if (short > 0 && (await this.make(short)) < short) {
      const left = readable(Math.max(0, quota - usage - outstanding));
      return `${readable(needed)} do not fit into the ${left} that this site may still keep`;
    }
    this.#promised.set(partial, size);
    return undefined;
  }

  /** `partial` is written, or was given up. */
  leave(partial) {
    this.#promised.delete(partial);
  }

  /** Makes room for `bytes` where that is wanted; gives the bytes that came free. */
  async make(bytes) {
    if (!this.#evicts) return 0;
    const { freed, names } = await this.#store.evict(bytes);
    if (names.length > 0) this.#onEvicted(names);
    return freed;
  }
}
