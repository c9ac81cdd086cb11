// Pictures over images: whatever an image comes as, its very bytes are drawn over, and the picture is the one that diffusers draws.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, describe, test } from "node:test";
import { difference, isPicture, openApi, startSite } from "./harness.mjs";
import { encodePng, textChunks } from "./png.mjs";
import { parse } from "./safetensors.mjs";

const GOLDEN = new URL("../golden/", import.meta.url);
const VAE = "/vae/diffusion_pytorch_model.safetensors";

/** What diffusers drew, and over what. */
function golden(name) {
  const { header, data } = parse(readFileSync(new URL(`images/${name}.safetensors`, GOLDEN)));
  const bytes = (tensor) => header[tensor] && data.subarray(...header[tensor].data_offsets);
  const [height, width] = header.image.shape;
  const asked = JSON.parse(header.__metadata__.case);
  const { prompt, negative_prompt: negativePrompt, steps, guidance_scale: guidanceScale, strength, seed, sampler } = asked;
  const options = { prompt, negativePrompt, steps, guidanceScale, strength, seed, sampler };
  return { options, width, height, image: bytes("image"), mask: bytes("mask"), picture: bytes("picture") };
}

const rgb = (rgba) => Buffer.from(rgba.filter((_, i) => i % 4 !== 3));
const dataUrl = (png) => `data:image/png;base64,${png.toString("base64")}`;

/** That light is linear, and red is green: what a browser that minds it would make other bytes of. */
function misleading() {
  const gamma = Buffer.alloc(4);
  gamma.writeUInt32BE(100_000);
  const primaries = Buffer.alloc(32);
  [31270, 32900, 30000, 60000, 64000, 33000, 15000, 6000].forEach((x, i) => primaries.writeUInt32BE(x, 4 * i));
  return { gAMA: gamma, cHRM: primaries };
}

