// WebGPU on the browser's software adapter: slow, and the very code that a GPU runs.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { difference, isPicture, openApi } from "./harness.mjs";
import { withNaN } from "./safetensors.mjs";
import { shipped } from "./server.mjs";

const SOFT = "/checkpoints/soft/";
const FOX = { checkpoint: SOFT, prompt: "fox", seed: 7, steps: 4 };

/** In the worker: tells the page, in their order, of each step and of each buffer that is read back. */
const TELLS = `{
  const log = new BroadcastChannel("log");
  const { mapAsync } = GPUBuffer.prototype;
  GPUBuffer.prototype.mapAsync = function (...sizes) {
    log.postMessage("read");
    return mapAsync.apply(this, sizes);
  };
  const told = self.postMessage.bind(self);
  self.postMessage = (message, ...more) => {
    if (message.value?.step) log.postMessage("step");
    told(message, ...more);
  };
}`;

describe("the WebGPU backend", { timeout: 1_200_000 }, () => {
  let api, close, page, site, faults;

  before(async () => {
    ({ api, close, page, site, faults } = await openApi({ webgpu: true }));
  });
  after(() => close?.());

  test("auto leaves a software adapter alone, and says so", async () => {
    const backend = await api.create({ backend: "auto" });
    assert.equal(backend.kind, "cpu");
    assert.match(backend.reason, /software/i);
    const [notice] = await api.notices();
    assert.equal(notice?.message, backend.reason);
  });

  for (const [what, spoils, why] of [
    ["says nothing of its adapters", "Object.defineProperty(GPUAdapter.prototype, 'info', { get: () => undefined });", /WebGPU is of before/],
    ["throws while it is set up", "GPUAdapter.prototype.requestDevice = () => { throw new Error('as asked'); };", /could not be set up .*as asked/],
    ["gives no adapter", "GPU.prototype.requestAdapter = () => new Promise(() => {});", /no adapter in 0\.5 s/],
  ]) {
    test(`auto takes the CPU where a browser's WebGPU ${what}`, async () => {
      const worker = "/tintype/worker.js";
      const named = 'const [vendor, architecture, device, description, isFallbackAdapter] = ["a", "gpu", "", "", false];';
      site.rewrite(worker, (script) => {
        const hasty = script.replace("ADAPTER_MS = 30_000", "ADAPTER_MS = 500");
        return `${hasty.replace(/const \{ vendor, .* = adapter\.info;/, named)}\n${spoils}`;
      });
      const { kind, reason } = await api.create({ backend: "auto", store: "off" });
      site.instead.delete(worker);
      assert.equal(kind, "cpu");
      assert.match(reason, why);
      await api.load(SOFT);
      assert.ok(isPicture((await api.draw({ ...FOX, steps: 1 })).images[0].rgba));
    });
  }

  test("a four-step picture is the CPU's, and comes out again", async (t) => {
    await api.create({ backend: "cpu" });
    await api.load(SOFT);
    const cpu = await api.draw(FOX);
    assert.ok(isPicture(cpu.images[0].rgba));

    const backend = await api.create({ backend: "webgpu" });
    assert.equal(backend.kind, "webgpu");
    assert.equal(backend.software, true);
    const offered = await page.evaluate(async () => [...(await navigator.gpu.requestAdapter()).features]);
    const told = ["shader-f16", "subgroups", "timestamp-query"].filter((feature) => offered.includes(feature));
    assert.ok(told.length > 0, `this adapter can't show it: ${offered}`);
    assert.deepEqual(backend.features.toSorted(), told);
    await api.load(SOFT);
    const gpu = await api.draw(FOX);
    const { max, mean } = difference(gpu.images[0].rgba, cpu.images[0].rgba);
    t.diagnostic(`CPU ${Math.round(cpu.milliseconds)} ms, WebGPU ${Math.round(gpu.milliseconds)} ms; max ${max}, mean ${mean.toFixed(4)}`);
    assert.ok(max <= 2 && mean < 0.25, `max ${max}, mean ${mean}`);
    const again = await api.draw(FOX);
    assert.ok(again.images[0].rgba.equals(gpu.images[0].rgba));
  });

  test("cancelling is answered, and the next picture is drawn", async () => {
    const { error, answeredIn } = await api.draw({ ...FOX, steps: 20, cancelAtStep: 1 });
    assert.equal(error.code, "cancelled");
    assert.ok(answeredIn < 200, `${answeredIn} ms`);
    assert.ok(isPicture((await api.draw({ ...FOX, steps: 1 })).images[0].rgba));
  });

  test("NaN in the weights is refused, not shown as black", async () => {
    const unet = "unet/diffusion_pytorch_model.safetensors";
    const folder = site.changed("nan", { [unet]: withNaN(shipped("soft", unet), "conv_out.bias") });
    await api.load(folder);
    await assert.rejects(api.draw({ ...FOX, checkpoint: folder, steps: 1 }), { code: "corrupt", message: /not finite/ });
    assert.ok(isPicture((await api.draw({ ...FOX, steps: 1 })).images[0].rgba));
  });

  test("nothing is read back between the steps of a picture, and the page draws on", async (t) => {
    const worker = "/tintype/worker.js";
    site.rewrite(worker, (script) => TELLS + script);
    await api.create({ backend: "webgpu" });
    site.instead.delete(worker);
    await api.load(SOFT);
    await page.evaluate(() => {
      window.log = [];
      new BroadcastChannel("log").onmessage = ({ data }) => window.log.push(data);
    });
    const told = async (options) => {
      await page.evaluate(() => void (window.log.length = 0));
      const { steps } = await api.draw({ ...FOX, steps: 4, sampler: "UniPC", guidanceScale: 4, ...options });
      await page.evaluate(() => new Promise((done) => setTimeout(done, 100)));
      return { steps, log: await page.evaluate(() => window.log) };
    };
    // What it would look like: previews are read back.
    const previewed = (await told({ preview: true, steps: 2 })).log;
    assert.ok(previewed.indexOf("read") < previewed.lastIndexOf("step"), previewed.join(" "));

    await page.evaluate(() => {
      window.drawn = [];
      const frame = () => window.drawn.push(performance.now()) && requestAnimationFrame(frame);
      requestAnimationFrame(frame);
    });
    const { steps, log } = await told();
    const within = log.slice(log.indexOf("step"), log.lastIndexOf("step"));
    assert.deepEqual(within, Array(3).fill("step"), log.join(" "));
    assert.ok(log.lastIndexOf("read") > log.lastIndexOf("step"), `the picture is read: ${log.join(" ")}`);

    const frames = await page.evaluate(() => window.drawn);
    for (const [i, { at }] of steps.slice(1).entries()) {
      const begin = steps[i].at;
      const during = [begin, ...frames.filter((frame) => frame > begin && frame < at), at];
      const longest = Math.round(Math.max(...during.slice(1).map((frame, i) => frame - during[i])));
      t.diagnostic(`step ${i + 2}: ${during.length - 2} frames in ${Math.round(at - begin)} ms, the longest took ${longest} ms`);
      assert.ok(during.length > 5 && longest < 500, `${during.length - 2} frames, of which one took ${longest} ms`);
    }
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
