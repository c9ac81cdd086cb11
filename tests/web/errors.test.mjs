// Bad input of every kind: each is refused by its code, in words that name the thing, and the next picture is as before.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openApi } from "./harness.mjs";
import { oversizedHeader, overlapping, retyped, withNaN, without } from "./safetensors.mjs";
import { cutOff, frontPage, notFound, shipped } from "./server.mjs";

const SOFT = "/checkpoints/soft/";
const FOX = { checkpoint: SOFT, prompt: "fox", seed: 7, steps: 1 };
const UNET = "unet/diffusion_pytorch_model.safetensors";
const UNET_CONFIG = "unet/config.json";
const SCHEDULER = "scheduler/scheduler_config.json";

/** A shipped config with the string value of `key` changed; as text, for diffusers writes Infinity into its JSON. */
function edited(name, key, value) {
  const text = shipped("soft", name).toString();
  const changed = text.replace(new RegExp(`("${key}": *)"[^"]*"`), `$1"${value}"`);
  assert.notEqual(changed, text);
  return changed;
}

/** What a folder may have in place of the shipped files, and how `load` must refuse it. */
const LOADS = {
  "no model_index.json": [{ "*": notFound }, "not-found", /model_index\.json/],
  "a missing weights file": [{ [UNET]: notFound }, "not-found", /unet/],
  "a front page in place of every file": [{ "*": frontPage }, "not-found", /model_index\.json: .*HTML/],
  "a front page in place of the weights": [{ [UNET]: frontPage }, "not-found", /unet.*HTML.*no weights/],
  "a front page in place of the weights, said to be a file": [{ [UNET]: "<!doctype html><title>front</title>" }, "corrupt", /unet.*HTML/],
  "truncated weights": [{ [UNET]: () => shipped("soft", UNET).subarray(0, 5_000_000) }, "corrupt", /unet/],
  "weights cut off within the header": [{ [UNET]: () => shipped("soft", UNET).subarray(0, 100) }, "corrupt", /unet/],
  "an empty weights file": [{ [UNET]: "" }, "corrupt", /unet/],
  "a header longer than the file": [{ [UNET]: () => oversizedHeader(shipped("soft", UNET)) }, "corrupt", /unet/],
  "tensors that overlap": [{ [UNET]: () => overlapping(shipped("soft", UNET)) }, "corrupt", /overlap/i],
  "a missing tensor": [{ [UNET]: () => without(shipped("soft", UNET), "conv_in.weight") }, "corrupt", /conv_in\.weight/],
  "a dtype that no weight can have": [{ [UNET]: () => retyped(shipped("soft", UNET), "conv_in.weight", "I16") }, "unsupported", /I16/],
  "a connection that breaks": [{ [UNET]: cutOff(2_000_000) }, "network", /unet/],
  "an unknown class": [{ [UNET_CONFIG]: edited(UNET_CONFIG, "_class_name", "UNet9DModel") }, "unsupported", /UNet9DModel/],
  "a scheduler value that is not implemented": [
    { [SCHEDULER]: edited(SCHEDULER, "beta_schedule", "of_the_moon") },
    "unsupported",
    /beta_schedule.*of_the_moon/,
  ],
  "a config that is no JSON": [{ [UNET_CONFIG]: "{" }, "corrupt", /unet\/config\.json/],
};

/** Options of `generate`, and how it must refuse them. */
const DRAWS = {
  "a size that is not a multiple of the VAE's factor": [{ width: 130 }, "invalid-argument", /width.*8.*130/],
  "a size of nothing": [{ height: 0 }, "invalid-argument", /height/],
  "steps of 0": [{ steps: 0 }, "invalid-argument", /steps/],
  "an unknown sampler": [{ sampler: "Euler z" }, "invalid-argument", /Euler z/],
  "an unknown option": [{ cfg: 7 }, "invalid-argument", /cfg/],
  "a seed of more than 64 bits": [{ seed: "18446744073709551616" }, "invalid-argument", /seed/],
  "a prompt that is no string": [{ prompt: 7 }, "invalid-argument", /prompt/],
  "no pictures": [{ count: 0 }, "invalid-argument", /count/],
  "a strength without an image": [{ strength: 0.5 }, "invalid-argument", /strength: expected the option image/],
};

