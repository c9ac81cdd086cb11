// A file that is read from the store.

import { failure } from "./failure.js";

/** Large enough that a message costs nothing beside it. */
const CHUNK = 2 << 20;

export class StoredFile {
  #file;
  #place;
  #pool;
  #at = 0;
  #closed = false;
  #fault;
  stored = true;
  size;
  sha256;

  /** `file` as the store gives it, or `fault`: why it can't be read. */
  constructor({ file, fault, place, size, sha256, pool }) {
    this.#file = file;
    this.#fault = fault;
    this.#place = place;
    this.#pool = pool;
    this.size = size;
    this.sha256 = sha256;
  }

  /** The next bytes, or null at the end. Their hash was checked when they were written. */
  async next() {
    if (this.#fault) throw this.#fault;
    if (this.#closed || this.#at === this.size) {
      this.#close();
      return null;
    }
    const buffer = this.#pool.take(CHUNK);
    const count = await this.#file.read(buffer.subarray(0, Math.min(CHUNK, this.size - this.#at)), this.#at);
    if (count === 0) {
      this.#close();
      throw failure("corrupt", `${this.#place}: expected ${this.size} bytes in the store, found ${this.#at}`);
    }
    this.#at += count;
    return buffer.subarray(0, count);
  }

  async cancel() {
    this.#close();
  }

  #close() {
    if (!this.#closed) this.#file?.close();
    this.#closed = true;
  }
}
