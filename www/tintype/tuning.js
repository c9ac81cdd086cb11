// What was found out about this adapter, kept in the browser: which of the ways to run a product is the fastest. It holds for one
// adapter, one browser and one version of this engine, and for the very kernels that were measured: two builds of a version may differ in them.

import { tuning as checked } from "./options.js";

const NAME = "tintype-tuning";
const STORE = "adapters";

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

async function within(mode, work) {
  const opening = indexedDB.open(NAME, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  const database = await done(opening);
  // Nobody who wants it gone has to wait for this.
  database.onversionchange = () => database.close();
  try {
    // One that lacks it is of no use, as what follows says: the next is made anew.
    if (!database.objectStoreNames.contains(STORE)) indexedDB.deleteDatabase(NAME);
    const transaction = database.transaction(STORE, mode);
    const kept = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    // Before that nothing stays, should this worker end.
    const [value] = await Promise.all([done(work(transaction.objectStore(STORE))), kept]);
    return value;
  } finally {
    database.close();
  }
}

/** What the figures hold for, as text. `kernels` tells the engine's from another build's. */
export function keyOf(adapter, version, kernels, arithmetic = "f32") {
  const { vendor, architecture, device, description, limits } = adapter;
  return JSON.stringify({ version, kernels, arithmetic, browser: navigator.userAgent, vendor, architecture, device, description, limits });
}

/** What is kept under `key`; null, if nothing is, or nothing of sense, or the browser keeps nothing. */
export const readTuning = (key) => within("readonly", (store) => store.get(key)).then((kept) => checked(kept, "tuning")).catch(() => null);

/** What was kept; nothing, where it makes no sense. */
function sound(kept) {
  try {
    return checked(kept, "tuning");
  } catch {
    return {};
  }
}

const isOf = (key, { version, kernels, browser }) => {
  try {
    const other = JSON.parse(key);
    return other.version === version && other.kernels === kernels && other.browser === browser;
  } catch {
    return false;
  }
};

/**
 * Keeps `tuning` beside what another page found out meanwhile, and nothing that another build or another browser has left. Where it
 * can't be kept, it is found out anew the next time.
 */
export const keepTuning = (key, tuning) =>
  within("readwrite", (store) => {
    const keys = store.getAllKeys();
    keys.onsuccess = () => {
      for (const other of keys.result) if (!isOf(other, JSON.parse(key))) store.delete(other);
    };
    const kept = store.get(key);
    // Beside the listener that this is awaited by.
    kept.addEventListener("success", () => {
      const { choices, leftOut, lost = tuning.lost } = kept.result ? sound(kept.result) : {};
      store.put({ choices: { ...choices, ...tuning.choices }, leftOut: { ...leftOut, ...tuning.leftOut }, ...(lost && { lost }) }, key);
    });
    return kept;
  }).catch(() => {});
