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
  let api, close, page, site, faults, good;

  before(async () => {
    ({ api, close, page, site, faults } = await openApi());
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

  const keeper = () => page.workers().findLast((worker) => worker.url().endsWith("/keeper.js"));
  const killKeeper = () => keeper().evaluate(() => self.close()).catch(() => {});
  /** Waits for `count` notices, and takes them. */
  const notices = async (count) => {
    await page.waitForFunction((count) => window.notices.length >= count, count);
    return page.evaluate(() => window.notices.splice(0));
  };

  test("the worker that fetches, while it does", async () => {
    await page.evaluate(() => window.notices.splice(0));
    let reached;
    const asked = new Promise((resolve) => (reached = resolve));
    let count = 0;
    // The host keeps silent until the worker that asked is dead.
    const folder = site.changed("orphan", {
      "unet/diffusion_pytorch_model.safetensors": (request, response, original) => {
        if (++count === 1) return reached();
        response.end(original());
      },
    });
    const loading = api.load(folder);
    await asked;
    await killKeeper();
    assert.ok((await loading).id);
    assert.equal(count, 2);
    const [{ kind, message }, ...more] = await notices(1);
    assert.equal(kind, "worker");
    assert.match(message, /another one took its place/);
    assert.deepEqual(more, []);
  });

  test("the worker that fetches, again and again, with answers in between", async () => {
    for (let time = 0; time < 7; time++) {
      await killKeeper();
      const [{ message }] = await notices(1);
      assert.match(message, /another one took its place/, `death ${time}`);
      await page.evaluate(() => tintype.store.list());
    }
  });

  test("the worker that fetches, until it is given up; it is there again when it can start again", async () => {
    const script = "**/tintype/keeper.js";
    await page.route(script, (route) => route.fulfill({ contentType: "text/javascript", body: "throw new Error('not today');" }));
    await killKeeper();
    const told = await notices(6);
    assert.deepEqual(told.map(({ message }) => /another one took its place/.test(message)), [true, true, true, true, true, false]);
    const folder = site.changed("given-up", {});
    await assert.rejects(api.load(folder), { code: "network" });
    await page.unroute(script);
    await page.evaluate(() => tintype.store.list());
    assert.ok((await api.load(folder)).id);
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
    const { first, second, backend, notices } = await page.evaluate(async () => {
      const [checkpoint] = window.handles;
      await tintype.debug.loseDevice("step");
      const job = { checkpoint, prompt: "fox", seed: 7, ...window.size };
      const onStep = () => tintype.debug.loseDevice("decode");
      const first = await outcome(() => tintype.generate({ ...job, onStep }));
      const second = await outcome(() => tintype.generate(job));
      return { first: first.error, second: second.error, backend: tintype.backend, notices: window.notices };
    });
    assert.equal(first?.code, "device-lost", JSON.stringify(first));
    assert.equal(second, undefined);
    assert.equal(backend.kind, "cpu");
    assert.equal(backend.reason, "the GPU was lost twice, so the CPU is used");
    assert.equal(notices.at(-1).kind, "backend");
    assert.match(notices.at(-1).message, /CPU/);
  });
});
