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
  /** Address → `{ url, place, sha256, size, stored, expected, record }`, of files that were read to their end or known. */
  #files = new Map();
  /** Addresses of files whose hash nobody knew beforehand. */
  #unjudged = new Set();
  #open = new Set();
  /** Files that were not read to their end: address → when they are closed. */
  #cut = new Map();
  /** Addresses that hosts have nothing at, and whether that was known before. */
  #absent = new Map();
  /** Files that are being opened: promises. */
  #opening = new Set();
  #end = new AbortController();
  #pinned = [];
  #warnings = new Set();
  #onWarning;

  /** `keeper`: `{ store, room, unkept, stallTimeout, pool, hub, notice(kind, message) }`. */
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
    if (this.#end.signal.aborted) throw failure("cancelled", `${place}: the load "${this.#label}" has ended`);
    if (!URL.canParse(url, location.href)) {
      throw failure("invalid-argument", `${place}: expected an address, found ${url}`);
    }
    const address = new URL(url, location.href);
    address.hash = "";
    const expected = { size, sha256: sha256?.toLowerCase() };
    if (!expected.sha256) this.#unjudged.add(address.href);
    const opening = this.#find(address.href, place, expected);
    this.#opening.add(opening);
    let file;
    try {
      file = await opening;
      this.#open.add(file);
    } finally {
      this.#opening.delete(opening);
    }
    // Whoever ended the load cancels it.
    if (this.#end.signal.aborted) throw failure("cancelled", `${place}: the load was cancelled`);
    return this.#watched(file);
  }

  async #find(url, place, expected) {
    const { store, room, unkept, stallTimeout, pool, hub } = this.#keeper;
    const warn = (kind, message) => this.#warn(kind, message);
    const about = { url, place, expected };
    // The page heard of it already, once.
    if (unkept) warn(null, unkept);
    let record;
    let keeping = store && { store, room };
    let older;
    if (store) {
      try {
        const found = await store.find(url, expected);
        ({ record, older } = found);
        if (record?.absent && !record.sha256 && !record.stale && !expected.sha256) {
          this.#absent.set(url, true);
          throw failure("not-found", `${place}: the host had no such file when it was last asked`);
        }
        const file = found.blob && (await this.#stored(found.blob, { ...about, record }));
        if (file) return file;
      } catch (error) {
        if (error.code === "not-found") throw error;
        warn("store", `${place}: not stored: ${error.message}`);
        keeping = null;
      }
    }
    const { signal } = this.#end;
    try {
      const file = await ArrivingFile.open({ ...about, record, keeping, stallTimeout, pool, hub, warn, signal });
      return Object.assign(file, { about: { ...about, record } });
    } catch (error) {
      if (error.code === "not-found") this.#absent.set(url, false);
      // There is a newer version, but it is out of reach.
      const file = error.code === "network" && older && (await this.#stored(older, { ...about, record }));
      if (!file) throw error;
      warn("store", `${place}: an older version from the store is used: ${error.message}`);
      return file;
    }
  }

  /** A file of the store; null where it is missing there. */
  async #stored({ size, sha256 }, about) {
    const { store, pool } = this.#keeper;
    const { place } = about;
    const found = await this.#read({ size, sha256 }, place);
    if (!found) return null;
    this.#pin(sha256);
    return Object.assign(new StoredFile({ ...found, place, size, sha256, pool }), { about });
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
          await session.#leave(file);
          throw error;
        }
      },
      /** It is not read, for its content is known to the reader: it belongs to the load, be it stored or not. */
      skip() {
        if (file.stored) session.#complete(file);
        else if (file.sha256) session.#note(file);
      },
      async cancel() {
        await session.#leave(file);
      },
    };
  }

  #leave(file) {
    const closed = file.cancel();
    if (this.#open.delete(file)) this.#cut.set(file.about.url, closed);
    return closed;
  }

  #note(file) {
    const { url, place, expected, record } = file.about;
    const { sha256, size, stored } = file;
    this.#files.set(url, { url, place, sha256, size, stored, expected, record });
  }

  async #complete(file) {
    this.#open.delete(file);
    this.#note(file);
    const { url, record } = file.about;
    const { sha256, size, stored } = file;
    if (!this.#keeper.store) return;
    if (!stored) this.#pin(sha256);
    // Served under another address's name: from now on this one leads there too.
    else if (record?.sha256 !== sha256) {
      await this.#keeper.store.note(url, () => ({ sha256, size, firstSha256: sha256, stale: false, absent: false })).catch(() => {});
    }
  }

  /** The load succeeded: its files are this checkpoint's. */
  async commit(checkpoint) {
    const files = [...this.#files.values()];
    await this.#stop();
    const { store, hub } = this.#keeper;
    if (!store) return;
    const kept = files.map(({ url, place, sha256, size }) => ({ url, place, sha256, size }));
    try {
      await store.commit({ ...checkpoint, listing: hub.listing(checkpoint.url) }, kept);
      for (const url of this.#absent.keys()) await store.note(url, (record) => !record?.sha256 && { absent: true, stale: false });
    } catch (error) {
      this.#warn("store", `not stored: ${error.message}`);
    } finally {
      this.#unpin();
    }
    const known = [...this.#absent].filter(([, before]) => before);
    const absent = known.map(([url]) => ({ url, place: url, record: { absent: true } }));
    this.#refresh([...files.filter(({ stored, expected }) => stored && !expected.sha256), ...absent]);
  }

  /** The load failed with `code`, or was given up. */
  async abort(code) {
    await this.#stop();
    const { store } = this.#keeper;
    if (store && BAD.includes(code)) {
      // One that was cut may have ended all the same, while it was being closed; the one that was wrong is among these.
      await store.dropUnproven([...this.#unjudged, ...this.#cut.keys()]);
      // A disk may have changed bytes that were right when they came.
      const only = [...this.#files.values()].filter(({ stored }) => stored).map(({ sha256 }) => sha256);
      if (code === "corrupt") await verify(store, { only });
    }
    this.#unpin();
  }

  async #stop() {
    this.#end.abort();
    await Promise.allSettled(this.#opening);
    for (const file of this.#open) this.#leave(file);
    await Promise.allSettled(this.#cut.values());
  }

  #unpin() {
    for (const sha256 of this.#pinned.splice(0)) this.#keeper.store.unpin(sha256);
  }

  /** Asks hosts, now that nobody waits, whether they have newer files than those that were served. */
  async #refresh(files) {
    const { store, stallTimeout, hub, notice } = this.#keeper;
    for (const { url, place, record } of files) {
      if (!record || hub.isFixed(url)) continue;
      try {
        const signal = AbortSignal.timeout(3 * stallTimeout);
        const answer = await fetch(url, { method: "HEAD", headers: hub.headers(url), referrerPolicy: "no-referrer", cache: "no-store", signal });
        const now = record.absent ? "it is there now" : difference(record, facts(answer), ["etag", "lastModified", "length"]);
        const changed = answer.ok && now;
        if (!changed) continue;
        await store.note(url, (now) => now && { stale: true });
        notice("store", `${place}: changed on its host (${changed}): it will be fetched anew the next time`);
      } catch {
        // Offline, most likely: what is here will do.
      }
    }
  }
}
