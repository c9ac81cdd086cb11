// The whole way on the CPU backend: shipped checkpoints in a browser without WebGPU.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { difference, isPicture, openApi } from "./harness.mjs";
import { textChunks } from "./png.mjs";
import { shipped } from "./server.mjs";

const SOFT = "/checkpoints/soft/";
const FLAT = "/checkpoints/flat/";
const FOX = { checkpoint: SOFT, prompt: "fox", seed: 7, steps: 3 };

describe("the CPU backend", { timeout: 1_200_000 }, () => {
  let api, close, faults, first;

  before(async () => {
    ({ api, close, faults } = await openApi());
    const backend = await api.create({ backend: "cpu" });
    assert.equal(backend.kind, "cpu");
    for (const source of [SOFT, FLAT]) await api.load(source);
    first = await api.draw(FOX);
  });
  after(() => close?.());

  test("load says what it found, and its progress only grows", async () => {
    const checkpoint = await api.load("/checkpoints/ink/", { name: "Ink" });
    assert.equal(checkpoint.name, "Ink");
    assert.ok(checkpoint.family.length > 0);
    assert.equal(checkpoint.defaults.width, 128);
    assert.equal(checkpoint.defaults.height, 128);
    assert.ok(checkpoint.bytes > 10e6, `${checkpoint.bytes} bytes`);
    const fractions = checkpoint.progress.map(({ fraction }) => fraction);
    assert.ok(fractions.length > 2);
    assert.deepEqual(fractions, fractions.toSorted((a, b) => a - b));
    assert.equal(fractions.at(-1), 1);
    assert.ok(fractions[0] < 1);
    await api.unload("Ink");
  });

  test("an entry of checkpoints.json and picked files are the same checkpoint as the folder", async () => {
    // The entry has a guidance scale of its own.
    const short = { ...FOX, steps: 1, guidanceScale: 3 };
    const folder = (await api.draw(short)).images[0];
    for (const { key } of [await api.loadEntry("soft"), await api.loadPicked("soft")]) {
      const drawn = (await api.draw({ ...short, checkpoint: key })).images[0];
      assert.ok(drawn.rgba.equals(folder.rgba), key);
    }
    assert.equal((await api.loadEntry("soft")).name, "Soft");
  });

  test("a picture is drawn, step by step", () => {
    const [image] = first.images;
    assert.deepEqual([image.width, image.height, first.images.length], [128, 128, 1]);
    assert.ok(isPicture(image.rgba));
    assert.deepEqual(first.steps.map(({ step, of }) => [step, of]), [[1, 3], [2, 3], [3, 3]]);
    assert.deepEqual(first.warnings, []);
  });

  test("the same seed draws the same bytes, however it is written", async () => {
    for (const seed of [7, 7n, "7"]) {
      const again = await api.draw({ ...FOX, seed });
      assert.equal(again.seed, "7");
      assert.ok(again.images[0].rgba.equals(first.images[0].rgba), `seed ${typeof seed}`);
    }
    const other = await api.draw({ ...FOX, seed: 8 });
    assert.ok(!other.images[0].rgba.equals(first.images[0].rgba));
  });

  test("another checkpoint draws the same seed its own way, and the first is as before", async () => {
    const flat = await api.draw({ ...FOX, checkpoint: FLAT });
    assert.ok(isPicture(flat.images[0].rgba));
    assert.ok(difference(flat.images[0].rgba, first.images[0].rgba).mean > 1);
    const back = await api.draw(FOX);
    assert.ok(back.images[0].rgba.equals(first.images[0].rgba));
  });

  test("image i of a batch is drawn with seed + i", async () => {
    const batch = await api.draw({ ...FOX, seed: 6, count: 2 });
    assert.equal(batch.images.length, 2);
    assert.ok(batch.images[1].rgba.equals(first.images[0].rgba));
    assert.equal(batch.images[1].parameters.seed, "7");
  });

  test("a size other than square", async () => {
    const wide = await api.draw({ ...FOX, width: 192, height: 64, steps: 1 });
    assert.deepEqual([wide.images[0].width, wide.images[0].height], [192, 64]);
    assert.ok(isPicture(wide.images[0].rgba));
  });

  test("the picture that diffusers draws", async (t) => {
    for (const [id, words, seed] of [["soft", "fox", 0], ["flat", "birthday cake", 2]]) {
      const drawn = await api.draw({ checkpoint: `/checkpoints/${id}/`, prompt: words, seed, steps: 20, guidanceScale: 3 });
      const reference = await api.decode(`/reference/${id}-${words.replace(" ", "-")}-seed${seed}.png`);
      const { max, mean } = difference(drawn.images[0].rgba, reference.rgba);
      t.diagnostic(`${id}, ${words}: ${Math.round(drawn.milliseconds)} ms; against diffusers: max ${max}, mean ${mean.toFixed(4)}`);
      assert.ok(max <= 2 && mean < 0.25, `${id}: max ${max}, mean ${mean}`);
    }
  });

  test("two calls queue: the first ends before the second begins, and both are right", async () => {
    const { pictures, events } = await api.drawTogether(FOX, { ...FOX, checkpoint: FLAT });
    const end = events.findIndex(({ job, end }) => job === 0 && end);
    const begin = events.findIndex(({ job }) => job === 1);
    assert.ok(end >= 0 && begin > end, JSON.stringify(events));
    assert.ok(pictures[0][0].rgba.equals(first.images[0].rgba));
    assert.ok(difference(pictures[1][0].rgba, first.images[0].rgba).mean > 1);
  });

  test("the next checkpoint loads while a picture is drawn, and draws when it is its turn", async () => {
    const { value, error } = await api.outcome(`async () => {
      const [checkpoint] = tintype.checkpoints;
      const order = [];
      let loading;
      const onStep = ({ step }) => {
        loading ??= tintype.load("/checkpoints/3d/").then((loaded) => (order.push("loaded"), loaded));
        order.push(step);
      };
      const drawing = tintype.generate({ checkpoint, prompt: "fox", seed: 7, steps: 60, onStep });
      await drawing;
      const next = await loading;
      const { images } = await tintype.generate({ checkpoint: next, prompt: "fox", seed: 7, steps: 1 });
      await next.unload();
      return { order, size: images[0].imageData.width };
    }`);
    assert.equal(error, undefined);
    const loaded = value.order.indexOf("loaded");
    assert.ok(loaded > 0 && loaded < value.order.length - 1, JSON.stringify(value.order));
    assert.equal(value.size, 128);
  });

  test("a checkpoint that left memory is a handle still: it comes back, and says how far that is", async () => {
    const { value, error } = await api.outcome(`async () => {
      const [checkpoint] = tintype.checkpoints;
      const draw = async (onProgress) => {
        const { images } = await tintype.generate({ checkpoint, prompt: "fox", seed: 7, steps: 1, onProgress });
        return images[0].imageData.data.join();
      };
      const before = await draw();
      await checkpoint.unload();
      const gone = tintype.checkpoints.includes(checkpoint);
      const fractions = [];
      const after = await draw(({ fraction }) => fractions.push(fraction));
      return { gone, same: before === after, fractions, back: tintype.checkpoints.includes(checkpoint), memory: tintype.memory };
    }`);
    assert.equal(error, undefined);
    const { fractions, memory, ...said } = value;
    assert.deepEqual(said, { gone: false, same: true, back: true });
    assert.equal(fractions.at(-1), 1);
    assert.ok(memory.weights > 10e6 && memory.working > 0 && memory.weights + memory.working < memory.budget, JSON.stringify(memory));
    assert.ok(memory.wasm > memory.weights);
  });

  test("cancelling is answered within 200 ms, and the next picture is right", async (t) => {
    const short = { ...FOX, steps: 1 };
    const alone = Math.min(...[await api.draw(short), await api.draw(short)].map(({ milliseconds }) => milliseconds));
    const answers = [];
    for (let i = 0; i < 3; i++) {
      const { error, answeredIn, steps } = await api.draw({ ...FOX, steps: 50, cancelAtStep: 2 });
      assert.equal(error.code, "cancelled");
      assert.ok(steps.at(-1).step < 50);
      // The page hears at once; how soon the worker stopped shows in how much longer the next picture takes.
      const next = await api.draw(short);
      answers.push({ page: answeredIn, worker: next.milliseconds - alone });
    }
    t.diagnostic(JSON.stringify(answers));
    // Other work on the machine may hold up any one of them.
    for (const who of ["page", "worker"]) assert.ok(Math.min(...answers.map((answer) => answer[who])) < 200, who);
    const again = await api.draw(FOX);
    assert.ok(again.images[0].rgba.equals(first.images[0].rgba));
  });

  test("the PNG holds the picture, and its parameters in a text chunk", async () => {
    const drawn = await api.draw({ ...FOX, negativePrompt: "cat", guidanceScale: 3, steps: 1 });
    const [{ png, rgba, parameters }] = drawn.images;
    const { parameters: text } = textChunks(png);
    const lines = text.split("\n");
    assert.equal(lines[0], "fox");
    assert.equal(lines[1], "Negative prompt: cat");
    for (const part of ["Steps: 1", "CFG scale: 3", "Seed: 7", "Size: 128x128"]) assert.ok(lines[2].split(", ").includes(part), text);
    assert.match(lines[2], /Sampler: DPM\+\+ 2M/);
    assert.deepEqual([parameters.prompt, parameters.seed, parameters.steps], ["fox", "7", 1]);
    const decoded = await api.decode(`data:image/png;base64,${png.toString("base64")}`);
    assert.ok(decoded.rgba.equals(rgba));
  });

  test("a prompt longer than the model takes is cut, and said so", async () => {
    const words = "red apple and a fox on a blue ground with a crown ".repeat(4);
    const drawn = await api.draw({ ...FOX, prompt: words, steps: 1 });
    assert.equal(drawn.images.length, 1);
    assert.ok(drawn.warnings.length > 0);
    const { max_position_embeddings: length } = JSON.parse(shipped("soft", "text_encoder/config.json"));
    assert.match(drawn.warnings.join("\n"), new RegExp(`\\b${length}\\b`));
    assert.deepEqual((await api.draw({ ...FOX, steps: 1 })).warnings, []);
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
