// LoRAs and VAEs in the page: brought, laid over the chosen checkpoint, changed, and taken off again.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openPage, startBrowser, startSite } from "./harness.mjs";
import { lora } from "./made.mjs";
import { textChunks } from "./png.mjs";
import { join, parse, tensors, wholeVocabulary } from "./safetensors.mjs";
import { fourStyles, shipped } from "./server.mjs";

const GOLDEN = fileURLToPath(new URL("../golden", import.meta.url));
const DRAWN = { timeout: 120_000 };
/** A key that matches nothing. */
const EXTRA = "lora_unet_of_another.lora_down.weight";

function withExtra(file) {
  const { header, data } = parse(file);
  header[EXTRA] = { dtype: "F32", shape: [1, 1], data_offsets: [data.length, data.length + 4] };
  return join(header, Buffer.concat([data, Buffer.alloc(4)]));
}

/** The shipped checkpoint's VAE (f16) with the decoder's last bias set: everything is `value` brighter. */
function brighter(value) {
  const { header, data } = parse(shipped("soft", "vae/diffusion_pytorch_model.safetensors"));
  const last = tensors(header).filter((name) => /^decoder\..*\.bias$/.test(name) && header[name].shape[0] === 3);
  assert.equal(last.length, 1);
  const [from, to] = header[last[0]].data_offsets;
  assert.equal(header[last[0]].dtype, "F16");
  for (let at = from; at < to; at += 2) data.writeUInt16LE(value, at);
  return join(header, data);
}

