// What `load` and `catalogue` take, and what they refuse before the engine sees it; downloads that break and go on.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openApi } from "./harness.mjs";
import { broken, cutOff, cutOnce, notFound, silent } from "./server.mjs";

const SOFT = "/checkpoints/soft/";
const FLAT = "/checkpoints/flat/";
const FOX = { prompt: "fox", seed: 7, steps: 1 };
const UNET = "unet/diffusion_pytorch_model.safetensors";

/** Calls of `catalogue` in the page, and how each must be refused. */
const CATALOGUES = {
  "no url": [`() => api.Tintype.catalogue()`, "invalid-argument", /url: expected a string or a URL, found undefined/],
  "a url that is no string": [`() => api.Tintype.catalogue(7, null)`, "invalid-argument", /url: .*found 7/],
  "options that are no object": [`() => api.Tintype.catalogue("/a.json", "now")`, "invalid-argument", /catalogue: .*"now"/],
  "an unknown option": [`() => api.Tintype.catalogue("/a.json", { sginal: 1 })`, "invalid-argument", /"sginal".*signal/],
  "a signal that is none": [`() => api.Tintype.catalogue("/a.json", { signal: 1 })`, "invalid-argument", /signal: expected an AbortSignal/],
  "no URL": [`() => api.Tintype.catalogue("http://")`, "invalid-argument", /"http:\/\/" is not a URL/],
  "another scheme": [`() => api.Tintype.catalogue("ftp://host/checkpoints.json")`, "invalid-argument", /found "ftp:"/],
  "a list without checkpoints": [`() => api.Tintype.catalogue("data:application/json,{}")`, "corrupt", /checkpoints/],
  "an entry that is relative to nothing": [
    `() => api.Tintype.catalogue('data:application/json,{"checkpoints":[{"url":"soft/"}]}')`,
    "corrupt",
    /checkpoints\[0\]\.url: .*"soft\/"/,
  ],
  "nothing there": [`() => api.Tintype.catalogue("/none.json?token=secret")`, "not-found", /^(?!.*secret).*none\.json/],
};

/** Sources of `load` in the page, and how each must be refused. */
const SOURCES = {
  "another scheme": [`"ftp://host/soft/"`, /source: "ftp:\/\/host\/soft\/": .*"http:", found "ftp:"/],
  "a blob's address": [`URL.createObjectURL(new Blob(["{}"]))`, /found "blob:"/],
  "an address that is its own file": [`"data:application/json,{}"`, /found "data:"/],
  "a password in the address": [`"https://me:secret@host/soft/"`, /^(?!.*secret)source: expected an address without/],
  "a path of Windows": [`"C:/models/soft"`, /found "c:"/],
  "an entry with another scheme": [`({ url: "ftp://host/soft/" })`, /found "ftp:"/],
  "an entry whose url is no string": [`({ url: 7 })`, /source: url: expected a string, found 7/],
  "an entry's id": [`({ url: "/checkpoints/soft/", id: 7 })`, /source: id: expected a string, found 7/],
  "an entry's name": [`({ url: "/checkpoints/soft/", name: ["Soft"] })`, /source: name: expected a string, found an array of 1/],
  "an entry's defaults": [`({ url: "/checkpoints/soft/", defaults: [1] })`, /source: defaults: expected an object, found an array of 1/],
  "a default that is no number": [
    `({ url: "/checkpoints/soft/", defaults: { steps: "20" } })`,
    /source: defaults\.steps: expected a whole number.*found "20"/,
  ],
  "a default that is not finite": [`({ url: "/checkpoints/soft/", defaults: { guidanceScale: NaN } })`, /defaults\.guidanceScale: .*NaN/],
  "a default below 0": [`({ url: "/checkpoints/soft/", defaults: { width: -8 } })`, /defaults\.width: .*-8/],
  "a default sampler that is no name": [`({ url: "/checkpoints/soft/", defaults: { sampler: {} } })`, /defaults\.sampler: .*an object/],
  "an entry's files": [`({ url: "/checkpoints/soft/", files: "all" })`, /source: files: expected an object, found "all"/],
  "a file of an entry": [`({ url: "/checkpoints/soft/", files: { "a.json": 7 } })`, /files\["a\.json"\]: expected an object, found 7/],
  "a file's size": [`({ url: "/checkpoints/soft/", files: { "a.json": { size: 1.5 } } })`, /files\["a\.json"\]\.size: .*found 1\.5/],
  "a file's hash": [`({ url: "/checkpoints/soft/", files: { "a.json": { sha256: "abc" } } })`, /\.sha256: expected 64 hex.*"abc"/],
  // These are of the right type, and the checkpoint can't be drawn with them.
  "a default sampler that there is not": [`({ url: "/checkpoints/soft/", defaults: { sampler: "Euler z" } })`, /source: defaults: sampler: .*Euler z/],
  "a default of no steps": [`({ url: "/checkpoints/soft/", defaults: { steps: 0 } })`, /source: defaults: steps: .*found 0/],
  "a default size of nothing": [`({ url: "/checkpoints/soft/", defaults: { width: 0 } })`, /source: defaults: width: .*found 0/],
  "a default guidance below 0": [`({ url: "/checkpoints/soft/", defaults: { guidanceScale: -1 } })`, /source: defaults: guidanceScale: .*-1/],
  "a default size that is no multiple": [`({ url: "/checkpoints/soft/", defaults: { height: 130 } })`, /source: defaults: height: .* 8 .*found 130/],
};

