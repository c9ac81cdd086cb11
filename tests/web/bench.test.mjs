// What measures: `profile` on both devices, and the page bench.html with its race. Times are never judged here, for other work takes them.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { pressBench } from "./bench-page.mjs";
import { openApi, openPage, startBrowser, startSite } from "./harness.mjs";
import { DIST, shipped } from "./server.mjs";

const SOFT = "/checkpoints/soft/";
const { max_position_embeddings: TOKENS } = JSON.parse(shipped("soft", "text_encoder/config.json"));
const PARTS = ["unet", "vae", "text"];
const LONG = { timeout: 1_200_000 };
const sum = (nodes, key) => nodes.reduce((sum, node) => sum + node[key], 0);
/** The largest difference, over the largest value. */
const apart = (a, b) => Math.max(...a.map((x, i) => Math.abs(x - b[i]))) / Math.max(...a.map(Math.abs));

/** Profiles the shipped checkpoint, which is loaded if it is not; tensors come as plain arrays. */
const profile = (api, options) => api.call("profile", SOFT, options);

function assertPlan(plan, { flop }) {
  assert.ok(plan.ms > 0 && plan.runs.length >= 1 && plan.runs.every((ms) => ms > 0), JSON.stringify(plan.runs));
  assert.ok(plan.runs.includes(plan.ms), "the median is one of them");
  assert.deepEqual(plan.nodes.map(({ index }) => index), plan.nodes.map((_, i) => i), "every node, in order");
  const step = plan.nodes.filter(({ rate }) => rate === "step");
  for (const { label, op, shape, ms, flop, bytes, share } of plan.nodes) {
    const of = `${label}: ${op}`;
    assert.ok(label && op && shape.length > 0 && shape.every((n) => n > 0), of);
    assert.ok([ms, flop, bytes, share].every((value) => Number.isFinite(value) && value >= 0), `${of}: ${[ms, flop, bytes, share]}`);
    assert.equal(op === "input", bytes === 0, of);
  }
  for (const key of ["flop", "bytes"]) assert.ok(Math.abs(sum(step, key) - plan[key]) <= 1e-9 * plan[key], key);
  assert.ok(plan.flop > flop / 2 && plan.flop < flop * 2, `${plan.flop} operations`);
  // Nodes one by one are about the whole: what lies between is what a submit costs, and other work on this machine.
  const whole = sum(step, "ms") / plan.ms;
  assert.ok(whole > 0.05 && whole < 10, `the nodes take ${sum(step, "ms")} ms, the whole ${plan.ms}`);
}

