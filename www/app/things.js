// What a person brings, before anyone has looked inside: files, folders and addresses as things, { name, from, source, variants }.
// A thing's `source` is what Tintype takes: a handle, a file, files with their paths, or an address.

import { decoded } from "../tintype/address.js";
import { nameOf, parseName, parsePage } from "../tintype/hub.js";

/** Whatever may hold weights; what it can't be read as, Tintype says. */
const WEIGHTS = /\.(safetensors|sft|ckpt|pt|pth|bin|gguf)$/i;
const VARIANT = /\/(?:model|diffusion_pytorch_model)(?:\.safetensors\.index)?\.([\w-]+)\.(?:safetensors|json)$/;
/** Files deeper or more than this are no checkpoint's. */
const MAX_DEPTH = 8;
const MAX_FILES = 10_000;

const HERE = "From this device";

const base = (path) => path.slice(path.lastIndexOf("/") + 1);
const folderOf = (path) => path.slice(0, path.length - base(path).length);
/** A file's name without what tells its format; another name as it is. */
const called = (name) => (WEIGHTS.test(name) ? name.replace(/\.[^.]*$/, "") || name : name);

/**
 * Which of `paths` belong together: [{ folder, paths }]. A folder is whole where `model_index.json` is in it, or where weights lie
 * beside their `config.json`; any other file of weights is alone, and its `folder` is null.
 */
export function sortOut(paths) {
  const weights = paths.filter((path) => WEIGHTS.test(path));
  const holding = (name) => paths.filter((path) => base(path) === name).map(folderOf);
  const wholes = holding("model_index.json").filter((folder, _, all) => !all.some((other) => other !== folder && folder.startsWith(other)));
  const isIn = (folders) => (path) => folders.some((folder) => path.startsWith(folder));
  const inWhole = isIn(wholes);
  const lone = weights.filter((path) => !inWhole(path));
  const parts = holding("config.json").filter((folder) => !inWhole(folder) && lone.some((path) => folderOf(path) === folder));
  return [
    ...wholes.map((folder) => ({ folder, paths: paths.filter((path) => path.startsWith(folder)) })),
    ...parts.map((folder) => ({ folder, paths: paths.filter((path) => folderOf(path) === folder) })),
    ...lone.filter((path) => !parts.includes(folderOf(path))).map((path) => ({ folder: null, paths: [path] })),
  ];
}

/** Which variants of the weights there are, such as `fp16`. */
const variantsIn = (paths) => [...new Set(paths.map((path) => VARIANT.exec(path)?.[1]).filter(Boolean))];

/** Found files, [{ path, file or handle }], as things; `folders` has the handles of folders by their paths. */
async function thingsOf(found, folders = new Map()) {
  const byPath = new Map(found.map((file) => [file.path, file]));
  const groups = sortOut([...byPath.keys()]);
  return Promise.all(
    groups.map(async ({ folder, paths }) => {
      const files = paths.map((path) => byPath.get(path));
      if (folder === null) return { name: called(base(paths[0])), from: HERE, source: files[0].handle ?? files[0].file };
      const inside = async ({ path, file, handle }) => ({ path: path.slice(folder.length), file: file ?? (await handle.getFile()) });
      return {
        name: base(folder.replace(/\/$/, "")) || "Folder",
        from: HERE,
        source: folders.get(folder) ?? (await Promise.all(files.map(inside))),
        variants: variantsIn(paths),
      };
    }),
  );
}

const isHidden = (name) => name.startsWith(".");

/** What is in handles: { found, folders }. */
async function walkHandles(handles, into = { found: [], folders: new Map() }, prefix = "", depth = 0) {
  for await (const handle of handles) {
    if (isHidden(handle.name) || into.found.length > MAX_FILES) continue;
    const path = prefix + handle.name;
    if (handle.kind === "file") into.found.push({ path, handle });
    else if (depth < MAX_DEPTH) {
      into.folders.set(`${path}/`, handle);
      await walkHandles(handle.values(), into, `${path}/`, depth + 1);
    }
  }
  return into;
}

