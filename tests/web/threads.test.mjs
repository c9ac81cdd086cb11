// Pages that may share memory compute by several threads, and draw the same bytes; all others by one, and nothing has to be set up.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Api, isPicture, openApi, openPage, startBrowser, startSite } from "./harness.mjs";
import { golden, startHub } from "./hub.mjs";
import { broken } from "./server.mjs";

const FOX = { checkpoint: "/checkpoints/soft/", prompt: "fox", seed: 7, steps: 2 };
const THREAD = "/tintype/thread.js";
/** Where it gets what it does. */
const PART = "part = exports.tintype_part;";
const CPU = { backend: "cpu", debug: true };

/** Names of the files of wasm and its glue that a browser's context fetches from now on. */
function watch(context) {
  const fetched = new Set();
  context.on("request", (request) => {
    const name = path.basename(new URL(request.url()).pathname);
    if (/^tintype.*\.(wasm|js)$/.test(name) && request.url().includes("/wasm/")) fetched.add(name);
  });
  return fetched;
}

/** The workers that a browser has, by their scripts' names. */
async function workers(browser) {
  const session = await browser.newBrowserCDPSession();
  try {
    const { targetInfos } = await session.send("Target.getTargets", { filter: [{}] });
    return targetInfos.filter(({ type }) => type === "worker").map(({ url }) => path.basename(url)).sort();
  } finally {
    await session.detach();
  }
}

const threadsOf = async (browser) => (await workers(browser)).filter((name) => name === "thread.js").length;

