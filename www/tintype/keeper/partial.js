// A file that is being fetched, on the disk as far as it has come. Its lock is held while it is open.

import { openForWriting, removeFile } from "./folder.js";

/** No more room: some browsers say so by writing less than they were given. */
export const isQuota = (error) => error?.name === "QuotaExceededError";

export class Partial {
  #store;
  #handle;
  #access;
  #release;
  record;
  /** Bytes that are there. */
  size;

  constructor(store, record, { handle, access }, release) {
    this.#store = store;
    this.record = record;
    this.#handle = handle;
    this.#access = access;
    this.#release = release;
    this.size = access.getSize();
  }

  static async open(store, record, release) {
    return new Partial(store, record, await openForWriting("partial", record.name), release);
  }

  /** Remembers what the host says of the file, for when it is taken up another day. */
  async describe({ size, etag, lastModified }) {
    this.record = { ...this.record, size, etag, lastModified };
    await this.#store.notePartial(this.record);
  }

  read(buffer, at) {
    return this.#access.read(buffer, { at });
  }

  write(bytes) {
    const written = this.#access.write(bytes, { at: this.size });
    if (written < bytes.length) {
      throw new DOMException(`${written} of ${bytes.length} bytes were written`, "QuotaExceededError");
    }
    this.size += bytes.length;
  }

  /** Begins anew. */
  empty() {
    this.#access.truncate(0);
    this.size = 0;
  }

  /** Leaves it as it is, to go on from. */
  close() {
    this.#access?.close();
    this.#access = null;
    this.#release();
  }

  /** Takes it off the disk. */
  async discard() {
    this.#access?.close();
    this.#access = null;
    await removeFile("partial", this.record.name);
    await this.#store.forgetPartial(this.record.url).catch(() => {});
    this.#release();
  }

  /** Makes it a whole file of the store. */
  async keep(sha256) {
    this.#access.flush();
    this.#access.close();
    this.#access = null;
    await this.#store.keep(this.#handle, this.record, { sha256, size: this.size });
    this.#release();
  }
}