for (const backend of ["cpu", "webgpu"]) {
  describe(`pictures over images on ${backend}`, { timeout: 1_200_000 }, () => {
    let api, close, site, page, faults, folder;
    const paint = golden("paint-ddpm");
    const png = encodePng(paint.width, paint.height, paint.image);
    const asked = { ...paint.options, checkpoint: "image", image: dataUrl(png), mask: dataUrl(encodePng(paint.width, paint.height, paint.mask)) };

    before(async () => {
      ({ api, close, site, page, faults } = await openApi({ webgpu: backend === "webgpu" }));
      await api.create({ backend, debug: true });
      folder = (name) => site.folder(name, fileURLToPath(new URL(`pipelines/${name}`, GOLDEN)));
      await api.load(folder("sd1-image"), { name: "image" });
      await api.load(folder("sd1-inpaint"), { name: "inpaint" });
      await api.load(folder("sdxl-image"), { name: "xl" });
    });
    after(() => close?.());

    test("the pictures that diffusers draws", async (t) => {
      for (const [name, checkpoint] of [["image-euler-a", "image"], ["paint-ddpm", "image"], ["inpaint-pndm", "inpaint"], ["image-xl", "xl"]]) {
        const { options, width, height, image, mask, picture } = golden(name);
        const png = (bytes) => bytes && dataUrl(encodePng(width, height, bytes));
        const { images, steps, timings } = await api.draw({ ...options, checkpoint, image: png(image), mask: png(mask) });
        const { max, mean } = difference(rgb(images[0].rgba), picture);
        t.diagnostic(`${name}: max ${max}, mean ${mean.toFixed(4)}`);
        assert.ok(max <= 2 && mean < 0.25, `${name}: max ${max}, mean ${mean}`);
        assert.deepEqual([images[0].width, images[0].height], [width, height]);
        assert.equal(steps.at(-1).of, steps.length);
        assert.ok(timings.encode > 0 && timings.total > timings.encode);
      }
    });

    test("the encoder came with the first image, from the store, and once", async () => {
      const fetched = site.requests.filter(({ method, pathname }) => method === "GET" && pathname === `/folders/sd1-image${VAE}`);
      assert.equal(fetched.length, 1, JSON.stringify(fetched));
    });

    test("an image is its bytes, whatever it comes as and whatever its file says of colours", async () => {
      const { picture } = paint;
      const other = await api.call("decode", dataUrl(png));
      const managed = await page.evaluate(async (address) => {
        const bitmap = await createImageBitmap(await (await fetch(address)).blob());
        const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
        context.drawImage(bitmap, 0, 0);
        return Array.from(context.getImageData(0, 0, bitmap.width, bitmap.height).data);
      }, dataUrl(encodePng(paint.width, paint.height, paint.image, misleading())));
      assert.ok(difference(managed, Buffer.from(other.rgba, "base64")).max > 20, "this browser minds no gamma: the next would show nothing");

      const served = site.changed("pictures", { "a b.png": encodePng(paint.width, paint.height, paint.image, misleading()) });
      const drawn = await page.evaluate(
        async ([options, png, served]) => {
          const [checkpoint] = tintype.checkpoints.filter(({ name }) => name === "image");
          const blob = await (await fetch(png)).blob();
          const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
          const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
          const context = canvas.getContext("2d");
          context.drawImage(bitmap, 0, 0);
          const offscreen = new OffscreenCanvas(bitmap.width, bitmap.height);
          offscreen.getContext("2d").drawImage(bitmap, 0, 0);
          const data = context.getImageData(0, 0, bitmap.width, bitmap.height);
          const object = URL.createObjectURL(blob);
          const images = { served: `${served}a%20b.png`, url: new URL(png), object, blob, bitmap, canvas, offscreen, data };
          const pictures = {};
          for (const [kind, image] of Object.entries(images)) {
            const drawing = tintype.generate({ ...options, checkpoint, image });
            // The page may go on with what it gave.
            if (kind === "canvas") context.clearRect(0, 0, canvas.width, canvas.height);
            if (kind === "data") data.data.fill(0);
            pictures[kind] = Array.from((await drawing).images[0].imageData.data);
          }
          return pictures;
        },
        [{ ...asked, checkpoint: undefined, image: undefined }, dataUrl(png), served],
      );
      const [first] = Object.values(drawn);
      assert.ok(difference(rgb(first), picture).max <= 2);
      for (const [kind, pixels] of Object.entries(drawn)) assert.deepEqual(pixels, first, kind);
    });

    test("steps, previews, several pictures, and the parameters in the PNG", async () => {
      const { images, steps } = await api.draw({ ...asked, count: 2, preview: true, steps: 10, strength: 0.35 });
      assert.deepEqual(steps.map(({ step, of }) => [step, of]), [1, 2, 3, 1, 2, 3].map((step) => [step, 3]));
      assert.ok(steps.some(({ preview }) => preview));
      assert.ok(!images[0].rgba.equals(images[1].rgba));
      const { parameters: text } = textChunks(images[0].png);
      for (const part of ["Steps: 10", "Denoising strength: 0.35"]) assert.ok(text.includes(part), text);
      assert.match(text, /Masked area: 0\.\d+/);
      const { strength, masked } = images[0].parameters;
      assert.equal(strength, 0.35);
      assert.ok(masked > 0.2 && masked < 1, masked);
    });

    test("one of another size is resized", async () => {
      const { images } = await api.draw({ ...asked, width: 32, height: 48, steps: 2 });
      assert.deepEqual([images[0].width, images[0].height], [32, 48]);
      assert.ok(isPicture(images[0].rgba));
    });

    test("cancelled, queued, and drawn again by another worker", async () => {
      const good = (await api.draw(asked)).images[0].rgba;
      const { error } = await api.draw({ ...asked, steps: 40, cancelAtStep: 2 });
      assert.equal(error.code, "cancelled");
      const text = { checkpoint: "image", prompt: "fox", seed: 1, steps: 2, width: 64, height: 64 };
      const { pictures } = await api.drawTogether(asked, text, asked);
      assert.ok(pictures[0][0].rgba.equals(good) && pictures[2][0].rgba.equals(good));
      assert.ok(!pictures[1][0].rgba.equals(good));
      const harms = backend === "cpu" ? ["killWorker"] : ["killWorker", "loseDevice"];
      for (const harm of harms) {
        for (const moment of ["text", "step", "idle"]) {
          await page.evaluate(([harm, moment]) => tintype.debug[harm](moment).catch(() => {}), [harm, moment]);
          const again = (await api.draw(asked)).images[0].rgba;
          assert.ok(again.equals(good), `${harm} ${moment}`);
        }
      }
      assert.equal(await page.evaluate(() => tintype.backend.kind), backend);
      await api.unload("image");
      assert.ok((await api.draw(asked)).images[0].rgba.equals(good));
    });

    test("nothing was logged as an error", () => assert.deepEqual(faults, []));
  });
}

