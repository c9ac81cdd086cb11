// Addresses of all kinds of hosts: those that answer with a page whatever they lack, or refuse it, and those whose addresses do not
// say what is there.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, beforeEach, describe, test } from "node:test";
import { openApi } from "./harness.mjs";
import { golden } from "./hub.mjs";
import { join, wholeVocabulary } from "./safetensors.mjs";
import { broken, frontPage, notFound, send } from "./server.mjs";

const TINY = golden("sd1-ddim");
const UNET = "unet/diffusion_pytorch_model";
const ASKED = { prompt: "a red apple on white", seed: 0, steps: 2, width: 64, height: 64 };
const pickle = Buffer.concat([Buffer.from("PK\x03\x04\0\0\x08\x08", "latin1"), Buffer.alloc(2000)]);

/** Refused, as hosts do where nobody may list what they have. */
const forbidden = (request, response) => response.writeHead(403, { "content-type": "application/xml" }).end("<Error/>");

/** `files` with those of `names` called otherwise. */
const renamed = (files, names) => Object.fromEntries(Object.entries(files).map(([name, bytes]) => [names[name] ?? name, bytes]));

/** The tiny checkpoint with its UNet in shards. */
function sharded() {
  const { [`${UNET}.safetensors`]: unet, ...files } = TINY;
  const length = Number(unet.readBigUInt64LE(0));
  const header = JSON.parse(unet.toString("utf8", 8, 8 + length));
  const data = unet.subarray(8 + length);
  const names = Object.keys(header).filter((name) => name !== "__metadata__");
  const weight_map = {};
  const shards = [names.filter((_, i) => i % 2), names.filter((_, i) => i % 2 === 0)];
  for (const [i, names] of shards.entries()) {
    const name = `diffusion_pytorch_model-0000${i + 1}-of-00002.safetensors`;
    let end = 0;
    const parts = names.map((name) => data.subarray(...header[name].data_offsets));
    const part = Object.fromEntries(names.map((name, j) => [name, { ...header[name], data_offsets: [end, (end += parts[j].length)] }]));
    files[`unet/${name}`] = join(part, Buffer.concat(parts));
    for (const tensor of names) weight_map[tensor] = name;
  }
  files[`${UNET}.safetensors.index.json`] = Buffer.from(JSON.stringify({ metadata: {}, weight_map }));
  return files;
}

