// Choice by measurement in a browser: what is found out about an adapter, kept, exported and given back.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { difference, openApi } from "./harness.mjs";

const SOFT = "/checkpoints/soft/";
const FOX = { checkpoint: SOFT, prompt: "fox", seed: 7, steps: 1, width: 32, height: 32 };

/** What the browser keeps: `[[key, tuning]]`. */
const kept = (page) =>
  page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open("tintype-tuning");
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const database = opening.result;
          if (database.objectStoreNames.length === 0) return database.close(), resolve([]);
          const store = database.transaction("adapters").objectStore("adapters");
          const [keys, values] = [store.getAllKeys(), store.getAll()];
          values.onsuccess = () => (database.close(), resolve(keys.result.map((key, i) => [key, values.result[i]])));
        };
      }),
  );

describe("tuning", { timeout: 1_200_000 }, () => {
  let api, close, page, faults;
  const tuning = () => page.evaluate(() => window.tintype.tuning());
  /** Keeps `value` under `key`, as another page would. Without a key, nothing stays. */
  const put = (key, value) =>
    page.evaluate(
      ([key, value]) =>
        new Promise((resolve, reject) => {
          const opening = indexedDB.open("tintype-tuning", 1);
          opening.onupgradeneeded = () => opening.result.createObjectStore("adapters");
          opening.onerror = () => reject(opening.error);
          opening.onsuccess = () => {
            const transaction = opening.result.transaction("adapters", "readwrite");
            const store = transaction.objectStore("adapters");
            if (key === undefined) store.clear();
            else store.put(value, key);
            transaction.oncomplete = () => resolve(opening.result.close());
          };
        }),
      [key, value],
    );
  const forget = () => put();
  /**
   * From now on the software adapter plays a GPU, with the kernels of one. `spoil(label, code, device)` gives what is compiled in place
   * of a kernel's text; `more` runs in the worker.
   */
  const asGpu = async (spoil = "(label, code) => code", more = "") => {
    await page.unroute("**/tintype/worker.js");
    await page.route("**/tintype/worker.js", async (route) => {
      const answer = await route.fetch();
      const named = (await answer.text()).replace(
        /const \{ vendor, architecture, device, description, isFallbackAdapter \} = .*;/,
        'const [vendor, architecture, device, description, isFallbackAdapter] = ["a", "gpu", "", "", false];',
      );
      const body = `${named}
        const { createShaderModule } = GPUDevice.prototype;
        const spoil = ${spoil};
        GPUDevice.prototype.createShaderModule = function (descriptor) {
          const { label, code } = descriptor;
          return createShaderModule.call(this, label.startsWith("gemm[") ? { label, code: spoil(label, code, this) } : descriptor);
        };
        ${more}`;
      await route.fulfill({ response: answer, body });
    });
  };
  const createAndDraw = async (options) => {
    await api.create({ backend: "webgpu", store: "off", ...options });
    await api.load(SOFT);
    return api.draw(FOX);
  };
  /** Draws until `is(tuning)`: a race takes longer here than there is time for in one picture. The last picture. */
  const drawUntil = async (is, options) => {
    let drawn = await createAndDraw(options);
    for (let more = 40; !is(await tuning()); more--) {
      assert.ok(more > 0, JSON.stringify([await tuning(), await api.notices()]));
      drawn = await api.draw(FOX);
    }
    return drawn;
  };
  const hasChoices = ({ choices }) => Object.keys(choices).length > 0;
  /** The picture as it is where nothing is raced, and the kernels that it takes. */
  const drawnWithout = async () => {
    const kernels = [];
    const hear = (message) => {
      const [, label] = /^kernel (.*)/.exec(message.text()) ?? [];
      if (label) kernels.push(label);
    };
    page.on("console", hear);
    await asGpu("(label, code) => (console.log(`kernel ${label}`), code)");
    const { images } = await createAndDraw({ tuning: "off" });
    // What a worker says comes when it comes.
    for (let before = -1; before !== kernels.length; await page.waitForTimeout(1000)) before = kernels.length;
    page.off("console", hear);
    return { rgba: images[0].rgba, kernels: JSON.stringify(kernels) };
  };

  before(async () => {
    ({ api, close, page, faults } = await openApi({ webgpu: true }));
  });
  after(() => close?.());

  test("the CPU has none", async () => {
    await api.create({ backend: "cpu", store: "off" });
    assert.equal(await tuning(), null);
  });

  test("an emulated adapter has one way for each product, and nothing is raced", async () => {
    await api.create({ backend: "webgpu", store: "off" });
    await api.load(SOFT);
    await api.draw(FOX);
    assert.deepEqual(await tuning(), { choices: {}, leftOut: {} });
  });

  test("what is given is taken, and is not kept", async () => {
    const given = { choices: { "a product": "a choice of another version" }, leftOut: { another: "it does not compile" } };
    await api.create({ backend: "webgpu", store: "off", tuning: given });
    await api.load(SOFT);
    await api.draw(FOX);
    assert.deepEqual(await tuning(), given);
    assert.deepEqual((await kept(page)).filter(([, { choices }]) => choices["a product"]), []);
  });

  test("what is no tuning is refused by name", async () => {
    for (const wrong of [`"yes"`, `{}`, `{ choices: { a: 1 } }`, `{ choices: {}, more: {} }`, `7`]) {
      await api.refuses(`async () => (await import("/tintype/tintype.js")).Tintype.create({ tuning: ${wrong} })`, "invalid-argument", /tuning: expected "auto", "off" or/);
    }
  });

  test("on a GPU products are raced once; the picture stays what it was, and the browser remembers", async (t) => {
    await api.create({ backend: "cpu", store: "off" });
    await api.load(SOFT);
    const cpu = await api.draw(FOX);

    await asGpu();
    const create = async () => {
      const { name, software } = await api.create({ backend: "webgpu", store: "off" });
      assert.deepEqual([name, software], ["a gpu", false]);
      await api.load(SOFT);
    };
    await put(JSON.stringify({ version: "of old", architecture: "other" }), { choices: 7 });
    await create();
    let drawn;
    do drawn = await api.draw(FOX);
    while (!hasChoices(await tuning()));
    const found = await tuning();
    const ways = Object.values(found.choices);
    t.diagnostic(`${ways.length} products: ${JSON.stringify(found.choices)}`);
    assert.ok(ways.length > 0 && ways.every((way) => way.startsWith("Choice {")), ways.join());
    assert.deepEqual(found.leftOut, {});
    const { max } = difference(drawn.images[0].rgba, cpu.images[0].rgba);
    assert.ok(max <= 2, `${max}`);
    // Beside what is kept of another adapter; what an older version found out is gone.
    const all = await kept(page);
    const [[, value], ...rest] = all.filter(([key]) => /"architecture":"gpu".*"limits":\{.*maxBufferSize/.test(key));
    assert.deepEqual([value, rest], [found, []]);
    assert.deepEqual(all.map(([key]) => JSON.parse(key).architecture).sort(), ["gpu", "swiftshader"]);

    await create();
    assert.deepEqual(await tuning(), found, "another engine knows it from the start");
  });

  test("a way that does not compile, or computes something else, is left out, and that is said once", async (t) => {
    await forget();
    const { rgba: right, kernels } = await drawnWithout();
    const said = [];
    const hear = (message) => message.type() === "warning" && said.push(message.text());
    page.on("console", hear);
    // Kernels that are tried and not taken: those that are taken compile before anything is raced.
    await asGpu(`(label, code) => {
      if (${kernels}.includes(label)) return code;
      if (label.includes("ROWS=8")) return code + "no WGSL";
      const right = "return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));";
      return label.includes("ROWS=4") && label.includes("SPLIT") ? code.replace(right, right.replace("return", "return 1.01 *")) : code;
    }`);
    const ways = ({ leftOut }) => ["Big", "Small"].map((tile) => Object.entries(leftOut).filter(([way]) => way.includes(`tile: ${tile}`)));
    await drawUntil((found) => hasChoices(found) && ways(found).every((list) => list.length > 0));
    const { choices, leftOut } = await tuning();
    const [broken, wrong] = ways({ leftOut });
    t.diagnostic(`${Object.keys(choices).length} products, ${broken.length} ways do not compile, ${wrong.length} compute something else`);
    assert.ok(broken.length > 0 && broken.every(([, why]) => /WebGPU/.test(why)), JSON.stringify(broken));
    assert.ok(wrong.length > 0 && wrong.every(([, why]) => /of the largest value off/.test(why)), JSON.stringify(wrong));
    for (const [product, way] of Object.entries(choices)) assert.equal(leftOut[`${way} of ${product}`], undefined);
    const { images } = await api.draw(FOX);
    const { max } = difference(images[0].rgba, right);
    assert.ok(max <= 2, `${max}`);
    const notices = (await api.notices()).filter(({ kind }) => kind === "tuning");
    assert.ok(notices.length >= 1 && notices.every(({ message }) => /does without a way to compute/.test(message)));
    const ours = () => said.filter((text) => text.startsWith("Tintype:"));
    assert.deepEqual(ours(), notices.map(({ message }) => `Tintype: ${message}`));

    // The next engine knows, and says nothing of these again.
    const before = ours().length;
    await createAndDraw();
    const next = await tuning();
    for (const way of Object.keys(leftOut)) assert.ok(way in next.leftOut, way);
    for (const text of ours().slice(before)) assert.ok(Object.keys(leftOut).every((way) => !text.includes(way)), text);
    page.off("console", hear);
  });

  test("a GPU that is lost in a race: the picture comes, and nothing is raced there again", async () => {
    await forget();
    const { rgba: right, kernels } = await drawnWithout();
    await asGpu(`(label, code, device) => {
      if (label.includes("ROWS=8") && !${kernels}.includes(label)) device.destroy();
      return code;
    }`);
    const { images } = await drawUntil(({ lost }) => lost);
    const { max } = difference(images[0].rgba, right);
    assert.ok(max <= 2, `${max}`);
    const heard = async () => (await api.notices()).filter(({ kind }) => kind !== "store");
    const notices = await heard();
    assert.deepEqual(notices.map(({ kind }) => kind), ["tuning", "device"]);
    assert.match(notices[0].message, /lost while ways to compute were tried: Choice \{ tile: Big/);
    const { lost, choices } = await tuning();
    assert.match(lost, /tile: Big/);

    // Nor by another page, until this or the browser is another version.
    await createAndDraw();
    assert.deepEqual(await heard(), []);
    assert.deepEqual(await tuning(), { choices, leftOut: {}, lost });
    const [[key, value], ...others] = await kept(page);
    assert.deepEqual([value.lost, others], [lost, []]);
    await forget();
    await put(JSON.stringify({ ...JSON.parse(key), browser: "an older one" }), value);
    await asGpu();
    await drawUntil(hasChoices);
    assert.equal((await tuning()).lost, undefined);
    assert.deepEqual((await kept(page)).map(([, { lost }]) => lost), [undefined], "what the older one left is gone");
  });

  test("what was found out before a picture was given up is kept", async () => {
    await forget();
    await asGpu("(label, code) => code", `setInterval(() => engine && console.log("found " + JSON.stringify(engine.tuning())), 20);`);
    await api.create({ backend: "webgpu", store: "off" });
    await api.load(SOFT);
    let first;
    const found = new Promise((resolve) => (first = resolve));
    const hear = (message) => {
      const [, json] = /^found (.*)/.exec(message.text()) ?? [];
      if (json && Object.keys(JSON.parse(json).choices).length > 0) first();
    };
    page.on("console", hear);
    const { error } = await page.evaluate(async ({ checkpoint, ...fox }) => {
      window.stop = new AbortController();
      const draw = () => tintype.generate({ ...fox, checkpoint: tintype.checkpoints[0], signal: stop.signal });
      window.drawing = outcome(async () => {
        for (;;) await draw();
      });
      return {};
    }, FOX);
    assert.equal(error, undefined);
    await found;
    const stopped = await page.evaluate(() => (stop.abort(), drawing));
    assert.equal(stopped.error?.code, "cancelled");
    page.off("console", hear);
    await page.waitForFunction(
      () =>
        new Promise((resolve) => {
          const opening = indexedDB.open("tintype-tuning");
          opening.onsuccess = () => {
            const all = opening.result.transaction("adapters").objectStore("adapters").getAll();
            all.onsuccess = () => (opening.result.close(), resolve(all.result.some(({ choices }) => Object.keys(choices).length > 0)));
          };
        }),
    );
  });

  test("without timestamps a race goes by the clock", async () => {
    await forget();
    await asGpu("(label, code) => code", `
      const has = GPUSupportedFeatures.prototype.has;
      GPUSupportedFeatures.prototype.has = function (name) { return name !== "timestamp-query" && has.call(this, name); };
      GPUDevice.prototype.createQuerySet = () => { throw new Error("what is not there was asked for"); };
    `);
    await drawUntil(hasChoices);
    assert.deepEqual((await tuning()).leftOut, {});
    await page.unroute("**/tintype/worker.js");
    await forget();
  });

  test("switched off, nothing is found out", async () => {
    await api.create({ backend: "webgpu", store: "off", tuning: "off" });
    await api.load(SOFT);
    await api.draw(FOX);
    assert.deepEqual(await tuning(), { choices: {}, leftOut: {} });
    assert.deepEqual(faults, []);
  });
});
