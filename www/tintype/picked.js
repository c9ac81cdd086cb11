// What a person picked or dropped: its files with their paths, and what of them is a checkpoint. They are read in place.

import { isSafetensors } from "./address.js";
import { TintypeError } from "./error.js";
import { plain, stem } from "./file.js";
import { invalid, shown } from "./options.js";

/** Files deeper or more than this are no checkpoint's; a handle may even contain itself. */
const MAX_DEPTH = 8;
const MAX_FILES = 10_000;

const isFile = (value) => typeof Blob !== "undefined" && value instanceof Blob;
const isHandle = (value) => ["file", "directory"].includes(value?.kind) && typeof value.name === "string";
/** What a drop gives of each thing in browsers of all makers. */
const isEntry = (value) => typeof value?.fullPath === "string" && typeof value.isDirectory === "boolean";
const isDrop = (value) => typeof DataTransfer !== "undefined" && value instanceof DataTransfer;
const isList = (value) => Array.isArray(value) || (typeof FileList !== "undefined" && value instanceof FileList);

/** Whether these are files and folders, or lead to them. */
export const isPicked = (value) =>
  isFile(value) || isList(value) || isDrop(value) || isHandle(value) || isEntry(value) || isFile(value?.file);

/** Files of the system's own, which archives and disks carry along; the folder itself may have such a name. */
const isHidden = (path) =>
  path.split("/").some((part, at, all) => part === "__MACOSX" || (/^\.[^./]/.test(part) && (at > 0 || all.length === 1)));

/** What a handle or an entry gives; what it refuses, as an error of ours. */
async function opened({ name }, where, work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof TintypeError) throw error;
    const code = error?.name === "NotFoundError" ? "not-found" : "invalid-argument";
    throw new TintypeError(code, `${where}: "${name}" could not be read: ${error?.message ?? error}`, { cause: error });
  }
}

/** Gathers files. Folders of handles and of entries are the same but for how they are asked. */
class Walk {
  files = [];
  #where;
  #signal;

  constructor(where, signal) {
    this.#where = where;
    this.#signal = signal;
  }

