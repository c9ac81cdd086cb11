// What the page may ask: of the store, and where a checkpoint is.

import { failure } from "./failure.js";
import { sizeOf } from "./folder.js";
import { tell } from "./tell.js";
import { verify } from "./verify.js";

const NOTHING = { urls: [], blobs: [], partials: [], checkpoints: [] };

const sum = (sizes) => sizes.reduce((total, size) => total + size, 0);

export class Commands {
  #store;
  #keeper;

  /** `store` may be null: then nothing is kept here. `keeper` is what sessions have; its store may be off. */
  constructor(store, keeper) {
    this.#store = store;
    this.#keeper = keeper;
  }

  #contents() {
    return this.#store?.contents() ?? NOTHING;
  }

  /** `[{ id, name, url, bytes, files, lastUsed, complete }]`: the checkpoints, the one used last first. */
  async list() {
    const { blobs, checkpoints } = await this.#contents();
    const kept = new Map(blobs.map(({ sha256, size }) => [sha256, size]));
    return checkpoints
      .map(({ id, name, url, bytes, files, lastUsed }) => ({
        id,
        name,
        url,
        bytes: bytes ?? sum(files.map(({ size }) => size)),
        files: files.length,
        lastUsed: new Date(lastUsed).toISOString(),
        complete: files.every(({ sha256 }) => kept.has(sha256)),
      }))
      .sort((a, b) => (a.lastUsed < b.lastUsed ? 1 : -1));
  }

  /** `{ bytes, blobs, partialBytes, checkpoints: { id: bytes } }`, by address where an id is taken; what two share counts for both, and once in all. */
  async sizes() {
    const { blobs, partials, checkpoints } = await this.#contents();
    const kept = new Map(blobs.map(({ sha256, size }) => [sha256, size]));
    const partialBytes = sum(await Promise.all(partials.map(async ({ name }) => (await sizeOf("partial", name)) ?? 0)));
    const own = ({ files }) => {
      const hashes = new Set(files.map(({ sha256 }) => sha256));
      return sum([...hashes].map((sha256) => kept.get(sha256) ?? 0));
    };
    return {
      bytes: sum([...kept.values()]) + partialBytes,
      blobs: blobs.length,
      partialBytes,
      // Ids are a page's own: two may have given the same one.
      checkpoints: Object.fromEntries(
        checkpoints.map((checkpoint, index) => {
          const isFirst = checkpoints.findIndex(({ id }) => id === checkpoint.id) === index;
          return [isFirst ? checkpoint.id : checkpoint.url, own(checkpoint)];
        }),
      ),
    };
  }

  /** Removes a checkpoint by its id or address; or what is kept of an address that was never loaded whole. */
  async remove([idOrUrl]) {
    if (typeof idOrUrl !== "string" || !(await this.#store?.remove(idOrUrl, this.#keeper.hub.folder(idOrUrl)))) {
      const found = JSON.stringify(idOrUrl);
      throw failure("not-found", `store.remove: expected the id or address of a kept checkpoint, found ${found}`);
    }
  }

  async clear() {
    await this.#store?.clear();
  }

  /** `{ usage, quota, persisted }`, in bytes; all of the site, not only ours. */
  async quota() {
    const { usage, quota } = (await navigator.storage?.estimate?.()) ?? {};
    return { usage, quota, persisted: (await navigator.storage?.persisted?.()) ?? false };
  }

  /** What is at an address that doesn't say so. */
  tell([about], { signal }) {
    return tell(about, this.#keeper, signal);
  }

  /** Where a repository's files are, and what is known of them. */
  repository([about], { signal }) {
    const kept = async (asked) => this.#keeper.store?.listing(asked).catch(() => undefined);
    return this.#keeper.hub.repository(about, { kept, signal });
  }

  verify(_, { onProgress, signal }) {
    return this.#store ? verify(this.#store, { onProgress, signal }) : { files: 0, bytes: 0, bad: [] };
  }
}

export const COMMANDS = ["list", "sizes", "remove", "clear", "quota", "verify", "tell", "repository"];
