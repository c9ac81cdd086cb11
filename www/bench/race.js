// The other engine: onnxruntime-web with the same UNet, on the same adapter. Fetched when a race is asked for, and never else.

import { encodeOnnx } from "./onnx.js";

const FOLDER = new URL("./ort/", import.meta.url).href;

/** Counts what this thread asks of WebGPU (Tintype's worker is another one); `stop` ends it. */
function watch() {
  const counts = { dispatches: 0, submits: 0, pipelines: 0, buffers: 0, peakBuffers: 0 };
  const undo = [];
  const sizes = new WeakMap();
  const wrap = (type, name, before) => {
    const prototype = globalThis[type]?.prototype;
    const original = prototype?.[name];
    if (!original) return;
    prototype[name] = function (...args) {
      const result = original.apply(this, args);
      before(this, args, result);
      return result;
    };
    undo.push(() => (prototype[name] = original));
  };
  wrap("GPUComputePassEncoder", "dispatchWorkgroups", () => counts.dispatches++);
  wrap("GPUQueue", "submit", () => counts.submits++);
  for (const name of ["createComputePipeline", "createComputePipelineAsync"]) wrap("GPUDevice", name, () => counts.pipelines++);
  wrap("GPUDevice", "createBuffer", (_, [{ size }], buffer) => {
    sizes.set(buffer, size);
    counts.buffers += size;
    counts.peakBuffers = Math.max(counts.peakBuffers, counts.buffers);
  });
  wrap("GPUBuffer", "destroy", (buffer) => {
    counts.buffers -= sizes.get(buffer) ?? 0;
    sizes.delete(buffer);
  });
  return { counts, stop: () => undo.forEach((each) => each()) };
}

/** Its builds: the one that can wait for a GPU is slower at everything else. */
const BUILDS = {
  webgpu: { fetch: () => import("./ort/ort.webgpu.bundle.min.mjs"), wasm: "ort-wasm-simd-threaded.asyncify.wasm" },
  wasm: { fetch: () => import("./ort/ort.wasm.bundle.min.mjs"), wasm: "ort-wasm-simd-threaded.wasm" },
};

async function fetchOrt(build) {
  try {
    const ort = await build.fetch();
    if (!ort?.env?.wasm) throw new Error("what is there is no onnxruntime-web");
    const { version } = await (await fetch(`${FOLDER}package.json`)).json();
    return { ort, version };
  } catch (error) {
    throw new Error(`onnxruntime-web could not be fetched from ${FOLDER}: ${error.message}`, { cause: error });
  }
}

/** onnxruntime-web with the model of `graph`, on `kind` with so many `threads`: `{ version, run(tensors), counts, release() }`. */
export async function openRival({ graph, weights }, { kind, threads }) {
  const provider = kind === "webgpu" ? "webgpu" : "wasm";
  const build = BUILDS[provider];
  const { ort, version } = await fetchOrt(build);
  ort.env.wasm.wasmPaths = { wasm: `${FOLDER}${build.wasm}` };
  // As many as Tintype has.
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  if (ort.env.webgpu) ort.env.webgpu.powerPreference = "high-performance";
  const watched = watch();
  try {
    const { model, external } = encodeOnnx(graph, weights.floats);
    const session = await ort.InferenceSession.create(model, { executionProviders: [provider], externalData: external });
    // What Tintype calls `inputIds` is `input_ids` there.
    const ours = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
    const types = { f32: (values) => ["float32", Float32Array.from(values)], i64: (values) => ["int64", BigInt64Array.from(values, BigInt)] };
    const feeds = (tensors) => {
      const values = (name) => (ArrayBuffer.isView(tensors[ours(name)]) ? tensors[ours(name)] : [tensors[ours(name)]]);
      return Object.fromEntries(graph.inputs.map(({ name, shape, type }) => [name, new ort.Tensor(...types[type](values(name)), shape)]));
    };
    let counts = null;
    return {
      version,
      /** Runs it; gives milliseconds until the output can be read, as those of Tintype's steps in a race are, and the output. */
      async run(tensors) {
        const given = feeds(tensors);
        const before = { ...watched.counts };
        const started = performance.now();
        // The first run is for counting, those that follow are for timing.
        const { [graph.outputs[0].name]: out } = await session.run(given).finally(watched.stop);
        const ms = performance.now() - started;
        const { dispatches, submits, pipelines, peakBuffers } = watched.counts;
        counts ??= { dispatches: dispatches - before.dispatches, submits: submits - before.submits, pipelines, peakBuffers };
        return { ms, output: out.data };
      },
      get counts() {
        return counts;
      },
      release() {
        watched.stop();
        return session.release();
      },
    };
  } catch (error) {
    watched.stop();
    throw error;
  }
}

export const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** How far `found` is from `expected`: the largest difference, over the largest value. */
export function apart(expected, found) {
  if (expected.length !== found.length) return Infinity;
  let [most, largest] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    // What is no number is as far as can be.
    most = Math.max(most, Number.isFinite(found[i]) ? Math.abs(found[i] - expected[i]) : Infinity);
    largest = Math.max(largest, Math.abs(expected[i]));
  }
  return most / largest;
}

/** What `work` gives, unless the signal is aborted first. */
function unless(signal, work) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal?.aborted) return stop();
    signal?.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal?.removeEventListener("abort", stop));
  });
}

/** Steps below this depend on what ran before them. */
const SHORT_MS = 1000;

/**
 * Runs both in turns, `rounds` times each, on what `backend` says. `step()` runs Tintype's and gives its milliseconds; `tensors` are
 * what a step read and wrote, `near` how far apart outputs of one model may be. `onRound` hears how far it is.
 */
export async function race(made, backend, tensors, step, rounds, { near, signal, onRound = () => {} }) {
  onRound(0, rounds);
  const opening = openRival(made, backend);
  // One that comes late is let go of.
  const rival = await unless(signal, opening).catch((error) => {
    opening.then((late) => late.release()).catch(() => {});
    throw error;
  });
  const run = () => unless(signal, rival.run(tensors));
  try {
    const { output } = await run();
    const difference = apart(tensors.output, output);
    const times = { tintype: [], ort: [] };
    const turns = {
      tintype: async () => times.tintype.push(await step()),
      // Tintype plays a step before the one that is timed: a short one is as warm here.
      async ort() {
        const { ms } = await run();
        times.ort.push(ms < SHORT_MS ? Math.min(ms, (await run()).ms) : ms);
      },
    };
    await step();
    for (let round = 0; round < rounds; round++) {
      onRound(round, rounds);
      // Who goes first changes too.
      for (const name of round % 2 === 0 ? ["tintype", "ort"] : ["ort", "tintype"]) {
        signal?.throwIfAborted();
        await turns[name]();
      }
    }
    const [ours, theirs] = [median(times.tintype), median(times.ort)];
    return {
      ort: { version: rival.version, ms: theirs, runs: times.ort, ...rival.counts },
      tintype: { ms: ours, runs: times.tintype },
      ratio: theirs / ours,
      difference,
      agrees: difference <= near,
    };
  } finally {
    const released = rival.release();
    // A run that goes on, though nobody wants it, may keep it busy.
    if (!signal?.aborted) await released;
    else released.catch(() => {});
  }
}
