// Workers that die and devices that are lost: whoever waits is answered all the same, and the picture is the same.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { isPicture, openApi } from "./harness.mjs";

const SOFT = "/checkpoints/soft/";
const MOMENTS = ["load", "text", "step", "decode", "idle"];

/** Draws `moment` by `moment` while `harm` is done, in the page. */
const harmed = (page, harm, moment) =>
  page.evaluate(
    async ([harm, moment]) => {
      const [checkpoint] = window.handles;
      if (moment === "load") await checkpoint.unload();
      await tintype.debug[harm](moment);
      // What is done when idle is noticed before it is next needed, or then.
      const drawn = await outcome(() => tintype.generate({ checkpoint, prompt: "fox", seed: 7, ...window.size }));
      const { error, value } = drawn;
      if (error) return { error };
      return { rgba: Array.from(value.images[0].imageData.data), notices: window.notices.splice(0) };
    },
    [harm, moment],
  );

const open = async (api, page, options, size) => {
  await api.create({ ...options, debug: true });
  await api.load(SOFT);
  return page.evaluate(async (size) => {
    window.size = size;
    window.handles = [...tintype.checkpoints];
    const { images } = await tintype.generate({ checkpoint: window.handles[0], prompt: "fox", seed: 7, ...size });
    window.notices.splice(0);
    return Array.from(images[0].imageData.data);
  }, size);
};

describe("a worker that dies", { timeout: 600_000 }, () => {
  let api, close, page, faults, good;

  before(async () => {
    ({ api, close, page, faults } = await openApi());
    good = await open(api, page, { backend: "cpu" }, { steps: 2 });
    assert.ok(isPicture(good));
    await page.evaluate(() => {
      /** Kills the worker, and waits until that is known. */
      window.dead = async () => {
        const known = new Promise((resolve, reject) => {
          tintype.addEventListener("change", resolve, { once: true });
          setTimeout(() => reject(new Error("nobody heard of its death")), 5000);
        });
        await tintype.debug.killWorker("idle");
        await known;
      };
    });
  });
  after(() => close?.());

  for (const moment of MOMENTS) {
    test(`killed: ${moment}`, async () => {
      const { error, rgba, notices } = await harmed(page, "killWorker", moment);
      assert.equal(error, undefined);
      assert.deepEqual(rgba, good);
      assert.deepEqual(
        notices.map(({ kind }) => kind),
        ["worker"],
      );
    });
  }

  test("while it loads a checkpoint for the first time, it is loaded all the same", async () => {
    await page.evaluate(() => tintype.debug.killWorker("load"));
    const { id } = await api.load("/checkpoints/flat/");
    const notices = await page.evaluate(() => window.notices.splice(0));
    assert.deepEqual(notices.map(({ kind }) => kind), ["worker"]);
    assert.equal(await page.evaluate((id) => tintype.checkpoints.some((c) => c.id === id), id), true);
  });

  test("one that took a dead one's place, first asked for a picture that was given up already, draws the next one", async () => {
    const { first, second } = await page.evaluate(async () => {
      const [checkpoint] = window.handles;
      await dead();
      const job = { checkpoint, prompt: "fox", seed: 7, ...window.size };
      const first = await outcome(() => tintype.generate({ ...job, signal: AbortSignal.abort() }));
      const { error, value } = await outcome(() => tintype.generate(job));
      return { first: first.error, second: error ?? Array.from(value.images[0].imageData.data) };
    });
    assert.equal(first?.code, "cancelled");
    assert.deepEqual(second, good);
  });

  test("what it held is not said to be in memory, and there is nothing to let go of", async () => {
    const told = await page.evaluate(async () => {
      await tintype.generate({ checkpoint: window.handles[0], prompt: "fox", ...window.size });
      const before = [tintype.checkpoints.length > 0, tintype.memory?.weights > 0];
      window.notices.splice(0);
      await dead();
      const after = [tintype.checkpoints.length, tintype.memory];
      await window.handles[0].unload();
      return { before, after, notices: window.notices };
    });
    assert.deepEqual(told, { before: [true, true], after: [0, null], notices: [] });
  });

  test("a trap in the engine", async () => {
    const draw = () => outcome(() => tintype.generate({ checkpoint: window.handles[0], prompt: "fox", seed: 7, steps: 20 }));
    await page.evaluate(`(${draw})()`);
    await page.evaluate(() => window.notices.splice(0));
    const worker = page.workers().findLast((worker) => worker.url().endsWith("/worker.js"));
    const drawing = page.evaluate(`(${draw})()`);
    // A trap as wasm makes them, in a task of the worker's own.
    await worker.evaluate(() => {
      const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 5, 1, 3, 0, 0, 11]);
      const { f } = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;
      Promise.resolve().then(f);
    });
    const { value, error } = await drawing;
    assert.equal(error, undefined);
    assert.ok(value);
    const [notice, ...more] = await api.notices();
    assert.equal(notice?.kind, "worker");
    assert.match(notice.message, /unreachable/);
    assert.deepEqual(more, []);
  });

  test("one that dies over every attempt is an error, and the next call begins anew", async () => {
    const twice = await page.evaluate(async () => {
      await tintype.debug.killWorker("step");
      const onStep = () => tintype.debug.killWorker("decode").catch(() => {});
      const first = await outcome(() => tintype.generate({ checkpoint: window.handles[0], prompt: "fox", steps: 20, onStep }));
      const second = await outcome(() => tintype.generate({ checkpoint: window.handles[0], prompt: "fox", seed: 7, steps: 2 }));
      return [first.error, second.error];
    });
    assert.equal(twice[0]?.code, "internal", JSON.stringify(twice[0]));
    assert.ok(twice[0].typed);
    assert.equal(twice[1], undefined);
  });

  test("the worker that fetches, while it does", async () => {
    const url = "/checkpoints/3d/";
    const keeper = page.workers().find((worker) => worker.url().endsWith("keeper.js"));
    const loading = api.load(url);
    await keeper.evaluate(() => self.close()).catch(() => {});
    assert.ok((await loading).id);
  });

  test("nothing else was logged as an error", () => assert.ok(faults.every((fault) => /unreachable/.test(fault)), faults.join("\n")));
});

