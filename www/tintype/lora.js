// What a LoRA's `source` may be → what the engine reads: { source, path, scale }, where `path` is the file in the source.

import { TintypeError } from "./error.js";
import { plain, splitAddress } from "./file.js";
import { invalid, shown } from "./options.js";
import { opened, parse } from "./source.js";

function byFile(file, name) {
  const path = plain(name, "lora.safetensors");
  return { source: { kind: "files", files: [{ path, file }] }, path };
}

/** The file at an address; relative ones are the page's. */
function byAddress(text, where) {
  if (/^hf:/i.test(text)) {
    throw new TintypeError("unsupported", `${where}: ${shown(text)}: reading from the Hugging Face hub is not implemented`);
  }
  const url = parse(where, text, ["https:", "http:"]);
  const { url: folder, path } = splitAddress(url);
  if (path === "") throw invalid(`${where}: ${shown(text)}: expected the address of a file, found a folder's`);
  return { source: { kind: "url", url: folder }, path };
}

async function resolve(source, where) {
  if (typeof source === "string" || source instanceof URL) return byAddress(String(source), where);
  if (source instanceof Blob) return byFile(source, source.name ?? "");
  if (typeof source.path === "string" && source.file instanceof Blob) return byFile(source.file, source.path.split("/").pop());
  if (source.kind === "file" && typeof source.getFile === "function") {
    return byFile(await opened(source, () => source.getFile(), where), source.name);
  }
  throw invalid(`${where}: expected a URL, a File or a file's handle, found ${shown(source)}`);
}

/** LoRAs in the engine's words. `call` names who asked for them. */
export const resolveLoras = (loras, call) =>
  Promise.all(
    loras.map(async ({ source, scale }, index) => ({ ...(await resolve(source, `${call}: loras[${index}].source`)), scale })),
  );
