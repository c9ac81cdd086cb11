// On the CPU a picture that is no longer wanted ends in the midst of a step: nothing but a message to the worker says so.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openApi } from "./harness.mjs";

/** Milliseconds after which the worker has to be there for something else. */
const SOON = 100;

describe("cancelling on the CPU", { timeout: 600_000 }, () => {
  let api, close, faults;

  before(async () => {
    ({ api, close, faults } = await openApi());
    await api.create({ backend: "cpu", store: "off" });
    // A step of it takes hundreds of milliseconds, and so does its decoder.
    const { error } = await api.outcome(`async () => {
      const [{ makeCheckpoint }, { MADE }] = await Promise.all([import("/bench/made.js"), import("/bench/models.js")]);
      window.large = await tintype.load(makeCheckpoint(MADE.find(({ id }) => id === "unet")).source);
      window.picture = { checkpoint: window.large, prompt: "fox", seed: 7, steps: 1, guidanceScale: 1 };
      // The fastest, and what a picture takes beside its own work, at least: messages, and putting it into a file.
      window.beside = Infinity;
      window.whole = { total: Infinity };
      for (let i = 0; i < 3; i++) {
        const began = performance.now();
        const { timings } = await tintype.generate(window.picture);
        window.beside = Math.min(window.beside, performance.now() - began - timings.total);
        if (timings.total < window.whole.total) window.whole = timings;
      }
    }`);
    assert.equal(error, undefined);
  });
  after(() => close?.());

  /** Cancels a picture at a part of the time that `phase` takes, and draws another: after how long that began. */
  const cancelled = (phase, part) =>
    api.outcome(`async () => {
      const picture = window.picture;
      const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
      const controller = new AbortController();
      let stepped;
      const done = new Promise((resolve) => (stepped = resolve));
      const drawing = tintype.generate({ ...picture, signal: controller.signal, onStep: () => stepped() });
      const rejected = drawing.then(() => "drawn", ({ code }) => code);
      const { prompt, steps: step, decode } = window.whole;
      if (${JSON.stringify(phase)} === "step") await wait(prompt + ${part} * step);
      else await done.then(() => wait(${part} * decode));
      const began = performance.now();
      controller.abort();
      const { timings } = await tintype.generate(picture);
      const free = performance.now() - began - timings.total - window.beside;
      return { code: await rejected, free, step, decode };
    }`);

  for (const phase of ["step", "decoding"]) {
    test(`in the midst of a ${phase} the worker is free soon`, async (t) => {
      const free = [];
      for (const part of [0.25, 0.5, 0.7]) {
        const { value, error } = await cancelled(phase, part);
        assert.equal(error, undefined);
        assert.equal(value.code, "cancelled", `${phase} at ${part}: ${JSON.stringify(value)}`);
        free.push(value.free);
        t.diagnostic(`at ${part} of ${phase}, which takes ${(phase === "step" ? value.step : value.decode).toFixed(0)} ms: the next began after ${value.free.toFixed(0)} ms`);
      }
      // One that was disturbed by something else says nothing.
      assert.ok(free.toSorted((a, b) => a - b)[1] < SOON, `${free} ms`);
    });
  }

  test("nothing failed on the way", () => assert.deepEqual(faults, []));
});
