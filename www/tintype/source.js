// What `load` takes → what the engine reads: { source, hints, warnings }, with the `loras` that an entry has, where `source` is
// { kind: "url", url, files?, path?, place?, label? } or { kind: "files", files: [{ path, file }], path? }. `path` is the one file that
// has all of it, `files` what is known beforehand; `place` and `label` are what messages and the store call it in place of the URL.

import { addressText, fileName, folder, isSafetensors, isSingle, parse, shownAddress } from "./address.js";
import { findEntry, findLoras } from "./catalogue.js";
import { TintypeError } from "./error.js";
import { plain, stem } from "./file.js";
import { HUB, nameOf, parseName, parsePage } from "./hub.js";
import { entryFields, invalid, shown } from "./options.js";
import { gather, isPicked, onlyFile, pickedSource } from "./picked.js";

/**
 * What a source may be of: `index` are files of which each makes a folder one of the kind, `most` is how many `.safetensors` files may be
 * one without. Where there is no `index`, only one file will do.
 */
export const CHECKPOINT = { index: ["model_index.json"], most: 1 };
export const VAE = { index: ["vae/config.json", "config.json"], most: 2 };
export const LORA = { index: [], most: 1 };
/** A folder that may say of itself that it is an autoencoder's. */
const VAE_FOLDER = { index: ["config.json"], most: 1 };
/** What can be looked at: a checkpoint, or what is one's part in a file, and else an autoencoder's folder. */
export const ANY = { ...CHECKPOINT, otherwise: VAE_FOLDER };

/** Finds what is meant by an address, a repository, an entry, or what a person picked. Whatever takes a source asks here. */
export class Sources {
  #ask;
  #hub;

  /** `ask(command, args, signal)` asks the keeper; `hub` is the hub's address. */
  constructor(ask, hub = HUB) {
    this.#ask = ask;
    this.#hub = hub;
  }

  /**
   * What `source`, which messages call `where` and which is to be of a `kind`, is. What was dropped is asked before the first await.
   * Where it is only what may be `otherwise`, `instead` is why it is not of the kind itself.
   */
  async find(source, { where = "source", kind = CHECKPOINT, signal } = {}) {
    const about = { where, kind, signal };
    const picked = isPicked(source) ? await gather(source, where, signal) : null;
    const find = async (kind) =>
      picked ? { ...pickedSource(picked, { ...about, kind }), warnings: [] } : this.#told(source, { ...about, kind });
    const { otherwise } = kind;
    if (!otherwise) return find(kind);
    try {
      return await find(kind);
    } catch (instead) {
      if (instead.code === "cancelled" || instead.code === "network") throw instead;
      const found = await find(otherwise).catch(() => {
        throw instead;
      });
      return { ...found, instead };
    }
  }

