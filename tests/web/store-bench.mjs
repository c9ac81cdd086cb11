// Loads a large checkpoint from the store, beside reading the same files with nothing else to do: `./build.sh bench store`.
//   node tests/web/store-bench.mjs [BYTES]
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Api, openPage, startPersistent, startSite } from "./harness.mjs";
import { compare, startRaw, synthetic } from "./store-speed.mjs";

const ROUNDS = 5;

const folder = mkdtempSync(path.join(tmpdir(), "tintype-bench-"));
const site = await startSite();
let context;
try {
  const root = path.join(folder, "checkpoint");
  const { bytes } = synthetic(root, Number(process.argv[2] ?? 1e9));
  const url = site.folder("big", root);
  console.log(`a checkpoint of ${bytes} bytes of f16; medians of ${ROUNDS} turns; both from the browser's own storage`);
  for (const backend of ["webgpu", "cpu"]) {
    const profile = path.join(folder, backend);
    context = await startPersistent(profile, { webgpu: backend === "webgpu" });
    const { page } = await openPage(context, `${site.url}blank.html`);
    await page.waitForFunction(() => window.call !== undefined);
    const api = new Api(page);
    const { name } = await api.create({ backend, debug: true });
    await api.load(url);
    await api.unload(url);
    await startRaw(page);
    await context.setOffline(true);
    // Of what was just read, the system keeps a copy in memory; a person's checkpoint of yesterday comes from the disk.
    const forget = () => spawnSync("sh", ["-c", 'sync; find "$1" -type f -size +1M -exec dd if={} iflag=nocache count=0 status=none \\;', "sh", profile]);
    for (const [from, prepare] of [["still in memory", () => {}], ["on the disk", forget]]) {
      const { load, access, stream } = await compare(page, api, url, ROUNDS, prepare);
      const speed = (value) => `${(value / 1e6).toFixed(0).padStart(6)} MB/s`;
      const beside = (read) => `${speed(read.speed)} (ratio ${read.ratio.toFixed(3)})`;
      console.log(`${backend} (${name}), files ${from}: load ${speed(load)}`);
      console.log(`  reading through a stream ${beside(stream)}, by a synchronous handle ${beside(access)}`);
    }
    await context.close();
  }
} finally {
  await context?.close();
  await site.close();
  rmSync(folder, { recursive: true, force: true });
}
