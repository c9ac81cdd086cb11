// Single files: by their address, as picked files, by an entry; what `inspect` says of them; the vocabulary that they leave out.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { isPicture, openApi } from "./harness.mjs";
import { join, wholeVocabulary } from "./safetensors.mjs";

const FILE = "tiny model.safetensors";
const ASKED = { prompt: "a red fox", seed: 3, steps: 3, width: 64, height: 64 };

describe("single files", () => {
  let site, api, faults, close, folder, url, page;

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), "single-"));
    writeFileSync(path.join(folder, FILE), wholeVocabulary());
    writeFileSync(path.join(folder, "old.ckpt"), Buffer.concat([Buffer.from("PK\x03\x04\0\0\x08\x08", "latin1"), Buffer.alloc(4000)]));
    writeFileSync(path.join(folder, "lora.safetensors"), join({ "lora_unet_x.lora_down.weight": { dtype: "F32", shape: [1], data_offsets: [0, 4] } }, Buffer.alloc(4)));
    ({ site, api, faults, close, page } = await openApi());
    url = `${site.folder("single", folder)}${encodeURIComponent(FILE)}`;
    await api.create({ backend: "cpu" });
  });
  after(async () => {
    await close?.();
    rmSync(folder, { recursive: true });
  });

  test("inspect says what one is without reading its weights", async () => {
    const { value, error } = await api.outcome(`() => tintype.inspect("${url}")`);
    assert.equal(error, undefined, error?.message);
    assert.deepEqual([value.kind, value.layout, value.name, value.family, value.predictionType], ["checkpoint", "single-file", "tiny model", "SD 1.x", "epsilon"]);
    assert.deepEqual(value.components.map(({ name, dtypes }) => [name, dtypes]), [["text_encoder", ["f16", "i64"]], ["unet", ["f32"]], ["vae", ["f32"]]]);
    assert.deepEqual([value.unsupported, value.warnings], [[], []]);
    assert.equal(value.bytes, readFileSync(path.join(folder, FILE)).length);
    assert.equal(value.memory.peak, value.memory.weights + value.memory.working);
    // Halves stay halves.
    assert.ok(value.memory.weights > 49408 * 16 * 2);
    assert.equal(await page.evaluate(() => window.tintype.checkpoints.length), 0);
  });

  test("inspect says why one can't be loaded, and load refuses it so", async () => {
    for (const [name, message, kind] of [["old.ckpt", /pickle/, null], ["lora.safetensors", /found a LoRA/, "lora"]]) {
      const address = `/folders/single/${name}`;
      const { value } = await api.outcome(`() => tintype.inspect("${address}")`);
      assert.deepEqual([value.kind, value.family], [kind, null]);
      // A LoRA is of use, and is no checkpoint.
      if (kind) assert.deepEqual(value.unsupported, []);
      else assert.match(value.unsupported.join(), message);
      await api.refuses(`() => tintype.load("${address}")`, "unsupported", message);
    }
    await api.refuses(`() => tintype.inspect("/folders/single/none.safetensors")`, "not-found", /none\.safetensors/);
    await api.refuses(`() => tintype.inspect("${url}", { variante: 1 })`, "invalid-argument", /unknown option "variante"/);
    const { value } = await api.outcome(`() => tintype.inspect("/checkpoints/soft/")`);
    assert.deepEqual([value.layout, value.unsupported], ["diffusers", []]);
  });

  test("one draws the same by its address, as a picked file and by an entry", async () => {
    const vocabularies = [];
    page.context().on("request", (request) => /clip-merges/.test(request.url()) && vocabularies.push(request.url()));
    const byAddress = await api.load(url);
    assert.equal(byAddress.name, "tiny model");
    assert.equal(byAddress.family, "SD 1.x");
    assert.deepEqual(byAddress.warnings, []);
    const progress = byAddress.progress.at(-1);
    assert.deepEqual([progress.fraction, progress.loadedBytes], [1, progress.totalBytes]);
    const expected = (await api.draw({ checkpoint: url, ...ASKED })).images[0];
    assert.ok(isPicture(expected.rgba));

    await api.load({ url, name: "Entry", files: { [FILE]: { size: readFileSync(path.join(folder, FILE)).length } } });
    const entry = (await api.draw({ checkpoint: "Entry", ...ASKED })).images[0];
    assert.ok(entry.rgba.equals(expected.rgba));

    const { value, error } = await api.outcome(`async () => {
      const bytes = await (await fetch("${url}")).blob();
      const file = new File([bytes], "a:b.safetensors");
      const handle = { kind: "file", name: file.name, getFile: async () => file };
      const drawn = [];
      for (const source of [file, [{ path: "folder/x.safetensors", file }], handle]) {
        const checkpoint = await tintype.load(source);
        const { images } = await tintype.generate({ checkpoint, ...${JSON.stringify(ASKED)} });
        drawn.push([checkpoint.name, Array.from(images[0].imageData.data)]);
        await checkpoint.unload();
      }
      return drawn;
    }`);
    assert.equal(error, undefined, error?.message);
    assert.deepEqual(value.map(([name]) => name), ["a:b", "x", "a:b"]);
    for (const [name, rgba] of value) assert.ok(Buffer.from(rgba).equals(expected.rgba), name);
    assert.ok(vocabularies.length <= 1, "the vocabulary is fetched once");
  });

  test("an image is drawn over by one at an address, a picked one and one that comes back", async () => {
    const { value, error } = await api.outcome(`async () => {
      const file = new File([await (await fetch("${url}")).blob()], "picked.safetensors");
      const image = new OffscreenCanvas(64, 64);
      const context = image.getContext("2d");
      for (let i = 0; i < 64; i++) (context.fillStyle = \`rgb(\${4 * i}, \${255 - 3 * i}, 90)\`), context.fillRect(i, i / 2, 64, 64 - i);
      context.globalCompositeOperation = "destination-over";
      context.fillRect(0, 0, 64, 64);
      const drawn = [];
      for (const source of ["${url}", file]) {
        const checkpoint = await tintype.load(source);
        const draw = async (more) => {
          const { images } = await tintype.generate({ checkpoint, ...${JSON.stringify(ASKED)}, ...more });
          drawn.push(Array.from(images[0].imageData.data));
        };
        await draw({ image });
        await checkpoint.unload();
        await draw({ image });
        await draw();
        await checkpoint.unload();
      }
      return drawn;
    }`);
    assert.equal(error, undefined, error?.message);
    const [first, , text] = value.map((rgba) => Buffer.from(rgba));
    assert.ok(isPicture(first) && !first.equals(text));
    value.forEach((rgba, i) => assert.ok(Buffer.from(rgba).equals([first, first, text][i % 3]), `picture ${i}`));
  });

  test("one is kept under its own address", async () => {
    const { value } = await api.outcome(`async () => (await tintype.store.list()).map(({ url }) => url)`);
    assert.ok(value.some((kept) => kept.endsWith(url)), value.join());
  });

  test("the vocabulary is kept too: with the network off it draws, by its address and as a picked file", async () => {
    await api.create({ backend: "cpu" });
    await api.load(url);
    const expected = (await api.draw({ checkpoint: url, ...ASKED })).images[0];
    const kept = await page.evaluate(() => tintype.store.list());
    assert.deepEqual(kept.filter(({ url }) => /merges/.test(url)), [], "it is no checkpoint");
    await api.create({ backend: "cpu" });
    const refused = [];
    const refuse = (route) => (refused.push(route.request().url()), route.abort());
    await page.evaluate(async (url) => (window.mine = new File([await (await fetch(url)).blob()], "mine.safetensors")), url);
    for (const address of ["**/assets/**", "**/folders/single/**"]) await page.route(address, refuse);
    const { value, error } = await api.outcome(`async () => {
      const drawn = [];
      for (const source of ["${url}", window.mine]) {
        const checkpoint = await tintype.load(source);
        const { images } = await tintype.generate({ checkpoint, ...${JSON.stringify(ASKED)} });
        drawn.push(Array.from(images[0].imageData.data));
      }
      return drawn;
    }`);
    await page.unrouteAll();
    assert.equal(error, undefined, error?.message);
    for (const rgba of value) assert.ok(Buffer.from(rgba).equals(expected.rgba));
    assert.deepEqual(refused.filter((url) => /assets/.test(url)), []);
  });

  test("a vocabulary that is not CLIP's is refused and not kept", async () => {
    const load = () => api.outcome(`() => tintype.load(window.mine)`);
    const wrong = { "other bytes": ["application/gzip", "a b\nc d\n"], "a page": ["text/html", "<!doctype html><title>front</title>"] };
    for (const [what, [contentType, body]] of Object.entries(wrong)) {
      await api.create({ backend: "cpu" });
      await page.evaluate(() => tintype.store.clear());
      await page.route("**/assets/**", (route) => route.fulfill({ contentType, body }));
      const { error } = await load();
      await page.unrouteAll();
      assert.equal(error?.code, what === "a page" ? "not-found" : "corrupt", error?.message);
      assert.match(error.message, /clip-merges\.txt\.gz: .*(expected sha256|page of HTML)/);
      assert.equal((await load()).error, undefined, what);
    }
  });

  test("nothing went wrong unseen", () => assert.deepEqual(faults, []));
});