describe("images that are none", { timeout: 600_000 }, () => {
  let api, close, site, page, faults, elsewhere;
  const IMAGE = "canvas(64, 64)";

  before(async () => {
    elsewhere = await startSite();
    ({ api, close, site, page, faults } = await openApi());
    await api.create({ backend: "cpu" });
    for (const name of ["sd1-image", "sd1-inpaint"]) {
      await api.load(site.folder(name, fileURLToPath(new URL(`pipelines/${name}`, GOLDEN))), { name });
    }
    await page.evaluate(() => {
      window.canvas = (width, height, paint = (context) => context.fillRect(0, 0, width, height)) => {
        const canvas = Object.assign(document.createElement("canvas"), { width, height });
        paint(canvas.getContext("2d"));
        return canvas;
      };
      window.draw = (options, name = "sd1-image") => {
        const checkpoint = tintype.checkpoints.find((checkpoint) => checkpoint.name === name);
        return tintype.generate({ checkpoint, prompt: "fox", steps: 2, seed: 1, ...options });
      };
    });
  });
  after(async () => {
    await close?.();
    await elsewhere?.close();
  });

  const refuses = (options, code, message, name) =>
    api.refuses(`async () => draw(await (async () => (${options}))(), ${JSON.stringify(name)})`, code, message);

  test("each is refused by its option's name", async () => {
    const address = site.changed("bad", {
      "text.png": Buffer.from("no picture at all"),
      "half.png": encodePng(64, 64, Buffer.alloc(64 * 64 * 3, 90)).subarray(0, 40),
      "clear.png": encodePng(2, 2, Buffer.from([1, 2, 3, 255, 4, 5, 6, 128, 7, 8, 9, 255, 0, 0, 0, 255])),
      "empty.png": Buffer.alloc(0),
    });
    for (const [options, code, message] of [
      ["{ image: 7 }", "invalid-argument", /generate: image: expected an ImageData, an ImageBitmap, a Blob, a canvas or an address, found 7/],
      ["{ image: {} }", "invalid-argument", /generate: image: expected an ImageData/],
      ["{ image: new Uint8Array(16) }", "invalid-argument", /generate: image: expected an ImageData/],
      [`{ image: ${IMAGE}, mask: [] }`, "invalid-argument", /generate: mask: expected an ImageData/],
      ["{ image: new Blob(['nothing']) }", "corrupt", /generate: image: the Blob \(7 bytes\) is no picture/],
      ["{ image: new File([], 'x.png', { type: 'image/png' }) }", "corrupt", /generate: image: the File \(0 bytes of image\/png\) is no picture/],
      [`{ image: "${address}text.png" }`, "corrupt", /generate: image: ".*text\.png" .* is no picture/],
      [`{ image: "${address}half.png" }`, "corrupt", /generate: image: .*half\.png/],
      [`{ image: "${address}empty.png" }`, "corrupt", /generate: image: .*empty\.png/],
      [`{ image: "${address}none/none.png" }`, "not-found", /generate: image: .*none\.png: the host answered 404/],
      [`{ image: "http://127.0.0.1:9/x.png" }`, "network", /generate: image: .*127\.0\.0\.1:9/],
      [`{ image: "ftp://host/x.png" }`, "invalid-argument", /generate: image: .*ftp:/],
      [`{ image: "http://[" }`, "invalid-argument", /generate: image: .* is not a URL/],
      [`{ image: "${address}clear.png" }`, "invalid-argument", /image: expected opaque pixels, found an alpha of 128 in column 1, row 0/],
      [`{ image: ${IMAGE}, mask: canvas(8, 8, () => {}) }`, "invalid-argument", /mask: expected opaque pixels, found an alpha of 0 in column 0, row 0/],
      [`{ mask: ${IMAGE} }`, "invalid-argument", /mask: expected the option image beside it/],
      ["{ strength: 0.5 }", "invalid-argument", /strength: expected the option image beside it/],
      [`{ image: ${IMAGE}, strength: 1.01 }`, "invalid-argument", /generate: strength: expected a number from 0 to 1, found 1.01/],
      [`{ image: ${IMAGE}, strength: NaN }`, "invalid-argument", /generate: strength: expected a number from 0 to 1/],
      [`{ image: ${IMAGE}, strength: "1" }`, "invalid-argument", /generate: strength: expected a number from 0 to 1, found "1"/],
      [`{ image: ${IMAGE}, strength: 1e-300 }`, "invalid-argument", /strength: of 2 steps 1e-300 leaves none/],
      ["{ image: Object.create(URL.prototype) }", "invalid-argument", /generate: image: expected a/],
      [`{ image: ${IMAGE}, strength: 0.1 }`, "invalid-argument", /strength: of 2 steps 0.1 leaves none to take/],
      ["{ image: canvas(0, 5) }", "invalid-argument", /generate: image: expected 1 to 8192 pixels a side, found an HTMLCanvasElement of 0 x 5/],
      ["{ image: new OffscreenCanvas(20000, 1) }", "invalid-argument", /generate: image: expected 1 to 8192 pixels a side, found an OffscreenCanvas of 20000 x 1/],
      ["{ image: new ImageData(1, 20000) }", "invalid-argument", /generate: image: .* found an ImageData of 1 x 20000/],
      [
        `{ image: await (async () => { const bitmap = await createImageBitmap(${IMAGE}); bitmap.close(); return bitmap; })() }`,
        "invalid-argument",
        /generate: image: .* found an ImageBitmap of 0 x 0, as if it were closed or handed over/,
      ],
      [
        "{ image: (() => { const data = new ImageData(8, 8); structuredClone(data.data, { transfer: [data.data.buffer] }); return data; })() }",
        "invalid-argument",
        /generate: image: expected an ImageData of 8 x 8 pixels, found 0 bytes/,
      ],
      [
        `{ image: await new Promise((resolve) => {
            const picture = Object.assign(new Image(), { src: "${elsewhere.url}reference/soft-fox-seed0.png" });
            picture.onload = () => resolve(canvas(64, 64, (context) => context.drawImage(picture, 0, 0)));
          }) }`,
        "invalid-argument",
        /generate: image: an HTMLCanvasElement could not be read: it has pixels of another origin/,
      ],
      [`{ image: "${elsewhere.url}reference/soft-fox-seed0.png" }`, "network", /generate: image: .*soft-fox-seed0\.png/],
    ]) {
      await refuses(options, code, message);
    }
  });

  test("one that paints into images says what to give", async () => {
    await refuses("{}", "unsupported", /cannot draw from a text alone: give the options image and mask/, "sd1-inpaint");
    await refuses(`{ image: ${IMAGE} }`, "unsupported", /give the option mask too/, "sd1-inpaint");
  });

  test("those of calls that wait are bounded together", async () => {
    const { value, error } = await api.outcome(`async () => {
      const controller = new AbortController();
      const { signal } = controller;
      // The others wait for it.
      const first = draw({ image: ${IMAGE}, steps: 100, count: 64, signal });
      const image = new ImageData(new Uint8ClampedArray(4 * 8192 * 8192).fill(255), 8192, 8192);
      const large = () => draw({ image, width: 64, height: 64, signal });
      const waiting = [first, large()];
      const outcome = (promise) => promise.then(() => "drawn", ({ code, message }) => [code, message]);
      const refused = await outcome(large());
      controller.abort();
      const cancelled = await Promise.all(waiting.map(outcome));
      const after = await outcome(draw({ image: ${IMAGE} }));
      return { refused, cancelled: cancelled.map(([code]) => code), after };
    }`);
    assert.equal(error, undefined, error?.message);
    assert.equal(value.refused[0], "out-of-memory");
    assert.match(value.refused[1], /image: 8192 x 8192 pixels are 268435456 bytes; calls that wait hold \d+ of the 536870912/);
    assert.deepEqual(value.cancelled, ["cancelled", "cancelled"]);
    assert.equal(value.after, "drawn");
  });

  test("one that takes long to come is given up with the call", async () => {
    const address = site.changed("slow", { "x.png": () => {} });
    const call = `async () => {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), 100);
      return draw({ image: "${address}x.png", signal: controller.signal });
    }`;
    await api.refuses(call, "cancelled", /generate was cancelled/);
  });

  test("inspect says what an image takes besides", async () => {
    const { value } = await api.outcome(`async () => {
      const said = [];
      for (const name of ["sd1-image", "sd1-inpaint"]) said.push((await tintype.inspect("/folders/" + name + "/")).memory);
      return said;
    }`);
    assert.ok(value[0].withImage > value[0].peak, JSON.stringify(value));
    assert.equal(value[1].withImage, value[1].peak);
  });

  test("the next picture is drawn all the same, and nothing was logged as an error", async () => {
    const { value } = await api.outcome(`async () => (await draw({ image: ${IMAGE} })).images.length`);
    assert.equal(value, 1);
    assert.deepEqual(faults.filter((fault) => !/CORS|ERR_FAILED/.test(fault)), []);
  });
});