async function until(holds, message) {
  for (let i = 0; i < 100; i++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(message);
}

const drawOn = async (api, threads, more = {}) => {
  const backend = await api.create({ ...CPU, threads, ...more });
  await api.load(FOX.checkpoint);
  const { images } = await api.draw(FOX);
  return { backend, rgba: images[0].rgba };
};

describe("a page that is isolated by its host's headers", { timeout: 600_000 }, () => {
  let api, browser, page, site, close, faults, one;

  before(async () => {
    ({ api, browser, page, site, close, faults } = await openApi({ isolated: true }));
    one = await drawOn(api, 1);
    assert.ok(isPicture(one.rgba));
  });
  after(() => close?.());

  test("draws the same bytes by two and three threads, from one file of wasm", async () => {
    assert.equal(one.backend.threads, 1);
    const fetched = watch(page.context());
    for (const threads of [2, 3]) {
      const several = await drawOn(api, threads);
      assert.deepEqual([several.backend.kind, several.backend.threads], ["cpu", threads]);
      assert.deepEqual(several.backend.features, ["simd128", "relaxed-simd"]);
      assert.ok(several.rgba.equals(one.rgba), `${threads} threads`);
      await until(async () => (await threadsOf(browser)) === threads - 1, `not ${threads - 1} workers beside the engine's`);
    }
    assert.deepEqual([...fetched].sort(), ["tintype_threads.js", "tintype_threads_bg.wasm"]);
  });

  test("takes as many threads as seem right, if nothing is said", async () => {
    const { threads } = await api.create(CPU);
    const there = await page.evaluate(() => navigator.hardwareConcurrency);
    assert.ok(threads >= Math.min(there, 2) && threads <= Math.min(there, 8), `${threads} of ${there}`);
  });

  test("gives out memory of its own: previews, pictures over a picture, PNGs, figures and hashes", async () => {
    const drawn = async (threads) => {
      await api.create({ ...CPU, threads });
      await api.load(FOX.checkpoint);
      const { value, error } = await api.outcome(`async () => {
        const [checkpoint] = tintype.checkpoints;
        const previews = [];
        const size = { width: 64, height: 64 };
        const options = { checkpoint, prompt: "fox", seed: 7, steps: 3, ...size };
        const first = await tintype.generate({ ...options, preview: true, onStep: ({ preview }) => preview && previews.push(preview) });
        const image = first.images[0].imageData;
        const mask = new ImageData(64, 64);
        mask.data.fill(255, 64 * 64 * 2);
        mask.data.forEach((_, i, all) => i % 4 === 3 && (all[i] = 255));
        const over = await tintype.generate({ ...options, image, mask, strength: 0.7 });
        const png = new Uint8Array(await (await over.images[0].toBlob()).arrayBuffer());
        const { unet } = await tintype.profile({ checkpoint, ...size, parts: ["unet"], nodes: false, tensors: true, runs: 1 });
        const sizes = await tintype.store.verify();
        return {
          previews: previews.map(({ width, data }) => [width, data.length]),
          over: Array.from(over.images[0].imageData.data),
          png: Array.from(png),
          output: Array.from(unet.tensors.output),
          verified: JSON.stringify(sizes),
        };
      }`);
      assert.equal(error, undefined, error?.message);
      return value;
    };
    const [alone, several] = [await drawn(1), await drawn(2)];
    assert.ok(several.previews.length > 0);
    assert.ok(several.output.some((x) => x !== 0) && several.output.every(Number.isFinite));
    assert.deepEqual(several, alone);
  });

  test("answers to a cancellation, and draws the next picture right", async () => {
    await api.create({ ...CPU, threads: 2 });
    await api.load(FOX.checkpoint);
    const short = { ...FOX, steps: 1 };
    const times = [];
    for (let i = 0; i < 5; i++) times.push((await api.draw(short)).milliseconds);
    const alone = Math.min(...times);
    const answers = [];
    for (let i = 0; i < 5; i++) {
      const { error, answeredIn } = await api.draw({ ...FOX, steps: 50, cancelAtStep: 2 });
      assert.equal(error.code, "cancelled");
      const next = await api.draw(short);
      answers.push({ page: answeredIn, worker: next.milliseconds - alone });
    }
    // Other work on a machine of two cores may hold up most of them, for a threads' picture takes both.
    const second = (who) => answers.map((answer) => answer[who]).toSorted((a, b) => a - b)[1];
    for (const who of ["page", "worker"]) assert.ok(second(who) < 100, JSON.stringify(answers));
    assert.ok((await api.draw(FOX)).images[0].rgba.equals(one.rgba));
  });

  test("has its threads again when the engine's worker died, and none when it is closed", async () => {
    const { backend } = await drawOn(api, 3);
    for (const moment of ["idle", "step"]) {
      await api.outcome(`() => tintype.debug.killWorker("${moment}")`);
      assert.ok((await api.draw(FOX)).images[0].rgba.equals(one.rgba), moment);
      assert.equal(await page.evaluate(() => tintype.backend.threads), backend.threads);
      await until(async () => (await threadsOf(browser)) === 2, `${moment}: not two workers beside the engine's`);
    }
    await page.evaluate(() => tintype.close());
    await until(async () => (await workers(browser)).length === 0, "workers were left");
  });

  for (const [what, fails, said] of [
    ["throws", "part = () => { throw new Error('as asked'); };", /threads failed: as asked/],
    ["panics", "part = (job, i) => exports.tintype_part(job, i + 1000);", /threads failed: panicked at .*pool\.rs:.*part 100\d of a job of \d/s],
  ]) {
    test(`a thread that ${what} over its work is a worker that died, and says of what`, async () => {
      let asked = 0;
      site.rewrite(THREAD, (script) => {
        assert.ok(script.includes(PART));
        return asked++ === 0 ? script.replace(PART, fails) : script;
      });
      const { rgba } = await drawOn(api, 2);
      assert.ok(rgba.equals(one.rgba));
      const [{ kind, message }, ...more] = await api.notices();
      assert.equal(kind, "worker");
      assert.match(message, said);
      assert.deepEqual(more, []);
      assert.equal(asked, 2);
      site.instead.delete(THREAD);
    });
  }

  for (const [what, script, harm] of [
    ["its build can't be loaded", "/tintype/wasm/tintype_threads_bg.wasm", broken],
    ["memory to share is refused to the engine", "/tintype/worker.js", "refused"],
    ["memory to share is refused to the engine and the keeper", "/tintype/worker.js,/tintype/keeper.js", "refused"],
    ["memory to share is refused to the keeper alone", "/tintype/keeper.js", "refused"],
  ]) {
    test(`computes as pages that aren't isolated do where ${what}`, async () => {
      const refuses = `
        const { Memory } = WebAssembly;
        WebAssembly.Memory = class extends Memory {
          constructor(sizes) {
            if (sizes.shared && sizes.initial > 1) throw new RangeError("there is no room, as asked");
            super(sizes);
          }
        };`;
      const scripts = script.split(",");
      for (const name of scripts) {
        if (harm === "refused") site.rewrite(name, (text) => refuses + text);
        else site.instead.set(name, harm);
      }
      const fetched = watch(page.context());
      const { backend, rgba } = await drawOn(api, 2);
      scripts.forEach((name) => site.instead.delete(name));
      assert.ok(rgba.equals(one.rgba));
      assert.ok(fetched.has("tintype_relaxed_bg.wasm"), [...fetched].join(", "));
      if (script === "/tintype/keeper.js") return assert.deepEqual([backend.threads, backend.reason], [2, "asked for"]);
      assert.equal(backend.threads, 1);
      assert.match(backend.reason, /^asked for; on one thread, because others can't compute: .*(answered 503|as asked)/);
    });
  }

  test("computes on one thread where others cannot start, and says so once", async () => {
    const said = [];
    page.on("console", (line) => line.type() === "warning" && said.push(line.text()));
    site.instead.set(THREAD, broken);
    const { backend, rgba } = await drawOn(api, 3);
    site.instead.delete(THREAD);
    assert.equal(backend.threads, 1);
    assert.match(backend.reason, /on one thread.*thread/);
    assert.ok(rgba.equals(one.rgba));
    assert.equal(said.filter((line) => /Tintype computes on one thread/.test(line)).length, 1, said.join("\n"));
  });

  test("does without threads that fail each time", async () => {
    site.rewrite(THREAD, (script) => script.replace(PART, "part = () => { throw new Error('as asked'); };"));
    await api.create({ ...CPU, threads: 2 });
    await api.load(FOX.checkpoint);
    await assert.rejects(api.draw(FOX), { code: "internal", message: /as asked/ });
    assert.ok((await api.draw(FOX)).images[0].rgba.equals(one.rgba));
    assert.equal(await page.evaluate(() => tintype.backend.threads), 1);
    site.instead.delete(THREAD);
  });

  test("does without threads whose build never comes", async () => {
    const worker = "/tintype/worker.js";
    const wasm = "/tintype/wasm/tintype_threads_bg.wasm";
    site.instead.set(wasm, () => {});
    site.rewrite(worker, (script) => {
      assert.ok(script.includes("[30_000, 300_000]"));
      return script.replace("[30_000, 300_000]", "[500, 300_000]");
    });
    const { backend, rgba } = await drawOn(api, 2);
    [wasm, worker].forEach((name) => site.instead.delete(name));
    assert.equal(backend.threads, 1);
    assert.match(backend.reason, /tintype_threads_bg\.wasm: the host did not answer in 0\.5 s/);
    assert.ok(rgba.equals(one.rgba));
  });

  test("refuses what is no number of threads", async () => {
    for (const threads of [0, -1, 1.5, 65, "2", true]) {
      await assert.rejects(api.create({ ...CPU, threads }), { code: "invalid-argument", message: /create: threads: expected a whole number from 1 to 64/ });
    }
  });

  test("logged nothing as an error", () => assert.deepEqual(faults.filter((fault) => !/as asked|of a job of/.test(fault)), []));
});

describe("a page whose host sends no headers", { timeout: 300_000 }, () => {
  let browser, site, plain;

  before(async () => {
    site = await startSite();
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.close();
    await site?.close();
  });

  test("computes on one thread, whatever is asked for", async () => {
    const { page, faults } = await openPage(browser, `${site.url}blank.html`);
    await page.waitForFunction(() => window.call !== undefined);
    const fetched = watch(page.context());
    plain = await drawOn(new Api(page), 4);
    assert.equal(plain.backend.threads, 1);
    assert.deepEqual([...fetched].sort(), ["tintype.js", "tintype_relaxed_bg.wasm"]);
    assert.deepEqual(faults, []);
    await page.context().close();
  });

  for (const [what, address] of [
    ["a service worker", "inner/isolated.html"],
    ["another site's service worker", "beside/otherwise.html"],
  ]) test(`isolates itself by ${what} in whose folder Tintype is not, and draws the same bytes by several threads`, async () => {
    const { page, faults } = await openPage(browser, `${site.url}${address}`);
    await page.waitForFunction(() => window.crossOriginIsolated && window.call !== undefined);
    const api = new Api(page);
    const several = await drawOn(api, 2);
    assert.deepEqual([several.backend.threads, several.backend.reason], [2, "asked for"]);
    assert.ok(several.rgba.equals(plain.rgba));
    // The worker in a dead one's place too.
    await api.outcome(`() => tintype.debug.killWorker("step")`);
    assert.ok((await api.draw(FOX)).images[0].rgba.equals(plain.rgba));
    assert.equal(await page.evaluate(() => tintype.backend.threads), 2);
    assert.deepEqual(faults, []);
    await page.context().close();
  });

  test("isolates itself by the service worker that is beside it, and draws the same bytes by several threads", async () => {
    const { page, faults } = await openPage(browser, `${site.url}isolated.html`);
    await page.waitForFunction(() => window.crossOriginIsolated && window.call !== undefined);
    const several = await drawOn(new Api(page), 2);
    assert.equal(several.backend.threads, 2);
    assert.ok(several.rgba.equals(plain.rgba));
    // Once loaded so, it is not loaded again.
    const loads = [];
    page.on("framenavigated", () => loads.push(page.url()));
    await page.goto(`${site.url}isolated.html`);
    await page.waitForFunction(() => window.crossOriginIsolated && window.call !== undefined);
    assert.equal(loads.length, 1);
    assert.deepEqual(faults, []);
  });
});

describe("repositories of the hub, whose files come from two other origins", { timeout: 300_000 }, () => {
  let hub;
  const pictures = new Map();

  before(async () => {
    hub = await startHub();
    hub.push("someone/tiny", golden("sd1-ddim"));
  });
  after(() => hub?.close());

  for (const isolated of [false, "credentialless", "require-corp"]) {
    test(`are drawn with, on a page ${isolated ? `with the policy ${isolated}` : "without a policy"}`, async () => {
      const { api, faults, close } = await openApi({ isolated });
      try {
        const { threads } = await api.create({ ...CPU, threads: 2, hub: { url: hub.url } });
        assert.equal(threads, isolated ? 2 : 1);
        const { key } = await api.load("hf:someone/tiny");
        const { images } = await api.draw({ checkpoint: key, prompt: "a red apple on white", seed: 0, steps: 2, width: 64, height: 64 });
        pictures.set(isolated, images[0].rgba);
        assert.ok(images[0].rgba.equals(pictures.get(false)));
        assert.deepEqual(faults, []);
      } finally {
        await close();
      }
    });
  }
});