const settled = (work) => new Promise((resolve, reject) => work(resolve, reject));

/** What is in entries, the older way to a dropped folder. */
async function walkEntry(entry, found, prefix = "", depth = 0) {
  if (isHidden(entry.name) || found.length > MAX_FILES) return;
  const path = prefix + entry.name;
  if (entry.isFile) found.push({ path, file: await settled((resolve, reject) => entry.file(resolve, reject)) });
  else if (depth < MAX_DEPTH) {
    const reader = entry.createReader();
    // It gives some at a time.
    for (;;) {
      const some = await settled((resolve, reject) => reader.readEntries(resolve, reject));
      if (some.length === 0) break;
      for (const child of some) await walkEntry(child, found, `${path}/`, depth + 1);
    }
  }
}

/** Picked by a handle each. */
export async function fromHandles(handles) {
  const { found, folders } = await walkHandles(handles);
  return thingsOf(found, folders);
}

/** Picked as files; those of a folder know their paths. */
export const fromFiles = (files) => thingsOf([...files].map((file) => ({ path: file.webkitRelativePath || file.name, file })));

/** What was dropped or pasted. Everything is asked of the transfer at once: later it is empty. */
export async function fromTransfer(transfer) {
  const items = [...transfer.items].filter(({ kind }) => kind === "file");
  const asked = items.map((item) => ({
    // Not every page may have handles; entries there are everywhere.
    handle: Promise.resolve(item.getAsFileSystemHandle?.()).catch(() => null),
    entry: item.webkitGetAsEntry?.(),
    file: item.getAsFile(),
  }));
  const handles = [];
  const found = [];
  for (const { handle, entry, file } of asked) {
    const held = await handle;
    if (held) handles.push(held);
    else if (entry) await walkEntry(entry, found);
    else if (file) found.push({ path: file.name, file });
  }
  const walked = await walkHandles(handles);
  return thingsOf([...walked.found, ...found], walked.folders);
}

/** `org/name` is a repository, `host.name/…` an address; a path of the page's own begins with "." or "/", or ends with "/". */
const REPOSITORY = /^[\w-]+\/[\w.-]+(?:@[^\s/]+)?$/;
const HOST = /^[\w-]+(?:\.[\w-]+)+(?::\d+)?\/./;

/** The one name of a repository of the hub, of a folder or of a file of it; nothing for other addresses. */
function repository(address, url) {
  const named = url.protocol === "hf:" ? parseName("address", address) : parsePage("address", url);
  return named && nameOf(named);
}

/** A text that may be an address or a repository; nothing, if it can't be. */
export function fromAddress(text) {
  const said = text.trim();
  const scheme = REPOSITORY.test(said) ? "hf:" : HOST.test(said) ? "https://" : "";
  const address = scheme + said;
  if (!URL.canParse(address, document.baseURI)) return undefined;
  const url = new URL(address, document.baseURI);
  let named;
  try {
    named = repository(address, url);
  } catch {
    // What is wrong with it Tintype says when it looks there.
    return { name: called(base(said)) || said, from: `From ${said}`, source: address };
  }
  if (named) return { name: called(base(named.replace(/@[^/]*/, ""))), from: `From ${named.slice(3)}`, source: named };
  const last = url.pathname.replace(/\/model_index\.json$/, "").split("/").filter(Boolean).at(-1) ?? url.host;
  return { name: called(decoded(last)), from: `From ${url.host}`, source: url.href };
}

/** The address of a thing or of a card; nothing for what is on this device. */
export function addressOf({ source }) {
  return typeof source === "string" ? source : source?.url;
}

/** Whether it can be opened again after this page was closed. */
export const isLasting = ({ source }) => typeof source === "string" || typeof source?.queryPermission === "function";
