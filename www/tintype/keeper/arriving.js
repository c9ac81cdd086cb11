// A file that is fetched: what is kept of it first, then what its host sends, hashed and written on the way.

import { difference } from "./answer.js";
import { Download } from "./download.js";
import { failure } from "./failure.js";
import { Hasher } from "./hash.js";
import { isQuota } from "./partial.js";
import { readable } from "./room.js";

/** Network pieces are gathered up to this, so that they cost few messages; but for no longer than a moment. */
const GATHER = 256 << 10;
const MOMENT = 100;
/** What is read at once of a file's kept beginning. */
const KEPT_CHUNK = 2 * GATHER;

/** Address → the hash that was refused there: a host that insists on it is believed. */
const doubts = new Map();

export class ArrivingFile {
  #url;
  #place;
  #expected;
  /** What the index knew of this address. */
  #record;
  #keeping;
  #download;
  #partial;
  #warn;
  #pool;
  #hasher = new Hasher();
  /** Bytes of the beginning that were here, and bytes handed on. */
  #kept = 0;
  #given = 0;
  /** The rest of a piece, or an error, that comes after what was gathered. */
  #later = null;
  #busy = null;
  #storing = false;
  #cancelled = false;
  #done = false;
  #ending = null;
  stored = false;
  size;
  sha256;

  /**
   * Asks the host. `keeping`: `{ store, room }`, or null where nothing is kept. `warn(kind, message)` hears why it is
   * not stored; `signal` ends the asking.
   */
  static async open({ url, place, expected, record, keeping, stallTimeout, pool, hub, warn, signal }) {
    const file = new ArrivingFile();
    Object.assign(file, { size: expected.size, sha256: expected.sha256 });
    file.#url = url;
    file.#place = place;
    file.#expected = expected;
    file.#record = record;
    file.#keeping = keeping;
    file.#warn = warn;
    file.#pool = pool;
    // What the store keeps, the browser's own cache need not keep too.
    file.#download = new Download({ url, place, stallTimeout, cache: keeping ? "no-store" : "default", hub });
    const stop = () => file.#download.cancel();
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    try {
      await file.#open();
    } catch (error) {
      await file.#end(error);
      throw error;
    } finally {
      signal.removeEventListener("abort", stop);
    }
    return file;
  }

