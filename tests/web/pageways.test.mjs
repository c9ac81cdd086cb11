// Ways of drawing with one checkpoint, in many steps or in few: one card for all of them.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { openPage, startBrowser, startSite } from "./harness.mjs";
import { fourStyles } from "./server.mjs";

const DRAWN = { timeout: 120_000 };

/** Two of the shipped checkpoints, each in three ways, and one by itself. */
function catalogue() {
  const [first, second, third] = fourStyles();
  const ways = (entry) => [
    { ...entry, way: "3 steps", defaults: { ...entry.defaults, steps: 3 } },
    ...[2, 1].map((steps) => ({
      ...entry,
      id: `${entry.id}-${steps}`,
      of: entry.id,
      name: `${entry.name} in ${steps}`,
      way: `${steps} steps`,
      defaults: { ...entry.defaults, steps, guidanceScale: 1 },
    })),
  ];
  return [...ways(first), ...ways(second), { ...third, defaults: { ...third.defaults, steps: 2 } }];
}

let site, browser, page, faults;

/** Opens the page for a suite's tests, with this catalogue or with what ships. */
function open(checkpoints) {
  before(async () => {
    site = await startSite({ checkpoints });
    browser = await startBrowser();
    ({ page, faults } = await openPage(browser, site.url));
    await page.waitForSelector("#generate:enabled", DRAWN);
  });
  after(async () => {
    await browser?.close();
    await site?.close();
  });
}

const made = (count) => page.waitForFunction((count) => document.querySelectorAll("#strip li").length === count, count, DRAWN);
const chosen = () => page.$eval("#cards input:checked", ({ value }) => value);
const way = () => page.$eval("#ways input:checked", ({ value }) => value);
const ways = () => page.$$eval("#ways input", (ways) => ways.map(({ value }) => value));
const names = () => page.$$eval("#cards .name", (names) => names.map((name) => name.textContent));
const settings = async () => [await page.inputValue("#steps"), await page.inputValue("#guidance")];
/** By its label, once that stands still: a picture that was chosen scrolls the page. */
const take = (way) => page.click(`#ways label:has([value="${way}"])`);

