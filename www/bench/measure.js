// All that is measured, in one run: the adapter, what it can do at most, a step, a decoding, a picture, and a race if it is asked for.

import { Tintype, TintypeError } from "../tintype/tintype.js";
import { makeCheckpoint } from "./made.js";
import { MADE } from "./models.js";
import { readCheckpoint } from "./read.js";
import { median, race } from "./race.js";

const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxStorageBuffersPerShaderStage",
];

/** What the browser says of the adapter; null, if there is none. */
async function adapterFacts() {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
  if (!adapter) return null;
  const { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize } = adapter.info ?? {};
  const limits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
  return { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize, features: [...adapter.features].sort(), limits };
}

/** The page's own checkpoints, as `{ id, name, about, source, others }`. */
export async function shipped() {
  const entries = await Tintype.catalogue(new URL("../checkpoints/checkpoints.json", import.meta.url)).catch(() => []);
  const about = "one of this page's own checkpoints";
  return entries.map((entry) => ({ id: entry.id, name: entry.name ?? entry.id, about, source: entry, others: ["vae", "text"] }));
}

/** Whether another engine can be given `model`: not where LoRAs are added to what its files say. */
export const canRace = (model) => !model.source?.loras?.length;

/** Pictures that are drawn at most until the fastest ways are found: each goes on for some seconds. */
const MOST_DRAWS = 40;

/** Both outputs of a race are of one model only if they are this near: the other engine multiplies in f32. */
const NEAR = { f32: 1e-4, f16: 3e-2 };

/** Everything that can be measured. */
export const models = async () => [...MADE, ...(await shipped())];

/**
 * Measures `model`, one of `models()`. `onPhase` hears what is being done. `rounds`: of the race; as many as seem right, if nothing
 * is said. `threads`: at most so many on the CPU. Rejects with a TintypeError; what a race failed over is in `race.error`, for the rest stands.
 */
export async function measure(model, { backend = "auto", arithmetic = "f32", threads, raced = false, rounds, signal, onPhase = () => {} } = {}) {
  const notices = [];
  onPhase("Starting");
  const adapter = await adapterFacts();
  const tintype = await Tintype.create({ backend, arithmetic, threads, store: "off", debug: true });
  try {
    tintype.addEventListener("notice", ({ detail }) => detail.kind !== "store" && notices.push(detail));
    onPhase(model.unet ? "Making the model" : "Loading the checkpoint");
    // A moment for the page to say so: what follows keeps it busy.
    await new Promise((resolve) => setTimeout(resolve, 30));
    const made = model.unet ? makeCheckpoint(model) : null;
    const loading = performance.now();
    const checkpoint = await tintype.load(made ? made.source : model.source, { signal, name: model.name });
    const load = performance.now() - loading;
    const { width, height, factor } = checkpoint.defaults;
    const options = { checkpoint, prompt: "a fox", width, height, guidanceScale: 1, signal };

    onPhase("Finding the fastest ways");
    if (!(await settle(tintype, options))) {
      notices.push({ kind: "tuning", message: `not all ways were raced after ${MOST_DRAWS} pictures: times may hold races of others` });
    }

    onPhase("Measuring what the device can do, a step and a decoding");
    const { unet, vae, ...profile } = await tintype.profile({ ...options, tensors: raced });
    const { tensors, ...step } = unet;

    const isSlow = profile.backend.kind === "cpu" || profile.backend.software;
    const steps = isSlow ? 1 : 8;
    const draw = async () => (await tintype.generate({ ...options, steps, seed: 7 })).timings;
    onPhase("Drawing pictures");
    const pictures = [await draw()];
    // The first one makes room.
    if (!isSlow) pictures.push(await draw(), await draw());
    const totals = pictures.map(({ start, total }) => start + total);
    const { pipelines } = await tintype.debug.counts();

    const tuning = await tintype.tuning();

    const report = {
      tintype: "bench 1",
      at: new Date().toISOString(),
      userAgent: navigator.userAgent,
      crossOriginIsolated: globalThis.crossOriginIsolated ?? false,
      adapter,
      ...profile,
      model: { id: model.id, name: model.name, parameters: made?.weights.count ?? null, width, height, factor, load },
      memory: { ...tintype.memory, pipelines },
      unet: step,
      vae,
      picture: { steps, ms: median(totals), runs: totals },
      race: null,
      tuning,
      notices,
    };
    if (raced) {
      let read = made;
      const models = () => (read ??= readCheckpoint(model.source));
      const about = { report, rounds, isSlow, signal, onPhase };
      report.race = await racing(tintype, models, options, { ...about, measured: () => tensors });
      const others = profile.backend.kind === "cpu" ? (model.others ?? []) : [];
      for (const part of others) {
        const measured = async () => (await tintype.profile({ ...options, parts: [part], tensors: true, nodes: false, runs: 1 }))[part].tensors;
        report.others = { ...report.others, [part]: await racing(tintype, async () => (await models())[part], options, { ...about, measured, part }) };
      }
    }
    // One that was lost on the way is another now.
    report.backend = tintype.backend;
    return report;
  } finally {
    await tintype.close();
  }
}

/** Draws until nothing is left to be found out about the adapter, so that none of it falls into what is timed; whether that came to be. */
async function settle(tintype, options) {
  const { kind, software } = tintype.backend;
  if (kind !== "webgpu" || software) return true;
  for (let draws = 0; draws < MOST_DRAWS; draws++) {
    await tintype.generate({ ...options, steps: 1, seed: 7 });
    if ((await tintype.debug.counts()).unraced === 0) return true;
  }
  return false;
}

/** `open()` gives what the other engine is to have, `measured()` what a step read and wrote. */
async function racing(tintype, open, options, { report, measured, rounds, isSlow, signal, onPhase, part = "unet" }) {
  const once = { ...options, parts: [part], nodes: false, readOutput: true, runs: 1 };
  const step = async () => (await tintype.profile(once))[part].ms;
  const onRound = (round, of) => onPhase(round === 0 ? "Fetching onnxruntime-web, and giving it the model" : `Racing: ${round} of ${of} rounds`);
  try {
    const near = report.peak.gemmHalf ? NEAR.f16 : NEAR.f32;
    return await race(await open(), report.backend, await measured(), step, rounds ?? (isSlow ? 3 : 15), { near, signal, onRound });
  } catch (error) {
    if (signal?.aborted) throw new TintypeError("cancelled", "measuring was cancelled", { cause: error });
    return { error: error.message };
  }
}
