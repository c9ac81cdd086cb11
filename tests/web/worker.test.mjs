// A worker that ends badly: what was asked of it is answered all the same, and what is asked later is told what to do.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { isPicture, openApi } from "./harness.mjs";

const SOFT = "/checkpoints/soft/";
const FOX = { checkpoint: SOFT, prompt: "fox", seed: 7 };

describe("a worker that ends badly", { timeout: 600_000 }, () => {
  let api, close, page, faults;

  before(async () => {
    ({ api, close, page, faults } = await openApi());
  });
  after(() => close?.());

  /** Starts an engine, has a picture begun and another wait, does `harm`, and says how all of it ended. */
  async function ends(harm) {
    await api.create({ backend: "cpu" });
    await api.load(SOFT);
    assert.equal(page.workers().length, 1);
    const [worker] = page.workers();
    const began = await page.evaluate(() => {
      const began = new Promise((began) => {
        const pending = { checkpoint: tintype.checkpoints[0], prompt: "fox", steps: 50, onStep: () => began(true) };
        window.pending = [outcome(() => tintype.generate(pending)), outcome(() => tintype.generate(pending))];
      });
      return Promise.race([began, ...window.pending]);
    });
    assert.equal(began, true);
    // What kills the worker may never be answered.
    worker.evaluate(harm).catch(() => {});
    const pending = await page.evaluate(() => Promise.all(window.pending));
    const later = await page.evaluate(
      (soft) =>
        Promise.all([
          outcome(() => tintype.load(soft)),
          outcome(() => tintype.generate({ checkpoint: tintype.checkpoints[0] })),
        ]),
      SOFT,
    );
    return { pending: pending.map(({ error }) => error), later: later.map(({ error }) => error) };
  }

  const isToldSo = ({ pending, later }, message) => {
    for (const error of [...pending, ...later]) {
      assert.ok(error?.typed, JSON.stringify(error));
      assert.equal(error.code, "internal", error.message);
      assert.match(error.message, message);
    }
    for (const error of later) assert.match(error.message, /make a new Tintype/);
  };

  const startsAnew = async () => {
    await api.create({ backend: "cpu" });
    await api.load(SOFT);
    assert.ok(isPicture((await api.draw({ ...FOX, steps: 1 })).images[0].rgba));
  };

  test("a trap in the engine", async () => {
    const harm = async () => {
      const { default: init } = await import("/tintype/wasm/tintype.js");
      // Started already, so this only gives what it exports. Nothing that the engine finds in its memory makes sense now.
      const { memory } = await init();
      new Uint8Array(memory.buffer).fill(0xff);
    };
    isToldSo(await ends(harm), /^the engine failed: /);
    await startsAnew();
  });

  test("a worker that the browser ends", async () => {
    isToldSo(await ends(() => self.close()), /^the worker died/);
    await startsAnew();
  });

  test("nothing but the trap was logged as an error", () => {
    assert.equal(faults.length, 1, faults.join("\n"));
    assert.match(faults[0], /RuntimeError/);
  });
});
