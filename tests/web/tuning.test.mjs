// Choice by measurement in a browser: what is found out about an adapter, kept, exported and given back.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { difference, openApi } from "./harness.mjs";

const SOFT = "/checkpoints/soft/";
const FOX = { checkpoint: SOFT, prompt: "fox", seed: 7, steps: 1, width: 64, height: 64 };

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

    // The software adapter plays a GPU, with the kernels of one.
    await page.route("**/tintype/worker.js", async (route) => {
      const answer = await route.fetch();
      const body = (await answer.text()).replace(/const \{ vendor, architecture, device, description, isFallbackAdapter \} = .*;/, 'const [vendor, architecture, device, description, isFallbackAdapter] = ["a", "gpu", "", "", false];');
      await route.fulfill({ response: answer, body });
    });
    const create = async () => {
      const { name, software } = await api.create({ backend: "webgpu", store: "off" });
      assert.deepEqual([name, software], ["a gpu", false]);
      await api.load(SOFT);
    };
    await page.evaluate(
      () =>
        new Promise((resolve, reject) => {
          const opening = indexedDB.open("tintype-tuning");
          opening.onerror = () => reject(opening.error);
          opening.onsuccess = () => {
            const transaction = opening.result.transaction("adapters", "readwrite");
            transaction.objectStore("adapters").put({ choices: 7 }, JSON.stringify({ version: "of old", architecture: "other" }));
            transaction.oncomplete = () => resolve(opening.result.close());
          };
        }),
    );
    await create();
    const drawn = await api.draw(FOX);
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
    await page.unroute("**/tintype/worker.js");
  });

  test("switched off, nothing is found out", async () => {
    await api.create({ backend: "webgpu", store: "off", tuning: "off" });
    await api.load(SOFT);
    await api.draw(FOX);
    assert.deepEqual(await tuning(), { choices: {}, leftOut: {} });
    assert.deepEqual(faults, []);
  });
});
