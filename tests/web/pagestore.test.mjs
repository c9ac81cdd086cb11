// What the page shows of memory and of what is kept on this device.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { openPage, startBrowser, startPersistent, startSite } from "./harness.mjs";
import { fourStyles } from "./server.mjs";

const DRAWN = { timeout: 120_000 };

describe("the page's memory and storage", { timeout: 600_000 }, () => {
  let site, browser, context, page, faults;

  before(async () => {
    site = await startSite({ checkpoints: fourStyles() });
    browser = await startBrowser();
    // Pages of one context share what is kept.
    context = await browser.newContext();
    ({ page, faults } = await openPage(context, site.url));
    await page.waitForSelector('#backend[data-kind="cpu"]', DRAWN);
  });
  after(async () => {
    await browser?.close();
    await site?.close();
  });

  const marked = (state, id) => page.waitForSelector(`.card[data-state="${state}"]:has([value="${id}"])`, DRAWN);
  const names = (list) => page.$$eval(`${list} .name`, (all) => all.map((name) => name.textContent));
  const listed = (list, expected) =>
    page.waitForFunction(([list, expected]) => [...document.querySelectorAll(`${list} .name`)].map((name) => name.textContent).join() === expected, [list, expected.join()], DRAWN);
  const choose = (id) => page.click(`.card:has([value="${id}"])`);

  test("at first nothing is in memory, and nothing kept", async () => {
    await page.waitForFunction(() => document.getElementById("shelf-figures").textContent !== "");
    assert.match(await page.textContent("#shelf-figures"), /^Nothing yet/);
    assert.equal(await page.textContent("#memory-figures"), "Nothing yet");
    assert.deepEqual([...(await names("#shelf-list")), ...(await names("#memory-list"))], []);
    assert.ok(await page.isHidden("#shelf-clear"));
    assert.deepEqual(await page.$$eval("#cards .mark", (marks) => marks.map((mark) => mark.textContent)), ["", "", "", ""]);
  });

  test("what is chosen is listed in memory and on this device, with figures", async () => {
    await choose("soft");
    await choose("ink");
    await marked("ready", "ink");
    await choose("soft");
    await marked("ready", "soft");
    await listed("#memory-list", ["Ink", "Soft"]).catch(() => listed("#memory-list", ["Soft", "Ink"]));
    await listed("#shelf-list", ["Soft", "Ink"]);
    const [, used, budget] = /^(\d+) of (\d+) MB$/.exec(await page.textContent("#memory-figures")).map(Number);
    assert.ok(used > 20 && used < budget, `${used} of ${budget}`);
    assert.match(await page.textContent("#shelf-figures"), /^[\d.]+ MB of [\d.]+ [GM]B allowed$/);
    const kept = Number.parseFloat(await page.textContent("#shelf-figures"));
    // What the two share is kept once.
    assert.ok(kept > 18 && kept < 35, `${kept} MB`);
    assert.match(await page.textContent("#shelf-list li:first-child .meta"), /^1[78]\.\d MB · used just now$/);
    const widths = await page.$$eval(".meter", (meters) => meters.map((meter) => meter.firstElementChild.getBoundingClientRect().width));
    assert.ok(widths.every((width) => width > 0), String(widths));
    assert.equal(await page.getAttribute("#memory-meter", "aria-valuetext"), await page.textContent("#memory-figures"));
  });

  test("unloaded, it is still here, and draws again without the network", async () => {
    await page.click('#memory-list [aria-label="Unload Soft"]');
    await marked("here", "soft");
    assert.deepEqual(await names("#memory-list"), ["Ink"]);
    assert.equal(await page.textContent('.card:has([value="soft"]) .mark'), "here");
    const fetched = [];
    page.on("request", (request) => fetched.push(request.url()));
    await page.fill("#prompt", "fox");
    await page.$eval("#steps", (field) => { field.value = 2; field.dispatchEvent(new Event("input", { bubbles: true })); });
    await page.click("#generate");
    await page.waitForSelector("#strip li", DRAWN);
    await marked("ready", "soft");
    assert.deepEqual(fetched.filter((url) => url.includes("safetensors")), []);
  });

  test("it is still here in the next page, and loads without the network", async () => {
    const next = await openPage(context, site.url);
    await next.page.waitForSelector('.card[data-state="here"]:has([value="ink"])', DRAWN);
    const fetched = [];
    next.page.on("request", (request) => fetched.push(request.url()));
    await next.page.click('.card:has([value="ink"])');
    await next.page.waitForSelector('.card[data-state="ready"]:has([value="ink"])', DRAWN);
    assert.deepEqual(fetched.filter((url) => url.includes("safetensors")), []);
    assert.deepEqual(next.faults, []);
    await next.page.close();
  });

  test("verified, it is as it came", async () => {
    await page.click("#shelf-verify");
    await page.waitForFunction(() => /^All \d+ files \(.* MB\) are as they came\.$/.test(document.getElementById("shelf-said").textContent), undefined, DRAWN);
  });

  test("asked to keep it for good, the page says what the browser answered", async () => {
    await page.click("#shelf-persist");
    await page.waitForFunction(() => /The browser (promised|did not promise)/.test(document.getElementById("shelf-said").textContent), undefined, DRAWN);
    const persisted = await page.evaluate(() => navigator.storage.persisted());
    assert.equal(await page.isHidden("#shelf-persist"), persisted);
  });

  test("an address of a person's own has its card in a later visit; removed, it is opened again from what is kept", async () => {
    const address = new URL(site.changed("mine", {}, "flat"), site.url).href;
    await page.click("#open-address");
    await page.fill("#address", address);
    await page.keyboard.press("Enter");
    await page.click("#opening .act button:enabled");
    await listed("#shelf-list", ["mine", "Ink", "Soft"]);
    assert.equal(await page.$('#shelf-list [aria-label="Open mine"]'), null, "there is a card of it");

    const next = await openPage(context, site.url);
    const fetched = [];
    next.page.on("response", (response) => fetched.push(`${response.request().method()} ${response.status()} ${response.url()}`));
    await next.page.waitForSelector('.card[data-state="here"]:has([value^="own-"])');
    await next.page.click('#cards [aria-label="Remove mine"]');
    await next.page.click('#shelf-list [aria-label="Open mine"]');
    await next.page.click("#opening .act button:enabled");
    await next.page.waitForSelector('.card[data-state="ready"]:has([value^="own-"]:checked)', DRAWN);
    await next.page.waitForFunction(() => !document.querySelector('#shelf-list [aria-label="Open mine"]'));
    // Its host is asked whether there is another one by now.
    assert.deepEqual(fetched.filter((answer) => answer.startsWith("GET 200") && answer.endsWith(".safetensors")), []);
    assert.deepEqual(next.faults, []);
    await next.page.close();
  });

  test("where memory is short, the one used longest ago gives way, and comes back to draw", async () => {
    const message = await page.evaluate(async () => {
      const { Tintype } = await import("/tintype/tintype.js");
      const tintype = await Tintype.create({ backend: "cpu", memoryBudget: 1 });
      const error = await tintype.load("/checkpoints/soft/").catch((error) => error);
      await tintype.close();
      return error.message;
    });
    const [, weights, picture] = /weights need (\d+) bytes and a picture (\d+)/.exec(message).map(Number);
    const small = await context.newPage();
    await small.route("**/app/maker.js", async (route) => {
      const answer = await route.fetch();
      const [given, short] = ["Tintype.create({ backend })", `Tintype.create({ backend, memoryBudget: ${Math.round(weights * 1.2 + picture)} })`];
      const body = await answer.text();
      assert.ok(body.includes(given));
      await route.fulfill({ response: answer, body: body.replace(given, short) });
    });
    await small.goto(site.url);
    await small.waitForSelector("#generate:enabled");
    const state = (state, id) => small.waitForSelector(`.card[data-state="${state}"]:has([value="${id}"])`, DRAWN);
    const drawn = (count) => small.waitForFunction((count) => document.querySelectorAll("#strip li").length === count, count, DRAWN);
    await small.fill("#prompt", "fox");
    await small.$eval("#steps", (field) => { field.value = 1; field.dispatchEvent(new Event("input", { bubbles: true })); });
    await small.click("#generate");
    await drawn(1);
    await state("ready", "soft");
    await small.click('.card:has([value="ink"])');
    await state("ready", "ink");
    await state("here", "soft");
    await small.check("#keep");
    await small.click('.card:has([value="soft"])');
    await drawn(2);
    assert.equal(await small.getAttribute("#image", "alt"), "fox, drawn by Soft");
    await state("ready", "soft");
    await state("here", "ink");
    assert.ok(await small.isHidden("#error"));
    await small.close();
  });

  test("removed, it is gone from the list; all of it, and nothing is left", async () => {
    await page.click('#shelf-list [aria-label="Remove Ink"]');
    await page.waitForFunction(() => document.getElementById("shelf-said").textContent === "Ink was removed.");
    assert.ok(!(await names("#shelf-list")).includes("Ink"));
    page.once("dialog", (dialog) => dialog.dismiss());
    await page.click("#shelf-clear");
    assert.ok((await names("#shelf-list")).length > 0, "removed though it was not confirmed");
    page.once("dialog", (dialog) => dialog.accept());
    await page.click("#shelf-clear");
    await listed("#shelf-list", []);
    assert.match(await page.textContent("#shelf-figures"), /^Nothing yet/);
    await marked("ready", "soft");
  });

  test("what could not be kept is told once each, in lines that are dismissed", async () => {
    // A quota counts in a profile on the disk alone.
    const profile = mkdtempSync(path.join(tmpdir(), "full-"));
    const full = await startPersistent(profile);
    try {
      const { page, faults } = await openPage(full, "about:blank");
      const session = await full.newCDPSession(page);
      await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(site.url).origin, quotaSize: 2e5 });
      await page.goto(site.url);
      await page.click('.card:has([value="ink"])');
      await page.waitForSelector('.card[data-state="ready"]:has([value="ink"])', DRAWN);
      const told = await page.$$eval("#notices p", (lines) => lines.map(({ textContent }) => textContent));
      const files = told.map((line) => /^Ink: \S*\/ink\/(\S+): not stored: what this site may keep was used up/.exec(line)?.[1]);
      // Of the three of weights and those of the vocabulary, the last four lines stand.
      assert.ok(files.length >= 3 && files.some((name) => name?.endsWith(".safetensors")), told.join());
      assert.ok(!files.includes(undefined), told.join());
      assert.equal(new Set(files).size, files.length, `told twice: ${told.join()}`);
      for (let left = told.length; left > 0; left -= 1) {
        await page.focus("#notices li button");
        await page.keyboard.press("Enter");
        assert.equal((await page.$$("#notices li")).length, left - 1);
      }
      assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
      assert.deepEqual(faults, []);
    } finally {
      await full.close();
      rmSync(profile, { recursive: true, force: true });
    }
  });

  test("where nothing can be kept, that is told once too", async () => {
    const context = await browser.newContext();
    await context.route("**/keeper/store.js", async (route) => {
      const answer = await route.fetch();
      // As in a private window of some browsers.
      const refusing = "navigator.storage.getDirectory = async () => { throw new DOMException('private window', 'SecurityError'); };";
      await route.fulfill({ response: answer, body: `${refusing}\n${await answer.text()}` });
    });
    const { page, faults } = await openPage(context, site.url);
    const told = () => page.$$eval("#notices p", (lines) => lines.map(({ textContent }) => textContent));
    await page.waitForSelector("#notices li", DRAWN);
    assert.deepEqual(await told(), ["Files are not stored: private window"]);
    await page.click('.card:has([value="ink"])');
    await page.waitForSelector('.card[data-state="ready"]:has([value="ink"])', DRAWN);
    assert.deepEqual(await told(), ["Ink: files are not stored: private window"]);
    assert.deepEqual(faults, []);
    await context.close();
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
