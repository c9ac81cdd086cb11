// Buffers that came back from their reader: a new one costs as much as filling it, and is garbage soon.

/** Bytes of one size of buffers that are kept. */
const MOST = 8 << 20;

export class Pool {
  /** Size → buffers. */
  #free = new Map();

  /** A buffer of `size` bytes, whatever is in it. */
  take(size) {
    if (!this.#free.has(size)) this.#free.set(size, []);
    return this.#free.get(size).pop() ?? new Uint8Array(size);
  }

  /** Lets go of all of them. */
  clear() {
    this.#free.clear();
  }

  /** Takes it back, if it is of a size that was asked for. */
  give(buffer) {
    const free = this.#free.get(buffer.byteLength);
    if (free && (free.length + 1) * buffer.byteLength <= MOST) free.push(new Uint8Array(buffer));
  }
}
