// A `checkpoints.json`, and where its entries are.

import { addressText, fetched, folder, get, isSingle, json, page, parse, place } from "./address.js";
import { TintypeError } from "./error.js";
import { CATALOGUE, check, invalid, shown } from "./options.js";

/** The address of a LoRA, as its entry has it; null for any other. */
const addressOf = (lora) => (typeof lora?.source === "string" && !/^hf:/i.test(lora.source) ? lora.source : null);

/** An entry's LoRAs, of which those with an address have it made absolute; what is wrong with the others is said when they are laid. */
const lorasAt = (base, loras) =>
  loras.map((lora) => {
    const text = addressOf(lora);
    return text !== null && URL.canParse(text, base) ? { ...lora, source: new URL(text, base).href } : lora;
  });

/** The entries of a `checkpoints.json`, with `url`, `image` and the addresses of `loras` made absolute. */
export async function catalogue(url, options) {
  const { signal } = check("catalogue", CATALOGUE, options);
  if (typeof url !== "string" && !(url instanceof URL)) {
    throw invalid(`catalogue: url: expected a string or a URL, found ${shown(url)}`);
  }
  const { href } = parse("catalogue: url", addressText("catalogue: url", url), ["https:", "http:", "blob:", "data:"]);
  const found = await json(href, signal);
  if (!Array.isArray(found?.checkpoints)) {
    throw new TintypeError("corrupt", `${place(href)}: expected { "checkpoints": [...] }`);
  }
  return found.checkpoints.map((entry, index) => {
    const absolute = (field) => {
      const value = entry?.[field];
      if (typeof value === "string" && URL.canParse(value, href)) return new URL(value, href);
      const where = `${place(href)}: checkpoints[${index}].${field}`;
      throw new TintypeError("corrupt", `${where}: expected an address relative to it, or a whole one, found ${shown(value)}`);
    };
    const image = typeof entry?.image === "string" ? absolute("image").href : undefined;
    const loras = Array.isArray(entry?.loras) ? lorasAt(href, entry.loras) : entry?.loras;
    return { ...entry, url: folder(absolute("url")), image, ...(loras && { loras }) };
  });
}

/** The places where this page's catalogue is likely to be, of which an entry doesn't say which it is from. */
function places() {
  const catalogues = (globalThis.performance?.getEntriesByType("resource") ?? [])
    .map(({ name }) => name)
    .filter((name) => /\/checkpoints\.json$/.test(name.replace(/[?#].*$/, "")))
    .reverse();
  return [...new Set([...catalogues, new URL("checkpoints/", page()).href, page()])];
}

/**
 * The `loras` of an entry that has a whole `url`: relative addresses are from the first of those places that has something there. Where
 * none has, it is said when the LoRA is laid.
 */
export const findLoras = (loras, signal) =>
  Promise.all(
    loras.map(async (lora) => {
      const text = addressOf(lora);
      if (text === null || URL.canParse(text)) return lora;
      const candidates = new Set(places().filter((base) => URL.canParse(text, base)).map((base) => new URL(text, base).href));
      for (const source of candidates) {
        try {
          await fetched(source, signal, () => get(source, signal, "HEAD"));
          return { ...lora, source };
        } catch (error) {
          if (error.code === "cancelled") throw error;
        }
      }
      const [source = text] = candidates;
      return { ...lora, source };
    }),
  );

/**
 * The `url` and the `loras` of an entry whose `url` is relative to a catalogue that the entry doesn't name: from the first of the
 * places where this page's catalogue is likely to be that has something of the `kind` there.
 */
export async function findEntry(entry, { where, kind, signal }) {
  const candidates = new Map();
  for (const base of places()) {
    const at = URL.canParse(entry.url, base) && folder(new URL(entry.url, base));
    if (at && !candidates.has(at)) candidates.set(at, base);
  }
  if (candidates.size === 0) throw invalid(`${where}: url: ${shown(entry.url)} is not a URL`);
  const failures = [];
  for (const [candidate, base] of candidates) {
    const { pathname } = new URL(candidate);
    const single = isSingle(pathname);
    for (const index of single ? [""] : kind.index) {
      const probe = new URL(candidate);
      probe.pathname += index;
      try {
        if (single) await fetched(candidate, signal, () => get(candidate, signal, "HEAD"));
        else await json(probe.href, signal);
        return { url: candidate, loras: entry.loras && lorasAt(base, entry.loras) };
      } catch (error) {
        if (error.code === "cancelled") throw error;
        failures.push(error);
      }
    }
  }
  // A host that could not be asked may have it: that is not the same as to know that it is nowhere.
  const unasked = failures.find(({ code }) => code === "network");
  throw new TintypeError(
    unasked ? "network" : "not-found",
    `${where}: nothing there for the entry ${shown(entry.url)}: ${failures.map(({ message }) => message).join("; ")}`,
    { cause: unasked ?? failures[0] },
  );
}
