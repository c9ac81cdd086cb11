// What the calls take: the name of each option and what its value must be. Ranges that depend on a checkpoint are the
// engine's to judge; here only what no checkpoint could accept is refused.

import { TintypeError } from "./error.js";

const MAX_SEED = (1n << 64n) - 1n;

/** `value` as a person would write it in a message, short. */
export function shown(value) {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === "bigint") return `${value}n`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) {
    const name = value.constructor?.name;
    return name === undefined || name === "Object" ? "an object" : `an object (${name})`;
  }
  return typeof value === "function" ? "a function" : String(value);
}

export function invalid(message) {
  return new TintypeError("invalid-argument", message);
}

const kind = (expected, accepts) => (value, where) => {
  if (!accepts(value)) throw invalid(`${where}: expected ${expected}, found ${shown(value)}`);
  return value;
};

const text = kind("a string", (value) => typeof value === "string");
// Far more than any text encoder takes; what is longer is a mistake, and would keep the worker busy.
const MAX_PROMPT = 100_000;
const prompt = kind(`a string of at most ${MAX_PROMPT} characters`, (value) => typeof value === "string" && value.length <= MAX_PROMPT);
const MAX_WHOLE = 2 ** 32 - 1;
const MOST_THREADS = 64;
const flag = kind("true or false", (value) => typeof value === "boolean");
const callback = kind("a function", (value) => typeof value === "function");
const number = kind("a finite number", (value) => Number.isFinite(value));
const whole = kind(`a whole number from 0 to ${MAX_WHOLE}`, (value) => Number.isInteger(value) && value >= 0 && value <= MAX_WHOLE);
const positive = kind("a whole number, 1 or more", (value) => Number.isSafeInteger(value) && value > 0);
const signal = kind("an AbortSignal", (value) => value instanceof AbortSignal);
const object = kind("an object", (value) => typeof value === "object" && value !== null);
const record = kind("an object", (value) => typeof value === "object" && value !== null && !Array.isArray(value));
const size = kind("a whole number of bytes", (value) => Number.isSafeInteger(value) && value >= 0);
const sha256 = kind("64 hexadecimal digits", (value) => typeof value === "string" && /^[0-9a-f]{64}$/i.test(value));

/** What the platform calls a value, whichever window it comes from: `ImageData`. */
export const platformName = (value) => Object.prototype.toString.call(value).slice(8, -1);

/** Pictures that can be drawn into a canvas at once. */
export const DRAWABLE = ["ImageBitmap", "HTMLCanvasElement", "OffscreenCanvas"];

const picture = kind(
  "an ImageData, an ImageBitmap, a Blob, a canvas or an address",
  (value) => typeof value === "string" || ["URL", "ImageData", "Blob", "File", ...DRAWABLE].includes(platformName(value)),
);

const oneOf = (...names) => kind(names.map((name) => `"${name}"`).join(", "), (value) => names.includes(value));

/** An option that is known and has no implementation: refused by name, so that it is never silently ignored. */
const notYet = (what) => (value, where) => {
  if (Array.isArray(value) && value.length === 0) return undefined;
  throw new TintypeError("unsupported", `${where}: ${what} is not implemented`);
};

/** A source as `load` takes it, which is judged where it is resolved. */
const elsewhere = kind("what load() takes as a source", (value) => typeof value === "string" || (typeof value === "object" && value !== null));

/** LoRAs: `[{ source, scale }]`; what a source may be is judged where it is resolved. */
export function loras(value, where) {
  if (!Array.isArray(value)) throw invalid(`${where}: expected an array of { source, scale }, found ${shown(value)}`);
  // A hole in the array is as wrong as any other.
  return Array.from(value, (lora, index) => {
    const place = `${where}[${index}]`;
    if (typeof lora !== "object" || lora === null) throw invalid(`${place}: expected { source, scale }, found ${shown(lora)}`);
    const { source, scale = 1, ...rest } = lora;
    const [unknown] = Object.keys(rest);
    if (unknown !== undefined) throw invalid(`${place}: unknown option "${unknown}"; the options are source, scale`);
    if (source === undefined || source === null) throw invalid(`${place}.source: expected a URL or a File, found ${shown(source)}`);
    // Finite as the engine keeps it, in 32 bits.
    const isFinite = scale === null || (typeof scale === "number" && Number.isFinite(Math.fround(scale)));
    if (!isFinite) throw invalid(`${place}.scale: expected a finite number, found ${shown(scale)}`);
    return { source, scale: scale ?? 1 };
  });
}