describe("a GPU device that is lost", { timeout: 600_000 }, () => {
  let api, close, page, good;

  before(async () => {
    ({ api, close, page } = await openApi({ webgpu: true }));
    good = await open(api, page, { backend: "webgpu" }, { steps: 2, width: 64, height: 64, guidanceScale: 1 });
    assert.ok(isPicture(good));
  });
  after(() => close?.());

  for (const moment of MOMENTS) {
    test(`destroyed: ${moment}`, async () => {
      const { error, rgba, notices } = await harmed(page, "loseDevice", moment);
      assert.equal(error, undefined);
      assert.deepEqual(rgba, good);
      assert.deepEqual(
        notices.map(({ kind }) => kind),
        ["device"],
      );
      assert.equal(await page.evaluate(() => tintype.backend.kind), "webgpu");
    });
  }

  test("lost twice over one picture it is an error, and from then on the CPU draws", async () => {
    const { first, second, kind, notices } = await page.evaluate(async () => {
      const [checkpoint] = window.handles;
      await tintype.debug.loseDevice("step");
      const job = { checkpoint, prompt: "fox", seed: 7, ...window.size };
      const onStep = () => tintype.debug.loseDevice("decode");
      const first = await outcome(() => tintype.generate({ ...job, onStep }));
      const second = await outcome(() => tintype.generate(job));
      return { first: first.error, second: second.error, kind: tintype.backend.kind, notices: window.notices };
    });
    assert.equal(first?.code, "device-lost", JSON.stringify(first));
    assert.equal(second, undefined);
    assert.equal(kind, "cpu");
    assert.equal(notices.at(-1).kind, "backend");
    assert.match(notices.at(-1).message, /CPU/);
  });
});
