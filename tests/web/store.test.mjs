// What is kept on the device, as a page sees it: nothing bad is kept, and what is good needs no network any more.
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { isPicture, openApi } from "./harness.mjs";
import { broken, shipped } from "./server.mjs";

const UNET = "unet/diffusion_pytorch_model.safetensors";
const JOB = { prompt: "fox", seed: 7, steps: 1, width: 64, height: 64 };

describe("the store", { timeout: 600_000 }, () => {
  let api, close, page, site, faults;

  before(async () => {
    ({ api, close, page, site, faults } = await openApi());
  });
  after(() => close?.());
  beforeEach(async () => {
    await api.create({ backend: "cpu" });
    await page.evaluate(() => tintype.store.clear());
  });

  const sizes = () => page.evaluate(() => tintype.store.sizes());
  const list = () => page.evaluate(() => tintype.store.list());

  /** Whether the checkpoint that is loaded from `folder` draws. */
  const draws = async (key) => isPicture((await api.draw({ ...JOB, checkpoint: key })).images[0].rgba);

  test("what was loaded once loads and draws from a host that answers nothing any more", async () => {
    const folder = site.changed("leaves", {});
    await api.load(folder);
    const [kept] = await list();
    assert.ok(kept.url.endsWith(folder), kept.url);
    assert.ok(kept.complete && kept.files >= 8, JSON.stringify(kept));
    assert.ok((await sizes()).bytes > 10e6);
    await api.create({ backend: "cpu" });
    const asked = [];
    site.changed("leaves", {
      "*": (request, response) => {
        asked.push(request.method);
        broken(request, response);
      },
    });
    const { key, warnings } = await api.load(folder);
    assert.deepEqual(warnings, []);
    assert.ok(await draws(key));
    assert.equal((await list())[0].complete, true);
    // It may be asked whether there is anything newer, but for no file.
    assert.deepEqual(asked.filter((method) => method !== "HEAD"), []);
  });

  const wrong = {
    "a page of HTML": () => "<!doctype html><title>front</title>",
    "a byte too many": () => Buffer.concat([shipped("soft", UNET), Buffer.alloc(1)]),
    "a byte too few": () => shipped("soft", UNET).subarray(0, -1),
  };
  for (const [what, bytes] of Object.entries(wrong)) {
    test(`${what} in place of the weights: nothing is kept, and the next try is clean`, async () => {
      const folder = site.changed("lies", { [UNET]: bytes() });
      await assert.rejects(api.load(folder), { code: "corrupt", message: /unet/ });
      assert.deepEqual(await list(), []);
      assert.equal((await sizes()).bytes, 0);
      site.changed("lies", {});
      assert.ok(await draws((await api.load(folder)).key));
    });
  }

  test("another hash than the catalogue's: it is not kept, and the next try is clean", async () => {
    const bytes = shipped("soft", UNET);
    bytes[bytes.length - 1] ^= 1;
    const folder = site.changed("forged", { [UNET]: bytes });
    await assert.rejects(api.loadEntry("soft", folder), { code: "corrupt", message: /unet.*sha256/ });
    assert.deepEqual(await list(), []);
    site.changed("forged", {});
    assert.ok(await draws((await api.loadEntry("soft", folder)).key));
    assert.equal((await list()).length, 1);
  });

  test("a kept file that was cut: corrupt, by name and with both lengths, and the next try is clean", async () => {
    const folder = site.changed("cut-in-store", {});
    await api.load(folder);
    const size = shipped("soft", UNET).length;
    await page.evaluate(async (size) => {
      const root = await navigator.storage.getDirectory();
      const blobs = await (await root.getDirectoryHandle("tintype")).getDirectoryHandle("blobs");
      for await (const handle of blobs.values()) {
        if ((await handle.getFile()).size !== size) continue;
        const writable = await handle.createWritable({ keepExistingData: true });
        await writable.truncate(1000);
        await writable.close();
      }
    }, size);
    await api.create({ backend: "cpu" });
    await assert.rejects(api.load(folder), { code: "corrupt", message: new RegExp(`unet.*${size}.*1000`) });
    assert.ok(await draws((await api.load(folder)).key));
  });

  test("what is removed is gone, but for what another checkpoint needs", async () => {
    const soft = await api.loadEntry("soft");
    await api.loadEntry("flat");
    const both = await sizes();
    assert.deepEqual(Object.keys(both.checkpoints).sort(), ["flat", "soft"]);
    assert.ok(both.bytes < both.checkpoints.soft + both.checkpoints.flat, "what they share is kept once");
    await page.evaluate((id) => tintype.store.remove(id), soft.id);
    assert.equal((await sizes()).bytes, both.checkpoints.flat);
    await api.refuses(`() => tintype.store.remove("soft")`, "not-found", /soft/);
    await api.refuses(`() => tintype.store.remove(7)`, "invalid-argument", /store.remove/);
    await api.refuses(`() => tintype.store.verify({ signal: AbortSignal.abort() })`, "cancelled", /^store\.verify was cancelled$/);
    assert.deepEqual(await page.evaluate(() => tintype.store.verify().then(({ bad }) => bad)), []);
  });

  test("two checkpoints that pages gave the same name are two", async () => {
    const here = site.changed("here", {});
    await api.load(here, { name: "Mine" });
    await api.create({ backend: "cpu" });
    const there = site.changed("there", {}, "flat");
    await api.load(there, { name: "Mine" });
    const kept = await list();
    assert.deepEqual(kept.map(({ name, complete }) => [name, complete]), [["Mine", true], ["Mine", true]]);
    assert.equal(Object.keys((await sizes()).checkpoints).length, 2);
    await page.evaluate((url) => tintype.store.remove(new URL(url, location.href).href), there);
    assert.equal((await list()).length, 1);
  });

  test("a page that keeps nothing says so, and draws", async () => {
    await api.create({ backend: "cpu", store: "off" });
    const { key, warnings } = await api.load("/checkpoints/soft/");
    assert.match(warnings.join(), /not stored/);
    assert.ok(await draws(key));
    assert.equal((await sizes()).bytes, 0);
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