  async #told(source, about) {
    const { where, kind } = about;
    if (typeof source === "string" || source instanceof URL) return this.#address(addressText(where, source), about);
    const folders = kind.index.length > 0;
    if (folders && typeof source === "object" && source !== null && "url" in source) return this.#entry(source, about);
    const more = folders ? ", several, a folder's handle, a drop or a checkpoints.json's entry" : "";
    throw invalid(`${where}: expected a URL, a File, a file's handle${more}, found ${shown(source)}`);
  }

  async #address(text, about) {
    const { where, kind } = about;
    if (/^hf:/i.test(text)) return this.#repository(parseName(where, text), about);
    const url = parse(where, text, ["https:", "http:"]);
    url.hash = "";
    const repository = parsePage(where, url, this.#hub);
    if (repository) return this.#repository(repository, about);
    const index = indexOf(url.pathname, kind);
    if (index) url.pathname = url.pathname.slice(0, -index.length);
    const isFolder = url.pathname.endsWith("/");
    if (isFolder && kind.index.length === 0) throw invalid(`${where}: ${shown(text)}: expected the address of a file, found a folder's`);
    if (isFolder) return folderAddress(url);
    if (isSingle(url.pathname)) return singleAddress(url, fileName(url));
    const told = await this.#asked("tell", { url: url.href, index: kind.index }, about);
    if (told.folder) return folderAddress(url);
    const found = singleAddress(url, told.name ?? fileName(url));
    // Many files may have one address but for its query.
    const known = shownAddress(url);
    return { ...found, source: { ...found.source, place: known, label: known } };
  }

  /** What the keeper finds out; its errors say what of several sources they are about. */
  async #asked(command, request, { where, signal }) {
    try {
      return await this.#ask(command, request, signal);
    } catch (error) {
      if (where === "source" || error.code === "cancelled") throw error;
      throw new TintypeError(error.code, `${where}: ${error.message}`, { cause: error });
    }
  }

  /** A repository of the hub, or a folder or a file of one. */
  async #repository(name, about) {
    const { where, kind } = about;
    const index = indexOf(`/${name.path}`, kind);
    if (index) name = { ...name, path: name.path.slice(0, -index.length).replace(/\/$/, "") };
    const asked = nameOf(name);
    const at = (path) => nameOf({ ...name, path });
    const single = isSingle(name.path);
    const inside = single ? name.path.split("/").slice(0, -1).join("/") : name.path;
    const below = (path) => (inside ? `${inside}/${path}` : path);
    const { url, files, warnings } = await this.#asked("repository", { ...name, path: inside, asked }, about);
    const paths = Object.keys(files);
    const here = paths.filter((path) => !path.includes("/"));
    const count = here.filter(isSafetensors).length;
    if (!single && (kind.index.some((index) => Object.hasOwn(files, index)) || (count > 1 && count <= kind.most))) {
      const source = { kind: "url", url, files, place: `${at(inside)}/`, label: asked };
      return { source, hints: { name: (inside || name.repo).split("/").at(-1) }, warnings };
    }
    let path = single ? name.path.split("/").at(-1) : null;
    if (single && !Object.hasOwn(files, path)) {
      const others = here.filter((path) => isSingle(path)).map((path) => at(below(path)));
      const there = others.length > 0 ? `; there are ${others.slice(0, 8).join(", ")}` : "";
      throw new TintypeError("not-found", `${where}: ${asked}: the repository has no such file${there}`);
    }
    if (!single) {
      const [index] = kind.index;
      const folders = paths.filter((path) => path.endsWith(`/${index}`)).map((path) => at(below(path.slice(0, -index.length - 1))));
      path = onlyFile(here, { where, place: asked, kind, folders, choose: (path) => at(below(path)) });
    }
    const known = plain(path, "x.safetensors");
    const only = { path: known, files: { [known]: files[path] } };
    const source = { kind: "url", url: url + encodeURIComponent(path), ...only, place: at(below(path)), label: asked };
    return { source, hints: { name: stem(path) }, warnings };
  }

  /** An entry of a `checkpoints.json`: what it says of its files counts. */
  async #entry(entry, about) {
    if (typeof entry.url !== "string") throw invalid(`${about.where}: url: expected a string, found ${shown(entry.url)}`);
    const { files, loras: checked, ...hints } = entryFields(entry, about.where);
    const said = { url: entry.url, loras: checked };
    const known = async () => ({ ...said, loras: checked && (await findLoras(checked, about.signal)) });
    const { url, loras } = URL.canParse(entry.url) ? await known() : await findEntry(said, about);
    const found = await this.#address(url, about);
    if (files && Object.keys(files).length > 0) {
      const all = found.source.files ?? {};
      for (const [path, said] of Object.entries(files)) all[path] = { ...all[path], ...said };
      found.source.files = all;
    }
    return { ...found, hints: { ...found.hints, ...hints }, ...(loras && { loras }) };
  }
}

/** The file that makes a folder one of the kind, or a whole checkpoint's, if a path ends with one. */
const indexOf = (path, { index, otherwise }) => {
  const all = [...index, ...(otherwise?.index ?? [])].map((name) => name.split("/").at(-1));
  const names = index.length > 0 ? [...all, ...CHECKPOINT.index] : [];
  return names.find((name) => path.endsWith(`/${name}`));
};

const folderAddress = (url) => ({ source: { kind: "url", url: folder(url) }, hints: {}, warnings: [] });

function singleAddress(url, name) {
  const path = plain(name, "x.safetensors");
  return { source: { kind: "url", url: url.href, path }, hints: { name: stem(name) || path }, warnings: [] };
}
