// The worker: owns the wasm engine and does all its work, so that the page's thread only ever sees results.

import { BUILDS, choose } from "./build.js";
import { Files } from "./files.js";
import { startThreads } from "./threads.js";
import { keepTuning, keyOf, readTuning } from "./tuning.js";

let engine;
let Sha256;
/** What fetches and keeps files; another one, if the first one died. */
let files;
/** How each checkpoint is loaded again, by its id. */
const recipes = new Map();
/** Milliseconds that the browser is waited for to give what was found out, and to keep it: who is told of a lost GPU ends this worker. */
const [READING_MS, KEEPING_MS] = [5000, 1000];

/** Where what is found out about the adapter is kept; null, if it is not. */
let tuningKey = null;
/** What a test of recovery asked for: `{ action, moment }`. */
let harm = null;

const after = (ms, value) => new Promise((resolve) => setTimeout(resolve, ms, value));

/** Milliseconds that an adapter is waited for. */
const ADAPTER_MS = 30_000;

/** What the platform says of its GPU. Wasm sees less of it than JavaScript does: this asks, the engine decides. */
async function adapterInfo() {
  if (!navigator.gpu) {
    return {
      available: false,
      reason: isSecureContext ? "no WebGPU in this browser" : "WebGPU needs https or localhost",
    };
  }
  try {
    const asking = navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
    const adapter = await Promise.race([asking, after(ADAPTER_MS, undefined)]);
    if (adapter === undefined) return { available: false, reason: `WebGPU gave no adapter in ${ADAPTER_MS / 1000} s` };
    if (!adapter) return { available: false, reason: "WebGPU has no adapter here" };
    if (!adapter.info) return { available: false, reason: "this browser's WebGPU is of before adapters said what they are" };
    const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
    return {
      available: true,
      vendor,
      architecture,
      device,
      description,
      software: Boolean(isFallbackAdapter ?? adapter.isFallbackAdapter),
      features: [...adapter.features],
      limits: limitsOf(adapter),
    };
  } catch (error) {
    return { available: false, reason: `WebGPU failed: ${error?.message ?? error}` };
  }
}

/** Those that say what may run; the prototype has them, not the object. */
function limitsOf({ limits }) {
  const all = {};
  for (const name in limits) if (typeof limits[name] === "number") all[name] = limits[name];
  return all;
}

function failure(code, message, cause) {
  return Object.assign(new Error(message, { cause }), { code });
}

/** Milliseconds that the module may take: until its host answers, and to arrive. */
const [ANSWER_MS, ARRIVAL_MS] = [30_000, 300_000];

/** Fetched here and not by the glue, to tell apart a missing file, a page of HTML and a policy that forbids wasm. */
async function fetchWasm(url, ending) {
  let response;
  const late = setTimeout(() => ending.abort(), ANSWER_MS);
  try {
    response = await fetch(url, { signal: ending.signal });
  } catch (error) {
    throw failure("network", ending.signal.aborted ? `${url}: the host did not answer in ${ANSWER_MS / 1000} s` : `${url}: ${error.message}`, error);
  } finally {
    clearTimeout(late);
  }
  if (!response.ok)
    throw failure(response.status === 404 ? "not-found" : "network", `${url}: the host answered ${response.status}`);
  const type = response.headers.get("content-type") ?? "";
  if (type.startsWith("text/html")) throw failure("corrupt", `${url}: expected WebAssembly, found HTML`);
  return response;
}

/** The compiled module of a build: `given` by the page where a worker before this one compiled it. */
async function compile(build, given) {
  if (given?.build === build) return given.module;
  const { wasmUrl } = BUILDS[build];
  const ending = new AbortController();
  const late = setTimeout(() => ending.abort(), ARRIVAL_MS);
  try {
    const response = await fetchWasm(wasmUrl, ending);
    // A host that does not know the type would make the glue compile twice.
    const isKnown = (response.headers.get("content-type") ?? "").startsWith("application/wasm");
    return isKnown ? await WebAssembly.compileStreaming(response) : await WebAssembly.compile(await response.arrayBuffer());
  } catch (error) {
    if (typeof error?.code === "string") throw error;
    if (ending.signal.aborted) throw failure("network", `${wasmUrl}: it did not arrive in ${ARRIVAL_MS / 1000} s`, error);
    throw failure("unsupported", `${wasmUrl}: this browser or the page's policy refuses it (${error.message})`, error);
  } finally {
    clearTimeout(late);
  }
}

/** Starts the engine; gives the compiled module and which build it is of. */
async function start(options, given) {
  const info = options.backend === "cpu" ? undefined : await adapterInfo();
  // The engine decides, and may have another reason against the GPU.
  const isLikely = options.backend === "cpu" || (options.backend !== "webgpu" && (!info.available || info.software));
  const started = await startBuild(choose(isLikely, options.threads), info, options, given);
  const { kind, reason } = engine.backend();
  if (kind !== "cpu" || isLikely || choose(true, options.threads).threads === 1) return started;
  engine.free();
  engine = undefined;
  return start({ ...options, backend: "cpu", reason }, given);
}

