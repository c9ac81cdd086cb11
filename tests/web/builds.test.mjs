// The wasm is built three times; of the two for one thread each browser fetches the one that it can run, and both draw the same.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { difference, isPicture, openApi } from "./harness.mjs";
import { DIST } from "./server.mjs";

const FOX = { checkpoint: "/checkpoints/soft/", prompt: "fox", seed: 7, steps: 2 };

/** A picture, what the backend says of itself, and which wasm was fetched. `knows`: whether the browser has relaxed SIMD. */
async function drawn(knows) {
  const { api, page, faults, close } = await openApi();
  try {
    const fetched = [];
    page.context().on("request", (request) => {
      if (request.url().endsWith(".wasm")) fetched.push(path.basename(new URL(request.url()).pathname));
    });
    await page.context().route("**/tintype/build.js", (route) => {
      const script = readFileSync(path.join(DIST, "tintype/build.js"), "utf8");
      const asked = "WebAssembly.validate(";
      assert.ok(script.includes(asked));
      return route.fulfill({ contentType: "text/javascript", body: knows ? script : script.replace(asked, "!WebAssembly.validate(") });
    });
    const { features } = await api.create({ backend: "cpu" });
    await api.load(FOX.checkpoint);
    const { images } = await api.draw(FOX);
    assert.deepEqual(faults, []);
    return { features, fetched, rgba: images[0].rgba };
  } finally {
    await close();
  }
}

test("a browser with relaxed SIMD fetches the build for it, another one the plain one", async () => {
  const [faster, plain] = [await drawn(true), await drawn(false)];
  assert.deepEqual([faster.features, faster.fetched], [["simd128", "relaxed-simd"], ["tintype_relaxed_bg.wasm"]]);
  assert.deepEqual([plain.features, plain.fetched], [["simd128"], ["tintype_bg.wasm"]]);
  assert.ok(isPicture(plain.rgba));
  // Sums that are rounded once and sums that are rounded twice.
  const { max, mean } = difference(faster.rgba, plain.rgba);
  assert.ok(max <= 2 && mean < 0.25, `off by at most ${max}, by ${mean} in the mean`);
});