describe("bad input", { timeout: 1_200_000 }, () => {
  let api, close, site, faults, good;

  before(async () => {
    ({ api, close, site, faults } = await openApi());
    await api.create({ backend: "cpu" });
    await api.load(SOFT);
    good = (await api.draw(FOX)).images[0].rgba;
  });
  after(() => close?.());

  const stillWorks = async () => assert.ok((await api.draw(FOX)).images[0].rgba.equals(good), "the next picture differs");

  for (const [index, [what, [changes, code, message]]] of Object.entries(LOADS).entries()) {
    test(`load: ${what}`, async () => {
      const made = Object.entries(changes).map(([name, change]) => [name, change.length === 0 && typeof change === "function" ? change() : change]);
      const folder = site.changed(`load-${index}`, Object.fromEntries(made));
      await assert.rejects(api.load(folder), { code, message });
      await stillWorks();
    });
  }

  test("load: an address where nothing is", async () => {
    await assert.rejects(api.load("/checkpoints/none/"), { code: "not-found", message: /\/checkpoints\/none\// });
    await assert.rejects(api.load("http://127.0.0.1:9/"), { code: "network", message: /127\.0\.0\.1:9/ });
    await assert.rejects(api.load(7), { code: "invalid-argument", message: /7/ });
    await stillWorks();
  });

  test("load: an entry of checkpoints.json whose host gives other bytes", async () => {
    const bytes = shipped("soft", UNET);
    bytes[bytes.length - 1] ^= 1;
    const folder = site.changed("tampered", { [UNET]: bytes });
    // What is kept, or in memory, under the hash that the entry promises would be taken in its place.
    await api.outcome(`async () => { await tintype.checkpoints[0].unload(); await tintype.store.clear(); }`);
    await assert.rejects(api.loadEntry("soft", folder), { code: "corrupt", message: /unet.*sha256/ });
    await stillWorks();
  });

  for (const [what, [options, code, message]] of Object.entries(DRAWS)) {
    test(`generate: ${what}`, async () => {
      await assert.rejects(api.draw({ ...FOX, ...options }), { code, message });
      await stillWorks();
    });
  }

  test("generate: NaN in the weights is refused, not shown as black", async () => {
    const folder = site.changed("nan", { [UNET]: withNaN(shipped("soft", UNET), "conv_out.bias") });
    await api.load(folder);
    await assert.rejects(api.draw({ ...FOX, checkpoint: folder }), { code: "corrupt", message: /not finite/ });
    await stillWorks();
  });

  test("generate: a checkpoint of another Tintype", async () => {
    const call = `async () => {
      const other = await window.api.Tintype.create({ backend: "cpu" });
      const theirs = await other.load("${SOFT}", { name: "theirs" }).finally(() => other.close());
      return tintype.generate({ checkpoint: theirs });
    }`;
    await api.refuses(call, "invalid-argument", /"theirs"/);
    await stillWorks();
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));

  // Last: these two make a new engine.
  test("no WebGPU: auto takes the CPU and says so; asked for by name it is refused", async () => {
    const backend = await api.create({ backend: "auto" });
    assert.equal(backend.kind, "cpu");
    assert.match(backend.reason, /WebGPU/);
    const [notice] = await api.notices();
    assert.equal(notice?.message, backend.reason);
    await api.load(SOFT);
    await stillWorks();
    await assert.rejects(api.create({ backend: "webgpu" }), { code: "unsupported", message: /WebGPU/ });
    await assert.rejects(api.create({ backend: "abacus" }), { code: "invalid-argument", message: /abacus/ });
    await assert.rejects(api.create({ arithmetic: "f8" }), { code: "invalid-argument", message: /create: arithmetic: expected "f32", "f16", found "f8"/ });
  });
});
