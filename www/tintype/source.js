// What `load` takes → what the engine reads:
// { kind: "url", url, files?, path? } or { kind: "files", files: [{ path, file }], path? }, where `path` is the one file that has
// all of it.

import { TintypeError } from "./error.js";
import { plain, splitAddress, stem } from "./file.js";
import { CATALOGUE, check, entryFields, invalid, shown } from "./options.js";

/** What a person may point at that is one file, not a folder. */
const SINGLE_FILE = /\.(safetensors|ckpt|pt|pth|bin|gguf|zip)$/i;

const page = () => globalThis.document?.baseURI ?? globalThis.location.href;

/** Where a file is, for messages: without the query, which may hold a token, and without a file's own bytes. */
const place = (url) => (url.startsWith("data:") ? "data:…" : url.replace(/[?#].*$/s, ""));

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
function folder(url) {
  url.pathname = url.pathname.replace(/\/model_index\.json$/, "/");
  if (!url.pathname.endsWith("/") && !SINGLE_FILE.test(url.pathname)) url.pathname += "/";
  url.hash = "";
  return url.href;
}

/** Whether the path of an address is that of one file. */
const isSingle = (url) => SINGLE_FILE.test(new URL(url).pathname);

/** A whole address in the engine's words, with the name that a file's gives it. */
function located(url, files) {
  if (!isSingle(url)) return { source: { kind: "url", url, files }, hints: {} };
  const { url: folder, path } = splitAddress(url);
  return { source: { kind: "url", url: folder, files, path }, hints: { name: stem(path) } };
}

/** The address of a folder or of one file; relative ones are the page's. */
function address(text) {
  if (/^hf:/i.test(text)) {
    throw new TintypeError(
      "unsupported",
      `source: ${shown(text)}: reading from the Hugging Face hub is not implemented`,
    );
  }
  return folder(parse("source", text, ["https:", "http:"]));
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

async function json(url, signal) {
  const text = await fetched(url, signal, async () => (await get(url, signal)).text());
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TintypeError("corrupt", `${place(url)}: expected JSON (${error.message})`, { cause: error });
  }
}

/** The entries of a `checkpoints.json`, with `url` and `image` made absolute. */
export async function catalogue(url, options) {
  const { signal } = check("catalogue", CATALOGUE, options);
  if (typeof url !== "string" && !(url instanceof URL)) {
    throw invalid(`catalogue: url: expected a string or a URL, found ${shown(url)}`);
  }
  const { href } = parse("catalogue: url", String(url), ["https:", "http:", "blob:", "data:"]);
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
    return { ...entry, url: folder(absolute("url")), image };
  });
}

/**
 * The folder of an entry whose `url` is relative to a catalogue that the entry doesn't name: the first of the places
 * where this page's catalogue is likely to be that has a checkpoint there.
 */
async function findEntry(entry, signal) {
  const catalogues = (globalThis.performance?.getEntriesByType("resource") ?? [])
    .map(({ name }) => name)
    .filter((name) => /\/checkpoints\.json$/.test(name.replace(/[?#].*$/, "")))
    .reverse();
  const bases = [...catalogues, new URL("checkpoints/", page()).href, page()];
  const found = bases.filter((base) => URL.canParse(entry.url, base)).map((base) => folder(new URL(entry.url, base)));
  const candidates = [...new Set(found)];
  if (candidates.length === 0) throw invalid(`source: url: ${shown(entry.url)} is not a URL`);
  const failures = [];
  for (const candidate of candidates) {
    const probe = new URL(candidate);
    if (!isSingle(candidate)) probe.pathname += "model_index.json";
    try {
      if (isSingle(candidate)) await fetched(candidate, signal, () => get(candidate, signal, "HEAD"));
      else await json(probe.href, signal);
      return candidate;
    } catch (error) {
      if (error.code === "cancelled") throw error;
      failures.push(error);
    }
  }
  // A host that could not be asked may have it: that is not the same as to know that it is nowhere.
  const unasked = failures.find(({ code }) => code === "network");
  throw new TintypeError(
    unasked ? "network" : "not-found",
    `source: nothing there for the entry ${shown(entry.url)}: ${failures.map(({ message }) => message).join("; ")}`,
    { cause: unasked ?? failures[0] },
  );
}

/** Files deeper or more than this are no checkpoint's; a handle may even contain itself. */
const MAX_DEPTH = 8;
const MAX_FILES = 10_000;

async function walk(directory, prefix, files, signal, depth = 0) {
  for await (const handle of directory.values()) {
    if (signal?.aborted) throw new TintypeError("cancelled", "load was cancelled", { cause: signal.reason });
    if (handle.name.startsWith(".")) continue;
    const path = `${prefix}${handle.name}`;
    if (handle.kind === "directory" && depth < MAX_DEPTH) await walk(handle, `${path}/`, files, signal, depth + 1);
    else if (handle.kind === "file") files.push({ path, file: await handle.getFile() });
    if (files.length > MAX_FILES) throw invalid(`source: the folder has more than ${MAX_FILES} files`);
  }
  return files;
}

/** What a handle gives; what it refuses, as an error of ours. */
export async function opened(handle, work, where = "source") {
  try {
    return await work();
  } catch (error) {
    if (error instanceof TintypeError) throw error;
    const code = error?.name === "NotFoundError" ? "not-found" : "invalid-argument";
    throw new TintypeError(code, `${where}: "${handle.name}" could not be read: ${error?.message ?? error}`, { cause: error });
  }
}

const isFile = (value) => typeof Blob !== "undefined" && value instanceof Blob;

function picked(list, what) {
  if (list.length === 0) throw invalid(`source: ${what} has no files`);
  return Array.from(list, (item, index) => {
    if (isFile(item)) {
      const path = item.webkitRelativePath || item.name;
      if (path) return { path, file: item };
    } else if (typeof item?.path === "string" && item.path !== "" && isFile(item.file)) {
      return { path: item.path, file: item.file };
    }
    throw invalid(`source[${index}]: expected a File or { path, file }, found ${shown(item)}`);
  });
}

/** `source` in the engine's words, with what it says about itself: `{ source, hints }`. Options of `load` go before hints. */
export async function resolve(source, signal) {
  const byFiles = (files) => {
    const name = files[0].path.split("/").pop();
    if (files.length > 1 || !SINGLE_FILE.test(name)) return { source: { kind: "files", files }, hints: {} };
    const path = plain(name, "x.safetensors");
    return { source: { kind: "files", files: [{ path, file: files[0].file }], path }, hints: { name: stem(name) } };
  };

  if (typeof source === "string" || source instanceof URL) return located(address(String(source)));
  if (isFile(source)) return byFiles(picked([source], "the list"));
  if (Array.isArray(source)) return byFiles(picked(source, "the array"));
  if (typeof FileList !== "undefined" && source instanceof FileList)
    return byFiles(picked([...source], "the FileList"));
  if (source?.kind === "file" && typeof source.getFile === "function") {
    return byFiles(picked([await opened(source, () => source.getFile())], "the list"));
  }
  if (source?.kind === "directory" && typeof source.values === "function") {
    return byFiles(picked(await opened(source, () => walk(source, "", [], signal)), `the folder "${source.name}"`));
  }
  if (typeof source === "object" && source !== null && "url" in source) {
    if (typeof source.url !== "string") throw invalid(`source: url: expected a string, found ${shown(source.url)}`);
    const { files, ...hints } = entryFields(source);
    const url = URL.canParse(source.url) ? address(source.url) : await findEntry(source, signal);
    const found = located(url, files);
    return { source: found.source, hints: { ...found.hints, ...hints } };
  }
  throw invalid(
    `source: expected a URL, a File or several, a directory handle or a checkpoints.json's entry, found ${shown(source)}`,
  );
}
