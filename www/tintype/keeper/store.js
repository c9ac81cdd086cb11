// The files that are kept on this device: whole ones by their hash, unfinished ones by their address, and the index of
// both. Two addresses with the same bytes are one file.

import { failure } from "./failure.js";
import { folder, isMissing, namesIn, openForReading, removeFile, sizeOf } from "./folder.js";
import { hashOf } from "./hash.js";
import { ALL, Index } from "./index.js";
import { alone, lockFile } from "./locks.js";
import { Partial } from "./partial.js";

/** The files that checkpoints are made of. */
const hashesOf = (checkpoints) => new Set(checkpoints.flatMap(({ files }) => files.map(({ sha256 }) => sha256)));

/** How long an unfinished file is trusted to have the same rest if nothing would show that it hasn't. */
const DAY = 24 * 3600 * 1000;

function canGoOn({ sha256, etag, lastModified, lastUsed }, expected) {
  if (expected) return !sha256 || sha256 === expected;
  return etag !== undefined || lastModified !== undefined || Date.now() - lastUsed < DAY;
}

export class Store {
  #index = new Index();
  /** sha256 → how many open sessions of this worker use it. */
  #pins = new Map();

  /** Rejects with the reason where this browser keeps no files for this page. */
  static async open() {
    if (!navigator.storage?.getDirectory || !globalThis.indexedDB || !navigator.locks) {
      throw new Error(isSecureContext ? "this browser has no place for files" : "that needs https or localhost");
    }
    const { prototype } = FileSystemFileHandle;
    if (!("move" in prototype) || !("createSyncAccessHandle" in prototype)) {
      throw new Error("this browser is too old to keep files");
    }
    const store = new Store();
    await store.#index.ready();
    await store.#sweep();
    return store;
  }

