// The CPU backend in one headless Chromium: a race with onnxruntime-web's wasm on as many threads, and how fast each shape of a model's
// operations is beside the fastest product of that run.
//   node tests/web/cpu-bench.mjs [--models unet,bk-sdm-tiny] [--threads 1,2] [--rounds 7] [--json FILE]
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { lines, tables } from "../../www/bench/tables.js";
import { openPage, startBrowser, startSite } from "./harness.mjs";
import { pressBench } from "./bench-page.mjs";

const { values } = parseArgs({
  options: {
    models: { type: "string", default: "unet" },
    threads: { type: "string", default: "1,2" },
    rounds: { type: "string", default: "7" },
    json: { type: "string" },
  },
});

/** Nodes of one operation and size, added up, the slowest first. */
function byShape(nodes, peak) {
  const groups = new Map();
  for (const { op, shape, ms, flop, bytes, share } of nodes.filter(({ rate, flop }) => rate === "step" && flop > 0)) {
    const sums = flop / 2 / shape.reduce((product, size) => product * size, 1);
    const key = `${op} ${shape.slice(1).join(" x ")}${["conv2d", "linear"].includes(op) ? ` of sums of ${sums}` : ""}`;
    const group = groups.get(key) ?? { key, count: 0, ms: 0, flop: 0, bytes: 0, share };
    groups.set(key, { ...group, count: group.count + 1, ms: group.ms + ms, flop: group.flop + flop, bytes: group.bytes + bytes });
  }
  return [...groups.values()]
    .sort((a, b) => b.ms - a.ms)
    .map(({ key, count, ms, flop, bytes }) => {
      const [rate, moved] = [(flop / ms) * 1e3, (bytes / ms) * 1e3];
      return [`${count} x ${key}`, `${ms.toFixed(2)} ms`, `${(rate / 1e9).toFixed(1)} GFLOP/s`, `${((rate / peak.gemm) * 100).toFixed(0)} %`, `${(moved / 1e9).toFixed(1)} GB/s`];
    });
}

const site = await startSite({ isolated: true });
const browser = await startBrowser();
const reports = [];
try {
  const runs = values.models.split(",").flatMap((model) => values.threads.split(",").map((threads) => ({ model, threads })));
  for (const { model, threads } of runs) {
    console.log(`\n${model}, threads: ${threads}`);
    const query = new URLSearchParams({ model, "runs-on": "cpu", rounds: values.rounds, threads, race: "" });
    const { page, faults } = await openPage(browser, `${site.url}bench.html?${query}`);
    const report = await pressBench(page, { timeout: 0, onPhase: (text) => console.log(text) });
    reports.push(report);
    if (report.backend.threads !== Number(threads)) throw new Error(`it ran on ${report.backend.threads} threads, not ${threads}`);
    for (const table of tables(report)) console.log(`\n${lines(table).join("\n")}`);
    const head = ["", "Time", "Compute", "Of the fastest product", "Memory"];
    for (const [title, plan] of [["A step by shapes", report.unet], ["Decoding by shapes", report.vae]]) {
      console.log(`\n${lines({ title, head, rows: byShape(plan.nodes, report.peak) }).join("\n")}`);
    }
    if (faults.length > 0) throw new Error(`the page logged ${JSON.stringify(faults)}`);
    if (report.race?.error) throw new Error(report.race.error);
    if (report.race && !report.race.agrees) throw new Error(`the outputs are ${report.race.difference} apart`);
    await page.close();
  }
  if (values.json) writeFileSync(values.json, JSON.stringify(reports, null, 1));
} finally {
  await browser.close();
  await site.close();
}
