// Autoencoders from elsewhere in a page: by address, as files, kept, and there again when a worker dies. And what LoRAs bring by their names.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, describe, test } from "node:test";
import { isPicture, openApi } from "./harness.mjs";
import { join, parse, tensors } from "./safetensors.mjs";
import { notFound, shipped } from "./server.mjs";

const GOLDEN = fileURLToPath(new URL("../golden/vae", import.meta.url));
const [SOFT, FLAT] = ["/checkpoints/soft/", "/checkpoints/flat/"];
const FOX = { prompt: "fox", seed: 7, steps: 1 };
const UNET = "unet/diffusion_pytorch_model.safetensors";

describe("autoencoders from elsewhere", { timeout: 1_200_000 }, () => {
  let api, close, site, page, faults, vae, borrowed, whole;
  const fetched = [];

  /** Loads and draws in the page; `options` and `source` are code that runs there. */
  const drawn = async (source, options, more = {}) => {
    const { value, error } = await api.outcome(`async () => {
      const checkpoint = await tintype.load(${source}, ${options});
      const { images } = await tintype.generate({ checkpoint, ...${JSON.stringify({ ...FOX, ...more })} });
      const text = new TextDecoder("latin1").decode(await (await images[0].toBlob()).arrayBuffer());
      const { id, components, defaults, warnings } = checkpoint;
      const { imageData, parameters } = images[0];
      const said = /VAE: ("[^"]*"|[^,]*)/.exec(text)?.[1];
      return { id, components, defaults, warnings, rgba: Array.from(imageData.data), size: [imageData.width, imageData.height], vae: parameters.vae, said };
    }`);
    assert.equal(error, undefined, error?.message);
    return value;
  };
  const class_ = ({ components }) => components.find(({ name }) => name === "vae").class;

  before(async () => {
    ({ api, close, site, page, faults } = await openApi());
    vae = site.folder("vae", GOLDEN);
    // Nothing of its own autoencoder is there.
    whole = site.changed("whole", {
      "vae/config.json": readFileSync(`${GOLDEN}/taesd/config.json`),
      "vae/diffusion_pytorch_model.safetensors": readFileSync(`${GOLDEN}/taesd/diffusion_pytorch_model.safetensors`),
    });
    borrowed = site.changed("borrowed", { "vae/config.json": notFound, "vae/diffusion_pytorch_model.safetensors": notFound });
    page.context().on("request", (request) => fetched.push(new URL(request.url()).pathname));
    await api.create({ backend: "cpu", debug: true });
  });
  after(() => close?.());

  test("one is drawn with in place of the checkpoint's own, which is not fetched", async () => {
    const found = await drawn(`"${borrowed}"`, `{ vae: "${vae}kl/" }`);
    assert.equal(class_(found), "AutoencoderKL");
    assert.deepEqual(found.warnings, []);
    assert.deepEqual([found.defaults.factor, found.size], [2, [found.defaults.width, found.defaults.height]]);
    assert.ok(isPicture(found.rgba));
    assert.deepEqual([found.vae, found.said], ["kl", "kl"]);
    assert.ok(!fetched.some((path) => path.startsWith(`${borrowed}vae/`)), "its own was asked for");
  });

  test("by address, as picked files and as handles it is the same", async () => {
    const forms = [
      `{ vae: new URL("${vae}taesd/", location.href) }`,
      `{ vae: "${vae}taesd_decoder.safetensors?token=1" }`,
      `{ vae: "${vae}taesd/diffusion_pytorch_model.safetensors" }`,
      `{ vae: await file("taesd_decoder.safetensors") }`,
      `{ vae: [await file("taesd_encoder.safetensors"), await file("taesd_decoder.safetensors")] }`,
      `{ vae: { kind: "file", name: "a:b.safetensors", getFile: async () => new File([await file("taesd_decoder.safetensors")], "a:b.safetensors") } }`,
      `{ vae: [{ path: "x/config.json", file: await file("taesd/config.json") }, { path: "x/diffusion_pytorch_model.safetensors", file: await file("taesd/diffusion_pytorch_model.safetensors") }] }`,
      `{ vae: { url: new URL("${vae}taesd/", location.href).href, name: "an entry" } }`,
      // Of a whole checkpoint, by the address of its index; and an entry whose address is relative.
      `{ vae: "${whole}model_index.json" }`,
      `{ vae: { url: "${vae.slice(1)}taesd", name: "relative" } }`,
    ];
    await page.evaluate((vae) => {
      window.file = async (name) => new File([await (await fetch(vae + name)).blob()], name.split("/").pop());
    }, vae);
    const all = [];
    for (const form of forms) all.push(await drawn(`"${SOFT}"`, form, { width: 64, height: 64 }));
    for (const [i, found] of all.entries()) {
      assert.equal(class_(found), "AutoencoderTiny", forms[i]);
      assert.deepEqual(found.rgba, all[0].rgba, forms[i]);
      assert.deepEqual(found.components.at(-1).id, all[0].components.at(-1).id, forms[i]);
    }
    assert.deepEqual(
      all.map(({ vae }) => vae),
      ["taesd", "taesd_decoder.safetensors", "diffusion_pytorch_model.safetensors", "taesd_decoder.safetensors", "taesd_decoder.safetensors", "a_b.safetensors", "x", "an entry", "whole", "relative"],
    );
  });

  test("one that is here is held once and not read again", async () => {
    const { value, error } = await api.outcome(`async () => {
      const counts = () => tintype.debug.counts();
      const vae = "${vae}kl-ldm.safetensors";
      const first = await tintype.load("${SOFT}", { vae });
      const [{ uploaded }, progress] = [await counts(), []];
      const second = await tintype.load("${FLAT}", { vae, onProgress: (p) => progress.push(p) });
      const third = await tintype.load("${FLAT}", { vae: "${vae}kl/" });
      const last = progress.at(-1);
      const grown = (await counts()).uploaded - uploaded;
      await Promise.all([first, second, third].map((checkpoint) => checkpoint.unload()));
      return { ids: [first, second, third].map(({ components }) => components[2].id), grown, last, own: second.components };
    }`);
    assert.equal(error, undefined, error?.message);
    assert.equal(new Set(value.ids).size, 1);
    const rest = value.own.filter(({ name }) => name !== "vae").reduce((sum, { bytes }) => sum + bytes, 0);
    assert.deepEqual([value.last.loadedBytes, value.last.totalBytes], [rest, rest]);
  });

  test("inspect reckons with it", async () => {
    const { value, error } = await api.outcome(`() => tintype.inspect("${SOFT}", { vae: "${vae}kl-ldm.safetensors" })`);
    assert.equal(error, undefined, error?.message);
    assert.deepEqual([value.components[2].class, value.defaults.factor, value.unsupported], ["AutoencoderKL", 2, []]);
    const encoder = await api.outcome(`() => tintype.inspect("${SOFT}", { vae: "${vae}taesd_encoder.safetensors" })`);
    assert.match(encoder.value.unsupported.join(), /taesd_encoder\.safetensors: .*an encoder alone/);
    // What is wrong with it is not said of the checkpoint.
    await api.refuses(`() => tintype.inspect("${SOFT}", { vae: [new File(["x"], "a.ckpt"), new File(["x"], "b.ckpt")] })`, "unsupported", /^inspect: vae: /);
  });

  test("one is looked at by itself as it is loaded", async () => {
    const kl = `${vae}kl/diffusion_pytorch_model.safetensors`;
    const { value, error } = await api.outcome(`async () => {
      const file = async (name, url) => ({ path: "kl/" + name, file: new File([await (await fetch(url)).blob()], name) });
      const weights = await Promise.all(["a", "diffusion_pytorch_model"].map((name) => file(name + ".safetensors", "${kl}")));
      const picked = [await file("config.json", "${vae}kl/config.json"), ...weights];
      const said = [];
      for (const source of [picked, "${vae}kl/", "${vae}kl/config.json", "${kl}"]) said.push(await tintype.inspect(source));
      const checkpoint = await tintype.load("${SOFT}", { vae: picked });
      await checkpoint.unload();
      return said.map(({ kind, name, components, unsupported }) => [kind, name, components.length, unsupported.length]);
    }`);
    assert.equal(error, undefined, error?.message);
    assert.deepEqual(value, [["vae", "kl", 1, 0], ["vae", "kl", 1, 0], ["vae", "kl", 1, 0], ["vae", "diffusion_pytorch_model", 1, 0]]);
    // Two files that say nothing of being one thing are to be chosen from, as load wants it.
    const two = `["a", "b"].map((name) => new File(["x"], name + ".safetensors"))`;
    await api.refuses(`() => tintype.inspect(${two})`, "invalid-argument", /choose one: "a\.safetensors", "b\.safetensors"/);
    for (const config of ['{"_class_name": "UNet2DConditionModel"}', "{}", "{"]) {
      const other = `[...${two}, new File([${JSON.stringify(config)}], "config.json")]`;
      await api.refuses(`() => tintype.inspect(${other})`, "invalid-argument", /choose one: /);
    }
    const pickles = `[new File(["x"], "pytorch_model.bin"), new File(["{}"], "config.json")]`;
    const said = await api.outcome(`() => tintype.inspect(${pickles})`);
    assert.match(said.value?.unsupported.join(), /pickles/);
    // A host that is out of order is not one without the file.
    const broken = site.changed("broken", { "model_index.json": notFound, "config.json": (_, response) => response.writeHead(503).end() });
    await api.refuses(`() => tintype.inspect("${broken}")`, "network", /config\.json/);  });

  test("what does not fit is refused by name", async () => {
    for (const [given, code, message] of [
      [`"${SOFT}${UNET}"`, "unsupported", /expected an autoencoder .*found a UNet alone/],
      [`"${SOFT}unet/"`, "unsupported", /unet\/config\.json: expected AutoencoderKL or AutoencoderTiny, found "UNet2DConditionModel"/],
      [`"${vae}taesd_encoder.safetensors"`, "unsupported", /an encoder alone/],
      [`"${vae}none.safetensors"`, "not-found", /none\.safetensors/],
      [`"${vae}none/"`, "not-found", /none\/: expected an autoencoder's config\.json or safetensors file/],
      [`"ftp://host/a.safetensors"`, "invalid-argument", /^load: vae: .*found "ftp:"/],
      [`7`, "invalid-argument", /^load: vae: expected what load\(\) takes as a source, found 7/],
      [`[]`, "invalid-argument", /^load: vae: the array has no files/],
      [`{}`, "invalid-argument", /^load: vae: expected a URL/],
    ]) {
      await api.refuses(`() => tintype.load("${SOFT}", { vae: ${given} })`, code, message);
    }
    await api.refuses(`() => tintype.inspect("${SOFT}", { vae: "ftp://x/" })`, "invalid-argument", /^inspect: vae: /);
  });

  test("it comes back after it gave way and after the worker died", async () => {
    const { value, error } = await api.outcome(`async () => {
      const checkpoint = await tintype.load("${borrowed}", { vae: "${vae}taesd/" });
      const draw = async () => (await tintype.generate({ checkpoint, ...${JSON.stringify(FOX)} })).images[0].imageData.data.join();
      const before = await draw();
      await checkpoint.unload();
      const after = await draw();
      await tintype.debug.killWorker();
      return [before === after, before === (await draw())];
    }`);
    assert.equal(error, undefined, error?.message);
    assert.deepEqual(value, [true, true]);
  });

  test("an image is encoded by it, if it has an encoder", async () => {
    const over = (vae) => api.outcome(`async () => {
      const checkpoint = await tintype.load("${SOFT}", { vae: "${vae}" });
      const image = new ImageData(new Uint8ClampedArray(4 * 64 * 64).map((_, i) => (i % 4 === 3 ? 255 : (i * 7) % 256)), 64, 64);
      const { images } = await tintype.generate({ checkpoint, image, strength: 0.5, ...${JSON.stringify({ ...FOX, steps: 2 })} });
      await checkpoint.unload();
      return Array.from(images[0].imageData.data);
    }`);
    const { value, error } = await over(`${vae}kl-ldm.safetensors`);
    assert.equal(error, undefined, error?.message);
    assert.ok(isPicture(value));
    const alone = await over(`${vae}taesd_decoder.safetensors`);
    assert.equal(alone.error?.code, "unsupported");
    assert.match(alone.error.message, /taesd_decoder\.safetensors: expected an encoder/);
  });

  test("it is kept under its own address, and needs no network any more", async () => {
    const kept = await page.evaluate(() => tintype.store.list());
    const file = kept.find(({ url }) => url.endsWith("/taesd_decoder.safetensors"));
    assert.deepEqual([file?.name, file?.complete], ["taesd_decoder.safetensors", true]);
    const folder = kept.find(({ url }) => url.endsWith("/vae/taesd/"));
    assert.deepEqual([folder?.name, folder?.complete], ["taesd", true]);
    // A checkpoint whose autoencoder another one draws with keeps its name, in either order.
    const names = await page.evaluate(
      async ([soft, flat]) => {
        const name = async (path) => (await tintype.store.list()).find(({ url }) => new URL(url).pathname === path)?.name;
        await tintype.load(soft, { name: "Soft" });
        await tintype.load(flat, { vae: soft, name: "Flat" });
        return [await name(soft), await name(flat)];
      },
      [SOFT, FLAT],
    );
    assert.deepEqual(names, ["Soft", "Flat"]);
    const before = await drawn(`"${SOFT}"`, `{ vae: "${vae}taesd_decoder.safetensors?token=1" }`);
    site.changed("vae", { "*": notFound });
    const offline = await drawn(`"${SOFT}"`, `{ vae: "${vae}taesd_decoder.safetensors?token=1" }`);
    assert.deepEqual(offline.rgba, before.rgba);
    await page.evaluate((id) => tintype.store.remove(id), file.url);
    const rest = await page.evaluate(() => tintype.store.list());
    assert.ok(!rest.some(({ url }) => url === file.url));
    assert.deepEqual(faults, []);
  });
});

describe("LoRAs that were distilled", { timeout: 1_200_000 }, () => {
  let api, close, site, page, faults, hub;

  /** A LoRA over one module of the shipped checkpoint. */
  function lora() {
    const { header } = parse(shipped("soft", UNET));
    const name = tensors(header).find((name) => /\.to_q\.weight$/.test(name));
    const [out, inner] = header[name].shape;
    const module = `lora_unet_${name.replace(/\.weight$/, "").replaceAll(".", "_")}`;
    const [down, up] = [2 * inner * 4, out * 2 * 4];
    const made = {
      [`${module}.lora_down.weight`]: { dtype: "F32", shape: [2, inner], data_offsets: [0, down] },
      [`${module}.lora_up.weight`]: { dtype: "F32", shape: [out, 2], data_offsets: [down, down + up] },
    };
    return join(made, Buffer.from(new Float32Array((down + up) / 4).fill(0.01).buffer));
  }

  before(async () => {
    ({ api, close, site, page, faults } = await openApi());
    hub = site.changed("hub", {
      "lcm-lora-sdv1-5/resolve/main/pytorch_lora_weights.safetensors": lora(),
      "watercolour.safetensors": lora(),
      "*": notFound,
    });
    await api.create({ backend: "cpu", debug: true });
  });
  after(() => close?.());

  test("defaults follow them", async () => {
    const { value, error } = await api.outcome(`async () => {
      const checkpoint = await tintype.load("${SOFT}");
      const own = checkpoint.defaults;
      const seen = [];
      tintype.addEventListener("change", () => seen.push(checkpoint.defaults.steps));
      const lcm = { source: "${hub}lcm-lora-sdv1-5/resolve/main/pytorch_lora_weights.safetensors" };
      const set = await checkpoint.setLoras([lcm]);
      const during = checkpoint.defaults;
      const draw = async (more) => (await tintype.generate({ checkpoint, prompt: "fox", seed: 1, ...more })).images[0].parameters;
      const drawn = [await draw(), await draw({ steps: 2, guidanceScale: 2, sampler: "Euler" })];
      await tintype.debug.killWorker();
      const again = await draw();
      const loaded = await tintype.load("${SOFT}", { name: "with", loras: [lcm] });
      const none = await checkpoint.setLoras([{ ...lcm, scale: -1 }]);
      await checkpoint.setLoras([{ source: "${hub}watercolour.safetensors" }]);
      const after = checkpoint.defaults;
      const frozen = Object.isFrozen(checkpoint) && Object.isFrozen(checkpoint.defaults);
      return { own, set, during, drawn, again, loaded: loaded.defaults, none: none.defaults, after, frozen, seen };
    }`);
    assert.equal(error, undefined, error?.message);
    const { own, set, during, drawn, again, loaded, none, after, frozen, seen } = value;
    assert.deepEqual([during.steps, during.guidanceScale, during.sampler], [4, 1, "LCM"]);
    assert.deepEqual({ ...during, steps: own.steps, guidanceScale: own.guidanceScale, sampler: own.sampler }, own);
    assert.deepEqual(set, { warnings: [], defaults: during });
    const said = ({ steps, guidanceScale, sampler }) => [steps, guidanceScale, sampler];
    assert.deepEqual(drawn.map(said), [[4, 1, "LCM"], [2, 2, "Euler"]]);
    assert.deepEqual(said(again), [4, 1, "LCM"]);
    assert.deepEqual(loaded, during);
    assert.deepEqual([none, after], [own, own]);
    assert.ok(frozen);
    assert.ok(seen.includes(4), "the event change tells");
    assert.deepEqual(faults, []);
  });

  test("a catalogue's hints go first", async () => {
    const { value, error } = await api.outcome(`async () => {
      const url = new URL("${SOFT}", location.href).href;
      const source = "${hub}lcm-lora-sdv1-5/resolve/main/pytorch_lora_weights.safetensors";
      const entry = { url, name: "Entry", defaults: { steps: 3, sampler: "Euler" } };
      const { defaults } = await tintype.load(entry, { loras: [{ source }] });
      return [defaults.steps, defaults.guidanceScale, defaults.sampler];
    }`);
    assert.equal(error, undefined, error?.message);
    assert.deepEqual(value, [3, 1, "Euler"]);
  });
});
