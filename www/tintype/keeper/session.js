// One load: the files that it opens, and what becomes of them when it has succeeded or failed.

import { difference, facts } from "./answer.js";
import { ArrivingFile } from "./arriving.js";
import { failure } from "./failure.js";
import { StoredFile } from "./stored.js";
import { verify } from "./verify.js";

/** After these, what was fetched may be a host's front page: nothing of it is kept. */
const BAD = ["corrupt", "unsupported"];

export class Session {
  #keeper;
  #label;
  /** Address → `{ url, place, sha256, size, stored, expected, record }`, of files that were read to their end. */
  #files = new Map();
  #open = new Set();
  #pinned = [];
  #warnings = new Set();
  #onWarning;
  #ended = false;

  /** `keeper`: `{ store, room, unkept, stallTimeout, pool, notice(kind, message) }`. */
  constructor(keeper, label, onWarning) {
    this.#keeper = keeper;
    this.#label = label;
    this.#onWarning = onWarning;
  }

  #warn(kind, message) {
    if (this.#warnings.has(message)) return;
    this.#warnings.add(message);
    this.#onWarning(message);
    if (kind) this.#keeper.notice(kind, message);
  }

  /** `{ size, sha256, stored, next(), cancel() }`: the file's bytes, from the store or from its host. */
  async open(url, place, { size, sha256 } = {}) {
    if (this.#ended) throw failure("cancelled", `${place}: the load "${this.#label}" has ended`);
    const address = new URL(url, location.href);
    address.hash = "";
    const expected = { size, sha256: sha256?.toLowerCase() };
    const file = await this.#find(address.href, place, expected);
    this.#open.add(file);
    if (this.#ended) {
      await file.cancel();
      throw failure("cancelled", `${place}: the load was cancelled`);
    }
    return this.#watched(file);
  }

  async #find(url, place, expected) {
    const { store, room, unkept, stallTimeout, pool } = this.#keeper;
    const warn = (kind, message) => this.#warn(kind, message);
    const about = { url, place, expected };
    // The page heard of it already, once.
    if (unkept) warn(null, unkept);
    let record;
    let keeping = store && { store, room };
    if (store) {
      try {
        const found = await store.find(url, expected);
        record = found.record;
        if (found.blob) {
          const { size, sha256 } = found.blob;
          const file = await this.#read(found.blob, place);
          if (file) {
            this.#pin(sha256);
            return Object.assign(new StoredFile({ ...file, place, size, sha256, pool }), { about: { ...about, record } });
          }
        }
      } catch (error) {
        warn("store", `${place}: not stored: ${error.message}`);
        keeping = null;
      }
    }
    const file = await ArrivingFile.open({ ...about, record, keeping, stallTimeout, warn });
    return Object.assign(file, { about: { ...about, record } });
  }

  /** The file, or why it can't be read; null where it is missing. */
  async #read(blob, place) {
    try {
      const file = await this.#keeper.store.read(blob, place);
      return file && { file };
    } catch (error) {
      if (error.code === "corrupt") return { fault: error };
      throw error;
    }
  }

  #pin(sha256) {
    this.#keeper.store.pin(sha256);
    this.#pinned.push(sha256);
  }

  /** The file, with an eye on its end. */
  #watched(file) {
    const session = this;
    return {
      get size() {
        return file.size;
      },
      get sha256() {
        return file.sha256;
      },
      stored: file.stored,
      async next() {
        try {
          const bytes = await file.next();
          if (bytes === null) await session.#complete(file);
          return bytes;
        } catch (error) {
          session.#open.delete(file);
          throw error;
        }
      },
      async cancel() {
        session.#open.delete(file);
        await file.cancel();
      },
    };
  }

  async #complete(file) {
    this.#open.delete(file);
    const { url, place, expected, record } = file.about;
    const { sha256, size, stored } = file;
    this.#files.set(url, { url, place, sha256, size, stored, expected, record });
    if (!this.#keeper.store) return;
    if (!stored) this.#pin(sha256);
    // Served under another address's name: from now on this one leads there too.
    else if (record?.sha256 !== sha256) {
      await this.#keeper.store.note(url, () => ({ sha256, size, firstSha256: sha256, stale: false })).catch(() => {});
    }
  }

  /** The load succeeded: its files are this checkpoint's. */
  async commit(checkpoint) {
    const files = [...this.#files.values()];
    await this.#stop();
    const { store } = this.#keeper;
    if (!store) return;
    const kept = files.map(({ url, place, sha256, size }) => ({ url, place, sha256, size }));
    try {
      await store.commit(checkpoint, kept);
    } catch (error) {
      this.#warn("store", `not stored: ${error.message}`);
    } finally {
      this.#unpin();
    }
    this.#refresh(files.filter(({ stored, expected }) => stored && !expected.sha256));
  }

  /** The load failed with `code`, or was given up. */
  async abort(code) {
    const files = [...this.#files.values()];
    await this.#stop();
    const { store } = this.#keeper;
    if (store && BAD.includes(code)) {
      await store.dropUnproven(files.filter(({ expected }) => !expected.sha256).map(({ url }) => url));
      // A disk may have changed bytes that were right when they came.
      if (code === "corrupt") await verify(store, { only: files.filter(({ stored }) => stored).map(({ sha256 }) => sha256) });
    }
    this.#unpin();
  }

  async #stop() {
    this.#ended = true;
    await Promise.all([...this.#open].map((file) => file.cancel()));
    this.#open.clear();
  }

  #unpin() {
    for (const sha256 of this.#pinned.splice(0)) this.#keeper.store.unpin(sha256);
  }

  /** Asks hosts, now that nobody waits, whether they have newer files than those that were served. */
  async #refresh(files) {
    const { store, stallTimeout, notice } = this.#keeper;
    for (const { url, place, record } of files) {
      if (!record) continue;
      try {
        const signal = AbortSignal.timeout(3 * stallTimeout);
        const answer = await fetch(url, { method: "HEAD", referrerPolicy: "no-referrer", cache: "no-store", signal });
        const changed = answer.ok && difference(record, facts(answer), ["etag", "lastModified", "length"]);
        if (!changed) continue;
        await store.note(url, (now) => now && { stale: true });
        notice("store", `${place}: changed on its host (${changed}): it will be fetched anew the next time`);
      } catch {
        // Offline, most likely: what is here will do.
      }
    }
  }
}
