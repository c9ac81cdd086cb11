// Going from one checkpoint to another and back: at once where both are in memory, and without end where they are not.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Api, openPage, startPersistent, startSite } from "./harness.mjs";
import { parse, join } from "./safetensors.mjs";
import { fourStyles, shipped } from "./server.mjs";
import { median } from "./store-speed.mjs";
import { openTargets } from "./targets.mjs";

const UNET = "unet/diffusion_pytorch_model.safetensors";
const TINY = { prompt: "fox", seed: 7, width: 64, height: 64, steps: 1, guidanceScale: 1 };
/** A display's frame, in milliseconds. */
const FRAME = 16;
/** Two measurements each. */
const ROUNDS = 5;
const MIB = 1 << 20;

/** The shipped checkpoint `id` with other weights of its UNet: each is a little smaller. */
function changed(id) {
  const { header, data } = parse(shipped(id, UNET));
  // Halves: one step towards zero, but for those that are there.
  for (let at = 0; at < data.length; at += 2) if (data[at] > 0) data[at] -= 1;
  return join(header, data);
}

describe("switching", { timeout: 600_000 }, () => {
  const profile = mkdtempSync(path.join(tmpdir(), "tintype-switch-"));
  let site, context, page, faults, api, fifth;

  before(async () => {
    site = await startSite({ checkpoints: fourStyles() });
    fifth = site.changed("fifth", { [UNET]: changed("soft") });
    context = await startPersistent(profile, { webgpu: true });
    ({ page, faults } = await openPage(context, `${site.url}blank.html`));
    await page.waitForFunction(() => window.call !== undefined);
    api = new Api(page);
  });
  after(async () => {
    await context?.close();
    await site?.close();
    rmSync(profile, { recursive: true, force: true });
  });

  const counts = () => page.evaluate(() => window.tintype.debug.counts());
  const memory = () => page.evaluate(() => window.tintype.memory);

  /** Draws with the checkpoints of these numbers, one after the other. Gives the milliseconds until each began. */
  const draw = (order) =>
    page.evaluate(
      async ([order, options]) => {
        const starts = [];
        for (const n of order) {
          const { timings } = await window.tintype.generate({ checkpoint: window.five[n], ...options });
          starts.push(timings.start);
        }
        return starts;
      },
      [order, TINY],
    );

  /** Loads the shipped checkpoints and the changed one, for `draw`. */
  const loadFive = (count) =>
    page.evaluate(
      async ([fifth, count]) => {
        const entries = await window.api.Tintype.catalogue("/checkpoints/checkpoints.json");
        window.five = [];
        for (const source of [...entries, fifth].slice(0, count)) window.five.push(await window.tintype.load(source));
        return window.five.map(({ id, bytes, components }) => ({ id, bytes, components }));
      },
      [fifth, count],
    );

  for (const backend of ["cpu", "webgpu"]) {
    test(`between two in memory it takes less than a frame: ${backend}`, async (t) => {
      await api.create({ backend, debug: true });
      const [soft, flat] = await loadFive(2);
      await draw([0, 1, 0, 1]);
      const made = await counts();
      const [same, other] = [[], []];
      for (let round = 0; round < ROUNDS; round++) {
        const [first, second, third, fourth] = await draw([0, 0, 1, 1]);
        same.push(second, fourth);
        other.push(first, third);
      }
      const beyond = median(other) - median(same);
      t.diagnostic(`until it begins: ${median(other).toFixed(2)} ms with a switch, ${median(same).toFixed(2)} ms without`);
      assert.ok(beyond < FRAME, `${beyond} ms`);
      assert.deepEqual(await counts(), made, "plans, pipelines and bytes that were made for it");

      // Both have the same text encoder and decoder.
      const ids = ({ components }) => Object.fromEntries(components.map(({ name, id }) => [name, id]));
      const [a, b] = [ids(soft), ids(flat)];
      assert.deepEqual([a.text_encoder, a.vae], [b.text_encoder, b.vae]);
      assert.notEqual(a.unet, b.unet);
      const shared = soft.components.filter(({ name }) => name !== "unet").reduce((sum, { bytes }) => sum + bytes, 0);
      const { weights } = await memory();
      // The encoding half of the decoder's file is not held, and the rest of it is packed.
      assert.ok(weights < soft.bytes + flat.bytes - 0.7 * shared, `${weights} of ${soft.bytes} and ${flat.bytes}`);
    });
  }

  // A software adapter takes a second for each picture.
  for (const [backend, switches] of [["cpu", 200], ["webgpu", 15]]) {
    test(`${switches} switches among five, with room for three, leave nothing behind: ${backend}`, async (t) => {
      await api.create({ backend });
      await loadFive(3);
      await draw([0, 1, 2]);
      const three = await memory();
      await api.create({ backend, debug: true, memoryBudget: three.weights + three.working + MIB });
      await loadFive(5);
      const round = [0, 1, 2, 3, 4];
      await draw([...round, ...round]);
      const targets = await openTargets(page);
      const held = async () => {
        // The keeper lets go of its buffers when nobody has read for a second.
        await new Promise((resolve) => setTimeout(resolve, 1500));
        await targets.collect();
        const heaps = Object.entries(await targets.heaps()).map(([name, { used, buffers }]) => [name, used + buffers]);
        const { wasm, gpu } = await memory();
        return { wasm, gpu, heaps: Object.fromEntries(heaps) };
      };
      const [first, { uploaded }] = [await held(), await counts()];
      const started = performance.now();
      for (let done = 0; done < switches; done += round.length) await draw(round);
      const milliseconds = (performance.now() - started) / switches;
      const last = await held();
      const loads = ((await counts()).uploaded - uploaded) / (three.weights / 3);
      const grown = Object.entries(last.heaps).map(([name, bytes]) => [name, bytes - (first.heaps[name] ?? 0)]);
      t.diagnostic(
        `${milliseconds.toFixed(0)} ms each, ${loads.toFixed(0)} loads; wasm ${first.wasm} → ${last.wasm}, gpu ${first.gpu} → ${last.gpu}; ` +
          `JavaScript grew by ${grown.map(([name, bytes]) => `${name} ${(bytes / 1024).toFixed(0)} KiB`).join(", ")}`,
      );
      // Going round, each has given way before it is its turn again.
      assert.ok(loads > 0.3 * switches, `${loads} loads`);
      assert.equal(last.wasm, first.wasm);
      assert.equal(last.gpu, first.gpu);
      assert.ok(grown.reduce((sum, [, bytes]) => sum + Math.max(0, bytes), 0) <= MIB, JSON.stringify(grown));
      await targets.close();
    });
  }

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
