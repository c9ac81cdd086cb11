// LoRAs and VAEs in the page: brought, laid over the chosen checkpoint, changed, and taken off again.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { openPage, startBrowser, startSite } from "./harness.mjs";
import { lora } from "./made.mjs";
import { join } from "./safetensors.mjs";
import { textChunks } from "./png.mjs";
import { shipped } from "./server.mjs";

const DRAWN = { timeout: 120_000 };
/** A key that matches nothing. */
const EXTRA = "lora_unet_of_another.lora_down.weight";

function withExtra(file) {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + length));
  const data = file.subarray(8 + length);
  header[EXTRA] = { dtype: "F32", shape: [1, 1], data_offsets: [data.length, data.length + 4] };
  return join(header, Buffer.concat([data, Buffer.alloc(4)]));
}

describe("LoRAs and VAEs in the page", { timeout: 1_200_000 }, () => {
  let site, browser, page, faults, folder, at;
  const pictures = {};

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), "over-"));
    const files = {
      "paper.safetensors": lora(0.5),
      "gold.safetensors": withExtra(lora(0.3)),
      "unet.safetensors": shipped("soft", "unet/diffusion_pytorch_model.safetensors"),
    };
    for (const [name, bytes] of Object.entries(files)) writeFileSync(path.join(folder, name), bytes);
    site = await startSite();
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

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
