// LoRAs over a checkpoint in a page: laid on and taken off, kept, and there again when a worker dies.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openApi } from "./harness.mjs";
import { lora } from "./made.mjs";
import { notFound, shipped } from "./server.mjs";

const SOFT = "/checkpoints/soft/";
const ENTRY = { url: "../../checkpoints/soft/", loras: [{ source: "warm style.safetensors", scale: 0.8 }] };

for (const backend of ["cpu", "webgpu"]) {
  describe(`LoRAs on ${backend}`, { timeout: 1_200_000 }, () => {
    let api, close, site, page, faults, url;
    const pictures = {};
    const FOX = { prompt: "fox", seed: 7, steps: backend === "cpu" ? 2 : 1, width: 64, height: 64 };

    /** The picture of the first checkpoint, after `loras` were set, if they are given. */
    const drawn = (loras) =>
      page.evaluate(
        async ([loras, size]) => {
          const [checkpoint] = window.handles;
          if (loras) await checkpoint.setLoras(loras);
          const { images } = await tintype.generate({ checkpoint, ...size });
          const text = new TextDecoder("latin1").decode(await (await images[0].toBlob()).arrayBuffer());
          return { rgba: Array.from(images[0].imageData.data), loras: /Loras: "([^"]*)"/.exec(text)?.[1] };
        },
        [loras, FOX],
      );

    before(async () => {
      ({ api, close, site, page, faults } = await openApi({ webgpu: backend === "webgpu" }));
      const folder = site.changed("loras", {
        "warm style.safetensors": lora(0.5),
        "other.safetensors": lora(0.3),
        "unet.safetensors": shipped("soft", "unet/diffusion_pytorch_model.safetensors"),
        "front.safetensors": Buffer.from("<!doctype html><title>front</title>"),
        "checkpoints.json": Buffer.from(JSON.stringify({ checkpoints: [ENTRY] })),
        "*": notFound,
      });
      url = `${folder}warm%20style.safetensors?token=1`;
      await api.create({ backend, debug: true });
      await api.load(SOFT);
      await page.evaluate(() => (window.handles = [...tintype.checkpoints]));
      pictures.plain = await drawn();
    });
    after(() => close?.());

    test("laid on, changed and taken off", async () => {
      const before = await page.evaluate(() => tintype.memory);
      pictures.warm = await drawn([{ source: url, scale: 0.8 }]);
      assert.notDeepEqual(pictures.warm.rgba, pictures.plain.rgba);
      assert.equal(pictures.warm.loras, "warm style: 0.8");
      const during = await page.evaluate(() => tintype.memory);
      assert.ok(during.weights > before.weights);
      const two = await drawn([{ source: url }, { source: "/changed/loras/other.safetensors", scale: -0.5 }]);
      assert.notDeepEqual(two.rgba, pictures.warm.rgba);
      assert.equal(two.loras, "warm style: 1, other: -0.5");
      assert.deepEqual(await drawn([]), pictures.plain);
      const after = await page.evaluate(() => tintype.memory);
      assert.deepEqual([after.weights, after.gpu], [before.weights, before.gpu]);
    });

    test("loaded with it, from an address or as a file", async () => {
      const { rgba, warnings } = await page.evaluate(
        async ([soft, url, size]) => {
          const file = new File([await (await fetch(url)).blob()], "warm style.safetensors");
          const progress = [];
          const loras = [{ source: file, scale: 0.8 }];
          const checkpoint = await tintype.load(soft, { name: "with", loras, onProgress: (p) => progress.push(p) });
          const { images } = await tintype.generate({ checkpoint, ...size });
          await checkpoint.unload();
          if (!progress.every(({ fraction }) => fraction <= 1) || progress.at(-1).fraction !== 1) throw new Error("progress");
          return { rgba: Array.from(images[0].imageData.data), warnings: checkpoint.warnings };
        },
        [SOFT, url, FOX],
      );
      assert.deepEqual(rgba, pictures.warm.rgba);
      assert.deepEqual(warnings, []);
    });

    test("an entry's own lie over it, unless others are asked for", async () => {
      const drawn = await page.evaluate(
        async ([entry, size]) => {
          const [found] = await window.api.Tintype.catalogue("/changed/loras/checkpoints.json");
          const drawn = [];
          const whole = { ...entry, url: found.url };
          for (const [source, options] of [[found], [entry], [whole], [found, { loras: [] }], [found, { loras: null }]]) {
            const checkpoint = await tintype.load(source, options);
            const { images } = await tintype.generate({ checkpoint, ...size });
            await checkpoint.unload();
            drawn.push(Array.from(images[0].imageData.data));
          }
          return drawn;
        },
        [ENTRY, FOX],
      );
      const { warm, plain } = pictures;
      assert.deepEqual(drawn, [warm.rgba, warm.rgba, warm.rgba, plain.rgba, warm.rgba]);
    });

    test("an entry's own are refused by their place in it", async () => {
      const entry = { url: SOFT, loras: [{ source: "/changed/loras/missing.safetensors" }] };
      await api.refuses(`() => tintype.load(${JSON.stringify(entry)})`, "not-found", /missing\.safetensors/);
      await api.refuses(`() => tintype.load({ url: "${SOFT}", loras: 7 })`, "invalid-argument", /source: loras: expected an array/);
    });

    test("changes asked for while it draws come after, in their order", async () => {
      const rgba = await page.evaluate(
        async ([url, size]) => {
          const [checkpoint] = window.handles;
          const draw = async () => Array.from((await tintype.generate({ checkpoint, ...size })).images[0].imageData.data);
          const set = (loras) => checkpoint.setLoras(loras);
          const all = [draw(), set([{ source: url, scale: 3 }]), set([{ source: url, scale: 0.8 }])];
          await Promise.all(all);
          return [await all[0], await draw()];
        },
        [url, FOX],
      );
      assert.deepEqual(rgba, [pictures.plain.rgba, pictures.warm.rgba]);
    });

    test("what fails leaves the former ones", async () => {
      for (const [loras, code, message] of [
        [`[{ source: "/changed/loras/missing.safetensors" }]`, "not-found", /missing\.safetensors/],
        [`[{ source: "/changed/loras/unet.safetensors" }]`, "unsupported", /expected a LoRA, found a checkpoint's weights/],
        [`[{ source: "/changed/loras/front.safetensors" }]`, "corrupt", /expected safetensors, found HTML/],
        [`[{ source: new File(["x"], "short.safetensors") }]`, "corrupt", /short\.safetensors: /],
        [`[{ source: "/changed/loras/" }]`, "invalid-argument", /loras\[0\]\.source: .*expected the address of a file/],
        [`[{ source: "hf:org" }]`, "invalid-argument", /loras\[0\]\.source: "hf:org": expected "hf:org\/name"/],
        [`[{ source: "ftp://host/a.safetensors" }]`, "invalid-argument", /found "ftp:"/],
        [`[{ source: {} }]`, "invalid-argument", /loras\[0\]\.source: expected a URL/],
        [`[{ source: "/a.safetensors", scale: NaN }]`, "invalid-argument", /loras\[0\]\.scale/],
        [`[{ source: "/a.safetensors", scale: 1e300 }]`, "invalid-argument", /loras\[0\]\.scale/],
        [`[{ source: "/a.safetensors", weight: 1 }]`, "invalid-argument", /unknown option "weight"/],
        [`[{}]`, "invalid-argument", /loras\[0\]\.source/],
        [`undefined`, "invalid-argument", /setLoras: loras: expected an array/],
      ]) {
        await api.refuses(`() => window.handles[0].setLoras(${loras})`, code, message);
      }
      assert.deepEqual((await drawn()).rgba, pictures.warm.rgba);
    });

    test("what fails takes no picture with it, and close() ends it", async () => {
      const { same, code, holes, closed } = await page.evaluate(
        async ([missing, warm, size]) => {
          const [checkpoint] = window.handles;
          const draw = async () => (await tintype.generate({ checkpoint, ...size })).images[0].imageData.data.join();
          await checkpoint.setLoras([]);
          const before = await draw();
          await checkpoint.unload();
          const failing = outcome(() => checkpoint.setLoras([{ source: missing }]));
          const after = await draw();
          const holes = await outcome(() => checkpoint.setLoras(new Array(2)));
          const other = await window.api.Tintype.create({ backend: "cpu" });
          const theirs = await other.load("/checkpoints/soft/");
          const late = [outcome(() => theirs.setLoras([])), outcome(() => theirs.setLoras([]))];
          await other.close();
          const closed = (await Promise.all(late)).map(({ error }) => error?.code);
          const { code } = (await failing).error;
          await checkpoint.setLoras([{ source: warm, scale: 0.8 }]);
          return { same: before === after, code, holes: holes.error?.code, closed };
        },
        [url.replace("warm", "no"), url, FOX],
      );
      assert.ok(same, "the picture after a change that failed differs");
      assert.equal(code, "not-found");
      assert.equal(holes, "invalid-argument");
      assert.deepEqual(closed, ["cancelled", "cancelled"]);
    });

    test("it comes back with them, after it gave way and after the worker died", async () => {
      await page.evaluate(() => window.handles[0].unload());
      assert.deepEqual((await drawn()).rgba, pictures.warm.rgba);
      await page.evaluate(() => tintype.debug.killWorker());
      assert.deepEqual((await drawn()).rgba, pictures.warm.rgba);
    });

    test("it is kept, and needs no network any more", async () => {
      const kept = await page.evaluate(() => tintype.store.list());
      const [entry] = kept.filter(({ name }) => name === "warm style.safetensors");
      assert.ok(entry?.complete, JSON.stringify(kept));
      site.changed("loras", { "*": notFound });
      await drawn([]);
      assert.deepEqual((await drawn([{ source: url, scale: 0.8 }])).rgba, pictures.warm.rgba);
      assert.deepEqual(faults, []);
    });
  });
}