  /** Removes files that the index does not know: what was in use when it was removed, or a crash left behind. */
  #sweep() {
    return alone(async () => {
      const [blobs, partials] = [await namesIn("blobs"), await namesIn("partial")];
      const known = await this.#index.read(["blobs", "partials"], async (tables) => ({
        blobs: new Set((await tables.blobs.all()).map(({ sha256 }) => sha256)),
        partials: new Set((await tables.partials.all()).map(({ name }) => name)),
      }));
      for (const name of blobs) if (!known.blobs.has(name)) await removeFile("blobs", name);
      for (const name of partials) if (!known.partials.has(name)) await removeFile("partial", name);
    });
  }

  pin(sha256) {
    this.#pins.set(sha256, (this.#pins.get(sha256) ?? 0) + 1);
  }

  unpin(sha256) {
    const count = this.#pins.get(sha256) - 1;
    if (count > 0) this.#pins.set(sha256, count);
    else this.#pins.delete(sha256);
  }

  // ---- one file ----------------------------------------------------------------------------------------------------

  /**
   * What is known of an address, and the whole file if it is here: `{ record, blob }`; or, where its host has a newer
   * one by now, the `older` file.
   */
  find(url, { size, sha256 }) {
    return this.#index.read(["urls", "blobs"], async ({ urls, blobs }) => {
      const record = await urls.get(url);
      const wanted = sha256 ?? record?.sha256;
      const blob = wanted && (await blobs.get(wanted));
      if (!blob || (size ?? blob.size) !== blob.size) return { record };
      return !sha256 && record.stale ? { record, older: blob } : { record, blob };
    });
  }

  /**
   * A whole file for reading. Null where it is missing; where it is not as long as it was, an error. Either way it is
   * forgotten, so that it is fetched the next time.
   */
  async read({ sha256, size }, place) {
    let file;
    try {
      file = await openForReading("blobs", sha256);
    } catch (error) {
      if (!isMissing(error)) throw error;
      await this.drop([sha256]);
      return null;
    }
    if (file.size === size) return file;
    file.close();
    await this.drop([sha256]);
    throw failure("corrupt", `${place}: expected ${size} bytes in the store, found ${file.size}`);
  }

  /**
   * The unfinished file of an address, for writing, with what was kept of it. Null where another page is writing it.
   * `expected` is the hash that it must have.
   */
  async resume(url, expected) {
    const release = await lockFile(url);
    if (!release) return null;
    try {
      let record = await this.#index.get("partials", url);
      const name = record?.name ?? hashOf(url);
      if (!record || !canGoOn(record, expected)) {
        await removeFile("partial", name);
        record = { url, name, sha256: expected };
      }
      record = { ...record, sha256: expected ?? record.sha256, lastUsed: Date.now() };
      await this.#index.change(["partials"], ({ partials }) => partials.put(record));
      return await Partial.open(this, record, release);
    } catch (error) {
      release();
      throw error;
    }
  }

  notePartial(record) {
    return this.#index.change(["partials"], ({ partials }) => partials.put(record));
  }

  forgetPartial(url) {
    return this.#index.change(["partials"], ({ partials }) => partials.delete(url));
  }

  /** Makes a whole file of an unfinished one, which is closed and was checked. */
  keep(handle, partial, { sha256, size }) {
    return alone(async () => {
      if ((await this.#index.get("blobs", sha256)) && (await sizeOf("blobs", sha256)) === size) {
        await removeFile("partial", partial.name);
      } else {
        await removeFile("blobs", sha256);
        await handle.move(await folder("blobs"), sha256);
      }
      await this.#index.change(["blobs", "partials"], ({ blobs, partials }) => {
        partials.delete(partial.url);
        return blobs.put({ sha256, size, lastUsed: Date.now() });
      });
    });
  }

  /** Changes what is known of an address. */
  note(url, change) {
    return this.#index.change(["urls"], async ({ urls }) => {
      const record = await urls.get(url);
      const changed = change(record);
      if (changed) await urls.put({ ...record, url, ...changed });
    });
  }

  /** Forgets whole files, and what is known of the addresses that led to them. */
  drop(hashes) {
    const gone = new Set(hashes);
    return alone(() => this.#forget(gone));
  }

  /** Forgets, of these addresses, whole and unfinished files that no load has proven to be what was asked for. */
  dropUnproven(urls) {
    return alone(async () => {
      const { urls: records, partials, checkpoints } = await this.contents();
      const used = hashesOf(checkpoints);
      const unproven = records.filter(({ url, proven }) => urls.includes(url) && !proven);
      const elsewhere = new Set(records.filter(({ proven }) => proven).map(({ sha256 }) => sha256));
      const gone = unproven.map(({ sha256 }) => sha256);
      await this.#forget(new Set(gone.filter((sha256) => !used.has(sha256) && !elsewhere.has(sha256))));
      await this.#index.change(["urls"], (tables) => Promise.all(unproven.map(({ url }) => tables.urls.delete(url))));
      for (const partial of partials) if (urls.includes(partial.url)) await this.#removePartial(partial);
    });
  }

  /**
   * Takes files off the disk and out of the index; with `idle`, only those which nobody is reading. Gives the bytes
   * that came free. What a reader keeps on the disk is swept up another time.
   */
  async #forget(gone, { idle = false } = {}) {
    const removed = new Set();
    for (const sha256 of gone) if (await removeFile("blobs", sha256)) removed.add(sha256);
    const forgotten = idle ? removed : gone;
    return this.#index.change(["urls", "blobs"], async ({ urls, blobs }) => {
      let bytes = 0;
      for (const sha256 of forgotten) {
        if (removed.has(sha256)) bytes += (await blobs.get(sha256))?.size ?? 0;
        blobs.delete(sha256);
      }
      for (const record of await urls.all()) {
        // What was seen there first stays known.
        if (forgotten.has(record.sha256)) await urls.put({ ...record, sha256: undefined });
      }
      return bytes;
    });
  }

  // ---- checkpoints -------------------------------------------------------------------------------------------------

  /**
   * Remembers which files a checkpoint is made of. `files`: `[{ url, place, sha256, size }]`; `listing`: what its repository has, at
   * which commit. With `part` they are only some of those of a checkpoint that may be kept there: it stays what it is called.
   */
  commit({ id, name, url, bytes, part, listing }, files) {
    return alone(async () => {
      const now = Date.now();
      const left = await this.#index.change(ALL, async ({ urls, blobs, checkpoints }) => {
        let kept = 0;
        for (const file of files) {
          const blob = await blobs.get(file.sha256);
          if (!blob) continue;
          kept++;
          await blobs.put({ ...blob, lastUsed: now });
          const record = await urls.get(file.url);
          if (record?.sha256 === file.sha256) await urls.put({ ...record, proven: true });
        }
        if (kept === 0) return [];
        // Under the same address, it is a newer version of the same checkpoint, or another variant: files of other addresses
        // that are still known stay its own. An id means something to one page alone.
        const older = await checkpoints.get(url);
        const all = [...files];
        const moved = Boolean(listing && older?.listing && listing.commit !== older.listing.commit);
        for (const file of older?.files ?? []) {
          if (files.some((now) => now.url === file.url)) continue;
          // Of another commit nothing is asked for by this name any more.
          if (moved) await urls.delete(file.url);
          else if ((await urls.get(file.url))?.sha256 === file.sha256) all.push(file);
        }
        const whole = part && older && !older.part;
        const said = whole ? { id: older.id, name: older.name, bytes: older.bytes } : { id, name, bytes, part };
        await checkpoints.put({ ...said, url, files: all, listing: listing ?? older?.listing, lastUsed: now });
        const used = hashesOf(await checkpoints.all());
        return older ? [...hashesOf([older])].filter((sha256) => !used.has(sha256)) : [];
      });
      await this.#forget(new Set(left.filter((sha256) => !this.#pins.has(sha256))));
    });
  }

  /** The listing that was kept with the checkpoint of this address, if there is one. */
  async listing(url) {
    return (await this.#index.get("checkpoints", url))?.listing;
  }

  /** What the index holds, all of it. */
  contents() {
    return this.#index.read(ALL, async (tables) => {
      const [urls, blobs, partials, checkpoints] = await Promise.all(ALL.map((name) => tables[name].all()));
      return { urls, blobs, partials, checkpoints };
    });
  }

  /**
   * Removes the checkpoint with this id or address, and files that no other one uses; or, for the address of something
   * unfinished, its files, which are below `folder` where that is another address. False where nothing has that name.
   */
  remove(idOrUrl, folder) {
    return alone(async () => {
      const { urls, partials, checkpoints } = await this.contents();
      const isIt = ({ id, url }) => id === idOrUrl || url === idOrUrl;
      const removed = checkpoints.filter(isIt);
      const others = checkpoints.filter((checkpoint) => !isIt(checkpoint));
      const used = hashesOf(others);
      const elsewhere = new Set(others.flatMap(({ files }) => files.map(({ url }) => url)));
      const unfinished = removed.length === 0 ? folder : undefined;
      const places = [idOrUrl, unfinished, ...removed.map(({ url }) => url)].filter((place) => typeof place === "string");
      // A host's root is no checkpoint's folder, unless it is one that was kept.
      const isFolder = (place) => place.endsWith("/") && URL.canParse(place) && (place !== idOrUrl || new URL(place).pathname !== "/");
      const within = (url) => places.some((place) => url === place || (isFolder(place) && url.startsWith(place)));
      const addresses = new Set(removed.flatMap(({ files }) => files.map(({ url }) => url)));
      for (const { url } of [...urls, ...partials]) if (within(url)) addresses.add(url);
      for (const url of addresses) if (elsewhere.has(url)) addresses.delete(url);
      if (removed.length === 0 && addresses.size === 0) return false;

      const hashes = new Set(hashesOf(removed));
      for (const { url, sha256 } of urls) if (addresses.has(url) && sha256) hashes.add(sha256);
      await this.#index.change(["urls", "checkpoints"], async (tables) => {
        for (const { url } of removed) tables.checkpoints.delete(url);
        for (const url of addresses) await tables.urls.delete(url);
      });
      await this.#forget(new Set([...hashes].filter((sha256) => !used.has(sha256))));
      for (const partial of partials) if (addresses.has(partial.url)) await this.#removePartial(partial);
      return true;
    });
  }

  /** Removes everything but what is just being written. */
  clear() {
    return alone(async () => {
      const { blobs, partials } = await this.contents();
      await this.#index.change(["urls", "checkpoints"], async (tables) => {
        for (const { url } of await tables.checkpoints.all()) tables.checkpoints.delete(url);
        for (const { url } of await tables.urls.all()) tables.urls.delete(url);
      });
      await this.#forget(new Set(blobs.map(({ sha256 }) => sha256)));
      for (const partial of partials) await this.#removePartial(partial);
    });
  }

  /** Bytes that came free: none where a page is writing it. */
  async #removePartial({ url, name }) {
    const release = await lockFile(url, 0);
    if (!release) return 0;
    try {
      const bytes = (await sizeOf("partial", name)) ?? 0;
      await this.forgetPartial(url);
      return (await removeFile("partial", name)) ? bytes : 0;
    } finally {
      release();
    }
  }

  /**
   * Removes what was used longest ago until `bytes` have come free: whole checkpoints, files of none, unfinished files.
   * What an open session uses stays; and all stays where even that would not do. Gives the bytes that came free and the
   * names of the checkpoints.
   */
  evict(bytes) {
    return alone(async () => {
      const names = [];
      let freed = 0;
      const candidates = await this.#candidates();
      if (candidates.reduce((sum, candidate) => sum + candidate.bytes, 0) < bytes) return { freed, names };
      for (const { checkpoint, hashes, partial } of candidates) {
        if (freed >= bytes) break;
        const came = partial ? await this.#removePartial(partial) : await this.#forget(hashes, { idle: true });
        freed += came;
        // With all its files in use elsewhere it is no less a checkpoint than before.
        if (!checkpoint || came === 0) continue;
        names.push(checkpoint.name ?? checkpoint.id);
        await this.#index.change(["checkpoints"], (tables) => tables.checkpoints.delete(checkpoint.url));
      }
      return { freed, names };
    });
  }

  /** What may give way, the longest unused first: each with the bytes that would come free after those before it. */
  async #candidates() {
    const { blobs, partials, checkpoints } = await this.contents();
    const sizes = new Map(blobs.map(({ sha256, size }) => [sha256, size]));
    const used = hashesOf(checkpoints);
    const found = checkpoints.map((checkpoint) => {
      return { lastUsed: checkpoint.lastUsed, checkpoint, hashes: hashesOf([checkpoint]) };
    });
    for (const { sha256, lastUsed } of blobs) {
      if (!used.has(sha256)) found.push({ lastUsed, hashes: new Set([sha256]) });
    }
    for (const partial of partials) {
      const bytes = (await sizeOf("partial", partial.name)) ?? 0;
      found.push({ lastUsed: partial.lastUsed, partial, hashes: new Set(), bytes });
    }
    found.sort((a, b) => a.lastUsed - b.lastUsed);
    const remaining = new Set(checkpoints);
    for (const candidate of found) {
      remaining.delete(candidate.checkpoint);
      const needed = hashesOf([...remaining]);
      const gives = (sha256) => sizes.has(sha256) && !needed.has(sha256) && !this.#pins.has(sha256);
      const free = [...candidate.hashes].filter(gives);
      candidate.hashes = new Set(free);
      candidate.bytes ??= free.reduce((sum, sha256) => sum + sizes.get(sha256), 0);
      for (const sha256 of free) sizes.delete(sha256);
      // What it would not free stays as it is, and needs its files.
      if (candidate.checkpoint && candidate.bytes === 0) remaining.add(candidate.checkpoint);
    }
    return found.filter((candidate) => candidate.bytes > 0);
  }
}