/** An instance of a build. What several threads need may be missing where one can do: then it is for one, and said why. */
async function instantiate({ build, threads }, given) {
  try {
    const [bindings, module] = await Promise.all([
      BUILDS[build].glue().catch((error) => {
        throw failure("not-found", `the glue of the build "${build}": ${error.message}`, error);
      }),
      compile(build, given),
    ]);
    return { build, threads, bindings, module, exports: await bindings.default({ module_or_path: module }) };
  } catch (error) {
    if (threads === 1) throw error;
    const one = await instantiate(choose(false), given);
    computesAlone(error);
    return one;
  }
}

/** Why it computes on one thread, where there should be more. */
let alone = null;
function computesAlone(error) {
  alone = error?.message ?? String(error);
  console.warn(`Tintype computes on one thread: ${alone}`);
}

async function startBuild(chosen, info, options, given) {
  const { build, bindings, module, exports, ...most } = await instantiate(chosen, given);
  let { threads } = most;
  if (threads > 1) {
    await startThreads(module, exports, threads).catch((error) => {
      threads = 1;
      computesAlone(error);
    });
  }
  ({ Sha256 } = bindings);
  const { deviceMemory } = navigator;
  // After a lost device nothing more is found out.
  const { tuning = "auto", settled = false, ...others } = options;
  if (tuning === "auto" && info?.available) tuningKey = keyOf(info, bindings.Engine.version(), bindings.Engine.kernels(), options.arithmetic);
  const known = tuningKey === null ? tuning : await Promise.race([readTuning(tuningKey), after(READING_MS, null)]);
  told.tuning = JSON.stringify(known);
  told.lost = known?.lost;
  Object.keys(known?.leftOut ?? {}).forEach((what) => told.leftOut.add(what));
  engine = await bindings.Engine.create({
    backend: "auto",
    ...others,
    threads,
    deviceMemory,
    adapterInfo: info,
    tuning: typeof known === "object" ? known : null,
    tuned: tuning === "off" || settled,
  });
  return { build, module };
}

/** Held until this worker ends, however it ends. */
function holdLock(name) {
  return new Promise((held) => {
    if (!navigator.locks) return held();
    navigator.locks.request(name, () => (held(), new Promise(() => {}))).catch(held);
  });
}