  async #open() {
    if (this.#keeping) {
      try {
        // Where another page is writing this file, it is only passed on here.
        this.#partial = await this.#keeping.store.resume(this.#url, this.#expected.sha256);
      } catch (error) {
        this.#warn(isQuota(error) ? "quota" : "store", `${this.#place}: not stored: ${error.message}`);
      }
    }
    this.#kept = await this.#download.open(this.#partial?.size, this.#partial?.record);
    if (this.#kept === 0 && this.#partial?.size > 0) this.#partial.empty();
    const { facts } = this.#download;
    this.size ??= facts.size;
    if (facts.size !== undefined && this.size !== facts.size) throw this.#wrongSize(facts.size);
    this.sha256 ??= facts.hash;
    if (!this.#partial) return;
    this.#storing = true;
    try {
      const short = this.size === undefined ? undefined : await this.#keeping.room.take(this.#partial, this.size);
      if (short) await this.#stopStoring("quota", short);
      else await this.#partial.describe({ ...facts, size: this.size });
    } catch (error) {
      await this.#stopStoring(isQuota(error) ? "quota" : "store", error.message);
    }
  }

  /** The next bytes, or null at the end, when length and hash were checked. */
  async next() {
    this.#busy = this.#next();
    try {
      const bytes = await this.#busy;
      if (this.#cancelled) throw failure("cancelled", `${this.#place}: the load was cancelled`);
      return bytes;
    } catch (error) {
      await this.#end(error);
      throw error;
    } finally {
      this.#busy = null;
    }
  }

  async cancel() {
    this.#cancelled = true;
    this.#download.cancel();
    await this.#busy?.catch(() => {});
    await this.#end();
  }

  async #next() {
    if (this.#done) return null;
    if (this.#given < this.#kept) return this.#readKept();
    if (this.#partial && !this.#storing) await this.#discard();
    const bytes = await this.#gather();
    if (!bytes) {
      await this.#finish();
      return null;
    }
    this.#given += bytes.length;
    if (this.size !== undefined && this.#given > this.size) throw this.#wrongSize(`${this.#given} or more`);
    this.#hasher.update(bytes);
    if (this.#partial) await this.#write(bytes);
    return bytes;
  }

  #readKept() {
    const bytes = this.#pool.take(KEPT_CHUNK).subarray(0, this.#kept - this.#given);
    const count = this.#partial.read(bytes, this.#given);
    this.#given += count;
    if (count < bytes.length) {
      const found = `found ${this.#given}`;
      throw failure("corrupt", `${this.#place}: expected ${this.#kept} bytes in the store, ${found}`);
    }
    this.#hasher.update(bytes);
    return bytes;
  }

  async #gather() {
    let buffer;
    let length = 0;
    let first;
    while (length < GATHER) {
      let piece;
      try {
        if (this.#later instanceof Error) throw this.#later;
        piece = this.#later ?? (await this.#download.next());
      } catch (error) {
        if (length === 0) throw error;
        this.#later = error;
        break;
      }
      if (!piece) break;
      buffer ??= this.#pool.take(2 * GATHER);
      const fits = Math.min(piece.length, buffer.length - length);
      buffer.set(fits < piece.length ? piece.subarray(0, fits) : piece, length);
      this.#later = fits < piece.length ? piece.subarray(fits) : null;
      length += fits;
      first ??= performance.now();
      if (performance.now() - first > MOMENT) break;
    }
    return length > 0 ? buffer.subarray(0, length) : null;
  }

  async #write(bytes) {
    for (let again = false; ; again = true) {
      try {
        return this.#partial.write(bytes);
      } catch (error) {
        const left = Math.max(bytes.length, (this.size ?? 0) - this.#partial.size);
        if (isQuota(error) && !again && (await this.#keeping.room.make(left)) >= bytes.length) continue;
        if (!isQuota(error)) return this.#stopStoring("store", error.message);
        const came = readable(this.#partial.size) + (this.size === undefined ? "" : ` of ${readable(this.size)}`);
        return this.#stopStoring("quota", `what this site may keep was used up after ${came}`);
      }
    }
  }

  /** Goes on from memory. What was kept of the file is still read, if it wasn't yet. */
  async #stopStoring(kind, why) {
    this.#storing = false;
    this.#keeping.room.leave(this.#partial);
    this.#warn(kind, `${this.#place}: not stored: ${why}`);
    if (this.#given >= this.#kept) await this.#discard();
  }

  async #discard() {
    const partial = this.#partial;
    this.#partial = null;
    await partial.discard();
  }

  async #finish() {
    if (this.size !== undefined && this.#given !== this.size) throw this.#wrongSize(this.#given);
    const found = this.#hasher.finish();
    this.#hasher = null;
    this.#judge(found);
    this.size = this.#given;
    this.sha256 = found;
    if (this.#keeping) await this.#keep(found);
    this.#done = true;
  }

  async #keep(sha256) {
    const { store, room } = this.#keeping;
    const partial = this.#partial;
    this.#partial = null;
    try {
      if (partial) {
        room.leave(partial);
        await partial.keep(sha256);
      }
      const { etag, lastModified, length, name } = this.#download.facts;
      const size = this.size;
      await store.note(this.#url, (record) => {
        const proven = Boolean(record?.proven) && record.firstSha256 === sha256;
        return { sha256, size, etag, lastModified, length, name, firstSha256: sha256, stale: false, absent: false, proven };
      });
    } catch (error) {
      await partial?.discard().catch(() => {});
      this.#warn(isQuota(error) ? "quota" : "store", `${this.#place}: not stored: ${error.message}`);
    }
  }

  /** The expected hash decides; without one the hub's own; without that, what this address gave before. */
  #judge(found) {
    const wrong = (expected, why = "") =>
      failure("corrupt", `${this.#place}: expected sha256 ${expected}${why}, found ${found}`);
    const { sha256 } = this.#expected;
    if (sha256) {
      if (sha256 !== found) throw wrong(sha256);
      return;
    }
    const { facts } = this.#download;
    let expected = facts.hash;
    let why = " as its ETag says";
    if (!expected && this.#record?.firstSha256 && !this.#record.stale) {
      const newer = difference(this.#record, facts, ["etag", "lastModified"]);
      if (!newer) [expected, why] = [this.#record.firstSha256, " as at first"];
    }
    if (!expected || expected === found || doubts.get(this.#url) === found) return;
    // Not every ETag of that form is a hash, and not every host says that a file is a new one.
    doubts.set(this.#url, found);
    throw wrong(expected, why);
  }

  #wrongSize(found) {
    return failure("corrupt", `${this.#place}: expected ${this.size} bytes, found ${found}`);
  }

  /** Ends it: what has come stays, to go on from, unless it proved to be wrong. */
  #end(error) {
    return (this.#ending ??= this.#stop(error));
  }

  async #stop(error) {
    this.#done = true;
    this.#download.cancel();
    this.#hasher?.drop();
    this.#hasher = null;
    if (!this.#partial) return;
    this.#keeping.room.leave(this.#partial);
    const wrong = error?.code === "corrupt" || error?.changed;
    if (wrong || !this.#storing || this.#partial.size === 0) return this.#discard();
    this.#partial.close();
    this.#partial = null;
  }
}
