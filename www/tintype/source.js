// What `load` takes → what the engine reads: { source, hints, warnings }, where `source` is
// { kind: "url", url, files?, path?, place?, label? } or { kind: "files", files: [{ path, file }], path? }. `path` is the one file that
// has all of it, `files` what is known beforehand; `place` and `label` are what messages and the store call it in place of the URL.

import { fileName, folder, isSingle, parse, shownAddress } from "./address.js";
import { findEntry } from "./catalogue.js";
import { TintypeError } from "./error.js";
import { plain, stem } from "./file.js";
import { HUB, nameOf, parseName, parsePage } from "./hub.js";
import { entryFields, invalid, shown } from "./options.js";
import { gather, isPicked, onlyFile, pickedSource } from "./picked.js";

/** The file that makes a folder a checkpoint. */
const INDEXES = ["model_index.json"];

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
   * What `source`, which messages call `where`, is. `indexes` are the files of which each makes a folder one of the kind that is
   * wanted; without any only one file will do. What was dropped is asked before the first await.
   */
  async find(source, { where = "source", indexes = INDEXES, signal } = {}) {
    if (typeof source === "string" || source instanceof URL) return this.#address(String(source), { where, indexes, signal });
    if (isPicked(source)) return { ...pickedSource(await gather(source, where, signal), { where, indexes }), warnings: [] };
    const folders = indexes.length > 0;
    if (folders && typeof source === "object" && source !== null && "url" in source) return this.#entry(source, { where, indexes, signal });
    const more = folders ? ", several, a folder's handle, a checkpoints.json's entry or a drop" : "";
    throw invalid(`${where}: expected a URL, a File, a file's handle${more}, found ${shown(source)}`);
  }

  async #address(text, about) {
    const { where, indexes, signal } = about;
    if (/^hf:/i.test(text)) return this.#repository(parseName(where, text), about);
    const url = parse(where, text, ["https:", "http:"]);
    url.hash = "";
    const repository = parsePage(where, url, this.#hub);
    if (repository) return this.#repository(repository, about);
    const named = indexes.find((index) => url.pathname.endsWith(`/${index}`));
    if (named) url.pathname = url.pathname.slice(0, -named.length);
    const isFolder = url.pathname.endsWith("/");
    if (isFolder && indexes.length === 0) throw invalid(`${where}: ${shown(text)}: expected the address of a file, found a folder's`);
    if (isFolder) return folderAddress(url);
    if (isSingle(url.pathname)) return singleAddress(url, fileName(url));
    const told = await this.#ask("tell", { url: url.href, indexes }, signal);
    if (told.folder) return folderAddress(url);
    const found = singleAddress(url, told.name ?? fileName(url));
    // Many files may have one address but for its query.
    const known = shownAddress(url);
    return { ...found, source: { ...found.source, place: known, label: known } };
  }

  /** A repository of the hub, or a folder or a file of one. */
  async #repository(name, { where, indexes, signal }) {
    const named = indexes.find((index) => `/${name.path}`.endsWith(`/${index}`));
    if (named) name = { ...name, path: name.path.slice(0, -named.length).replace(/\/$/, "") };
    const asked = nameOf(name);
    const at = (path) => nameOf({ ...name, path });
    const single = isSingle(name.path);
    const inside = single ? name.path.split("/").slice(0, -1).join("/") : name.path;
    const below = (path) => (inside ? `${inside}/${path}` : path);
    const { url, files, warnings } = await this.#ask("repository", { ...name, path: inside, asked }, signal);
    const paths = Object.keys(files);
    if (!single && indexes.some((index) => Object.hasOwn(files, index))) {
      const source = { kind: "url", url, files, place: `${at(inside)}/`, label: asked };
      return { source, hints: { name: (inside || name.repo).split("/").at(-1) }, warnings };
    }
    const here = paths.filter((path) => !path.includes("/"));
    let path = single ? name.path.split("/").at(-1) : null;
    if (single && !Object.hasOwn(files, path)) {
      const others = here.filter((path) => isSingle(path)).map((path) => at(below(path)));
      const there = others.length > 0 ? `; there are ${others.slice(0, 8).join(", ")}` : "";
      throw new TintypeError("not-found", `${where}: ${asked}: the repository has no such file${there}`);
    }
    if (!single) {
      const folders = indexes.flatMap((index) => paths.filter((path) => path.endsWith(`/${index}`)).map((path) => at(below(path.slice(0, -index.length - 1)))));
      path = onlyFile(here, { where, place: asked, indexes, folders, choose: (path) => at(below(path)) });
    }
    const known = plain(path, "x.safetensors");
    const only = { path: known, files: { [known]: files[path] } };
    const source = { kind: "url", url: url + encodeURIComponent(path), ...only, place: at(below(path)), label: asked };
    return { source, hints: { name: stem(path) }, warnings };
  }

  /** An entry of a `checkpoints.json`: what it says of its files counts. */
  async #entry(entry, about) {
    if (typeof entry.url !== "string") throw invalid(`${about.where}: url: expected a string, found ${shown(entry.url)}`);
    const { files, ...hints } = entryFields(entry);
    const url = URL.canParse(entry.url) ? entry.url : await findEntry(entry, about.signal);
    const found = await this.#address(url, about);
    if (files && Object.keys(files).length > 0) {
      const known = found.source.files ?? {};
      for (const [path, said] of Object.entries(files)) known[path] = { ...known[path], ...said };
      found.source.files = known;
    }
    return { ...found, hints: { ...found.hints, ...hints } };
  }
}

const folderAddress = (url) => ({ source: { kind: "url", url: folder(url) }, hints: {}, warnings: [] });

function singleAddress(url, name) {
  const path = plain(name, "x.safetensors");
  return { source: { kind: "url", url: url.href, path }, hints: { name: stem(name) || path }, warnings: [] };
}
