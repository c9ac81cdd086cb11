// Runs inside the browser, on an empty page: the calls that the tests make, with answers that can leave the page.
import * as api from "/tintype/tintype.js";

const loaded = new Map();

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

async function sent(image) {
  const { imageData, parameters } = image;
  const png = new Uint8Array(await (await image.toBlob()).arrayBuffer());
  const { width, height, data } = imageData;
  return { width, height, parameters, rgba: base64(data), png: base64(png) };
}

/** Runs `call` and says how it ended: { value } or { error }. */
async function outcome(call) {
  try {
    return { value: await call() };
  } catch (error) {
    const { name, code, message } = error;
    return { error: { name, code, message, typed: error instanceof api.TintypeError } };
  }
}

const commands = {
  async create(options) {
    await window.tintype?.close();
    loaded.clear();
    window.notices = [];
    window.tintype = await api.Tintype.create(options);
    window.tintype.addEventListener("notice", ({ detail }) => window.notices.push(detail));
    return window.tintype.backend;
  },

  /** Loads the catalogue's entry `id`, from `url` if given. */
  async loadEntry(id, url) {
    const entries = await api.Tintype.catalogue("/checkpoints/checkpoints.json");
    const entry = entries.find((entry) => entry.id === id);
    return commands.load(url ? { ...entry, url: new URL(url, location.href).href } : entry);
  },

  /** Loads the catalogue's entry `id` as files that a person picked. */
  async loadPicked(id) {
    const entries = await api.Tintype.catalogue("/checkpoints/checkpoints.json");
    const { url, files } = entries.find((entry) => entry.id === id);
    const fetched = Object.keys(files).map(async (path) => ({ path: `${id}/${path}`, file: await (await fetch(url + path)).blob() }));
    return commands.load(await Promise.all(fetched), { name: "picked" });
  },

  async load(source, options = {}) {
    const progress = [];
    const checkpoint = await window.tintype.load(source, { ...options, onProgress: (value) => progress.push(value) });
    const key = options.name ?? source.name ?? source;
    loaded.set(key, checkpoint);
    const { id, name, family, components, defaults, bytes, warnings } = checkpoint;
    return { key, id, name, family, components, defaults, bytes, warnings, progress };
  },

  /** Several calls of `load` made at once. */
  loadTogether: (...sources) => Promise.all(sources.map((source) => commands.load(source))),

  unload: (key) => loaded.get(key).unload(),

  /** `cancelAtStep` aborts when that step is reported; the answer then says how long the rejection took. */
  async draw({ checkpoint, cancelAtStep, ...options }) {
    const controller = new AbortController();
    const steps = [];
    let aborted;
    const onStep = ({ step, steps: of, preview }) => {
      steps.push({ step, of, at: performance.now(), preview: preview && [preview.width, preview.height] });
      if (step !== cancelAtStep) return;
      aborted = performance.now();
      controller.abort();
    };
    const job = { ...options, checkpoint: loaded.get(checkpoint), onStep, signal: controller.signal };
    const started = performance.now();
    const { value, error } = await outcome(() => window.tintype.generate(job));
    const ended = performance.now();
    if (cancelAtStep !== undefined) return { error, steps, answeredIn: aborted && ended - aborted };
    if (error) throw Object.assign(new api.TintypeError(error.code, error.message), { name: error.name });
    const { images, seed, timings, warnings } = value;
    return { images: await Promise.all(images.map(sent)), seed, timings, warnings, steps, milliseconds: ended - started };
  },

  /** Tensors come as plain arrays. */
  async profile(checkpoint, options) {
    const profile = await window.tintype.profile({ ...options, checkpoint: loaded.get(checkpoint) });
    for (const { tensors = {} } of [profile.unet, profile.vae, profile.text].filter(Boolean)) {
      for (const [name, value] of Object.entries(tensors)) if (ArrayBuffer.isView(value)) tensors[name] = [...value];
    }
    return profile;
  },

  /** Several calls of `generate` made at once: the order in which they began and ended. */
  async drawTogether(...jobs) {
    const events = [];
    const drawn = jobs.map(async ({ checkpoint, ...options }, index) => {
      const onStep = ({ step }) => events.push({ job: index, step });
      const result = await window.tintype.generate({ ...options, checkpoint: loaded.get(checkpoint), onStep });
      events.push({ job: index, end: true });
      return Promise.all(result.images.map(sent));
    });
    return { pictures: await Promise.all(drawn), events };
  },

  /** A picture's pixels, as the browser decodes the file. */
  async decode(address) {
    const blob = await (await fetch(address)).blob();
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const { width, height, data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    return { width, height, rgba: base64(data) };
  },
};

// For what a test writes out as a function of its own, which runs here.
window.api = api;
window.outcome = outcome;
window.call = (name, args) => outcome(() => commands[name](...args));
