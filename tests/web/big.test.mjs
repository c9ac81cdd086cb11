// Checkpoints of the size that people have: what loading takes in memory and time, and what the store does for it.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Api, isPicture, openPage, startPersistent, startSite } from "./harness.mjs";
import { DIST } from "./server.mjs";
import { compare, startRaw, synthetic } from "./store-speed.mjs";
import { openTargets } from "./targets.mjs";

const MIB = 1 << 20;
/** What a load may take beside the largest tensor, and on the CPU beside the weights. */
const SLACK = 64 * MIB;
/** What the written checkpoints, and what the browser keeps of them, take on the disk. */
const DISK = 6e9;

const { bavail, bsize } = statfsSync(tmpdir());
const skip = bavail * bsize < DISK && `${tmpdir()} has ${bavail * bsize} bytes free; this test needs ${DISK}`;

describe("large checkpoints", { timeout: 600_000, skip }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), "tintype-big-"));
  const browsers = [];
  let big, medium;

  before(() => {
    big = { folder: path.join(folder, "big"), ...synthetic(path.join(folder, "big"), 1e9) };
    medium = { folder: path.join(folder, "medium"), ...synthetic(path.join(folder, "medium"), 2e8, 2) };
  });
  after(async () => {
    for (const close of browsers) await close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** A site, and a browser whose pages keep what they load. `page()` gives a page with the API in it. */
  const start = async ({ webgpu = false } = {}) => {
    const site = await startSite();
    const context = await startPersistent(mkdtempSync(path.join(folder, "profile-")), { webgpu });
    const close = async () => {
      await context.close();
      await site.close();
    };
    browsers.push(close);
    const soft = site.folder("soft", path.join(DIST, "checkpoints/soft"));
    const [bigUrl, mediumUrl] = [site.folder("big", big.folder), site.folder("medium", medium.folder)];
    const page = async () => {
      const { page, faults } = await openPage(context, `${site.url}blank.html`);
      await page.waitForFunction(() => window.call !== undefined);
      return { page, faults, api: new Api(page) };
    };
    return { site, context, page, urls: { soft, big: bigUrl, medium: mediumUrl } };
  };

  const memory = (page) => page.evaluate(() => window.tintype.memory);

  /** The most that JavaScript held at a time while `work` was done, beyond what it held before, by worker. */
  const growth = async (page, work) => {
    const targets = await openTargets(page);
    await targets.collect();
    const held = async () => Object.entries(await targets.heaps()).map(([name, { used, buffers }]) => [name, used + buffers]);
    const first = Object.fromEntries(await held());
    const most = {};
    let done = false;
    const working = work().finally(() => (done = true));
    while (!done) {
      for (const [name, bytes] of await held()) most[name] = Math.max(most[name] ?? 0, bytes - (first[name] ?? 0));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await working;
    await targets.close();
    return most;
  };

  const mib = (bytes) => `${(bytes / MIB).toFixed(1)} MiB`;
  const shown = (most) => Object.entries(most).map(([name, bytes]) => `${name} ${mib(bytes)}`).join(", ");

  describe("a gigabyte on WebGPU", () => {
    let site, context, urls, one, other;

    before(async () => {
      ({ site, context, urls, page: one } = await start({ webgpu: true }));
      const open = one;
      [one, other] = [await open(), await open()];
      for (const { api } of [one, other]) await api.create({ backend: "webgpu", memoryBudget: 4e9, debug: true });
    });

    test("takes no more memory than 64 MiB and its largest tensor", async (t) => {
      const { page, api } = one;
      const started = performance.now();
      const most = await growth(page, () => api.load(urls.big));
      const { wasm, weights } = await memory(page);
      await api.unload(urls.big);
      const seconds = (performance.now() - started) / 1000;
      t.diagnostic(`${big.bytes} bytes from the network in ${seconds.toFixed(1)} s; wasm ${mib(wasm)}; JavaScript: ${shown(most)}`);
      assert.ok(weights >= big.bytes, `${weights} bytes of weights`);
      // Never more than now: it does not shrink. All of it is counted, not what it grew by.
      assert.ok(wasm <= SLACK + big.largest, `wasm: ${wasm}`);
      const sum = Object.values(most).reduce((a, b) => a + b);
      assert.ok(sum <= SLACK + big.largest, `JavaScript: ${shown(most)}`);
    });

    test("from the store, its speed beside plain reading", async (t) => {
      const { page, api } = one;
      await startRaw(page);
      await context.setOffline(true);
      const { load, access, stream, rounds } = await compare(page, api, urls.big, 3);
      const speed = (bytes) => `${(bytes / 1e6).toFixed(0)} MB/s`;
      const beside = (read) => `${speed(read.speed)} (ratio ${read.ratio.toFixed(3)})`;
      t.diagnostic(`median of ${rounds}: ${speed(load)}; read through a stream ${beside(stream)}, by a handle ${beside(access)}`);
      assert.ok(load > 40e6, speed(load));
      // On an idle machine it is well above a half: see `./build.sh bench store`.
      assert.ok(stream.ratio > 0.25, beside(stream));
      await context.setOffline(false);
    });

    test("what was loaded once is loaded and drawn with the server shut", async () => {
      const draw = async ({ api }) => {
        await api.load(urls.soft);
        const { images } = await api.draw({ checkpoint: urls.soft, prompt: "fox", seed: 7, width: 64, height: 64, steps: 2, guidanceScale: 1 });
        return images[0].rgba;
      };
      const before = await draw(one);
      await site.close();
      await context.setOffline(true);
      assert.deepEqual(await draw(other), before);
      assert.ok(isPicture(before));
      assert.ok((await other.api.load(urls.big)).id);
    });

    test("nothing was logged as an error", () => assert.deepEqual([...one.faults, ...other.faults], []));
  });

  describe("on the CPU", () => {
    let site, context, urls, open;

    before(async () => ({ site, context, urls, page: open } = await start()));

    test("memory beside the weights", async (t) => {
      const { page, api } = await open();
      await api.create({ backend: "cpu" });
      const most = await growth(page, () => api.load(urls.medium));
      const { wasm, weights, working } = await memory(page);
      t.diagnostic(`wasm ${mib(wasm)} with weights of ${mib(weights)}; JavaScript: ${shown(most)}`);
      assert.ok(wasm - weights - working <= SLACK + medium.largest, `wasm: ${wasm}, weights ${weights}, working ${working}`);
      const sum = Object.values(most).reduce((a, b) => a + b);
      assert.ok(sum <= SLACK + medium.largest, `JavaScript: ${shown(most)}`);
      await page.evaluate(() => window.tintype.store.clear());
      await page.close();
    });

    test("two pages that load the same at once draw the same", async () => {
      const pages = [await open(), await open()];
      for (const { api } of pages) await api.create({ backend: "cpu" });
      await Promise.all(pages.map(({ api }) => api.load(urls.medium)));
      const options = { checkpoint: urls.medium, prompt: "fox", seed: 7, steps: 1, guidanceScale: 1 };
      const [a, b] = await Promise.all(pages.map(({ api }) => api.draw(options)));
      assert.deepEqual(a.images[0].rgba, b.images[0].rgba);
      const verified = await pages[0].page.evaluate(() => window.tintype.store.verify());
      assert.deepEqual(verified.bad, []);
      assert.ok(verified.bytes >= medium.bytes);
      for (const { page, faults } of pages) {
        assert.deepEqual(faults, []);
        await page.close();
      }
    });

    test("a changed byte is found, and that file alone is fetched again", async () => {
      const { page, api } = await open();
      await api.create({ backend: "cpu" });
      await page.evaluate(() => window.tintype.store.clear());
      await api.load(urls.soft);
      await api.unload(urls.soft);
      const flipped = await page.evaluate(async () => {
        const root = await navigator.storage.getDirectory();
        const blobs = await (await root.getDirectoryHandle("tintype")).getDirectoryHandle("blobs");
        let largest;
        for await (const handle of blobs.values()) {
          const file = await handle.getFile();
          if (!largest || file.size > largest.file.size) largest = { handle, file };
        }
        const at = Math.floor(largest.file.size / 2);
        const [byte] = new Uint8Array(await largest.file.slice(at, at + 1).arrayBuffer());
        const writable = await largest.handle.createWritable({ keepExistingData: true });
        await writable.write({ type: "write", position: at, data: new Uint8Array([byte ^ 1]) });
        await writable.close();
        return largest.handle.name;
      });
      const { bad } = await page.evaluate(() => window.tintype.store.verify());
      assert.deepEqual(
        bad.map(({ url, expected }) => [new URL(url).pathname, expected]),
        [[`${urls.soft}unet/diffusion_pytorch_model.safetensors`, flipped]],
      );
      assert.deepEqual((await page.evaluate(() => window.tintype.store.verify())).bad, []);
      site.requests.splice(0);
      await api.load(urls.soft);
      const fetched = site.requests.filter(({ method }) => method === "GET").map(({ pathname }) => pathname);
      assert.deepEqual(fetched, [`${urls.soft}unet/diffusion_pytorch_model.safetensors`]);
      await page.close();
    });

    test("a checkpoint that does not fit into the quota is loaded, and said not to be stored", async () => {
      const { page, api } = await open();
      const session = await context.newCDPSession(page);
      await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(site.url).origin, quotaSize: 1e8 });
      await api.create({ backend: "cpu" });
      await page.evaluate(() => window.tintype.store.clear());
      const { warnings } = await api.load(urls.medium);
      const about = warnings.filter((warning) => /unet\/.*: not stored: .* was used up after/.test(warning));
      assert.equal(about.length, 1, JSON.stringify(warnings));
      const notices = await api.notices();
      assert.ok(notices.some(({ kind, message }) => kind === "quota" && message === about[0]), JSON.stringify(notices));
      const { images } = await api.draw({ checkpoint: urls.medium, prompt: "fox", steps: 1, guidanceScale: 1 });
      assert.equal(images.length, 1);
      await page.close();
    });
  });
});