/** A seed as decimal digits: what a number, a BigInt and a string of digits have in common. */
function seed(value, where) {
  const whole =
    typeof value === "bigint" || Number.isSafeInteger(value) || (typeof value === "string" && /^\d{1,20}$/.test(value));
  const seed = whole ? BigInt(value) : -1n;
  if (seed < 0n || seed > MAX_SEED) {
    const range = `a whole number from 0 to ${MAX_SEED} (beyond 2^53 as a BigInt or a string of digits)`;
    throw invalid(`${where}: expected ${range}, found ${shown(value)}`);
  }
  return seed.toString();
}

/** A request's header by its name, and its value; neither may be shown, as they may be secret. */
const HEADER_NAME = /^[!#$%&'*+.^_`|~\w-]+$/;
const HEADER_VALUE = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;

/** Where the hub is, and what it is told with each request. */
function hub(value, where) {
  const { url, token, headers, ...rest } = record(value, where);
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw invalid(`${where}: unknown option "${unknown}"; the options are url, token, headers`);
  const checked = {};
  if (url !== undefined && url !== null) checked.url = hubAddress(url, `${where}.url`);
  if (token !== undefined && token !== null && token !== "") {
    if (typeof token !== "string" || !HEADER_VALUE.test(token)) {
      throw invalid(`${where}.token: expected a string of visible ASCII characters, found something else (it is not shown)`);
    }
    checked.token = token;
  }
  if (headers !== undefined && headers !== null) {
    const all = Object.entries(record(headers, `${where}.headers`));
    for (const [name, value] of all) {
      if (!HEADER_NAME.test(name)) throw invalid(`${where}.headers: expected names of headers, found ${shown(name)}`);
      if (typeof value !== "string" || !HEADER_VALUE.test(value)) {
        throw invalid(`${where}.headers[${shown(name)}]: expected visible ASCII characters, found something else (it is not shown)`);
      }
    }
    checked.headers = Object.fromEntries(all.map(([name, value]) => [name.toLowerCase(), value]));
  }
  return checked;
}

/** The hub's address without the slash at its end. */
function hubAddress(value, where) {
  if (typeof value !== "string" && !(value instanceof URL)) throw invalid(`${where}: expected a string or a URL, found ${shown(value)}`);
  const base = globalThis.document?.baseURI ?? globalThis.location.href;
  const url = URL.canParse(value, base) ? new URL(value, base) : null;
  const plain = url && ["https:", "http:"].includes(url.protocol) && !url.username && !url.password && !url.search && !url.hash;
  if (!plain) throw invalid(`${where}: expected an address (http or https) without a password, a query and a fragment, found ${shown(String(value).replace(/\/\/[^/]*@/, "//…@"))}`);
  return url.href.replace(/\/*$/, "");
}

/** What `tintype.tuning()` gave, or whether it is found out. */
export function tuning(value, where) {
  if (value === "auto" || value === "off") return value;
  const plain = (part) => typeof part === "object" && part !== null && Object.prototype.toString.call(part) === "[object Object]";
  const texts = (part) => plain(part) && Object.values(part).every((text) => typeof text === "string");
  const { choices, leftOut, lost, ...rest } = typeof value === "object" && value !== null ? value : {};
  const [unknown] = Object.keys(rest);
  if (!texts(choices) || !texts(leftOut ?? {}) || typeof (lost ?? "") !== "string" || unknown !== undefined) {
    throw invalid(`${where}: expected "auto", "off" or what tuning() gave, found ${shown(value)}`);
  }
  return { choices, leftOut: leftOut ?? {}, ...(lost && { lost }) };
}

export const CREATE = {
  backend: oneOf("auto", "webgpu", "cpu"),
  memoryBudget: positive,
  threads: kind(`a whole number from 1 to ${MOST_THREADS}`, (value) => Number.isInteger(value) && value >= 1 && value <= MOST_THREADS),
  store: oneOf("keep", "evict", "off"),
  stallTimeout: positive,
  hub,
  tuning,
  arithmetic: oneOf("f32", "f16"),
  debug: flag,
};

export const VERIFY = { signal, onProgress: callback };

/** When a test of recovery does its harm. */
export const MOMENTS = ["load", "text", "step", "decode", "idle"];

export const CATALOGUE = { signal };

export const LOAD = {
  signal,
  onProgress: callback,
  name: text,
  variant: text,
  predictionType: text,
  loras,
  vae: elsewhere,
  embeddings: notYet("textual inversion"),
};

export const INSPECT = { signal, variant: text, predictionType: text, vae: elsewhere };

export const SET_LORAS = { onProgress: callback };

export const GENERATE = {
  checkpoint: object,
  prompt,
  negativePrompt: prompt,
  width: whole,
  height: whole,
  steps: whole,
  guidanceScale: number,
  sampler: text,
  seed,
  count: whole,
  image: picture,
  mask: picture,
  strength: kind("a number from 0 to 1", (value) => typeof value === "number" && value >= 0 && value <= 1),
  signal,
  onProgress: callback,
  onStep: callback,
  preview: flag,
};

export const PROFILE = {
  checkpoint: object,
  prompt,
  width: whole,
  height: whole,
  guidanceScale: number,
  parts: kind('an array of "unet", "vae" and "text"', (value) => Array.isArray(value) && Array.from(value).every((part) => ["unet", "vae", "text"].includes(part))),
  nodes: flag,
  tensors: flag,
  readOutput: flag,
  runs: kind("a whole number from 1 to 1000", (value) => Number.isInteger(value) && value >= 1 && value <= 1000),
  signal,
  onProgress: callback,
};

/** The fields of `value` that `known` names and that are there, checked. */
function fields(value, known, prefix) {
  const checked = {};
  for (const [name, accepts] of Object.entries(known)) {
    const field = value[name];
    if (field !== undefined && field !== null) checked[name] = accepts(field, `${prefix}${name}`);
  }
  return checked;
}

const HINTS = { width: whole, height: whole, steps: whole, guidanceScale: number, sampler: text };
const FILE = { size, sha256 };
const ENTRY = {
  id: text,
  name: text,
  defaults: (value, where) => fields(record(value, where), HINTS, `${where}.`),
  loras,
  files(value, where) {
    const file = ([path, said]) => {
      const place = `${where}[${shown(path)}]`;
      return [path, fields(record(said, place), FILE, `${place}.`)];
    };
    return Object.fromEntries(Object.entries(record(value, where)).map(file));
  },
};

/** What the engine takes of a `checkpoints.json`'s entry, checked. It may have other fields: those are for people. */
export const entryFields = (entry, where) => fields(entry, ENTRY, `${where}: `);

/**
 * The options that were given, checked. `undefined` and `null` mean "left out"; a name that `known` lacks is an error,
 * because a misspelt option would otherwise change nothing and say nothing.
 */
export function check(call, known, options) {
  if (options === undefined || options === null) return {};
  if (typeof options !== "object" || Array.isArray(options)) throw invalid(`${call}: expected an object of options, found ${shown(options)}`);
  const checked = {};
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, name)) {
      throw invalid(`${call}: unknown option "${name}"; the options are ${Object.keys(known).join(", ")}`);
    }
    if (value === undefined || value === null) continue;
    const result = known[name](value, `${call}: ${name}`);
    if (result !== undefined) checked[name] = result;
  }
  return checked;
}

/** A callback of the page's must not end the work; what it throws is reported as any other error of the page's is. */
export const guarded = (callback) => (value) => {
  try {
    callback(value);
  } catch (error) {
    reportError(error);
  }
};
