// Choice by measurement in a browser: what is found out about an adapter, kept, exported and given back.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { difference, openApi } from "./harness.mjs";
import { shipped } from "./server.mjs";

// What an engine compiles as it loads is what its first picture takes: a software adapter compiles a kernel in half a second.
const SIZE = { width: 32, height: 32, steps: 1, guidanceScale: 1 };
const FOX = { checkpoint: "small", prompt: "fox", seed: 7, ...SIZE };

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

describe("tuning", { timeout: 600_000 }, () => {
  let api, close, page, faults, small;
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
  /** One of the page's checkpoints, whose UNet has no attention: each of its kernels takes seconds to compile. */
  const load = () => api.load({ url: small, name: "small", defaults: SIZE });
  const createAndDraw = async (options) => {
    await api.create({ backend: "webgpu", store: "off", ...options });
    await load();
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
  /** What the worker logs after `name`, parsed, as it comes. */
  const hear = (name, listener) => {
    const heard = (message) => message.text().startsWith(`${name} `) && listener(JSON.parse(message.text().slice(name.length + 1)));
    page.on("console", heard);
    return () => page.off("console", heard);
  };
  // The picture without anything raced, and the kernels that it takes.
  let right, kernels;

  before(async () => {
    let site;
    ({ api, close, page, faults, site } = await openApi({ webgpu: true }));
    const config = JSON.parse(shipped("soft", "unet/config.json"));
    const blocks = { down_block_types: Array(3).fill("DownBlock2D"), mid_block_type: null, up_block_types: Array(3).fill("UpBlock2D") };
    small = site.changed("small", { "unet/config.json": JSON.stringify({ ...config, ...blocks }) });
  });
  after(() => close?.());

  test("the CPU has none", async () => {
    await api.create({ backend: "cpu", store: "off" });
    assert.equal(await tuning(), null);
  });

  test("an emulated adapter has one way for each product, and nothing is raced", async () => {
    await createAndDraw();
    assert.deepEqual(await tuning(), { choices: {}, leftOut: {} });
  });

  test("what is given is taken, and is not kept", async () => {
    const given = { choices: { "a product": "a choice of another version" }, leftOut: { another: "it does not compile" } };
    await createAndDraw({ tuning: given });
    assert.deepEqual(await tuning(), given);
    assert.deepEqual((await kept(page)).filter(([, { choices }]) => choices["a product"]), []);
  });

  test("what makes no sense in the browser's own storage is healed, and a database that does not answer is not waited for", async () => {
    const [key, sound] = [JSON.stringify({ version: "1", kernels: "2", browser: "3" }), { choices: { p: "q" }, leftOut: {} }];
    for (const nonsense of [{ choices: { a: 1 } }, { choices: "abc", leftOut: {} }, { choices: {}, leftOut: {}, lost: 7 }, 7]) {
      await put(key, nonsense);
      const found = await page.evaluate(async ([key, sound]) => {
        const { keepTuning, readTuning } = await import("/tintype/tuning.js");
        const before = await readTuning(key);
        await keepTuning(key, sound);
        return [before, await readTuning(key)];
      }, [key, sound]);
      assert.deepEqual(found, [null, sound], JSON.stringify(nonsense));
    }
    await forget();
    // Someone holds it open, and someone else waits for it to go.
    await page.evaluate(
      () =>
        new Promise((resolve) => {
          const opening = indexedDB.open("tintype-tuning", 1);
          opening.onsuccess = () => {
            window.held = opening.result;
            indexedDB.deleteDatabase("tintype-tuning");
            resolve();
          };
        }),
    );
    const { kind } = await api.create({ backend: "webgpu", store: "off" });
    assert.equal(kind, "webgpu");
    await page.evaluate(() => window.held.close());
  });

  test("what is no tuning is refused by name", async () => {
    for (const wrong of [`"yes"`, `{}`, `{ choices: { a: 1 } }`, `{ choices: {}, more: {} }`, `7`]) {
      await api.refuses(`async () => (await import("/tintype/tintype.js")).Tintype.create({ tuning: ${wrong} })`, "invalid-argument", /tuning: expected "auto", "off" or/);
    }
  });

  test("on a GPU products are raced once; the picture stays what it was, and the browser remembers", async (t) => {
    await api.create({ backend: "cpu", store: "off" });
    await load();
    const cpu = await api.draw(FOX);

    await asGpu("(label, code) => (compiled.push(label), code)", `
      const compiled = [];
      // Which of these are taken: they compile before anything is raced.
      const { load, generate } = commands;
      commands.load = async (...args) => {
        const loaded = await load(...args);
        console.log("kernels " + JSON.stringify(compiled));
        return loaded;
      };
      let [made, left] = [0, 0];
      const { createQuerySet } = GPUDevice.prototype;
      GPUDevice.prototype.createQuerySet = function (...args) { made++, left++; return createQuerySet.apply(this, args); };
      const { destroy } = GPUQuerySet.prototype;
      GPUQuerySet.prototype.destroy = function () { left--; return destroy.call(this); };
      commands.generate = (...args) => generate(...args).finally(() => console.log("sets " + JSON.stringify({ made, left })));
      setInterval(() => engine && console.log("found " + JSON.stringify(Object.keys(engine.tuning().choices).length)), 20);`);
    await put(JSON.stringify({ version: "of old", architecture: "other" }), { choices: 7 });
    const listed = new Promise((resolve) => hear("kernels", resolve));
    const sets = [];
    let enough;
    const some = new Promise((resolve) => (enough = hear("sets", (of) => resolve(sets.push(of)))));
    const { name, software } = await api.create({ backend: "webgpu", store: "off" });
    assert.deepEqual([name, software], ["a gpu", false]);
    await load();
    kernels = JSON.stringify(await listed);
    assert.match(kernels, /gemm\[/);
    let drawn;
    do drawn = await api.draw(FOX);
    while (!hasChoices(await tuning()));
    right = drawn.images[0].rgba;
    const found = await tuning();
    const ways = Object.values(found.choices);
    t.diagnostic(`${ways.length} products: ${JSON.stringify(found.choices)}`);
    assert.ok(ways.length > 0 && ways.every((way) => way.startsWith("Choice {")), ways.join());
    assert.deepEqual(found.leftOut, {});
    const { max } = difference(right, cpu.images[0].rgba);
    assert.ok(max <= 2, `${max}`);
    // Beside what is kept of another adapter; what an older version found out is gone.
    const all = await kept(page);
    const [[, value], ...rest] = all.filter(([key]) => /"architecture":"gpu".*"limits":\{.*maxBufferSize/.test(key));
    assert.deepEqual([value, rest], [found, []]);
    assert.deepEqual(all.map(([key]) => JSON.parse(key).architecture).sort(), ["gpu", "swiftshader"]);
    assert.match(JSON.parse(all[0][0]).kernels, /^[0-9a-f]{16}$/);
    // Each race has places for timestamps, and none stay.
    await some;
    enough();
    assert.ok(sets.every(({ made, left }) => made > 0 && left === 0), JSON.stringify(sets));
  });

  test("what was found out before a picture was given up is kept", async () => {
    const before = Object.keys((await tuning()).choices).length;
    let enough;
    const found = new Promise((resolve) => (enough = hear("found", (count) => count > before && resolve())));
    await page.evaluate(({ checkpoint, ...fox }) => {
      window.stop = new AbortController();
      const draw = () => tintype.generate({ ...fox, checkpoint: tintype.checkpoints[0], signal: stop.signal });
      window.drawing = outcome(async () => {
        for (;;) await draw();
      });
    }, FOX);
    await found;
    const stopped = await page.evaluate(() => (stop.abort(), drawing));
    assert.equal(stopped.error?.code, "cancelled");
    enough();
    const known = await tuning();
    assert.ok(Object.keys(known.choices).length > before);
    // It may be kept a moment later.
    const isKept = async () => (await kept(page)).some(([, value]) => isDeepStrictEqual(value, known));
    for (let more = 50; !(await isKept()); more--) {
      assert.ok(more > 0, JSON.stringify(await kept(page)));
      await page.waitForTimeout(100);
    }

    // Another engine knows it from the start, and says once what went wrong by no fault of a way.
    await asGpu("(label, code) => code", `
      const { tuning } = commands;
      const broken = ["a product: WebGPU: out of order"];
      commands.tuning = () => ((engine.takeBrokenOff = () => broken.splice(0)), tuning());`);
    await api.create({ backend: "webgpu", store: "off" });
    assert.deepEqual([await tuning(), await tuning()], [known, known]);
    const notices = (await api.notices()).filter(({ kind }) => kind !== "store");
    assert.deepEqual(notices.map(({ kind }) => kind), ["tuning"]);
    assert.match(notices[0].message, /were not compared, and the usual one stays: a product: WebGPU: out of order$/);
  });

  test("a way that does not compile, or computes something else, is left out, and that is said once", async (t) => {
    await forget();
    const said = [];
    const listen = (message) => message.type() === "warning" && said.push(message.text());
    page.on("console", listen);
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
    page.off("console", listen);
  });

  test("a GPU that is lost in a race: the picture comes, and nothing is raced there again, until it is another browser or build", async () => {
    const { leftOut: known } = await tuning();
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
    const { lost, choices, leftOut } = await tuning();
    assert.match(lost, /tile: Big/);
    // What another engine left out is known, and was not said again.
    assert.deepEqual(leftOut, known);

    // Nor by another page, until this or the browser is another version.
    await createAndDraw();
    assert.deepEqual(await heard(), []);
    assert.deepEqual(await tuning(), { choices, leftOut, lost });
    const [[key, value], ...others] = await kept(page);
    assert.deepEqual([value.lost, others], [lost, []]);
    await forget();
    for (const other of [{ browser: "an older one" }, { kernels: "of another build" }]) {
      await put(JSON.stringify({ ...JSON.parse(key), ...other }), value);
    }
    // Where there are no timestamps, a race goes by the clock.
    await asGpu("(label, code) => code", `
      const has = GPUSupportedFeatures.prototype.has;
      GPUSupportedFeatures.prototype.has = function (name) { return name !== "timestamp-query" && has.call(this, name); };
      GPUDevice.prototype.createQuerySet = () => { throw new Error("what is not there was asked for"); };
    `);
    await drawUntil(hasChoices);
    const anew = await tuning();
    assert.deepEqual([anew.lost, anew.leftOut], [undefined, {}]);
    assert.deepEqual((await kept(page)).map(([, { lost }]) => lost), [undefined], "what the others left is gone");
    await page.unroute("**/tintype/worker.js");
    await forget();
  });

  test("switched off, nothing is found out", async () => {
    await createAndDraw({ tuning: "off" });
    assert.deepEqual(await tuning(), { choices: {}, leftOut: {} });
    assert.deepEqual(faults, []);
  });
});
