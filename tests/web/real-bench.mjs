// A checkpoint of a published one's size, on the CPU: what loading it and drawing one step with it takes, `./build.sh bench real`.
//   node tests/web/real-bench.mjs [--shape bk-sdm-tiny] [--vae-of sdxs-512-0.9] [--folder FOLDER]
// Names are those of tests/golden/published.json. FOLDER keeps the files that are made, and is taken as it is if it has some.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { Api, isPicture, openPage, startBrowser, startSite } from "./harness.mjs";
import { publishedAs } from "./store-speed.mjs";
import { openTargets } from "./targets.mjs";

const { values } = parseArgs({
  options: { shape: { type: "string", default: "bk-sdm-tiny" }, "vae-of": { type: "string", default: "sdxs-512-0.9" }, folder: { type: "string" } },
});
const { shape: name, "vae-of": vaeOf } = values;
const SIDE = 512;
const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

const folder = values.folder ?? mkdtempSync(path.join(tmpdir(), "tintype-bench-"));
/** What was made, beside it. */
const said = path.join(folder, "made.json");
const site = await startSite();
const browser = await startBrowser();
try {
  if (!existsSync(said)) writeFileSync(said, JSON.stringify(publishedAs(folder, name, vaeOf)));
  const { bytes, largest } = JSON.parse(readFileSync(said, "utf8"));
  const { page, faults } = await openPage(browser, `${site.url}blank.html`);
  await page.waitForFunction(() => window.call !== undefined);
  const api = new Api(page);
  await api.create({ backend: "cpu", store: "off" });
  const targets = await openTargets(page);
  let most = 0;
  const look = setInterval(async () => {
    // What fails ends it elsewhere.
    const heaps = Object.values(await targets.heaps().catch(() => ({})));
    most = Math.max(most, heaps.reduce((sum, { used, buffers }) => sum + used + buffers, 0));
  }, 100);
  const memory = () => page.evaluate(() => window.tintype.memory);
  const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

  console.log(`${name} with the autoencoder of ${vaeOf}: ${mib(bytes)} of f16 in files, the largest tensor ${mib(largest)}`);
  const url = site.folder("real", folder);
  let started = performance.now();
  await api.load(url);
  const { wasm, weights } = await memory();
  console.log(`load: ${seconds(started)}; weights ${mib(weights)}, wasm ${mib(wasm)}`);
  started = performance.now();
  const options = { checkpoint: url, prompt: "fox", seed: 7, width: SIDE, height: SIDE, steps: 1, guidanceScale: 1 };
  const { images } = await api.draw(options);
  if (!isPicture(images[0].rgba)) throw new Error("the picture is of one colour");
  const after = await memory();
  console.log(`${SIDE} x ${SIDE}, one step: ${seconds(started)}`);
  clearInterval(look);
  await targets.close();
  const ratio = (after.wasm / bytes).toFixed(2);
  console.log(`at its peak: wasm ${mib(after.wasm)} (${ratio} x the files; its most is 4096 MiB), JavaScript ${mib(most)}`);
  if (faults.length > 0) throw new Error(`the page logged ${JSON.stringify(faults)}`);
} finally {
  await browser.close();
  await site.close();
  if (!values.folder) rmSync(folder, { recursive: true, force: true });
}
