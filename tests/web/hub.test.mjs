// Repositories of the Hugging Face hub: found, fetched by their listing, kept, and refused in words that say what to do.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, beforeEach, describe, test } from "node:test";
import { openApi } from "./harness.mjs";
import { golden, startHub } from "./hub.mjs";
import { join, wholeVocabulary } from "./safetensors.mjs";

const GOLDEN = fileURLToPath(new URL("../golden/pipelines/sd1-ddim", import.meta.url));
const TOKEN = "hf_averysecrettoken";
const ASKED = { prompt: "a red apple on white", seed: 0, steps: 2, width: 64, height: 64 };
const UNET = "unet/diffusion_pytorch_model.safetensors";
const TINY = golden("sd1-ddim");
const pickle = Buffer.concat([Buffer.from("PK\x03\x04\0\0\x08\x08", "latin1"), Buffer.alloc(2000)]);
const loraBytes = () => readFileSync(new URL("../golden/lora/kohya-original.safetensors", import.meta.url));
const without = (files, ...names) => Object.fromEntries(Object.entries(files).filter(([name]) => !names.includes(name)));
const within = (folder, files) => Object.fromEntries(Object.entries(files).map(([name, bytes]) => [`${folder}/${name}`, bytes]));
const json = (value) => Buffer.from(JSON.stringify(value));

