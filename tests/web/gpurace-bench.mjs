// The page that measures, pressed from a terminal: its own table, on the software adapter unless said otherwise.
//   node tests/web/gpurace-bench.mjs [page|race] [--model unet] [--backend webgpu] [--arithmetic f32] [--rounds 5] [--json FILE] [--picture FILE.png]
// `race` prints the race alone.
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { lines, tables } from "../../www/bench/tables.js";
import { openPage, startBrowser, startSite } from "./harness.mjs";
import { pressBench } from "./bench-page.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: "string", default: "unet" },
    backend: { type: "string", default: "webgpu" },
    arithmetic: { type: "string", default: "f32" },
    rounds: { type: "string", default: "5" },
    json: { type: "string" },
    picture: { type: "string" },
  },
});

const site = await startSite();
const browser = await startBrowser({ webgpu: values.backend === "webgpu" });
try {
  const query = new URLSearchParams({ model: values.model, "runs-on": values.backend, arithmetic: values.arithmetic, rounds: values.rounds, race: "" });
  const { page, faults } = await openPage(browser, `${site.url}bench.html?${query}`);
  const report = await pressBench(page, { timeout: 0, onPhase: (text) => console.log(text) });
  const wanted = tables(report).filter(({ title }) => positionals[0] !== "race" || title === "Beside onnxruntime-web");
  for (const table of wanted) console.log(`\n${lines(table).join("\n")}`);
  if (values.json) writeFileSync(values.json, JSON.stringify(report, null, 1));
  if (values.picture) await page.screenshot({ path: values.picture, fullPage: true });
  if (faults.length > 0) throw new Error(`the page logged ${JSON.stringify(faults)}`);
  if (report.race?.error) throw new Error(report.race.error);
  if (report.race && !report.race.agrees) throw new Error(`the outputs are ${report.race.difference} apart`);
} finally {
  await browser.close();
  await site.close();
}