describe("profile", LONG, () => {
  let api, close, page, faults;
  /** What the CPU's UNet made. */
  let expected;

  before(async () => {
    ({ api, close, page, faults } = await openApi({ webgpu: true }));
  });
  after(() => close?.());

  test("the CPU times each node by the clock", async () => {
    await api.create({ backend: "cpu", store: "off" });
    await api.load(SOFT);
    const { backend, timedBy, peak, unet, vae, text } = await profile(api, { prompt: "fox", guidanceScale: 1, tensors: true, parts: PARTS });
    assert.equal(backend.kind, "cpu");
    assert.equal(timedBy, "clock");
    assert.ok(peak.gemm > 1e8 && peak.copy > 1e8, JSON.stringify(peak));
    assert.equal(peak.gemmHalf, null);
    // By hand, from the configurations: 0.52 GFLOP a branch, 4.3 for the decoder.
    assertPlan(unet, { flop: 0.52e9 });
    assertPlan(vae, { flop: 4.3e9 });
    assert.equal(unet.dispatches + unet.submits, 0);
    expected = { unet: unet.tensors, vae: vae.tensors, text: text.tensors };
    assert.equal(expected.unet.sample.length, 4 * 16 * 16);
    assert.equal(expected.unet.output.length, 4 * 16 * 16);
    assert.equal(expected.unet.encoderHiddenStates.length, TOKENS * 192);
    assert.equal(expected.vae.latents.length, 4 * 16 * 16);
    assert.equal(expected.vae.output.length, 3 * 128 * 128);
    // The prompt's hidden states are what the UNet read.
    assert.equal(expected.text.inputIds.length, TOKENS);
    assert.deepEqual(expected.text.output, expected.unet.encoderHiddenStates);
  });

  test("guidance makes it two branches, and parts leave others out", async () => {
    const one = await profile(api, { parts: ["unet"], nodes: false, runs: 2, guidanceScale: 1 });
    const two = await profile(api, { parts: ["unet"], nodes: false, runs: 2, guidanceScale: 3 });
    assert.equal(one.vae, null);
    assert.deepEqual([one.unet.nodes, one.unet.runs.length, one.unet.tensors], [[], 2, undefined]);
    assert.equal(two.unet.flop, 2 * one.unet.flop);
    const read = await profile(api, { prompt: "fox", parts: ["unet"], nodes: false, runs: 2, guidanceScale: 1, readOutput: true, tensors: true });
    assert.deepEqual([read.unet.flop, read.unet.runs.length], [one.unet.flop, 2]);
    assert.ok(apart(expected.unet.output, read.unet.tensors.output) < 1e-6, "what is read back in between changes nothing");
  });

  test("WebGPU times the same nodes, and computes the same", async () => {
    const { features } = await api.create({ backend: "webgpu", store: "off" });
    await api.load(SOFT);
    const { backend, timedBy, peak, unet, vae, text } = await profile(api, { prompt: "fox", guidanceScale: 1, tensors: true, parts: PARTS });
    assert.equal(backend.kind, "webgpu");
    assert.equal(timedBy, features.includes("timestamp-query") ? "timestamps" : "clock");
    assert.ok(peak.gemm > 1e7 && peak.copy > 1e7, JSON.stringify(peak));
    assertPlan(unet, { flop: 0.52e9 });
    assertPlan(vae, { flop: 4.3e9 });
    assert.ok(unet.dispatches >= unet.submits && unet.submits >= 1, `${unet.dispatches} in ${unet.submits}`);
    const found = { unet: unet.tensors, vae: vae.tensors, text: text.tensors };
    for (const [part, name] of [["unet", "sample"], ["vae", "latents"], ["text", "inputIds"]]) {
      assert.deepEqual(found[part][name], expected[part][name]);
    }
    for (const [part, most] of [["text", 1e-4], ["unet", 1e-3], ["vae", 1e-3]]) {
      const far = apart(expected[part].output, found[part].output);
      assert.ok(far < most, `${part}: ${far}`);
    }
  });

  test("what is wrong is refused by name", async () => {
    const wrong = [
      ["profile({ checkpoint: {} })", /checkpoint: expected what load\(\) gave/],
      ["profile({ checkpoint: window.soft, part: [] })", /unknown option "part"/],
      ["profile({ checkpoint: window.soft, parts: [,] })", /parts: expected an array of/],
      ["profile({ checkpoint: window.soft, parts: ['words'] })", /parts: expected an array of "unet", "vae" and "text"/],
      ["profile({ checkpoint: window.soft, readOutput: 1 })", /readOutput: expected true or false/],
      ["profile({ checkpoint: window.soft, runs: 0 })", /runs: expected a whole number from 1/],
      ["profile({ checkpoint: window.soft, width: 7 })", /width: expected a multiple of 8/],
    ];
    await page.evaluate(() => (window.soft = window.tintype.checkpoints[0]));
    for (const [call, message] of wrong) await api.refuses(`() => window.tintype.${call}`, "invalid-argument", message);
  });

  test("what close() ends is cancelled, and what comes after is refused", async () => {
    await api.create({ backend: "cpu", store: "off" });
    await api.load(SOFT);
    const codes = await page.evaluate(async () => {
      const checkpoint = window.tintype.checkpoints[0];
      const code = (promise) => promise.then(() => "done", ({ code }) => code);
      const calls = [code(window.tintype.generate({ checkpoint, prompt: "fox" })), code(window.tintype.profile({ checkpoint }))];
      window.tintype.close();
      return Promise.all([...calls, code(window.tintype.generate({ checkpoint, prompt: "fox" }))]);
    });
    assert.deepEqual(codes, ["cancelled", "cancelled", "invalid-argument"]);
    await api.create({ backend: "cpu", store: "off" });
    await api.load(SOFT);
    await page.evaluate(() => (window.soft = window.tintype.checkpoints[0]));
  });

  test("it stops when it is told to", async () => {
    const { error } = await api.outcome(`async () => {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), 300);
      return window.tintype.profile({ checkpoint: window.soft, signal: controller.signal });
    }`);
    assert.equal(error?.code, "cancelled");
  });

  test("a device that is lost is set up anew, and asked again", async () => {
    await api.create({ backend: "webgpu", store: "off", debug: true });
    await api.load(SOFT);
    await page.evaluate(() => window.tintype.debug.loseDevice());
    const { unet } = await profile(api, { parts: ["unet"], nodes: false, runs: 1 });
    assert.ok(unet.ms > 0);
    assert.deepEqual((await api.notices()).filter(({ kind }) => kind !== "store").map(({ kind }) => kind), ["device"]);
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});

describe("the page that measures", LONG, () => {
  let site, browser;

  before(async () => {
    site = await startSite();
    browser = await startBrowser({ webgpu: true });
  });
  after(async () => {
    await browser?.close();
    await site?.close();
  });

  test("it is linked from the page, measures, and fetches nothing of onnxruntime-web unasked", async () => {
    const { page, faults } = await openPage(browser, site.url);
    await page.click('a[href="bench.html"]');
    await page.waitForSelector('body[data-state="idle"]');
    const asked = [];
    page.on("request", (request) => asked.push(request.url()));
    await page.selectOption("#model", "small");
    await page.selectOption("#runs-on", "cpu");
    const report = await pressBench(page, LONG);
    assert.ok(asked.length > 0 && asked.every((url) => !url.includes("/bench/ort/")), asked.join("\n"));
    assert.equal(report.race, null);
    assert.equal(report.backend.kind, "cpu");
    assert.ok(report.adapter.limits.maxBufferSize > 0);
    const rows = (title) => page.$$eval("details section.result", (all, title) =>
      all.filter((section) => section.querySelector("h2").textContent === title).map((section) => section.querySelectorAll("tbody tr").length), title);
    assert.deepEqual(await rows("UNet"), [report.unet.nodes.length]);
    assert.deepEqual(await rows("Decoder"), [report.vae.nodes.length]);
    await page.setViewportSize({ width: 420, height: 800 });
    await page.click("details summary");
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 420, "nothing but tables is moved sideways");
    const text = await page.textContent("#results");
    for (const part of [/Matrix product, at most/, /A step of the UNet, latents 8 × 8/, /Where decoding's time goes/]) assert.match(text, part);
    assert.deepEqual(faults, []);
    await page.close();
  });

  test("the race gives both engines one model: they agree", async (t) => {
    const { page, faults } = await openPage(browser, `${site.url}bench.html?model=small&runs-on=webgpu&race&rounds=2`);
    const { race, backend } = await pressBench(page, LONG);
    assert.equal(backend.kind, "webgpu");
    assert.equal(race.error, undefined);
    t.diagnostic(`apart ${race.difference}; onnxruntime-web: ${race.ort.dispatches} dispatches, ${race.ort.submits} submits, ${race.ort.pipelines} pipelines`);
    // Far below what the page calls the same: their sums are in another order, and nothing else.
    assert.ok(race.difference < 1e-4 && race.agrees, String(race.difference));
    assert.ok(race.ort.dispatches > 100 && race.ort.submits > 1, JSON.stringify(race.ort));
    assert.deepEqual([race.tintype.runs.length, race.ort.runs.length], [2, 2]);
    assert.match(await page.textContent("#results"), /Both compute\s*the same/);
    assert.deepEqual(faults, []);
    await page.close();
  });

  test("the page's own checkpoints can be raced too, all three models of one", async (t) => {
    const { page, faults } = await openPage(browser, `${site.url}bench.html?model=soft&runs-on=cpu&race&rounds=1`);
    const { race, others, model } = await pressBench(page, LONG);
    assert.equal(model.parameters, null);
    for (const [part, { error, difference, agrees }] of Object.entries({ unet: race, ...others })) {
      assert.equal(error, undefined, part);
      t.diagnostic(`${part}: apart ${difference}`);
      assert.ok(agrees && difference < 1e-4, `${part}: ${difference}`);
    }
    assert.deepEqual(Object.keys(others), ["vae", "text"]);
    const text = await page.textContent("#results");
    for (const part of [/% of the operations, done once a prompt or schedule, are not in a step/, /weights and arithmetic in 32 bits; all operations each step/]) {
      assert.match(text, part);
    }
    assert.deepEqual(faults, []);
    await page.close();
  });

  test("nothing is raced while it is measured", async () => {
    const page = await browser.newPage();
    await page.goto(`${site.url}blank.html`);
    const order = (backend) => page.evaluate(async (backend) => {
      const { measure, models } = await import("/bench/measure.js");
      const { Tintype } = await import("/tintype/tintype.js");
      const calls = [];
      let unraced = 3;
      // An engine that finds out one thing with each picture, and then can't be measured.
      Tintype.create = async () => ({
        backend,
        addEventListener() {},
        load: async () => ({ defaults: { width: 64, height: 64, factor: 8 } }),
        generate: async () => void (calls.push("generate"), unraced--),
        profile: async () => Promise.reject(new Error(calls.push("profile"))),
        debug: { counts: async () => ({ unraced }) },
        close: async () => {},
      });
      const small = (await models()).find(({ id }) => id === "small");
      await measure(small).catch(() => {});
      return calls;
    }, backend);
    assert.deepEqual(await order({ kind: "webgpu", software: false }), ["generate", "generate", "generate", "profile"]);
    for (const backend of [{ kind: "webgpu", software: true }, { kind: "cpu" }]) assert.deepEqual(await order(backend), ["profile"]);
    await page.close();
  });

  test("a race whose other engine fails at once leaves WebGPU's calls as they were", async () => {
    const page = await browser.newPage();
    await page.goto(`${site.url}blank.html`);
    const found = await page.evaluate(async () => {
      const { race } = await import("/bench/race.js");
      const { makeCheckpoint } = await import("/bench/made.js");
      const { models } = await import("/bench/measure.js");
      const made = makeCheckpoint((await models()).find(({ id }) => id === "small"));
      const before = GPUQueue.prototype.submit;
      // A timestep that is no number of its type.
      const failed = await race(made, { kind: "cpu", threads: 1 }, { output: [], sample: [1], encoderHiddenStates: [1], timestep: 1 }, async () => 1, 1, { near: 1 }).catch(({ message }) => message);
      return { failed, same: GPUQueue.prototype.submit === before };
    });
    assert.equal(typeof found.failed, "string");
    assert.ok(found.same);
    await page.close();
  });

  test("outputs that differ are said to", async () => {
    const page = await browser.newPage();
    await page.goto(`${site.url}blank.html`);
    const [same, near, wrong, nothing] = await page.evaluate(async () => {
      const { apart } = await import("/bench/race.js");
      const from = [1, -4, 2];
      return [apart(from, from), apart(from, [1, -4, 2.002]), apart(from, [1, 4, 2]), apart(from, [1, NaN, 2])].map(String);
    });
    assert.deepEqual([same, Number(near).toFixed(6), wrong, nothing], ["0", "0.000500", "2", "Infinity"]);
    await page.close();
  });

  test("without onnxruntime-web the rest stands, and the page says why", async () => {
    const { page } = await openPage(browser, `${site.url}bench.html?model=small&runs-on=cpu&race`);
    await page.route("**/bench/ort/**", (route) => route.abort());
    const { race, unet } = await pressBench(page, LONG);
    assert.match(race.error, /onnxruntime-web could not be fetched/);
    assert.ok(unet.nodes.length > 0);
    assert.match(await page.textContent("#results"), /The race was not held/);
    await page.close();
  });

  test("it stops when it is told to", async () => {
    const { page, faults } = await openPage(browser, `${site.url}bench.html?model=small&runs-on=cpu`);
    await page.waitForSelector('body[data-state="idle"]');
    await page.click("#measure");
    await page.click("#stop");
    await page.waitForSelector('body[data-state="idle"]');
    assert.equal(await page.textContent("#said"), "Stopped.");
    assert.deepEqual(faults, []);
    await page.close();
  });

  test("it stops while the other engine is fetched, and measures again", async () => {
    const { page, faults } = await openPage(browser, `${site.url}bench.html?model=small&runs-on=cpu&race&rounds=-1`);
    await page.waitForSelector('body[data-state="idle"]');
    await page.route("**/bench/ort/*.wasm", () => {});
    await page.click("#measure");
    await page.waitForFunction(() => /^Fetching/.test(document.getElementById("said").textContent), null, LONG);
    await page.click("#stop");
    await page.waitForSelector('body[data-state="idle"]', { timeout: 10_000 });
    assert.equal(await page.textContent("#said"), "Stopped.");
    await page.unroute("**/bench/ort/*.wasm");
    await page.reload();
    // A number of rounds that is none is none.
    const { race } = await pressBench(page, LONG);
    assert.ok(race.ratio > 0 && race.ort.runs.length > 0, JSON.stringify(race));
    assert.deepEqual(faults, []);
    await page.close();
  });

  test("a list of checkpoints that never comes keeps nobody waiting", async () => {
    const page = await browser.newPage();
    await page.route("**/checkpoints.json", () => {});
    await page.goto(`${site.url}bench.html`);
    await page.waitForSelector('body[data-state="idle"]');
    assert.ok((await page.$$("#model option")).length >= 4);
    await page.close();
  });

  test("a site that copies dist/tintype/ gets none of it", () => {
    const names = readdirSync(path.join(DIST, "tintype"), { recursive: true });
    assert.deepEqual(names.filter((name) => /ort|onnx|bench/i.test(path.basename(name))), []);
    assert.ok(readdirSync(path.join(DIST, "bench/ort")).some((name) => name.endsWith(".wasm")));
  });
});