const clamped = (bytes) => new Uint8ClampedArray(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const report = (job) => (value) => {
  const transfer = [];
  if (value.preview) {
    const { width, height, rgba } = value.preview;
    value = { ...value, preview: { width, height, rgba: clamped(rgba) } };
    transfer.push(rgba.buffer);
  }
  postMessage({ type: "event", job, value }, transfer);
  if (value.phase === "weights") doHarm("load");
  else if (value.step === value.steps) doHarm("decode");
  else if (value.step) doHarm("step");
};

/** Does what a test asked for, if this is the moment. */
function doHarm(moment) {
  if (harm?.moment !== moment) return;
  const { action } = harm;
  harm = null;
  if (action === "kill") close();
  else engine.loseDevice();
}

/** CLIP's standard vocabulary, which single files leave out: its merges, a pair a line. Read once, where it is needed. */
const MERGES_SHA256 = "d308b7377a8ceaa9707a21614fe8c831b9196e197b7aeb69833359362907af02";
let merges = null;
function vocabulary() {
  merges ??= fetchMerges(new URL("./assets/clip-merges.txt.gz", import.meta.url).href).catch((error) => {
    merges = null;
    throw error;
  });
  return merges;
}

/** From the store, or else from its host. It is no checkpoint's: in the store it is a file by itself. */
async function fetchMerges(url) {
  const session = files.begin("CLIP's vocabulary");
  try {
    const stream = await session.open(url, url);
    const pieces = [];
    for (let piece; (piece = await stream.read()); ) pieces.push(piece);
    const bytes = await unpacked(new Blob(pieces), url);
    const hash = new Sha256();
    hash.update(bytes);
    const found = hash.finish();
    if (found !== MERGES_SHA256) throw failure("corrupt", `${url}: expected sha256 ${MERGES_SHA256} when unpacked, found ${found}`);
    session.abort("cancelled").catch(() => {});
    return bytes;
  } catch (error) {
    const known = error.code ? error : failure("internal", `${url}: ${error.message}`, error);
    await session.abort(known.code).catch(() => {});
    throw known;
  }
}

/** Some hosts unpack it on the way. */
async function unpacked(blob, url) {
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return new Uint8Array(await blob.arrayBuffer());
  try {
    return new Uint8Array(await new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  } catch (error) {
    throw failure("corrupt", `${url}: it can't be unpacked: ${error.message}`, error);
  }
}

/** The recipe with who reads its files, and what single files leave out. */
function readable({ source, options, loras = [], vae }) {
  const read = (source) => ({ ...source, keeper: files, vocabulary });
  const within = (part) => ({ ...part, source: read(part.source) });
  return { source: read(source), options, loras: loras.map(within), vae: vae && within(vae) };
}

/** How the checkpoint of a request is read. Asked when it is needed: LoRAs that fail meanwhile were never in it. */
const known = (request) => () => {
  const recipe = recipes.get(request.checkpoint);
  return recipe && readable(recipe);
};

/** Tells the page what is in memory now, where that has changed. */
const told = { state: "", tuning: "", leftOut: new Set() };
function tell() {
  const residents = engine.residents();
  const memory = engine.memory();
  const state = JSON.stringify([residents, memory]);
  if (state === told.state) return;
  told.state = state;
  postMessage({ type: "state", residents, memory });
}

/** Keeps what was found out about the adapter, where that has changed, and says once what was left out. Resolves when it is kept. */
function tellTuning() {
  const [first, ...rest] = engine.takeBrokenOff();
  if (first) sayTuning(`ways to compute were not compared, and the usual one stays: ${first}${rest.length > 0 ? `, and ${rest.length} others` : ""}`);
  const tuning = engine.tuning();
  const text = JSON.stringify(tuning);
  if (tuning === null || text === told.tuning) return;
  told.tuning = text;
  const keeping = tuningKey !== null && keepTuning(tuningKey, tuning);
  const news = Object.entries(tuning.leftOut).filter(([what]) => !told.leftOut.has(what));
  news.forEach(([what]) => told.leftOut.add(what));
  const more = news.length > 1 ? `, and ${news.length - 1} others` : "";
  for (const [what, why] of news.slice(0, 1)) sayTuning(`this adapter does without a way to compute: ${what}: ${why}${more}`);
  if (tuning.lost && told.lost !== tuning.lost) sayTuning(`the GPU was lost while ways to compute were tried: ${tuning.lost}; no more are tried`);
  told.lost = tuning.lost;
  return keeping;
}

function sayTuning(message) {
  console.warn(`Tintype: ${message}`);
  postMessage({ type: "notice", kind: "tuning", message });
}

const commands = {
  async create({ lock, options, module }) {
    await holdLock(lock);
    postMessage({ type: "ready" });
    const compiled = await start(options, module);
    const { reason, ...backend } = engine.backend();
    const why = alone === null ? reason : `${reason}; on one thread, because others can't compute: ${alone}`;
    return { backend: { ...backend, reason: why }, samplers: engine.samplers(), module: compiled };
  },
  async load({ job, recipe }) {
    const checkpoint = await engine.load(job, readable(recipe), report(job));
    recipes.set(checkpoint.id, recipe);
    return checkpoint;
  },
  async generate({ job, request, recipe }) {
    if (recipe) recipes.set(request.checkpoint, recipe);
    const drawing = engine.generate(job, request, known(request), report(job));
    doHarm("text");
    const { images, ...rest } = await drawing;
    return {
      ...rest,
      images: images.map(({ width, height, rgba, parameters, text }) => {
        const png = new Blob([engine.png(width, height, rgba, text)], { type: "image/png" });
        return { width, height, rgba: clamped(rgba), parameters, png };
      }),
    };
  },
  profile({ job, request, recipe }) {
    if (recipe) recipes.set(request.checkpoint, recipe);
    return engine.profile(job, request, known(request), report(job));
  },
  async "set-loras"({ job, id, loras, recipe }) {
    if (recipe) recipes.set(id, recipe);
    const changed = { ...recipes.get(id), loras };
    const set = await engine.setLoras(job, id, readable(changed), report(job));
    recipes.set(id, changed);
    return set;
  },
  inspect: ({ job, recipe }) => engine.inspect(job, readable(recipe)),
  unload: ({ id }) => engine.unload(id),
  counts: () => engine.counts(),
  tuning: () => engine.tuning(),
  sweep: ({ job, request }) => engine.sweep(job, request),
  debug({ action, moment }) {
    harm = { action, moment };
    doHarm("idle");
  },
};

onmessage = async ({ data }) => {
  if (data.type === "cancel") return engine?.cancel(data.job);
  if (data.type === "files") {
    files?.close(failure("network", "the worker that fetches files was replaced"));
    files = new Files(data.port);
    return;
  }
  if (data.type === "no files") return files?.close(failure("network", data.message));
  const { job } = data;
  try {
    const value = await commands[data.type](data);
    tell();
    tellTuning();
    postMessage(
      { type: "answer", job, value },
      (value?.images ?? []).map(({ rgba }) => rgba.buffer),
    );
  } catch (error) {
    // After a trap nothing in the module's memory can be trusted.
    if (error instanceof WebAssembly.RuntimeError)
      return postMessage({ type: "fatal", message: `the engine failed: ${error.message}` });
    if (engine) {
      tell();
      const kept = tellTuning();
      if (error?.code === "device-lost") await Promise.race([kept, after(KEEPING_MS)]);
    }
    postMessage({
      type: "failure",
      job,
      error: { code: error?.code ?? "internal", message: error?.message ?? String(error) },
    });
  }
};

// A trap inside a task of wasm's own rejects a promise that nobody holds.
addEventListener("unhandledrejection", ({ reason }) => {
  postMessage({ type: "fatal", message: `the engine failed: ${reason?.message ?? reason}` });
});
