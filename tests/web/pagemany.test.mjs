// Several checkpoints in the page at once: moving between them, and drawing in each.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { openPage, startBrowser, startSite } from "./harness.mjs";
import { fourStyles } from "./server.mjs";

const DRAWN = { timeout: 120_000 };

describe("the page with several checkpoints", { timeout: 600_000 }, () => {
  let site, browser, page, faults;

  before(async () => {
    site = await startSite({ checkpoints: fourStyles() });
    browser = await startBrowser();
    ({ page, faults } = await openPage(browser, site.url));
    await page.waitForSelector('#backend[data-kind="cpu"]', DRAWN);
  });
  after(async () => {
    await browser?.close();
    await site?.close();
  });

  const made = (count) => page.waitForFunction((count) => document.querySelectorAll("#strip li").length === count, count, DRAWN);
  const steps = (count) =>
    page.$eval("#steps", (field, count) => { field.value = count; field.dispatchEvent(new Event("input", { bubbles: true })); }, count);
  const ready = (id) => page.waitForSelector(`.card[data-state="ready"]:has([value="${id}"])`, DRAWN);
  const chosen = () => page.$eval("#cards input:checked", ({ value }) => value);

  test("a digit chooses the card of that place; in a field it is text, and Alt chooses", async () => {
    assert.deepEqual(await page.$$eval("#cards .key", (keys) => keys.map((key) => key.textContent)), ["1", "2", "3", "4"]);
    await page.focus("#cards input:checked");
    await page.keyboard.press("4");
    assert.equal(await chosen(), "ink");
    assert.equal(await page.evaluate(() => document.activeElement.value), "ink", "the focus followed the choice");
    await ready("ink");
    await page.keyboard.press("9");
    assert.equal(await chosen(), "ink", "there is no ninth card");
    await page.fill("#prompt", "fox ");
    await page.focus("#prompt");
    await page.keyboard.press("End");
    await page.keyboard.press("2");
    assert.deepEqual([await page.inputValue("#prompt"), await chosen()], ["fox 2", "ink"]);
    await page.keyboard.press("Alt+2");
    assert.deepEqual([await page.inputValue("#prompt"), await chosen()], ["fox 2", "flat"]);
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
  });

  test("choosing another card loads it beside the picture that is being drawn", async () => {
    await page.fill("#prompt", "fox");
    await steps(50);
    await page.click("#generate");
    await page.waitForFunction(() => Number(document.getElementById("bar").getAttribute("aria-valuenow")) > 0, undefined, DRAWN);
    await page.click('.card:has([value="3d"])');
    await ready("3d");
    assert.equal(await page.getAttribute("#plate", "data-state"), "working", "loaded only after the picture");
    await made(1);
    assert.equal(await page.getAttribute("#image", "alt"), "fox, drawn by Flat");
  });

  const cells = () =>
    page.$$eval("#compare-cells li", (all) => all.map((cell) => [cell.querySelector(".title").textContent, cell.querySelector(".meta").textContent]));
  const compared = () => page.waitForSelector("#compare-draw:not([hidden])", DRAWN);
  const strip = () => page.$$eval("#strip img", (images) => Promise.all(images.map(async ({ src }) => [...new Uint8Array(await (await fetch(src)).arrayBuffer())].join())));

  test("side by side: a picture in each checkpoint, of one prompt and seed", async () => {
    await page.fill("#prompt", "red apple");
    await page.fill("#seed", "11");
    await steps(2);
    assert.equal(await page.textContent("#compare-draw"), "Draw in 4 checkpoints");
    await page.click("#compare-draw");
    assert.deepEqual((await cells()).map(([name]) => name), ["Soft", "Flat", "3D", "Ink"]);
    await compared();
    assert.ok((await cells()).every(([, about]) => /^[\d.]+ s$/.test(about)), JSON.stringify(await cells()));
    assert.equal(await page.textContent("#compare-title-of"), "red apple · seed 11");
    await made(5);
    assert.deepEqual(
      (await page.$$eval("#strip .meta", (metas) => metas.map((meta) => meta.textContent))).slice(0, 4),
      ["Ink · 11", "3D · 11", "Flat · 11", "Soft · 11"],
    );
    assert.equal(new Set((await strip()).slice(0, 4)).size, 4, "two checkpoints drew the same picture");
    assert.equal(await page.getAttribute("#image", "alt"), "fox, drawn by Flat", "what stood on the plate stays there");
  });

  test("the cell of a checkpoint is the picture that it draws by itself", async () => {
    const [ink] = await strip();
    await page.click("#compare-cells li:nth-child(4) button");
    assert.equal(await page.getAttribute("#image", "alt"), "red apple, drawn by Ink");
    assert.deepEqual([await chosen(), await page.inputValue("#prompt"), await page.inputValue("#seed"), await page.inputValue("#steps")], ["ink", "red apple", "11", "2"]);
    assert.equal(await page.getAttribute("#compare-cells li:nth-child(4) button", "aria-current"), "true");
    await page.click("#generate");
    await made(6);
    assert.equal((await strip())[0], ink);
    assert.equal(await page.getAttribute("#compare-cells li:nth-child(4) button", "aria-current"), null);
  });

  test("all of them are saved as one PNG", async () => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#compare-save")]);
    assert.equal(download.suggestedFilename(), "red-apple-side-by-side-11.png");
    const bytes = readFileSync(await download.path());
    // Two by two, each at twice its 128 pixels, with gaps and names.
    assert.deepEqual([bytes.readUInt32BE(16), bytes.readUInt32BE(20)], [16 + 2 * (256 + 16), 56 + 2 * (256 + 34) + 16]);
  });

  test("it draws in those that are ticked; Escape cancels, and what is drawn stays", async () => {
    await page.uncheck('#compare-which [value="soft"]');
    await page.uncheck('#compare-which [value="3d"]');
    assert.equal(await page.textContent("#compare-draw"), "Draw in 2 checkpoints");
    await steps(40);
    await page.focus("#compare-draw");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => /^Step \d/.test(document.querySelector("#compare-cells li:nth-child(2) .meta")?.textContent), undefined, DRAWN);
    assert.equal(await page.evaluate(() => document.activeElement.id), "compare-cancel");
    await page.keyboard.press("Escape");
    await compared();
    const [flat, ink] = await cells();
    assert.match(flat.join(), /^Flat,[\d.]+ s$/);
    assert.equal(ink.join(), "Ink,Cancelled");
    assert.equal(await page.evaluate(() => document.activeElement.id), "compare-draw");
    assert.deepEqual(await page.$$eval("#compare-cells button", (buttons) => buttons.map(({ disabled }) => disabled)), [false, true]);
  });

  test("a checkpoint that cannot be fetched says so in its cell, and the others are drawn", async () => {
    const broken = await openPage(browser, site.url);
    await broken.page.route("**/flat/unet/diffusion_pytorch_model.safetensors", (route) => route.fulfill({ status: 404, body: "" }));
    await broken.page.waitForSelector("#compare-draw:enabled");
    await broken.page.fill("#prompt", "fox");
    await broken.page.$eval("#steps", (field) => { field.value = 1; field.dispatchEvent(new Event("input", { bubbles: true })); });
    await broken.page.click("#compare-draw");
    await broken.page.waitForSelector("#compare-save:not([hidden])", DRAWN);
    const told = await broken.page.$$eval("#compare-cells .meta", (metas) => metas.map((meta) => meta.textContent));
    assert.match(told[1], /flat\/unet\/diffusion_pytorch_model\.safetensors/);
    for (const index of [0, 2, 3]) assert.match(told[index], /^[\d.]+ s$/);
    assert.deepEqual(broken.faults, []);
    await broken.page.close();
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
