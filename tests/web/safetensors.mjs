// Safetensors files taken apart and put together again, to damage them on purpose.
import { readFileSync } from "node:fs";

/** { header, data }: the parsed JSON header and the bytes behind it. */
export function parse(file) {
  const length = Number(file.readBigUInt64LE(0));
  return { header: JSON.parse(file.toString("utf8", 8, 8 + length)), data: Buffer.from(file.subarray(8 + length)) };
}

/** The file with this header and data. */
export function join(header, data) {
  let json = JSON.stringify(header);
  json += " ".repeat((8 - (json.length % 8)) % 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, Buffer.from(json), data]);
}

/** The names of a file's tensors, in the order of their bytes. */
export function tensors(header) {
  return Object.keys(header)
    .filter((name) => name !== "__metadata__")
    .sort((a, b) => header[a].data_offsets[0] - header[b].data_offsets[0]);
}

/** The file with every value of the tensor `name` (f16) made NaN. */
export function withNaN(file, name) {
  const { header, data } = parse(file);
  const { dtype, data_offsets } = header[name];
  if (dtype !== "F16") throw new Error(`${name} is ${dtype}, expected F16`);
  for (let at = data_offsets[0]; at < data_offsets[1]; at += 2) data.writeUInt16LE(0x7e00, at);
  return join(header, data);
}

/** The file without the tensor `name`; its bytes are taken out too, so that nothing else is wrong. */
export function without(file, name) {
  const { header, data } = parse(file);
  const [from, to] = header[name].data_offsets;
  delete header[name];
  for (const other of tensors(header)) {
    const [start, end] = header[other].data_offsets;
    if (start >= to) header[other].data_offsets = [start - (to - from), end - (to - from)];
  }
  return join(header, Buffer.concat([data.subarray(0, from), data.subarray(to)]));
}

/** The file with the tensor `name` said to be of another dtype of the same width. */
export function retyped(file, name, dtype) {
  const { header, data } = parse(file);
  header[name].dtype = dtype;
  return join(header, data);
}

/** The file with two tensors of one size over the same bytes. */
export function overlapping(file) {
  const { header, data } = parse(file);
  const names = tensors(header);
  const size = (name) => header[name].data_offsets[1] - header[name].data_offsets[0];
  const first = names.find((name, i) => names.slice(i + 1).some((other) => size(other) === size(name)));
  const second = names.slice(names.indexOf(first) + 1).find((name) => size(name) === size(first));
  header[second].data_offsets = header[first].data_offsets;
  return join(header, data);
}

/** The file with a header that claims to be longer than any file. */
export function oversizedHeader(file) {
  const changed = Buffer.from(file);
  changed.writeBigUInt64LE(1n << 60n, 0);
  return changed;
}

const SINGLE = new URL("../golden/single-file.safetensors", import.meta.url);
const TOKENS = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight";

/** The golden of a single file with as many rows in its table of tokens as CLIP has tokens. */
export function wholeVocabulary() {
  const { header, data } = parse(readFileSync(SINGLE));
  const bytes = Object.fromEntries(tensors(header).map((name) => [name, data.subarray(...header[name].data_offsets)]));
  const [rows, columns] = header[TOKENS].shape;
  const row = bytes[TOKENS].length / rows;
  const table = Buffer.concat(Array.from({ length: Math.ceil(49408 / rows) }, () => bytes[TOKENS])).subarray(0, 49408 * row);
  bytes[TOKENS] = table;
  header[TOKENS].shape = [49408, columns];
  let end = 0;
  const parts = [];
  for (const name of Object.keys(bytes)) {
    header[name].data_offsets = [end, (end += bytes[name].length)];
    parts.push(bytes[name]);
  }
  return join(header, Buffer.concat(parts));
}