/** Values of kinds that an option does not take; each option takes some of them. */
const VALUES = ["7", "-1", "1.5", "NaN", "1e300", "2n ** 70n", '"word"', "true", "{}", "[1]", "() => 7", "new Date(0)", "Symbol('s')"];

/** For each option the values of VALUES that it takes, a word as an address too; what it refuses, it must refuse by its name. */
const TAKEN = {
  create: { backend: [], memoryBudget: ["7"], threads: ["7"] },
  load: { signal: [], onProgress: ["() => 7"], name: ['"word"'], variant: ['"word"'], predictionType: ['"word"'], loras: [], vae: ['"word"'], embeddings: [] },
  generate: {
    checkpoint: [],
    prompt: ['"word"'],
    negativePrompt: ['"word"'],
    width: [],
    height: [],
    steps: ["7"],
    guidanceScale: ["7", "1.5"],
    sampler: [],
    seed: ["7"],
    count: ["7"],
    image: ['"word"'],
    strength: [],
    mask: ['"word"'],
    signal: [],
    onStep: ["() => 7"],
    preview: ["true"],
  },
};

describe("sources", { timeout: 1_200_000 }, () => {
  let api, close, site, faults;
  const pictures = {};

  before(async () => {
    ({ api, close, site, faults } = await openApi());
    await api.create({ backend: "cpu" });
    for (const source of [SOFT, FLAT]) {
      await api.load(source);
      pictures[source] = (await api.draw({ ...FOX, checkpoint: source })).images[0].rgba;
      await api.unload(source);
    }
  });
  after(() => close?.());

  for (const [what, [call, code, message]] of Object.entries(CATALOGUES)) {
    test(`catalogue: ${what}`, () => api.refuses(call, code, message));
  }

  test("catalogue: options that are null, and a list that is no file of a host", async () => {
    const { value } = await api.outcome(async () => {
      const entries = await window.api.Tintype.catalogue(new URL("/checkpoints/checkpoints.json", location), null);
      const blob = new Blob([JSON.stringify({ checkpoints: entries })], { type: "application/json" });
      const again = await window.api.Tintype.catalogue(URL.createObjectURL(blob));
      return [entries.map(({ url }) => new URL(url).pathname), again.map(({ url }) => new URL(url).pathname)];
    });
    assert.ok(value[0].includes(SOFT));
    assert.deepEqual(value[1], value[0]);
  });

  for (const [what, [source, message]] of Object.entries(SOURCES)) {
    test(`load: ${what}`, () => api.refuses(`() => tintype.load(${source})`, "invalid-argument", message));
  }

  test("load: an entry may say more than the engine knows of", async () => {
    const { value } = await api.outcome(`async () => {
      const checkpoint = await tintype.load({
        url: "${SOFT}",
        name: "More",
        style: () => 7,
        defaults: { steps: 3, clipSkip: 2, sampler: null },
      });
      await checkpoint.unload();
      return [checkpoint.name, checkpoint.defaults.steps];
    }`);
    assert.deepEqual(value, ["More", 3]);
  });

  test("load: an entry's place that no host could be asked about is not the same as one where nothing is", async () => {
    const [down, gone] = [site.changed("down", { "*": broken }), site.changed("gone", { "*": notFound })];
    await api.refuses(`() => tintype.load({ url: "${down}" })`, "network", /changed\/down\/model_index\.json: the host answered 503/);
    await api.refuses(`() => tintype.load({ url: "${gone}" })`, "not-found", /changed\/gone\/model_index\.json: the host answered 404/);
  });

  test("an answer that breaks off is the network's fault, not the file's", async () => {
    const folder = site.changed("breaks", { "model_index.json": cutOff(10) });
    await api.refuses(`() => api.Tintype.catalogue("${folder}model_index.json")`, "network", /breaks\/model_index\.json/);
    await api.refuses(`() => tintype.load({ url: "${folder}" })`, "network", /breaks\/model_index\.json/);
  });

  test("no value of an option is refused without the option's name", async () => {
    const { value } = await api.outcome(`async () => {
      const checkpoint = await tintype.load("${SOFT}");
      const calls = {
        create: (options) => api.Tintype.create(options).then((made) => made.close()),
        load: (options) => tintype.load("${SOFT}", options).then((loaded) => loaded.unload()),
        generate: (options) => tintype.generate({ checkpoint, steps: 1, width: 64, height: 64, ...options }),
      };
      const wrong = [];
      for (const [call, options] of Object.entries(${JSON.stringify(TAKEN)})) {
        for (const [name, taken] of Object.entries(options)) {
          for (const [text, value] of Object.entries({ ${VALUES.map((value) => `[${JSON.stringify(value)}]: ${value}`).join(", ")} })) {
            if (taken.includes(text)) continue;
            const { error } = await outcome(() => calls[call]({ [name]: value }));
            const named = error?.typed && new RegExp("\\\\b" + name + "\\\\b").test(error.message);
            const known = ["invalid-argument", "unsupported"].includes(error?.code);
            if (!named || !known) wrong.push([call, name, text, error?.message ?? "was taken"]);
          }
        }
      }
      await checkpoint.unload();
      return wrong;
    }`);
    assert.deepEqual(value, []);
  });

  test("load: a prediction type that there is not", () =>
    api.refuses(`() => tintype.load("${SOFT}", { predictionType: "word" })`, "invalid-argument", /predictionType: .*"word"/));

  for (const ranges of [true, false]) {
    test(`a download that breaks goes on where it was, from a host that knows ${ranges ? "" : "no "}ranges`, async () => {
      const asked = [];
      const folder = site.changed(`cut-${ranges}`, { [UNET]: cutOnce(3_000_000, { ranges, asked }) });
      const { key, progress } = await api.load(folder);
      assert.equal(asked.length, 2);
      assert.equal(asked[0], undefined);
      const from = Number(/^bytes=(\d+)-$/.exec(asked[1])?.[1]);
      assert.ok(from > 0 && from <= 3_000_000, `asked for ${asked[1]}`);
      const { loadedBytes, totalBytes } = progress.at(-1);
      assert.equal(loadedBytes, totalBytes);
      const drawn = (await api.draw({ ...FOX, checkpoint: key })).images[0];
      assert.ok(drawn.rgba.equals(pictures[SOFT]), "the picture differs");
      await api.unload(key);
    });
  }

  test("two loads at once: both come, and both draw", async () => {
    const loaded = await api.loadTogether(SOFT, FLAT);
    assert.deepEqual(loaded.map(({ key }) => key), [SOFT, FLAT]);
    assert.notEqual(loaded[0].id, loaded[1].id);
    for (const { key } of loaded) {
      const drawn = (await api.draw({ ...FOX, checkpoint: key })).images[0];
      assert.ok(drawn.rgba.equals(pictures[key]), key);
      await api.unload(key);
    }
  });

  test("the same one twice at once: two handles, each its own", async () => {
    const { value } = await api.outcome(`async () => {
      const [a, b] = await Promise.all([tintype.load("${SOFT}"), tintype.load("${SOFT}")]);
      const ids = [a.id, b.id];
      await a.unload();
      const { images } = await tintype.generate({ checkpoint: b, prompt: "fox", steps: 1 });
      await b.unload();
      return { ids, drawn: images.length };
    }`);
    assert.notEqual(...value.ids);
    assert.equal(value.drawn, 1);
  });

  test("an abort while an entry's place is looked for is answered at once", async () => {
    const stuck = site.changed("stuck", { "*": silent });
    await api.refuses(
      `() => {
        const controller = new AbortController();
        setTimeout(() => controller.abort(), 50);
        return tintype.load({ url: "${stuck}" }, { signal: controller.signal });
      }`,
      "cancelled",
      /cancelled/,
    );
    await api.refuses(`() => tintype.load("${SOFT}", { signal: AbortSignal.abort() })`, "cancelled", /cancelled/);
  });

  test("close() ends a load that still looks for its source; what is asked later is told to make a new one", async () => {
    const stuck = site.changed("stuck", { "*": silent });
    const { value } = await api.outcome(`async () => {
      const tintype = await api.Tintype.create({ backend: "cpu" });
      const loading = outcome(() => tintype.load({ url: "${stuck}" }));
      await new Promise((resolve) => setTimeout(resolve, 100));
      await tintype.close();
      const later = [() => tintype.load("${SOFT}"), () => tintype.load({ url: "${stuck}" }), () => tintype.generate({ checkpoint: {} })];
      return [await loading, ...(await Promise.all(later.map(outcome)))].map(({ error }) => error);
    }`);
    const [ended, ...later] = value;
    assert.equal(ended?.code, "cancelled", ended?.message);
    assert.match(ended.message, /closed/);
    assert.equal(later.length, 3);
    for (const error of later) {
      assert.equal(error?.code, "invalid-argument", error?.message);
      assert.match(error.message, /make a new one/);
    }
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
