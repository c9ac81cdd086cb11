// What the store knows of its files, in IndexedDB, whose transactions hold across tabs.
//   urls         url → { url, sha256, size, etag, lastModified, length, firstSha256, stale, proven, absent, name }
//   blobs        sha256 → { sha256, size, lastUsed }
//   partials     url → { url, name, size, etag, lastModified, sha256, lastUsed }
//   checkpoints  url → { id, name, url, bytes, files: [{ url, place, sha256, size }], listing?, lastUsed }
//                where `listing` is keeper/hub.js's

const NAME = "tintype";
// In version 1, checkpoints were found by their id.
const VERSION = 2;
const KEYS = { urls: "url", blobs: "sha256", partials: "url", checkpoints: "url" };
export const ALL = Object.keys(KEYS);

const asked = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

function open() {
  const request = indexedDB.open(NAME, VERSION);
  request.onupgradeneeded = () => {
    const { result: database, transaction } = request;
    for (const [store, keyPath] of Object.entries(KEYS)) {
      if (database.objectStoreNames.contains(store)) {
        if (transaction.objectStore(store).keyPath === keyPath) continue;
        database.deleteObjectStore(store);
      }
      database.createObjectStore(store, { keyPath });
    }
  };
  return asked(request);
}

export class Index {
  #opening = null;

  /** Rejects where the browser keeps no database for this page. */
  async ready() {
    const opening = (this.#opening ??= open());
    const gone = () => {
      if (this.#opening === opening) this.#opening = null;
    };
    const database = await opening.catch((error) => {
      gone();
      throw error;
    });
    // A person who clears the site's data closes it; the next use opens a new one.
    database.onclose = gone;
    database.onversionchange = () => (database.close(), gone());
    return database;
  }

  /**
   * Runs `work` in one transaction over `stores` and waits until it is written. `work` gets the object stores by name,
   * each with promises for answers; it may await these and nothing else.
   */
  async #transaction(stores, mode, work) {
    const transaction = (await this.ready()).transaction(stores, mode);
    const written = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      const refused = () => reject(transaction.error ?? new Error("the index refused a change"));
      transaction.onerror = transaction.onabort = refused;
    });
    written.catch(() => {});
    const tables = Object.fromEntries(
      stores.map((name) => {
        const store = transaction.objectStore(name);
        const table = {
          get: (key) => asked(store.get(key)),
          all: () => asked(store.getAll()),
          put: (value) => asked(store.put(value)),
          delete: (key) => asked(store.delete(key)),
        };
        return [name, table];
      }),
    );
    const result = await work(tables);
    await written;
    return result;
  }

  read(stores, work) {
    return this.#transaction(stores, "readonly", work);
  }

  change(stores, work) {
    return this.#transaction(stores, "readwrite", work);
  }

  get(store, key) {
    return this.read([store], (tables) => tables[store].get(key));
  }

  all(store) {
    return this.read([store], (tables) => tables[store].all());
  }
}