describe("addresses", { timeout: 1_200_000 }, () => {
  let api, close, page, site, faults, expected, single;
  let made = 0;

  /**
   * A folder's address with these files below it, by their paths or by "path?query"; `missing` answers for all others. `asked` gets
   * what is asked for.
   */
  const host = (files, missing = notFound, asked = []) =>
    site.changed(`host-${++made}`, {
      "*": (request, response) => {
        const { pathname, search } = new URL(request.url, "http://host");
        const name = decodeURIComponent(pathname.split("/").slice(3).join("/"));
        if (request.method === "GET") asked.push(name);
        const found = files[name + search] ?? files[name];
        if (found === undefined) return missing(request, response);
        if (typeof found === "function") return found(request, response);
        send(request, response, found, "application/octet-stream");
      },
    });
  const drawn = async (key) => (await api.draw({ ...ASKED, checkpoint: key })).images[0].rgba;
  const loads = async (source, options) => {
    const loaded = await api.load(source, options);
    assert.ok((await drawn(loaded.key)).equals(expected), `${source}: the picture differs`);
    await api.unload(loaded.key);
    return loaded;
  };
  const refuses = (source, code, message) => api.refuses(`() => tintype.load(${JSON.stringify(source)})`, code, message);
  const list = () => page.evaluate(() => tintype.store.list());

  before(async () => {
    ({ api, close, page, site, faults } = await openApi());
    await api.create({ backend: "cpu" });
    single = wholeVocabulary();
    const folder = host(TINY);
    await api.load(folder);
    expected = await drawn(folder);
  });
  after(() => close?.());
  beforeEach(async () => {
    await api.create({ backend: "cpu" });
    await page.evaluate(() => tintype.store.clear());
  });

  for (const [what, missing] of Object.entries({ "says so": notFound, "answers with its front page": frontPage, "refuses it": forbidden })) {
    test(`a host that ${what} when it has not a file: shards, half precision, and what is missing`, async () => {
      const asked = [];
      const names = { "vae/diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.fp16.safetensors" };
      const files = renamed(sharded(), names);
      const url = host(files, missing, asked);
      const { warnings } = await loads(url);
      assert.deepEqual(warnings, ['vae: no plain weights, those of variant "fp16" are used']);
      // In their order, one after the other.
      const of = (part) => asked.filter((name) => name.startsWith(`${part}/`)).map((name) => name.slice(part.length + 1));
      assert.deepEqual(of("vae"), [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.fp16.safetensors",
      ]);
      assert.deepEqual(of("unet").slice(0, 3), ["config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"]);
      assert.deepEqual(of("tokenizer").slice(0, 3), ["tokenizer.json", "vocab.json", "merges.txt"]);
      assert.deepEqual(asked.filter((name) => /safety_checker|feature_extractor/.test(name)), []);
      // No page was kept for a file.
      const { bytes } = await page.evaluate(() => tintype.store.sizes());
      const used = Object.keys(files).reduce((sum, name) => sum + files[name].length, 0);
      assert.equal(bytes, used);
      site.changed(`host-${made}`, { "*": broken });
      await api.create({ backend: "cpu" });
      await loads(url);
    });
  }

  test("a host without the weights: what it has in their place is told", async () => {
    const { [`${UNET}.safetensors`]: _, ...rest } = TINY;
    for (const missing of [notFound, frontPage, forbidden]) {
      await refuses(host(rest, missing), "not-found", /unet\/diffusion_pytorch_model\.safetensors: .*no weights of the unet/);
      await refuses(host({ ...rest, [`${UNET}.bin`]: pickle }, missing), "unsupported", /unet\/diffusion_pytorch_model\.bin: .*found a pickle/);
    }
    await refuses(host(rest, frontPage), "not-found", /page of HTML/);
    await refuses(host({}, frontPage), "not-found", /model_index\.json: .*page of HTML/);
    await refuses(host({}, forbidden), "not-found", /model_index\.json: .*403/);
  });

  test("formats that are not read, by their addresses", async () => {
    const url = host({
      "a.gguf": Buffer.concat([Buffer.from("GGUF\x03\0\0\0", "latin1"), Buffer.alloc(99)]),
      "a.zip": pickle,
      "a.bin": pickle,
      "flux.safetensors": join({ "double_blocks.0.img_attn.x": { dtype: "F32", shape: [1], data_offsets: [0, 4] } }, Buffer.alloc(4)),
    });
    for (const [name, message] of [["a.gguf", /found GGUF/], ["a.zip", /found a ZIP archive: unpack it/], ["a.bin", /found a pickle/], ["flux.safetensors", /found FLUX\.1/]]) {
      await refuses(url + name, "unsupported", message);
    }
  });

  test("an address that does not say what it is: a folder", async () => {
    const files = Object.fromEntries(Object.entries(TINY).map(([name, bytes]) => [`models/tiny/${name}`, bytes]));
    for (const missing of [notFound, frontPage]) {
      const url = `${host(files, missing)}models/tiny?token=secret`;
      await loads(url);
      site.changed(`host-${made}`, { "*": broken });
      await api.create({ backend: "cpu" });
      await loads(url);
    }
    assert.ok((await list()).every(({ url }) => url.endsWith("/models/tiny/")));
  });

  test("an address that does not say what it is: a file, with its own name", async () => {
    const disposition = { "content-disposition": `attachment; filename="x.bin"; filename*=UTF-8''warm%20style.safetensors` };
    const asked = [];
    const files = {
      "api/download/models/123?type=Model&token=secret": (request, response) => send(request, response, single, "application/octet-stream", disposition),
      "download?id=7": single,
      "download?id=8": single,
    };
    const url = host(files, notFound, asked);
    const address = `${url}api/download/models/123?type=Model&token=secret`;
    const { name, family } = await api.load(address);
    assert.deepEqual([name, family], ["warm style", "SD 1.x"]);
    for (const id of [7, 8]) assert.equal((await api.load(`${url}download?id=${id}`)).name, "download");
    const kept = (await list()).map(({ url }) => new URL(url)).map(({ pathname, search }) => pathname.split("/").slice(3).join("/") + search);
    assert.deepEqual(kept.sort(), ["api/download/models/123?type=Model", "download?id=7", "download?id=8"]);
    site.changed(`host-${made}`, { "*": broken });
    await api.create({ backend: "cpu" });
    assert.equal((await api.load(address)).name, "warm style");
  });

  test("what is below a file's address may be the file again; a page is neither file nor folder", async () => {
    const anything = (request, response) => send(request, response, single, "text/html");
    const { value, error } = await api.outcome(`() => tintype.inspect("${host({}, anything)}file")`);
    assert.deepEqual([value?.layout, value?.name], ["single-file", "file"], error?.message);
    await refuses(`${host({}, frontPage)}login?id=7&key=hidden`, "not-found", /^(?!.*hidden).*login: expected a folder with model_index\.json, or a file: .*page of HTML/);
    await refuses(`${host({}, notFound)}none`, "not-found", /none: expected a folder with model_index\.json, or a file: .*404/);
    await refuses(`${host({}, broken)}down`, "network", /503/);
    await refuses("http://127.0.0.1:9/x", "network", /127\.0\.0\.1:9/);
  });

  test("a LoRA's address need not say that it is a file", async () => {
    const lora = readFileSync(new URL("../golden/lora/kohya-original.safetensors", import.meta.url));
    const disposition = { "content-disposition": "attachment; filename=style.safetensors" };
    const asked = [];
    const url = host({ ...TINY, "get?id=1": (request, response) => send(request, response, lora, "application/octet-stream", disposition) }, notFound, asked);
    const { value, error } = await api.outcome(`async () => {
      const checkpoint = await tintype.load("${url}", { loras: [{ source: "${url}get?id=1" }] });
      const { images } = await tintype.generate({ checkpoint, ...${JSON.stringify(ASKED)} });
      const text = new TextDecoder("latin1").decode(await (await images[0].toBlob()).arrayBuffer());
      return [/Loras: "([^"]*)"/.exec(text)?.[1], (await outcome(() => checkpoint.setLoras([{ source: "${url}none" }]))).error?.code];
    }`);
    assert.deepEqual(value, ["style: 1", "not-found"], error?.message);
    assert.ok(!asked.includes("get/model_index.json"), asked.join());
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