describe("the hub", { timeout: 1_200_000 }, () => {
  let api, close, page, site, faults, hub, expected;

  const create = (options = {}) => api.create({ backend: "cpu", hub: { url: hub.url, ...options } });
  const drawn = async (key) => (await api.draw({ ...ASKED, checkpoint: key })).images[0];
  /** Loads, draws as the golden does, and lets it go. */
  const loads = async (source, options) => {
    const loaded = await api.load(source, options);
    assert.ok((await drawn(loaded.key)).rgba.equals(expected), `${source}: the picture differs`);
    await api.unload(loaded.key);
    return loaded;
  };
  const refuses = (source, code, message) => api.refuses(`() => tintype.load(${JSON.stringify(source)})`, code, message);
  const list = () => page.evaluate(() => tintype.store.list());

  before(async () => {
    hub = await startHub();
    ({ api, close, page, site, faults } = await openApi());
    await api.create({ backend: "cpu" });
    const folder = site.folder("tiny", GOLDEN);
    await api.load(folder);
    expected = (await drawn(folder)).rgba;
  });
  after(async () => {
    await close?.();
    await hub?.close();
  });
  beforeEach(async () => {
    Object.assign(hub.state, { shut: false, limited: false, corsless: false, cut: null, onRequest: () => {} });
    await create();
    await page.evaluate(() => tintype.store.clear());
    hub.asked();
  });

  test("a repository draws what its folder draws, and nothing of it is probed", async () => {
    const commit = hub.push("someone/tiny", TINY);
    const { name, warnings, components } = await loads("hf:someone/tiny");
    assert.deepEqual([name, warnings], ["tiny", []]);
    const asked = hub.asked();
    const urls = asked.filter(({ host }) => host === "hub").map(({ url }) => url);
    assert.equal(urls[0], "/api/models/someone/tiny/revision/main");
    const listing = urls.filter((url) => url.includes("/tree/"));
    assert.ok(listing.length > 1, "the listing was of one page");
    assert.ok(listing.every((url) => url.startsWith(`/api/models/someone/tiny/tree/${commit}?`)), listing.join());
    // Once each, and only what there is.
    const files = urls.filter((url) => url.includes("/resolve/")).map((url) => url.replace(`/someone/tiny/resolve/${commit}/`, ""));
    const needed = Object.keys(TINY);
    assert.deepEqual(files.sort(), needed.sort());
    assert.equal(asked.filter(({ host }) => host === "cdn").length, 3);
    assert.ok(components.every(({ id }) => /^[0-9a-f]{64}$/.test(id)), JSON.stringify(components));
    assert.deepEqual((await list()).map(({ name, url, complete }) => [name, url, complete]), [["tiny", "hf:someone/tiny", true]]);
  });

  test("what is here by its hash is not fetched again, whatever repository it is in", async () => {
    hub.push("someone/first", TINY);
    hub.push("someone/second", { ...TINY, "README.md": Buffer.from("# Second") });
    await loads("hf:someone/first");
    hub.asked();
    await loads("hf:someone/second");
    assert.deepEqual(hub.asked().filter(({ host }) => host === "cdn"), []);
  });

  test("loaded once, it loads without a network; a commit's not even asks", async () => {
    const commit = hub.push("someone/kept", TINY);
    await loads("hf:someone/kept");
    await loads(`hf:someone/kept@${commit}`);
    hub.state.shut = true;
    await create();
    hub.asked();
    assert.deepEqual((await loads("hf:someone/kept")).warnings, []);
    assert.ok(hub.asked().length > 0, "a branch may have moved: the hub is asked");
    hub.state.shut = false;
    await loads(`hf:someone/kept@${commit}`);
    assert.deepEqual(hub.asked(), []);
    // And where the hub only says that it is asked too often.
    hub.state.limited = true;
    assert.deepEqual((await loads("hf:someone/kept")).warnings, []);
  });

  test("a branch that moves: the new files the next time, all of one commit, and the old ones go", async () => {
    const changed = { ...TINY, "scheduler/scheduler_config.json": json({ ...JSON.parse(TINY["scheduler/scheduler_config.json"]), prediction_type: "sample" }) };
    const [first, second] = [hub.push("someone/moving", TINY)];
    const commits = [first];
    // While the first files are fetched, it moves.
    hub.state.onRequest = ({ url }) => {
      if (url.includes("/resolve/") && commits.length === 1) commits.push(hub.push("someone/moving", changed));
    };
    await loads("hf:someone/moving");
    const resolved = () => new Set(hub.asked().map(({ url }) => /^\/someone\/moving\/resolve\/([0-9a-f]{40})\//.exec(url)?.[1]).filter(Boolean));
    assert.deepEqual([...resolved()], [first]);
    assert.equal(second, undefined);
    const { key } = await api.load("hf:someone/moving");
    assert.ok(!(await drawn(key)).rgba.equals(expected), "it is the old one");
    assert.deepEqual([...resolved()], [commits[1]]);
    const [kept, ...others] = await list();
    assert.deepEqual([kept.url, others], ["hf:someone/moving", []]);
    const urls = await page.evaluate(async () => {
      const opened = await new Promise((resolve) => Object.assign(indexedDB.open("tintype"), { onsuccess: ({ target }) => resolve(target.result) }));
      const all = (name) => new Promise((resolve) => Object.assign(opened.transaction(name).objectStore(name).getAll(), { onsuccess: ({ target }) => resolve(target.result) }));
      const urls = [...(await all("urls")), ...(await all("checkpoints")).flatMap(({ files }) => files)].map(({ url }) => url);
      opened.close();
      return urls;
    });
    assert.deepEqual(urls.filter((url) => url.includes(first)), []);
  });

  test("folders, files, revisions, and the addresses of pages", async () => {
    hub.push("someone/many", { ...within("small/one", TINY), "README.md": Buffer.from("# Many") });
    hub.push("someone/many", TINY, { branch: "feature/new" });
    hub.push("someone/many", TINY, { branch: "refs/pr/1" });
    hub.push("someone/many", TINY, { branch: "v1.0" });
    for (const [source, label] of [
      ["hf:someone/many/small/one", "hf:someone/many/small/one"],
      ["hf://someone/many@main/small/one/", "hf:someone/many/small/one"],
      ["hf:someone/many@feature%2Fnew", "hf:someone/many@feature%2Fnew"],
      ["hf:someone/many@refs/pr/1", "hf:someone/many@refs/pr/1"],
      ["hf:someone/many@refs%2Fpr%2F1/model_index.json", "hf:someone/many@refs/pr/1"],
      [`${hub.url}someone/many/tree/v1.0`, "hf:someone/many@v1.0"],
      [`${hub.url}someone/many/tree/refs%2Fpr%2F1?not=this`, "hf:someone/many@refs/pr/1"],
      [`${hub.url}someone/many/blob/main/small/one/model_index.json`, "hf:someone/many/small/one"],
      ["https://huggingface.co/someone/many/tree/main/small/one", "hf:someone/many/small/one"],
    ]) {
      await loads(source);
      assert.equal((await list())[0].url, label, source);
    }
    const { name } = await api.load("hf:someone/many/small/one");
    assert.equal(name, "one");
    // An entry may name one too, and say more of it.
    const { value, error } = await api.outcome(`async () => {
      const checkpoint = await tintype.load({ url: "hf:someone/many@v1.0", name: "Entry", files: { "${UNET}": { size: ${TINY[UNET].length} } } });
      return checkpoint.name;
    }`);
    assert.equal(value, "Entry", error?.message);
    await api.refuses(`() => tintype.load({ url: "hf:someone/many@v1.0", files: { "${UNET}": { size: 7 } } })`, "corrupt", /hf:someone\/many@v1\.0\/unet\/.* 7 bytes/);
  });

  for (const [source, message] of [
    ["hf:", /expected "hf:org\/name"/],
    ["hf:name", /expected "hf:org\/name"/],
    ["hf:org/", /expected "hf:org\/name"/],
    ["hf:org/name@", /expected "hf:org\/name"/],
    ["hf:org/na me", /expected "hf:org\/name"/],
    ["hf:org/..", /expected "hf:org\/name"/],
    ["hf:org/name/../other", /path inside/],
    ["hf:org/name/a//b", /path inside/],
    ["hf:org/name/a%2Fb", /path inside/],
    ["hf:org/name/\ud800.safetensors", /path inside/],
    ["hf:org/name@..", /name of a revision/],
    ["hf:org/name@%2e%2e", /name of a revision/],
    ["hf:org/name@\ud800", /name of a revision/],
    ["hf:datasets/name", /found one of datasets/],
    ["https://huggingface.co/datasets/org/name", /page of a model's repository/],
    ["https://huggingface.co/org", /page of a model's repository/],
    ["https://huggingface.co/org/name/discussions", /page of a model's repository/],
  ]) {
    test(`no repository: ${source}`, async () => {
      await refuses(source, "invalid-argument", message);
      assert.deepEqual(hub.asked(), []);
    });
  }

  test("a token goes to the hub alone, and is written nowhere", async () => {
    hub.push("someone/gated", TINY, { gated: TOKEN });
    const terms = new RegExp(`hf:someone/gated/.*gated.*create\\(\\{ hub: \\{ token \\} \\}\\).*${hub.url}someone/gated`);
    await refuses("hf:someone/gated", "network", terms);
    const [headers, others] = [{ "X-Site": "tintype" }, { token: "hf_ofsomeoneelse" }];
    hub.push("someone/else", TINY, { gated: others.token });
    await create(others);
    await refuses("hf:someone/gated", "network", /no access/);
    await create({ token: "hf_wrong" });
    await refuses("hf:someone/gated", "network", /^(?!.*hf_wrong).*token was not accepted/);
    await create({ token: TOKEN });
    hub.asked();
    const { key } = await api.load("hf:someone/gated");
    const image = await drawn(key);
    assert.ok(image.rgba.equals(expected));
    assert.ok(!image.png.includes(TOKEN));
    const asked = hub.asked();
    assert.ok(asked.filter(({ host }) => host === "hub").every(({ headers }) => headers.authorization === `Bearer ${TOKEN}`));
    const fetched = asked.filter(({ host }) => host === "cdn");
    assert.equal(fetched.length, 3);
    for (const { method, headers } of fetched) {
      assert.equal(method, "GET");
      assert.ok(!JSON.stringify(headers).includes(TOKEN), JSON.stringify(headers));
    }
    const stored = await page.evaluate(async () => {
      const opened = await new Promise((resolve) => Object.assign(indexedDB.open("tintype"), { onsuccess: ({ target }) => resolve(target.result) }));
      const all = (name) => new Promise((resolve) => Object.assign(opened.transaction(name).objectStore(name).getAll(), { onsuccess: ({ target }) => resolve(target.result) }));
      const text = JSON.stringify(await Promise.all([...opened.objectStoreNames].map(all)));
      opened.close();
      return text;
    });
    assert.ok(stored.includes("hf:someone/gated") && !stored.includes(TOKEN));
    // Kept, it needs no token any more.
    await create();
    await loads("hf:someone/gated");
    // Other hosts see neither.
    await create({ token: TOKEN, headers });
    hub.asked();
    hub.push("someone/open", without(TINY, UNET));
    await refuses("hf:someone/open", "not-found", /unet/);
    assert.ok(hub.asked().filter(({ host }) => host === "hub").every(({ headers }) => headers["x-site"] === "tintype"));
    let seen = {};
    const elsewhere = site.changed("elsewhere", { "*": (request, response) => ((seen = request.headers), response.writeHead(404).end()) });
    await refuses(elsewhere, "not-found", /elsewhere/);
    assert.deepEqual([seen.authorization, seen["x-site"]], [undefined, undefined]);
  });

  test("a download that breaks off goes on behind the hub, with a token too; one that was given up can be removed", async () => {
    hub.push("someone/cut", TINY, { gated: TOKEN });
    await create({ token: TOKEN });
    hub.state.cut = 30_000;
    await loads("hf:someone/cut");
    const asked = hub.log.filter(({ host }) => host === "cdn");
    assert.deepEqual(asked.map(({ method }) => method), ["GET", "GET", "GET", "GET"]);
    assert.deepEqual(asked.map(({ headers }) => headers.range).filter(Boolean), ["bytes=30000-"]);
    assert.ok(!JSON.stringify(asked).includes(TOKEN));
    hub.push("someone/half", golden("bk-sdm-tiny"));
    hub.state.onRequest = ({ url }) => Object.assign(hub.state, url.includes("/someone/half/resolve/") && url.endsWith(".safetensors") ? { limited: true } : {});
    await refuses("hf:someone/half", "network", /someone\/half/);
    const { bytes } = await page.evaluate(() => tintype.store.sizes());
    await page.evaluate(() => tintype.store.remove("hf:someone/half"));
    assert.ok((await page.evaluate(() => tintype.store.sizes())).bytes < bytes);
    await api.refuses(`() => tintype.store.remove("hf:someone/half")`, "not-found", /hf:someone\/half/);
    assert.equal((await list())[0].complete, true);
  });

  test("what is not there, or not for everyone", async () => {
    hub.push("someone/private", TINY, { secret: TOKEN });
    hub.push("someone/here", TINY);
    for (const [source, code, message] of [
      ["hf:someone/none", "not-found", /hf:someone\/none: there is no repository someone\/none; or it is private.*token/],
      ["hf:someone/private", "not-found", /private.*create\(\{ hub: \{ token \} \}\)/],
      ["hf:someone/here@none", "not-found", /hf:someone\/here@none: the repository has no such revision/],
      ["hf:someone/here/none", "not-found", /hf:someone\/here\/none: the repository has nothing of this name/],
      [`hf:someone/here@${"0".repeat(40)}`, "not-found", /no such revision/],
      ["hf:someone/here/unet/none.safetensors", "not-found", /no such file; there are hf:someone\/here\/unet\/diffusion_pytorch_model\.safetensors/],
    ]) {
      await refuses(source, code, message);
    }
    await create({ token: TOKEN });
    await refuses("hf:someone/none", "not-found", /there is no repository someone\/none; or it is private, and the token may not read it/);
    await loads("hf:someone/private");
    assert.deepEqual(hub.asked().filter(({ method }) => method === "HEAD"), []);
    // Taken back, what was kept of it is used, and it is told.
    hub.push("someone/private", TINY, { secret: "another" });
    assert.match((await loads("hf:someone/private")).warnings.join(), /what was kept of it is used/);
  });

  test("a host that limits, forbids or is away is named", async () => {
    hub.push("someone/busy", TINY);
    const { host } = new URL(hub.url);
    hub.state.limited = true;
    await refuses("hf:someone/busy", "network", new RegExp(`hf:someone/busy: .*429.*less often.*${host}`));
    Object.assign(hub.state, { limited: false, corsless: true });
    await refuses("hf:someone/busy", "network", new RegExp(`hf:someone/busy: the request failed: .*${host}`));
    Object.assign(hub.state, { corsless: false, shut: true });
    await refuses("hf:someone/busy", "network", new RegExp(`hf:someone/busy: .*${host}`));
    hub.state.shut = false;
    await loads("hf:someone/busy");
  });

  test("without an index, the one file is taken, of several one is to be chosen, and the rest is refused by name", async () => {
    const file = wholeVocabulary();
    hub.push("someone/single", { "a b.safetensors": file, "README.md": Buffer.from("#") });
    const { value, error } = await api.outcome(() => tintype.inspect("hf:someone/single"));
    assert.deepEqual([value?.layout, value?.name, value?.family], ["single-file", "a b", "SD 1.x"], error?.message);
    assert.equal(value.bytes, file.length);
    hub.push("someone/several", { "a.safetensors": file, "b.fp16.safetensors": file, "sub/model_index.json": TINY["model_index.json"], "x.ckpt": pickle });
    await refuses("hf:someone/several", "invalid-argument", /choose one: hf:someone\/several\/sub, hf:someone\/several\/a\.safetensors, hf:someone\/several\/b\.fp16\.safetensors/);
    hub.push("someone/pickles", { "a.ckpt": pickle, "pytorch_model.bin": pickle });
    hub.push("someone/gguf", { "a.gguf": Buffer.from("GGUF") });
    hub.push("someone/nothing", { "README.md": Buffer.from("#"), "deep/a.safetensors": file });
    hub.asked();
    for (const [repo, code, message] of [
      ["pickles", "unsupported", /hf:someone\/pickles: .*only pickles, .*never opened: a\.ckpt, pytorch_model\.bin/],
      ["gguf", "unsupported", /only GGUF: a\.gguf/],
      ["nothing", "not-found", /found README\.md/],
    ]) {
      await refuses(`hf:someone/${repo}`, code, message);
    }
    assert.deepEqual(hub.asked().filter(({ url }) => url.includes("/resolve/")), []);
    const said = await api.outcome(() => tintype.inspect("hf:someone/pickles"));
    assert.match(said.value?.unsupported.join() ?? "", /only pickles/, said.error?.message);
    await refuses("hf:someone/pickles/a.ckpt", "unsupported", /hf:someone\/pickles\/a\.ckpt: expected safetensors, found a pickle/);
  });

  test("half precision where there is nothing else, and pickles where there are no weights", async () => {
    const halves = Object.fromEntries(Object.entries(TINY).map(([name, bytes]) => [name.replace(/\.safetensors$/, ".fp16.safetensors"), bytes]));
    hub.push("someone/halves", halves);
    const { warnings } = await loads("hf:someone/halves");
    assert.deepEqual(warnings.length, 3);
    for (const warning of warnings) assert.match(warning, /no plain weights, those of variant "fp16" are used/);
    assert.deepEqual((await loads("hf:someone/halves", { variant: "fp16", name: "halves" })).warnings, []);
    hub.push("someone/old", { ...without(TINY, UNET), "unet/diffusion_pytorch_model.bin": pickle });
    await refuses("hf:someone/old", "unsupported", /hf:someone\/old\/unet: .*only diffusion_pytorch_model\.bin: a pickle/);
    hub.push("someone/flux", { "model_index.json": json({ _class_name: "FluxPipeline" }) });
    await refuses("hf:someone/flux", "unsupported", /hf:someone\/flux\/model_index\.json: .*found "FluxPipeline"/);
    hub.push("someone/sd3", { "sd3.safetensors": join({ "joint_blocks.0.x": { dtype: "F32", shape: [1], data_offsets: [0, 4] } }, Buffer.alloc(4)) });
    await refuses("hf:someone/sd3", "unsupported", /hf:someone\/sd3\/sd3\.safetensors: .*Stable Diffusion 3/);
  });

  test("LoRAs", async () => {
    hub.push("someone/tiny", TINY);
    hub.push("someone/lora", { "warm.safetensors": loraBytes(), "README.md": Buffer.from("#") });
    hub.push("someone/loras", { "a.safetensors": loraBytes(), "b/c.safetensors": loraBytes(), "d.safetensors": pickle });
    const { value, error } = await api.outcome(`async () => {
      const checkpoint = await tintype.load("hf:someone/tiny", { loras: [{ source: "hf:someone/lora" }] });
      const names = [];
      for (const source of [null, "hf:someone/loras/a.safetensors", "hf:someone/loras/b", "${hub.url}someone/loras/resolve/main/b/c.safetensors?download=true"]) {
        if (source) await checkpoint.setLoras([{ source, scale: 0.5 }]);
        const { images } = await tintype.generate({ checkpoint, ...${JSON.stringify(ASKED)} });
        const text = new TextDecoder("latin1").decode(await (await images[0].toBlob()).arrayBuffer());
        names.push(/Loras: "([^"]*)"/.exec(text)?.[1]);
      }
      window.over = checkpoint;
      return [names, (await tintype.store.list()).map(({ url }) => url).sort()];
    }`);
    assert.equal(error, undefined, error?.message);
    const [names, kept] = value;
    assert.deepEqual(names, ["warm: 1", "a: 0.5", "c: 0.5", "c: 0.5"]);
    assert.deepEqual(kept, ["hf:someone/lora", "hf:someone/loras/a.safetensors", "hf:someone/loras/b", "hf:someone/loras/b/c.safetensors", "hf:someone/tiny"]);
    for (const [source, code, message] of [
      ["hf:someone/loras", "invalid-argument", /loras\[0\]\.source: hf:someone\/loras: expected one \.safetensors file, .*choose one: hf:someone\/loras\/a\.safetensors, hf:someone\/loras\/d/],
      ["hf:someone/tiny", "not-found", /expected one \.safetensors file, found model_index\.json/],
      ["hf:someone/loras/d.safetensors", "unsupported", /pickle/],
      ["hf:someone", "invalid-argument", /loras\[0\]\.source: "hf:someone": expected "hf:org\/name"/],
    ]) {
      await api.refuses(`() => over.setLoras([{ source: "${source}" }])`, code, message);
    }
    // Without a network, from the store.
    hub.state.shut = true;
    await create();
    const again = await api.outcome(`() => tintype.load("hf:someone/tiny", { loras: [{ source: "hf:someone/lora" }] })`);
    assert.equal(again.error, undefined, again.error?.message);
  });

  test("autoencoders", async () => {
    const both = golden("", "vae");
    const taesd = { "taesd_decoder.safetensors": both["taesd_decoder.safetensors"], "taesd_encoder.safetensors": both["taesd_encoder.safetensors"] };
    hub.push("someone/tiny", TINY);
    hub.push("someone/vae", golden("kl", "vae"));
    hub.push("someone/files", { ...within("taesd", taesd), "kl.safetensors": both["kl-ldm.safetensors"] });
    hub.push("someone/too-many", { "a.safetensors": pickle, "b.safetensors": pickle, "c.safetensors": pickle });
    const folder = site.folder("vaes", fileURLToPath(new URL("../golden/vae", import.meta.url)));
    /** The picture with this autoencoder, which is an expression of the page's. */
    const draw = async (vae) => {
      const { value, error } = await api.outcome(`async () => {
        const checkpoint = await tintype.load("hf:someone/tiny", { vae: ${vae} });
        const { images } = await tintype.generate({ checkpoint, prompt: "fox", steps: 1, seed: 1 });
        await checkpoint.unload();
        return { rgba: Array.from(images[0].imageData.data), vae: images[0].parameters.vae };
      }`);
      assert.equal(error, undefined, error?.message);
      return value;
    };
    const picked = Object.entries(taesd).map(([name, bytes]) => `new File([Uint8Array.from(atob("${bytes.toString("base64")}"), (c) => c.charCodeAt(0))], "${name}")`);
    const [own, kl, tiny] = [await draw("null"), await draw(`"${folder}kl"`), await draw(`[${picked}]`)];
    assert.notDeepEqual(kl.rgba, own.rgba);
    assert.notDeepEqual(tiny.rgba, own.rgba);
    assert.deepEqual((await draw('"hf:someone/vae"')).rgba, kl.rgba);
    assert.deepEqual((await draw('"hf:someone/vae/config.json"')).rgba, kl.rgba);
    for (const source of ["hf:someone/tiny", "hf:someone/tiny/vae", "hf:someone/tiny/vae/diffusion_pytorch_model.safetensors"]) {
      assert.deepEqual((await draw(`"${source}"`)).rgba, own.rgba, source);
    }
    assert.deepEqual((await draw('"hf:someone/files/taesd"')).rgba, tiny.rgba);
    assert.equal((await draw('"hf:someone/files"')).vae, "kl.safetensors");
    const kept = (await list()).map(({ url, name }) => [url, name]);
    assert.ok(kept.some(([url, name]) => url === "hf:someone/tiny" && name === "tiny"), JSON.stringify(kept));
    for (const [source, code, message] of [
      ["hf:someone/too-many", "invalid-argument", /load: vae: hf:someone\/too-many: expected a folder with vae\/config\.json or config\.json, or one .*choose one: hf:someone\/too-many\/a/],
      ["hf:someone/none", "not-found", /^load: vae: hf:someone\/none: there is no repository/],
      ["hf:someone", "invalid-argument", /load: vae: "hf:someone": expected "hf:org\/name"/],
    ]) {
      await api.refuses(`() => tintype.load("hf:someone/tiny", { vae: "${source}" })`, code, message);
    }
    hub.state.shut = true;
    await create();
    assert.deepEqual((await draw('"hf:someone/vae"')).rgba, kl.rgba);
  });

  test("what create() takes of a hub", async () => {
    for (const [hub, message] of [
      [`7`, /hub: expected an object, found 7/],
      [`{ adress: "x" }`, /hub: unknown option "adress"; the options are url, token, headers/],
      [`{ url: 7 }`, /hub\.url: expected a string or a URL/],
      [`{ url: "ftp://hub" }`, /hub\.url: expected an address \(http or https\)/],
      [`{ url: "https://me:secret@hub" }`, /^(?!.*secret).*hub\.url/],
      [`{ url: "https://hub/?a=1" }`, /hub\.url/],
      [`{ token: 7 }`, /hub\.token: expected a string of visible ASCII/],
      [`{ token: "hf_secret\\n" }`, /^(?!.*hf_secret).*hub\.token/],
      [`{ headers: [] }`, /hub\.headers: expected an object/],
      [`{ headers: { "a b": "c" } }`, /hub\.headers: .*"a b"/],
      [`{ headers: { key: "hidden\\r" } }`, /^(?!.*hidden).*hub\.headers\["key"\]/],
    ]) {
      await api.refuses(`() => api.Tintype.create({ hub: ${hub} })`, "invalid-argument", message);
    }
    // Below a path, with a slash at its end or not, and left out.
    for (const options of [{ token: "", headers: null }, { url: `${site.url}hub` }]) await api.create({ backend: "cpu", hub: options });
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults.filter((fault) => !/CORS policy/.test(fault)), []));
});
