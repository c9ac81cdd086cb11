// Checkpoints of a person's own as entries like the catalogue's, and what is remembered of them for the next visit.

import { isSingle, shownAddress } from "../tintype/address.js";
import { loras as checked } from "../tintype/options.js";
import { addressOf, fromAddress, isLasting } from "./things.js";

const DATABASE = "tintype-page";
const STORE = "own";

let made = 0;

/** A LoRA over a checkpoint: a thing with how much of it there is. Its `key` stays, whatever else is changed. */
export const loraOf = ({ name, source }, scale = 1) => ({ key: (made += 1), name, source, scale, on: true });

/** The LoRAs that an entry of a catalogue has. */
export const lorasOf = (loras) =>
  checked(loras, "loras").map(({ source, scale }, index) => {
    const thing = typeof source === "string" ? fromAddress(source) : undefined;
    if (!thing) throw new Error(`loras[${index}].source: expected an address`);
    return loraOf(thing, scale);
  });

/** The entry of a thing that is loaded so. */
export function entryOf(thing, { options = {}, defaults, loras = [] } = {}) {
  made += 1;
  const { name = thing.name, variant, predictionType, vae = null } = options;
  const { from, source } = thing;
  const description = isLasting(thing) ? from : `${from}, for this visit`;
  const at = Date.now();
  const id = `own-${made}`;
  return { id, own: true, key: `${at}-${made}`, at, name, from, description, source, variant, predictionType, vae, defaults, loras, missing: [] };
}

/** The address of a folder, of a repository, or of a file with its name, however it is written. */
const bare = (address) =>
  address
    .replace(/[?#].*$/s, "")
    .replace(/\/model_index\.json$/, "")
    .replace(/\/+$/, "");

/** Whether a kept address says by its query alone what it is of. */
function isByQuery(url) {
  if (!/^https?:/.test(url)) return false;
  const { pathname } = new URL(url);
  return !pathname.endsWith("/") && !isSingle(pathname);
}

/** Whether the store keeps an entry's checkpoint at `url`. */
export function isKeptAt(entry, url) {
  const address = addressOf(entry);
  if (address === undefined) return false;
  return isByQuery(url) ? shownAddress(new URL(address, document.baseURI)) === url : bare(address) === bare(url);
}

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

async function store(mode) {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "key" });
  return (await done(opening)).transaction(STORE, mode).objectStore(STORE);
}

/** Where nothing can be kept, as in a private window, the page works all the same. */
async function quietly(work, otherwise) {
  try {
    return await work();
  } catch (error) {
    console.info(`Own checkpoints are not remembered: ${error.message}`);
    return otherwise;
  }
}

/** Remembers an entry as it is now, if it can be opened again; of files that were picked for it, only the names. */
export async function remember(entry) {
  if (!entry.own || !isLasting(entry)) return;
  const { key, at, name, from, source, variant, predictionType, vae, defaults, loras } = entry;
  const lost = [vae, ...loras].filter((thing) => thing && !isLasting(thing));
  const record = { key, at, name, from, source, variant, predictionType, defaults };
  record.vae = lost.includes(vae) ? null : vae;
  record.loras = loras.filter(isLasting);
  record.missing = [...entry.missing, ...lost.map(({ name }) => name)];
  await quietly(async () => done((await store("readwrite")).put(record)));
}

const again = (lora) => ({ ...loraOf(lora, lora.scale), on: lora.on });

export const forget = ({ key }) => quietly(async () => done((await store("readwrite")).delete(key)));

/** The entries of earlier visits, the oldest first. */
export async function remembered() {
  const records = await quietly(async () => done((await store("readonly")).getAll()), []);
  records.sort((a, b) => a.at - b.at);
  return records.map(({ key, at, name, from, source, variant, predictionType, vae, defaults, loras, missing }) => ({
    ...entryOf({ name, from, source }, { options: { variant, predictionType, vae }, defaults, loras: loras.map(again) }),
    key,
    at,
    missing,
  }));
}
