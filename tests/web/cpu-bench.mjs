// The CPU backend in one headless Chromium: races with onnxruntime-web's wasm on as many threads, and how fast each operation is on one at
// each size that Stable Diffusion 1.5 and the page's own checkpoints have, beside the fastest product and copy of that run.
//   node tests/web/cpu-bench.mjs [--models unet,bk-sdm-tiny,clip-l] [--threads 1,2] [--rounds 7] [--no-sweep] [--json FILE]
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { lines, tables } from "../../www/bench/tables.js";
import { Api, openPage, startBrowser, startSite } from "./harness.mjs";
import { pressBench } from "./bench-page.mjs";

const { values } = parseArgs({
  options: {
    models: { type: "string", default: "unet,bk-sdm-tiny,clip-l" },
    threads: { type: "string", default: "1,2" },
    rounds: { type: "string" },
    "no-sweep": { type: "boolean", default: false },
    json: { type: "string" },
  },
});
/** Where nothing is said: fewer of models that take seconds. */
const ROUNDS = { "bk-sdm-tiny": "3" };

const read = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));

/** What is swept: the parts of two checkpoints, with the sizes of their pictures. */
function swept() {
  const published = read("../golden/published.json");
  const find = (name) => published.find((checkpoint) => checkpoint.name === name);
  const soft = (part) => read(`../../www/checkpoints/soft/${part}/config.json`);
  const large = { height: 64, width: 64, tokens: 77 };
  const own = { height: soft("unet").sample_size, width: soft("unet").sample_size, tokens: 16 };
  const { texts, unet } = find("stable-diffusion-v1-5");
  return [
    ["Stable Diffusion 1.5: UNet, 512 pixels", { part: "unet", config: unet, ...large }],
    ["CLIP ViT-L", { part: "text", config: texts[0], ...large }],
    ["TAESD's decoder, 512 pixels", { part: "vae", config: find("sdxs-512-0.9").vae, ...large }],
    ["Soft: UNet", { part: "unet", config: soft("unet"), ...own }],
    ["Soft: text encoder", { part: "text", config: soft("text_encoder"), ...own }],
    ["Soft: decoder", { part: "vae", config: soft("vae"), ...own }],
  ];
}

/** Of the peak that bounds it: below this an operation is slow. */
const ENOUGH = 0.5;

function sweepTable(title, { peak, nodes }) {
  const head = ["", "Time", "Compute", "Of the fastest product", "Memory", "Of a copy", ""];
  const rows = nodes
    .sort((a, b) => b.count * b.ms - a.count * a.ms)
    .map(({ op, inputs, shape, count, ms, flop, bytes }) => {
      const [compute, memory] = [(flop / ms) * 1e3, (bytes / ms) * 1e3];
      const shares = [compute / peak.gemm, memory / peak.copy];
      return [
        `${count} x ${op}: ${inputs.map((size) => size.join("x")).join(", ")} -> ${shape.join("x")}`,
        `${ms.toFixed(3)} ms`,
        `${(compute / 1e9).toFixed(1)} GFLOP/s`,
        `${(shares[0] * 100).toFixed(0)} %`,
        `${(memory / 1e9).toFixed(1)} GB/s`,
        `${(shares[1] * 100).toFixed(0)} %`,
        Math.max(...shares) < ENOUGH ? "below half of both" : "",
      ];
    });
  return { title: `${title}: every operation by itself`, head, rows };
}

async function sweep(page) {
  const all = [];
  await page.waitForFunction(() => window.call !== undefined);
  await new Api(page).create({ backend: "cpu", threads: 1, store: "off", debug: true });
  for (const [title, { config, ...request }] of swept()) {
    const found = await page.evaluate((request) => window.tintype.debug.sweep(request), { ...request, config: JSON.stringify(config) });
    console.log(`\n${lines(sweepTable(title, found)).join("\n")}`);
    console.log(`  the fastest product ${(found.peak.gemm / 1e9).toFixed(1)} GFLOP/s, a copy ${(found.peak.copy / 1e9).toFixed(1)} GB/s`);
    all.push({ title, ...found });
  }
  return all;
}

const site = await startSite({ isolated: true });
const browser = await startBrowser();
const reports = [];
try {
  const models = values.models.split(",").filter(Boolean);
  const runs = models.flatMap((model) => values.threads.split(",").map((threads) => ({ model, threads })));
  for (const { model, threads } of runs) {
    console.log(`\n${model}, threads: ${threads}`);
    const rounds = values.rounds ?? ROUNDS[model] ?? "7";
    const query = new URLSearchParams({ model, "runs-on": "cpu", rounds, threads, race: "" });
    const { page, faults } = await openPage(browser, `${site.url}bench.html?${query}`);
    const report = await pressBench(page, { timeout: 0, onPhase: (text) => console.log(text) });
    reports.push(report);
    if (report.backend.threads !== Number(threads)) throw new Error(`it ran on ${report.backend.threads} threads, not ${threads}`);
    for (const table of tables(report)) console.log(`\n${lines(table).join("\n")}`);
    if (faults.length > 0) throw new Error(`the page logged ${JSON.stringify(faults)}`);
    for (const race of [report.race, ...Object.values(report.others ?? {})]) {
      if (race?.error) throw new Error(race.error);
      if (race && !race.agrees) throw new Error(`the outputs are ${race.difference} apart`);
    }
    await page.close();
  }
  let operations = null;
  if (!values["no-sweep"]) {
    const { page, faults } = await openPage(browser, `${site.url}blank.html`);
    operations = await sweep(page);
    if (faults.length > 0) throw new Error(`the page logged ${JSON.stringify(faults)}`);
  }
  if (values.json) writeFileSync(values.json, JSON.stringify({ reports, operations }, null, 1));
} finally {
  await browser.close();
  await site.close();
}