describe("LoRAs and VAEs in the page", { timeout: 1_200_000 }, () => {
  let site, browser, page, faults, folder, at;
  const pictures = {};

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), "over-"));
    const files = {
      "paper.safetensors": lora(0.5),
      "gold.safetensors": withExtra(lora(0.3)),
      // 0.25 as a half.
      "bright.safetensors": brighter(0x3400),
      "lcm lora.safetensors": readFileSync(path.join(GOLDEN, "lora/kohya-original.safetensors")),
      "plain.safetensors": readFileSync(path.join(GOLDEN, "lora/kohya-original.safetensors")),
      "tiny.safetensors": wholeVocabulary(),
      "unet.safetensors": shipped("soft", "unet/diffusion_pytorch_model.safetensors"),
    };
    for (const [name, bytes] of Object.entries(files)) writeFileSync(path.join(folder, name), bytes);
    site = await startSite({ checkpoints: fourStyles() });
    browser = await startBrowser();
    at = (name) => new URL(`${site.folder("over", folder)}${name}`, site.url).href;
    ({ page, faults } = await openPage(browser, site.url));
    await page.waitForSelector("#generate:enabled");
    // Counts what reaches the library.
    await page.evaluate(async () => {
      const { Checkpoint } = await import("/tintype/tintype.js");
      const { setLoras } = Checkpoint.prototype;
      window.asked = [];
      Checkpoint.prototype.setLoras = function (loras, options) {
        window.asked.push(loras.map(({ scale }) => scale));
        return setLoras.call(this, loras, options);
      };
    });
    await page.fill("#prompt", "fox");
    await page.fill("#seed", "7");
    await page.check("#keep");
    await page.$eval("#steps", (field) => { field.value = 2; field.dispatchEvent(new Event("input", { bubbles: true })); });
  });
  after(async () => {
    await browser?.close();
    await site?.close();
    rmSync(folder, { recursive: true });
  });

  const said = (text) => page.waitForFunction((text) => new RegExp(text).test(document.getElementById("over-said").textContent), text, DRAWN);
  const lines = () => page.$$eval(".lora", (all) => all.map((line) => [line.querySelector(".name").textContent, line.querySelector("[type=number]").value, line.querySelector("[type=checkbox]").checked]));
  const asked = () => page.evaluate(() => window.asked.splice(0));
  const add = async (address) => {
    if (!(await page.$eval("#over", ({ open }) => open))) await page.click("#over summary");
    await page.click("#add-lora");
    await page.fill('#over [aria-label="a LoRA"] input[type="text"]', address);
    await page.keyboard.press("Enter");
  };
  const set = (name, type, value, events = ["input", "change"]) =>
    page.$eval(`.lora:has-text("${name}") input[type="${type}"]`, (input, [value, events]) => {
      input.value = value;
      for (const event of events) input.dispatchEvent(new Event(event, { bubbles: true }));
    }, [value, events]);
  /** Draws, and gives the PNG. */
  const drawn = async () => {
    const before = await page.$$eval("#strip li", (all) => all.length);
    await page.click("#generate");
    await page.waitForFunction((count) => document.querySelectorAll("#strip li").length > count && !document.getElementById("generate").hidden, before, DRAWN);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save")]);
    return readFileSync(await download.path());
  };
  const pixels = (png) => png.subarray(png.indexOf("IDAT")).toString("latin1");
  const choose = async (id) => {
    await page.uncheck("#keep");
    await page.click(`.card:has([value="${id}"])`);
    await page.waitForSelector(`.card[data-state="ready"]:has([value="${id}"])`, DRAWN);
    await page.check("#keep");
  };

  test("added by its address, a LoRA is laid over the checkpoint, and is in the picture and its parameters", async () => {
    pictures.plain = await drawn();
    assert.equal(await page.textContent("#over-sum"), "");
    await add(at("paper.safetensors"));
    await said("^Over Soft: paper 1\\.$");
    assert.deepEqual(await lines(), [["paper", "1", true]]);
    assert.equal(await page.textContent("#over-sum"), "1 LoRA");
    pictures.paper = await drawn();
    assert.notEqual(pixels(pictures.paper), pixels(pictures.plain));
    assert.match(await page.textContent("#done-meta"), /^Soft · paper\u00a01 · seed 7/);
    assert.match(textChunks(pictures.paper).parameters, /Loras: "paper: 1"/);
    assert.deepEqual(await asked(), [[1]]);
  });

  test("its scale: while it is moved, one change; the last one counts, also for a picture that is asked for at once", async () => {
    for (let scale = 1; scale > 0.5; scale -= 0.05) await set("paper", "range", scale.toFixed(2), ["input"]);
    await set("paper", "range", "0.5", ["input", "change"]);
    await said("paper 0\\.5\\.");
    assert.deepEqual(await asked(), [[0.5]]);
    assert.deepEqual(await lines(), [["paper", "0.5", true]]);
    await set("paper", "number", "2.5");
    assert.match(textChunks(await drawn()).parameters, /Loras: "paper: 2\.5"/);
    assert.equal(await page.$eval('.lora [type="range"]', ({ value }) => value), "2", "the slider shows as much as it can");
    await set("paper", "number", "1");
    assert.equal(pixels(await drawn()), pixels(pictures.paper));
    await asked();
  });

  test("by the keyboard, the focus stays on the slider", async () => {
    await page.focus('.lora [type="range"]');
    for (let i = 0; i < 4; i += 1) await page.keyboard.press("ArrowLeft");
    await said("paper 0\\.8\\.");
    assert.equal(await page.evaluate(() => document.activeElement.type), "range");
    for (let i = 0; i < 4; i += 1) await page.keyboard.press("ArrowRight");
    await said("paper 1\\.");
    await asked();
  });

  test("what matches nothing is said, as long as it lies there", async () => {
    await add(at("gold.safetensors"));
    await said("paper 1, gold 1\\.");
    assert.match(await page.textContent("#over-warnings"), /gold.*no use here.*another/s);
    await page.uncheck('.lora:has-text("gold") [type="checkbox"]');
    await said("^Over Soft: paper 1\\.$");
    assert.ok(await page.isHidden("#over-warnings"));
    assert.equal(await page.textContent("#over-sum"), "1 LoRA");
    await asked();
  });

  test("what is no LoRA is refused, and those that lie there stay", async () => {
    await add(at("unet.safetensors"));
    await page.waitForSelector("#error", { state: "visible" });
    assert.match(await page.textContent("#error-message"), /unet\.safetensors.*expected a LoRA/);
    assert.deepEqual((await lines()).map(([name]) => name), ["paper", "gold"]);
    assert.equal(pixels(await drawn()), pixels(pictures.paper));
    assert.ok(await page.isHidden("#error"));
  });

  test("another checkpoint has its own; come back to, they are still there", async () => {
    await choose("ink");
    assert.deepEqual(await lines(), []);
    assert.equal(await page.textContent("#over-sum"), "");
    await choose("soft");
    assert.deepEqual((await lines()).map(([name]) => name), ["paper", "gold"]);
    assert.equal(pixels(await drawn()), pixels(pictures.paper));
  });

  test("started anew, the engine has them again", async () => {
    await page.$eval("#more", (details) => (details.open = true));
    await page.selectOption("#runs-on", "cpu");
    await page.waitForSelector('#backend[data-kind="cpu"]', DRAWN);
    assert.equal(pixels(await drawn()), pixels(pictures.paper));
  });

  test("the link of a picture brings its LoRAs to another page", async () => {
    const link = page.url();
    const lora = new URLSearchParams(new URL(link).hash.slice(1)).getAll("lora");
    assert.deepEqual(lora, [`1,${at("paper.safetensors")}`]);
    const other = await openPage(browser, link);
    await other.page.waitForSelector("#generate:enabled");
    await other.page.waitForSelector(".lora", { state: "attached" });
    assert.equal(await other.page.textContent("#over-sum"), "1 LoRA");
    await other.page.click("#generate");
    await other.page.waitForSelector("#strip li", DRAWN);
    const [download] = await Promise.all([other.page.waitForEvent("download"), other.page.click("#save")]);
    assert.equal(pixels(readFileSync(await download.path())), pixels(pictures.paper));
    assert.deepEqual(other.faults, []);
    await other.page.close();
  });

  test("a picture of before brings back what it was drawn with", async () => {
    await page.click("#strip li:last-child button");
    assert.deepEqual(await lines(), []);
    assert.equal(pixels(await drawn()), pixels(pictures.plain));
    await page.click("#strip li:nth-last-child(2) button");
    assert.deepEqual(await lines(), [["paper", "1", true]]);
    assert.equal(pixels(await drawn()), pixels(pictures.paper));
  });

  test("taken off, the picture is to the bit what it was", async () => {
    await page.focus('[aria-label="Take paper off"]');
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "add-lora");
    await said("^Nothing lies over Soft\\.$");
    assert.equal(pixels(await drawn()), pixels(pictures.plain));
    assert.doesNotMatch(await page.textContent("#done-meta"), /paper/);
  });

  test("side by side, each is drawn with its own", async () => {
    await add(at("paper.safetensors"));
    await said("^Over Soft: paper 1\\.$");
    for (const id of ["flat", "3d"]) await page.uncheck(`#compare-which [value="${id}"]`);
    await page.click("#compare-draw");
    await page.waitForSelector("#compare-save:not([hidden])", DRAWN);
    await page.click("#compare-cells li:first-child button");
    assert.match(await page.textContent("#done-meta"), /^Soft · paper\u00a01 ·/);
    await page.click("#compare-cells li:last-child button");
    assert.match(await page.textContent("#done-meta"), /^Ink · seed 7/);
  });

  const known = () => page.waitForFunction(() => document.querySelector("#opening[open] .act") && !document.querySelector("#opening [aria-busy]"), undefined, DRAWN);
  const panel = (selector) => page.$$eval(`#opening ${selector}`, (all) => all.filter((node) => node.checkVisibility()).map((node) => node.textContent));
  async function drop(...names) {
    const session = await page.context().newCDPSession(page);
    const data = { items: [], files: names.map((name) => path.resolve(folder, name)), dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"]) await session.send("Input.dispatchDragEvent", { type, x: 100, y: 100, data });
    await session.detach();
    await known();
  }
  const off = async (name) => {
    await page.click(`[aria-label="Take ${name} off"]`);
    await said("^Nothing lies over");
  };

  test("a LoRA that is dropped says what it is, and is laid over the chosen checkpoint", async () => {
    await page.click('.card:has([value="soft"])');
    await off("paper");
    await drop("paper.safetensors", "gold.safetensors");
    assert.deepEqual(await panel("h3"), ["paper", "gold"]);
    assert.match((await panel(".look > .meta")).join(), /^LoRA · [\d.]+ [kM]B · From this device,LoRA/);
    assert.deepEqual(await panel(".act button"), ["Lay them over Soft"]);
    await page.keyboard.press("Escape");
    await drop("paper.safetensors");
    assert.deepEqual(await panel(".act button"), ["Lay it over Soft"]);
    await page.keyboard.press("Enter");
    await said("^Over Soft: paper 1\\.$");
    assert.equal(pixels(await drawn()), pixels(pictures.paper));
    await off("paper");
  });

  test("a VAE that is dropped takes the place of the checkpoint's own, and gives it back", async () => {
    await drop("bright.safetensors");
    assert.match((await panel(".look > .meta")).join(), /^VAE · AutoencoderTiny · f16 · [\d.]+ MB · From this device$/);
    assert.deepEqual(await panel(".act button"), ["Use it as Soft’s VAE"]);
    await page.keyboard.press("Enter");
    await said("^bright is its VAE\\.$");
    assert.equal(await page.textContent("#over-sum"), "bright");
    pictures.bright = await drawn();
    assert.notEqual(pixels(pictures.bright), pixels(pictures.plain));
    assert.match(await page.textContent("#done-meta"), /^Soft · VAE\u00a0bright · seed 7/);
    assert.match(textChunks(pictures.bright).parameters, /VAE: bright/);
    await page.selectOption("#vae", "own");
    await said("^It has its own VAE\\.$");
    assert.equal(pixels(await drawn()), pixels(pictures.plain));
  });

  test("one from an address is in the link; one that can't be leaves all as it was", async () => {
    await page.selectOption("#vae", "another");
    await page.fill('#over [aria-label="another VAE"] input[type="text"]', at("bright.safetensors"));
    await page.keyboard.press("Enter");
    await said("^bright is its VAE\\.$");
    assert.equal(pixels(await drawn()), pixels(pictures.bright));
    assert.equal(new URLSearchParams(new URL(page.url()).hash.slice(1)).get("vae"), at("bright.safetensors"));
    await page.selectOption("#vae", "another");
    await page.fill('#over [aria-label="another VAE"] input[type="text"]', at("paper.safetensors"));
    await page.keyboard.press("Enter");
    await page.waitForSelector("#error", { state: "visible" });
    assert.match(await page.textContent("#error-message"), /paper\.safetensors.*expected an autoencoder/);
    assert.equal(await page.textContent("#over-sum"), "bright");
    assert.equal(pixels(await drawn()), pixels(pictures.bright));
    await page.click("#strip li:last-child button");
    await said("^It has its own VAE\\.$");
    assert.equal(pixels(await drawn()), pixels(pictures.plain));
  });

  test("a checkpoint, a LoRA and a VAE that are dropped together are for one another; a LoRA brings its settings, and takes them away", async () => {
    const fields = () => page.$$eval("#steps, #guidance", (all) => all.map(({ value }) => value));
    const sampler = () => page.$eval("#sampler", ({ selectedOptions }) => selectedOptions[0].textContent);
    await page.click('#more button:has-text("own settings")');
    await page.$eval("#steps", (field) => { field.value = 3; field.dispatchEvent(new Event("input", { bubbles: true })); });
    await drop(path.join(GOLDEN, "pipelines/sd1-ddim"), "lcm lora.safetensors", path.join(GOLDEN, "vae/kl-ldm.safetensors"));
    assert.deepEqual(await panel("h3"), ["sd1-ddim"]);
    assert.deepEqual(await panel(".with .switch"), [" lcm lora"]);
    assert.equal(await page.$eval('#opening [id$="-vae"]', ({ selectedOptions }) => selectedOptions[0].textContent), "kl-ldm");
    await page.click("#opening .act button");
    await page.waitForSelector('.card[data-state="ready"]:has-text("sd1-ddim")', DRAWN);
    await said("^Over sd1-ddim: lcm lora 1\\. Its own settings are now 4 steps, guidance 1, LCM\\.$");
    assert.deepEqual([...(await fields()), await sampler()], ["4", "1", "Default (LCM)"]);
    const brought = textChunks(await drawn()).parameters;
    assert.match(brought, /Steps: 4, Sampler: LCM, CFG scale: 1/);
    assert.match(brought, /VAE: kl-ldm.*Loras: "lcm lora: 1"/);
    assert.match(await page.textContent("#done-meta"), /^sd1-ddim · lcm lora\u00a01 · VAE\u00a0kl-ldm · seed/);
    await page.uncheck('.lora [type="checkbox"]');
    await said("^Nothing lies over sd1-ddim\\.");
    assert.deepEqual([...(await fields()), await sampler()], ["3", "7.5", "Default (DDIM)"], "what a person had set is back");
    await page.click('#cards [aria-label="Remove sd1-ddim"]');
  });

  test("one that is added while another is laid brings its settings all the same", async () => {
    await drop(path.join(GOLDEN, "pipelines/sd1-ddim"));
    await page.click("#opening .act button");
    await page.waitForSelector('.card[data-state="ready"]:has-text("sd1-ddim")', DRAWN);
    await page.$eval("#steps", (field) => { field.value = 17; field.dispatchEvent(new Event("input", { bubbles: true })); });
    // The first one is laid when it is told.
    await page.evaluate(async () => {
      const { Checkpoint } = await import("/tintype/tintype.js");
      const { setLoras } = Checkpoint.prototype;
      const held = new Promise((resolve) => (window.release = resolve));
      Checkpoint.prototype.setLoras = async function (...args) {
        Checkpoint.prototype.setLoras = setLoras;
        await held;
        return setLoras.apply(this, args);
      };
    });
    await add(at("plain.safetensors"));
    await said("^Laying it over");
    await add(at("lcm%20lora.safetensors"));
    await page.waitForFunction(() => document.querySelectorAll(".lora").length === 2);
    await page.evaluate(() => window.release());
    await said("lcm lora 1\\. Its own settings are now 4 steps, guidance 1, LCM\\.$");
    assert.equal(await page.inputValue("#steps"), "4");
    await page.click('#cards [aria-label="Remove sd1-ddim"]');
  });

  test("a checkpoint that comes back in the next visit has its LoRAs and its VAE again", async () => {
    await page.click("#open-address");
    await page.fill("#address", new URL(site.folder("sd1", path.join(GOLDEN, "pipelines/sd1-ddim")), site.url).href);
    await page.keyboard.press("Enter");
    await known();
    await page.click("#opening .act button");
    await page.waitForSelector('.card[data-state="ready"]:has-text("sd1")', DRAWN);
    await add(at("lcm%20lora.safetensors"));
    await said("^Over sd1: lcm lora 1\\.");
    await set("lcm lora", "number", "0.5");
    await said("^Over sd1: lcm lora 0\\.5\\.");
    await drop(path.join(GOLDEN, "vae/kl-ldm.safetensors"));
    await page.keyboard.press("Enter");
    await said("^kl-ldm is its VAE\\.$");
    const before = await drawn();
    await page.reload();
    await page.waitForSelector("#generate:enabled");
    // The address of the picture that was drawn last says which it is.
    await page.waitForFunction(() => document.getElementById("over-sum").textContent === "1 LoRA, kl-ldm");
    const after = await drawn();
    const about = (png) => textChunks(png).parameters;
    assert.equal(about(after), about(before));
    assert.equal(pixels(after), pixels(before));
    await page.click('#cards [aria-label="Remove sd1"]');
  });

  test("a recipe keeps its settings where its LoRA brings others: from a link, in the next visit, and back from the strip", async () => {
    const from = new URL(site.folder("few", path.join(GOLDEN, "pipelines/sd1-ddim")), site.url).href;
    const recipe = { from, prompt: "fox", seed: "7", steps: "3", guidanceScale: "2", sampler: "Euler", lora: `1,${at("lcm%20lora.safetensors")}` };
    const { page, faults } = await openPage(browser, `${site.url}#${new URLSearchParams(recipe)}`);
    const over = (text) => page.waitForFunction((text) => document.getElementById("over-said").textContent.startsWith(text), text, DRAWN);
    const fields = () => page.$$eval("#steps, #guidance, #sampler", (all) => all.map(({ value }) => value));
    const drawn = (count) => page.waitForFunction((count) => document.querySelectorAll("#strip li").length === count && !document.getElementById("generate").hidden, count, DRAWN);
    await page.waitForSelector("#opening .act button:enabled", DRAWN);
    await page.click("#opening .act button");
    await over("Over few: lcm lora 1.");
    assert.deepEqual(await fields(), ["3", "2", "Euler"]);
    await page.click("#generate");
    await drawn(1);

    await page.reload();
    await page.waitForSelector("#generate:enabled");
    await page.click("#generate");
    await over("Over few: lcm lora 1.");
    await drawn(1);
    assert.deepEqual(await fields(), ["3", "2", "Euler"]);

    await page.$eval("#over", (details) => (details.open = true));
    await page.click('[aria-label="Take lcm lora off"]');
    await over("Nothing lies over few.");
    await page.fill("#prompt", "owl");
    await page.$eval("#steps", (field) => { field.value = 1; field.dispatchEvent(new Event("input", { bubbles: true })); });
    await page.click("#generate");
    await drawn(2);
    await page.click('#strip button:has(.title:text-is("fox"))');
    await over("Over few: lcm lora 1.");
    assert.deepEqual(await fields(), ["3", "2", "Euler"]);
    assert.deepEqual(faults, []);
    await page.click('#cards [aria-label="Remove few"]');
    await page.close();
  });

  test("of two VAEs that are chosen at once the last counts; if it can't be, all is as it was before both", async () => {
    await choose("soft");
    await page.$eval("#over", (details) => (details.open = true));
    await page.fill("#prompt", "fox");
    const takeOver = (...addresses) =>
      page.$eval('#over [aria-label="another VAE"]', (row, addresses) => {
        for (const address of addresses) {
          row.querySelector('input[type="text"]').value = address;
          row.lastElementChild.click();
        }
      }, addresses);
    await takeOver(at("bright.safetensors?first"), at("paper.safetensors?last"));
    await page.waitForSelector("#error", { state: "visible" });
    assert.match(await page.textContent("#error-message"), /paper\.safetensors.*expected an autoencoder/);
    assert.equal(await page.textContent("#over-sum"), "");
    assert.equal(await page.$eval("#vae", ({ value }) => value), "own");
    assert.equal(await page.$eval('.card:has([value="soft"])', ({ dataset }) => dataset.state), "ready", "what was loaded is there");
    await page.click("#error-close");
    await takeOver(at("paper.safetensors?first"), at("bright.safetensors?last"));
    await said("^bright is its VAE\\.$");
    assert.ok(await page.isHidden("#error"));
    await page.selectOption("#vae", "own");
    await said("^It has its own VAE\\.$");
  });

  test("a LoRA for another family is said to be one, and the checkpoint that it came with draws without it", async () => {
    await drop("tiny.safetensors", "paper.safetensors");
    await page.click("#opening .act button");
    await page.waitForSelector('.card[data-state="ready"]:has-text("tiny")', DRAWN);
    await page.waitForSelector("#error", { state: "visible" });
    assert.match(await page.textContent("#error-message"), /paper\.safetensors.*another family/);
    assert.deepEqual(await lines(), [["paper", "1", false]]);
    await page.click('#cards [aria-label="Remove tiny"]');
  });

  test("an entry of the catalogue whose own LoRAs are no list of them is left out alone, and that is said", async () => {
    const [first, second, third, ...others] = fourStyles();
    const wrong = [{ ...first, loras: {} }, { ...second, loras: [{ source: 7 }] }, { ...third, loras: [{ source: "a.safetensors", scale: "1" }] }];
    const fine = others.map((entry, i) => (i === 0 ? { ...entry, loras: [{ source: at("paper.safetensors"), scale: 0.5 }] } : entry));
    assert.ok(fine.length > 0);
    site.offer([...wrong, ...fine]);
    const { page, faults } = await openPage(browser, site.url);
    await page.waitForSelector("#generate:enabled");
    site.offer(fourStyles());
    assert.deepEqual(await page.$$eval("#cards input", (cards) => cards.map(({ value }) => value)), fine.map(({ id }) => id));
    const told = await page.$$eval("#notices p", (lines) => lines.map(({ textContent }) => textContent));
    assert.equal(told.length, 3);
    for (const [i, what] of ["loras: expected an array", "loras\\[0\\]\\.source: expected an address", "loras\\[0\\]\\.scale: expected a"].entries()) {
      assert.match(told[i], new RegExp(`heckpoints\\[${i}\\] is left out: ${what}`));
    }
    assert.ok(await page.isHidden("#error"));
    assert.deepEqual(faults, []);
    await page.close();
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
