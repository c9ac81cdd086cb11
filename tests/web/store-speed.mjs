// How fast a checkpoint loads from the store, beside reading the same files with nothing else to do.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

function write(folder, ...how) {
  const options = ["run", "--quiet", "--example", "synthetic", "--", folder, ...how].map(String);
  const { status, stdout, stderr } = spawnSync("cargo", options, { cwd: ROOT, encoding: "utf8" });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout);
}

/** Writes a checkpoint of at least `bytes` bytes into `folder`. Gives what is known of it: `{ bytes, tensors, largest }`. */
export const synthetic = (folder, bytes, seed = 1) => write(folder, "--bytes", bytes, "--seed", seed);

/** Writes a checkpoint with the shapes of a published one, and an autoencoder with those of one's. */
export const publishedAs = (folder, name, vaeOf) => write(folder, "--as", name, "--vae-of", vaeOf);

export const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

/** Starts the worker that reads plainly, while its script can still be fetched. */
export const startRaw = (page) => page.evaluate(() => void (window.raw = new Worker("/test/raw-read.js")));

/** What that worker reads one `way`, and how long it takes. */
export const readRaw = (page, way) =>
  page.evaluate(
    (way) =>
      new Promise((resolve, reject) => {
        window.raw.onmessage = ({ data }) => resolve(data);
        window.raw.onerror = ({ message }) => reject(new Error(message));
        window.raw.postMessage(way);
      }),
    way,
  );

/** Loads and reads in turns, with a Tintype that has `debug`. The store must hold nothing but the checkpoint. `prepare` is called before each. Gives medians, in bytes a second. */
export async function compare(page, api, url, rounds, prepare = () => {}) {
  const times = { access: [], stream: [], load: [] };
  let bytes;
  for (let i = 0; i < rounds; i++) {
    for (const way of ["access", "stream"]) {
      prepare();
      const raw = await readRaw(page, way);
      times[way].push(raw.milliseconds);
      assert.equal(raw.bytes, bytes ?? raw.bytes);
      bytes = raw.bytes;
    }
    prepare();
    const load = await page.evaluate(async (url) => {
      const { uploaded } = await window.tintype.debug.counts();
      const started = performance.now();
      const checkpoint = await window.tintype.load(url);
      const milliseconds = performance.now() - started;
      const bytes = checkpoint.components.reduce((sum, component) => sum + component.bytes, 0);
      await checkpoint.unload();
      return { milliseconds, bytes, uploaded: (await window.tintype.debug.counts()).uploaded - uploaded };
    }, url);
    times.load.push(load.milliseconds);
    assert.ok(load.uploaded >= 0.99 * load.bytes, `${load.uploaded} bytes went to the device`);
    // Beside the weights, the store has configurations and the tokenizer.
    assert.ok(load.bytes <= bytes && bytes < load.bytes + 1e6, `${load.bytes} bytes of weights, ${bytes} in the store`);
  }
  const speed = (all) => (bytes / median(all)) * 1000;
  const beside = (way) => ({ speed: speed(times[way]), ratio: median(times[way]) / median(times.load) });
  return { bytes, rounds, load: speed(times.load), access: beside("access"), stream: beside("stream") };
}
