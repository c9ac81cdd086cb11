// Several checkpoints in the page at once: moving between them.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openPage, startBrowser, startSite } from "./harness.mjs";

const DRAWN = { timeout: 120_000 };

describe("the page with several checkpoints", { timeout: 600_000 }, () => {
  let site, browser, page, faults;

  before(async () => {
    site = await startSite();
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

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