  async add(item, path, depth = 0) {
    if (this.#signal?.aborted) throw new TintypeError("cancelled", "load was cancelled", { cause: this.#signal.reason });
    const isFolder = isHandle(item) ? item.kind === "directory" : item.isDirectory;
    const file = !isFolder && (await opened(item, this.#where, () => (isHandle(item) ? item.getFile() : promised(item, "file"))));
    if (file) this.files.push({ path, file });
    else if (depth <= MAX_DEPTH) await opened(item, this.#where, () => this.#enter(item, path, depth));
    if (this.files.length > MAX_FILES) throw invalid(`${this.#where}: the folder has more than ${MAX_FILES} files`);
  }

  async #enter(folder, path, depth) {
    for await (const item of isHandle(folder) ? folder.values() : children(folder)) {
      if (!isHidden(`./${item.name}`)) await this.add(item, `${path}/${item.name}`, depth + 1);
    }
  }
}

const promised = (entry, method) => new Promise((resolve, reject) => entry[method](resolve, reject));

/** A reader gives a folder's entries a few at a time. */
async function* children(folder) {
  const reader = folder.createReader();
  for (let some; (some = await promised(reader, "readEntries")).length > 0; ) yield* some;
}

/** What was dropped. Asked in the event itself: afterwards the browser has forgotten it. */
function dropped(transfer, where) {
  const items = [...transfer.items].filter(({ kind }) => kind === "file");
  const things = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile()).filter(Boolean);
  if (things.length === 0) throw invalid(`${where}: expected files or a folder, found a drop without any (it can be read in its event only)`);
  return things;
}

/** `[{ path, file }]` of what a person picked or dropped; before the first await all is asked of it that must be asked at once. */
export async function gather(source, where, signal) {
  const list = isDrop(source) ? dropped(source, where) : isList(source) ? Array.from(source) : [source];
  const place = (index) => (isList(source) ? `${where}[${index}]` : where);
  if (list.length === 0) throw invalid(`${where}: the ${Array.isArray(source) ? "array" : "list"} has no files`);
  const walk = new Walk(where, signal);
  for (const [index, item] of list.entries()) {
    const file = isFile(item) ? item : item?.file;
    const path = isFile(item) ? item.webkitRelativePath || item.name : item?.path;
    if (isFile(file) && typeof path === "string" && path !== "") walk.files.push({ path, file });
    else if (isHandle(item) || isEntry(item)) await walk.add(item, item.name);
    else throw invalid(`${place(index)}: expected a File or { path, file }, found ${shown(item)}`);
  }
  const seen = new Set();
  for (const { path } of walk.files) {
    if (seen.has(path)) throw invalid(`${where}: expected each path once, found ${shown(path)} twice: pick the folder, or give { path, file }`);
    seen.add(path);
  }
  return walk.files;
}

const shortened = (names) => [...names.slice(0, 8), ...(names.length > 8 ? [`and ${names.length - 8} more`] : [])].join(", ");
const fileName = (path) => path.slice(path.lastIndexOf("/") + 1);

/** What is never read, by names. */
const OTHERS = [
  [/\.(ckpt|pt|pth|bin)$/i, "pickles, which can run programs and are never opened"],
  [/\.gguf$/i, "GGUF"],
  [/\.zip$/i, "ZIP archives: unpack them"],
];

/**
 * The one safetensors file of these paths, for there is no folder of the `kind`. Where there are several, or none, the error tells;
 * `choose(path)` is how a person names one of them, and `folders` are names of what may be meant too.
 */
export function onlyFile(paths, { where, place, kind: { index }, choose = shown, folders = [] }) {
  const files = paths.filter(isSafetensors);
  if (files.length === 1) return files[0];
  const expected = `${where}: ${place}: expected ${index.length > 0 ? `a folder with ${index.join(" or ")}, or ` : ""}one .safetensors file`;
  const choices = [...folders, ...files.map(choose)];
  if (choices.length > 0) throw invalid(`${expected}, found several things: choose one: ${shortened(choices)}`);
  for (const [pattern, what] of OTHERS) {
    const others = paths.filter((path) => pattern.test(path));
    if (others.length > 0) throw new TintypeError("unsupported", `${expected}, found only ${what}: ${shortened(others)}`);
  }
  throw new TintypeError("not-found", `${expected}, found ${paths.length === 0 ? "no files" : shortened(paths)}`);
}

/** The name of the outermost folder of the `kind`, empty where there is none around it; undefined if there is no such folder. */
function outermost(paths, { index }) {
  const depth = (path) => path.split("/").length;
  for (const name of index) {
    const [found] = paths.filter((path) => `/${path}`.endsWith(`/${name}`)).sort((a, b) => depth(a) - depth(b) || (a < b ? -1 : 1));
    if (found !== undefined) return fileName(found.slice(0, -name.length).replace(/\/$/, "")) || found.split("/").at(-2) || "";
  }
  return undefined;
}

/** Picked files in the engine's words, with the name that a folder or a single one gives. */
export function pickedSource(picked, { where, kind }) {
  const files = picked.filter(({ path }) => !isHidden(path));
  const paths = files.map(({ path }) => path);
  const found = outermost(paths, kind);
  const count = paths.filter(isSafetensors).length;
  if (found !== undefined || (count > 1 && count <= kind.most)) {
    return { source: { kind: "files", files }, hints: found && found !== "." ? { name: found } : {} };
  }
  const lone = picked.length === 1 && !picked[0].path.includes("/");
  const only = lone ? picked[0].path : onlyFile(paths, { where, place: "picked files", kind });
  const path = plain(fileName(only), "x.safetensors");
  const { file } = picked.find((one) => one.path === only);
  return { source: { kind: "files", files: [{ path, file }], path }, hints: { name: stem(fileName(only)) } };
}