describe("the page with ways of drawing", { timeout: 600_000 }, () => {
  open(catalogue());

  test("there is a card for each checkpoint, and the chosen one's ways are below them", async () => {
    assert.deepEqual(await names(), ["Soft", "Flat", "3D"]);
    assert.deepEqual(await ways(), ["3 steps", "2 steps", "1 steps"]);
    assert.deepEqual([await chosen(), await way(), await settings()], ["soft", "3 steps", ["3", "3"]]);
  });

  test("a way brings its settings, before those that were set, and draws", async () => {
    await page.fill("#prompt", "fox");
    await page.$eval("#steps", (field) => { field.value = 5; field.dispatchEvent(new Event("input", { bubbles: true })); });
    await take("2 steps");
    assert.deepEqual(await settings(), ["2", "1"]);
    await page.click("#generate");
    await made(1);
    assert.equal(await page.getAttribute("#image", "alt"), "fox, drawn by Soft in 2");
    assert.match(page.url(), /checkpoint=soft-2&/);
    await take("3 steps");
    assert.deepEqual(await settings(), ["5", "3"], "what was set before comes back");
    await page.$eval("#reset", (button) => button.click());
    assert.deepEqual(await settings(), ["3", "3"]);
  });

  test("the way stays when another card is chosen, and through one that has none", async () => {
    await take("1 steps");
    await page.keyboard.press("Alt+2");
    assert.deepEqual([await chosen(), await way(), await settings()], ["flat", "1 steps", ["1", "1"]]);
    await page.keyboard.press("Alt+3");
    assert.ok(await page.isHidden("#ways"));
    assert.deepEqual(await settings(), ["2", "3"]);
    await page.keyboard.press("Alt+1");
    assert.deepEqual([await chosen(), await way(), await settings()], ["soft", "1 steps", ["1", "1"]]);
  });

  test("side by side they are a table: a row for each checkpoint", async () => {
    assert.deepEqual(await page.$$eval("#compare-which input", (boxes) => boxes.map(({ value }) => value)), ["soft", "flat", "3d"]);
    assert.equal(await page.textContent("#compare-draw"), "Draw 7 pictures in 3 checkpoints");
    await page.uncheck('#compare-ways [value="2 steps"]');
    await page.uncheck('#compare-which [value="3d"]');
    assert.equal(await page.textContent("#compare-draw"), "Draw 4 pictures in 2 checkpoints");
    await page.click("#compare-draw");
    await made(5);
    const cells = () => page.$$eval("#compare-cells li", (all) => all.map((cell) => [cell.querySelector(".title").textContent, cell.offsetLeft, cell.offsetTop]));
    const [a, b, c, d] = await cells();
    assert.deepEqual([a, b, c, d].map(([name]) => name), ["Soft", "Soft in 1", "Flat", "Flat in 1"]);
    assert.ok(a[1] === c[1] && b[1] === d[1] && a[1] < b[1] && a[2] === b[2] && a[2] < c[2], "no table");
    await page.click("#compare-cells li:nth-child(4) button");
    assert.deepEqual([await chosen(), await way(), await settings()], ["flat", "1 steps", ["1", "1"]]);
    await take("3 steps");
    assert.deepEqual(await settings(), ["3", "3"], "a picture's settings went before the way's");
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#compare-save")]);
    const bytes = readFileSync(await download.path());
    assert.deepEqual([bytes.readUInt32BE(16), bytes.readUInt32BE(20)], [16 + 2 * (256 + 16), 56 + 2 * (256 + 34) + 16]);
  });

  test("a card without ways stands in the first column; one way alone has its own settings", async () => {
    await page.check('#compare-which [value="3d"]');
    await page.click("#compare-draw");
    await made(10);
    /** Column and row in which each is seen. */
    const places = async () => {
      const at = await page.$$eval("#compare-cells li", (all) => all.map(({ offsetLeft, offsetTop }) => [offsetLeft, offsetTop]));
      const ranks = [0, 1].map((axis) => [...new Set(at.map((place) => place[axis]))].sort((a, b) => a - b));
      return at.map((place) => place.map((value, axis) => ranks[axis].indexOf(value)).join());
    };
    assert.deepEqual(await places(), ["0,0", "0,1", "1,0", "1,1", "2,0"], "more checkpoints than ways: a column for each where there is room");
    const size = page.viewportSize();
    await page.setViewportSize({ width: 420, height: 800 });
    assert.deepEqual(await places(), ["0,0", "1,0", "0,1", "1,1", "0,2"]);
    await page.setViewportSize(size);
    await page.uncheck('#compare-ways [value="3 steps"]');
    await page.uncheck('#compare-which [value="3d"]');
    await page.uncheck('#compare-which [value="flat"]');
    await page.$eval("#steps", (field) => { field.value = 4; field.dispatchEvent(new Event("input", { bubbles: true })); });
    await page.click("#compare-draw");
    await made(11);
    assert.equal(await page.getAttribute("#compare-cells", "class"), "cells");
    await page.click("#compare-cells button");
    assert.deepEqual([await chosen(), await settings()], ["soft", ["1", "1"]]);
  });

  test("the focus is not lost with the ways", async () => {
    await page.focus("#ways input:checked");
    await page.keyboard.press("3");
    assert.equal(await page.evaluate(() => document.activeElement.value), "3d");
    await page.keyboard.press("1");
    assert.deepEqual([await page.evaluate(() => document.activeElement.value), await way()], ["soft", "1 steps"]);
  });

  test("entries that are odd are no others' ways, and keep none from being shown", async () => {
    const [first, second] = fourStyles();
    const { id, name, ...nameless } = first;
    site.offer([
      nameless,
      { ...second, of: undefined },
      { ...second, id: "self", of: "self" },
      { ...second, id: "later", of: "last" },
      { ...second, id: "numbered", of: 7, way: 7, name: 7 },
      { ...second, id: "way", of: "flat" },
      { ...second, id: "twice", of: "flat", name: "Twice", way: "Flat" },
      { ...second, id: "last", name: "Last", credits: "no one" },
    ]);
    const other = await openPage(browser, site.url);
    await other.page.waitForSelector("#generate:enabled", DRAWN);
    const on = (selector) => other.page.$$eval(selector, (all) => all.map(({ textContent }) => textContent));
    const names = await on("#cards .name");
    assert.match(names.shift(), /checkpoints\/soft\/$/);
    assert.deepEqual(names, ["Flat", "Flat", "Flat", "7", "Last"]);
    assert.equal((await on("#notices p")).length, 2, "both have the name of the first");
    assert.match((await on("#credits span"))[0], /Last from no one\.$/);
    assert.deepEqual(other.faults, []);
    await other.page.close();
    site.offer(catalogue());
  });

  test("ways without names of their own make no table", async () => {
    const quick = (entry, more) => ({ ...entry, ...more, defaults: { ...entry.defaults, steps: 1, guidanceScale: 1 } });
    const unnamed = (entry) => [quick(entry), quick(entry, { id: `${entry.id}-again`, name: `${entry.name} again`, of: entry.id })];
    site.offer(fourStyles().slice(0, 2).flatMap(unnamed));
    const other = await openPage(browser, site.url);
    await other.page.waitForSelector("#generate:enabled", DRAWN);
    await other.page.fill("#prompt", "fox");
    await other.page.click("#compare-draw");
    await other.page.waitForSelector("#compare-save:not([hidden])", DRAWN);
    assert.equal(await other.page.$$eval("#compare-cells li", ({ length }) => length), 4);
    assert.equal(await other.page.getAttribute("#compare-cells", "class"), "cells");
    assert.deepEqual(other.faults, []);
    await other.page.close();
    site.offer(catalogue());
  });

  test("a link is for its way", async () => {
    const other = await openPage(browser, `${site.url}#checkpoint=flat-2&prompt=cat&seed=3`);
    await other.page.waitForSelector("#generate:enabled", DRAWN);
    const shown = await other.page.$$eval("#cards input:checked, #ways input:checked", (all) => all.map(({ value }) => value));
    assert.deepEqual([...shown, await other.page.inputValue("#steps")], ["flat", "2 steps", "2"]);
    assert.deepEqual(other.faults, []);
    await other.page.close();
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});

describe("the page with what ships", { timeout: 600_000 }, () => {
  open();

  test("five cards, each with three ways", async () => {
    assert.deepEqual(await names(), ["Soft", "Flat", "3D", "Ink", "Animals"]);
    await page.waitForFunction(() => [...document.querySelectorAll("#cards img")].every((image) => image.naturalWidth > 0));
    assert.equal(await page.textContent("#compare-draw"), "Draw 15 pictures in 5 checkpoints");
    for (const key of "54321") {
      await page.keyboard.press(`Alt+${key}`);
      assert.deepEqual(await ways(), ["20 steps", "4 steps", "1 step"]);
      assert.equal(await chosen(), ["soft", "flat", "3d", "ink", "animals"][key - 1]);
    }
  });

  test("the same prompt and seed, in many steps, four and one, with nothing set", async () => {
    await page.fill("#prompt", "fox");
    const told = [];
    for (const [at, value] of ["20 steps", "4 steps", "1 step"].entries()) {
      await take(value);
      told.push(await settings());
      await page.fill("#seed", "7");
      await page.click("#generate");
      await made(at + 1);
      told.at(-1).push(await page.getAttribute("#image", "alt"));
    }
    assert.deepEqual(told, [
      ["20", "3", "fox, drawn by Soft"],
      ["4", "1", "fox, drawn by Soft in four steps"],
      ["1", "1", "fox, drawn by Soft in one step"],
    ]);
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
