// Addresses: what they must be, and what the page asks of a host by itself.

import { TintypeError } from "./error.js";
import { invalid, shown } from "./options.js";

/** What a person may point at that is one file, not a folder. */
const SINGLE_FILE = /\.(safetensors|sft|ckpt|pt|pth|bin|gguf|zip)$/i;
/** Of these, what is read. */
export const isSafetensors = (path) => /\.(safetensors|sft)$/i.test(path);

/** Whether a path is that of one file. */
export const isSingle = (path) => SINGLE_FILE.test(path);

/** The page's own address, which relative ones are relative to. */
export const page = () => globalThis.document?.baseURI ?? globalThis.location.href;

/** Where a file is, for messages: without the query, which may hold a token, and without a file's own bytes. */
export const place = (url) => (url.startsWith("data:") ? "data:…" : url.replace(/[?#].*$/s, ""));

/** The text of an address, given as one or as a URL. */
export function addressText(where, url) {
  try {
    return String(url);
  } catch (error) {
    throw new TintypeError("invalid-argument", `${where}: expected a URL, found one that has no address`, { cause: error });
  }
}

/** `url` as a URL of one of the `schemes`, or of the page's own: an app's or an extension's pages have others than http. */
export function parse(where, url, schemes) {
  if (!URL.canParse(url, page())) throw invalid(`${where}: ${shown(url)} is not a URL`);
  const parsed = new URL(url, page());
  if (parsed.username || parsed.password) {
    throw invalid(`${where}: expected an address without a name and a password, which browsers fetch nothing from`);
  }
  if (schemes.includes(parsed.protocol) || parsed.protocol === globalThis.location.protocol) return parsed;
  const expected = schemes.map((scheme) => `"${scheme}"`).join(", ");
  throw invalid(`${where}: ${shown(url)}: expected an address that begins with one of ${expected}, found "${parsed.protocol}"`);
}

/** A folder's address ends in "/"; its query, which may hold a token, stays for every file in it. */
export function folder(url) {
  // Of a repository's name there is nothing to make.
  if (url.protocol === "hf:") return url.href;
  url.pathname = url.pathname.replace(/\/model_index\.json$/, "/");
  if (!url.pathname.endsWith("/") && !isSingle(url.pathname)) url.pathname += "/";
  url.hash = "";
  return url.href;
}

/** Parameters of a query that may be secret, by their names. */
const SECRET = /token|key|secret|sig|auth|pass|cred|policy|expires|^x-/i;

/** An address that is one by its query, as it may be shown and kept: without what may be secret in it. */
export function shownAddress(url) {
  const shown = new URL(url);
  for (const [name, value] of url.searchParams) if (SECRET.test(name) || value.length > 40) shown.searchParams.delete(name);
  shown.hash = "";
  return shown.href;
}

/** The name of the file at an address, as a person would write it. */
export function fileName(url) {
  const encoded = url.pathname.slice(url.pathname.lastIndexOf("/") + 1);
  return decoded(encoded);
}

/** A part of an address without its percent signs; as it is, where that is no UTF-8. */
export function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** What `work` gives; a request that fails, or breaks off later, as an error of ours. */
export async function fetched(url, signal, work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof TintypeError) throw error;
    if (signal?.aborted) throw new TintypeError("cancelled", `${place(url)}: the download was cancelled`, { cause: error });
    throw new TintypeError("network", `${place(url)}: ${error.message}`, { cause: error });
  }
}

export async function get(url, signal, method = "GET") {
  const response = await fetch(url, { signal, method });
  if (response.ok) return response;
  throw new TintypeError(
    response.status === 404 ? "not-found" : "network",
    `${place(url)}: the host answered ${response.status}`,
  );
}

export async function json(url, signal) {
  const text = await fetched(url, signal, async () => (await get(url, signal)).text());
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TintypeError("corrupt", `${place(url)}: expected JSON (${error.message})`, { cause: error });
  }
}
