// What one visitor downloads of dist/tintype/ is bounded.
import assert from "node:assert/strict";
import { test } from "node:test";
import path from "node:path";
import { measure, report, total } from "../../tools/sizes.mjs";
import { DIST } from "./server.mjs";

const MOST = 1_500_000;

test("JavaScript and wasm stay under 1.5 MB after gzip", (t) => {
  const folder = path.join(DIST, "tintype");
  const rows = measure(folder);
  for (const line of report(folder).split("\n")) t.diagnostic(line);
  for (const name of ["tintype.js", "worker.js", "files.js", "keeper.js", path.join("keeper", "store.js"), path.join("wasm", "tintype.js"), path.join("wasm", "tintype_bg.wasm"), path.join("wasm", "tintype_relaxed_bg.wasm"), path.join("wasm", "tintype_threads.js"), path.join("wasm", "tintype_threads_bg.wasm"), "isolation.js"]) {
    assert.ok(rows.some((row) => row.name === name && row.raw > 0), `${name} is missing`);
  }
  // Without an engine in it, it would be small too.
  assert.ok(rows.filter(({ name }) => name.endsWith(".wasm")).every(({ raw }) => raw > 500_000));
  assert.ok(total(rows).gzip <= MOST, `${total(rows).gzip} bytes`);
});
