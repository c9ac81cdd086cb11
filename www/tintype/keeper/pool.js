/** Bytes that are kept for reuse, in buffers of one size: as many as may be on their way. */
const MOST = 16 << 20;
/** How long nobody must have been reading until the memory goes. A load opens one file after another. */
const IDLE = 1000;

/** Buffers that came back from their reader: a new one costs as much as filling it, and is garbage afterwards. */
export class Pool {
  #free = new Map();
  #idle;

  take(size) {
    return new Uint8Array(this.#free.get(size)?.pop() ?? size);
  }

  give(buffer) {
    const size = buffer.byteLength;
    const free = this.#free.get(size) ?? [];
    if (size > 0 && (free.length + 1) * size <= MOST) free.push(buffer);
    this.#free.set(size, free);
  }

  /** So many files are open now. */
  use(files) {
    clearTimeout(this.#idle);
    if (files === 0) this.#idle = setTimeout(() => this.#free.clear(), IDLE);
  }
}
