// What the browser tests share: a site, a browser with or without WebGPU, and the API's calls made from Node.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { startSite } from "./server.mjs";

const ALWAYS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
// The software adapter: the same API as a GPU, at a processor's speed.
const WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
const NO_GPU = ["--disable-gpu"];

/** Starts Chromium with a new, empty profile. */
export function startBrowser({ webgpu = false } = {}) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [...ALWAYS, ...(webgpu ? WEBGPU : NO_GPU)],
  });
}

/** Starts Chromium with the profile in `folder`: what its pages keep is kept on the disk. Gives the browser's context. */
export function startPersistent(folder, { webgpu = false } = {}) {
  return chromium.launchPersistentContext(folder, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [...ALWAYS, ...(webgpu ? WEBGPU : NO_GPU)],
  });
}

const withBytes = (image) => ({
  ...image,
  rgba: Buffer.from(image.rgba, "base64"),
  png: image.png && Buffer.from(image.png, "base64"),
});

/** The JavaScript API in a page, called from Node; what rejects there rejects here with the same `code`. */
export class Api {
  constructor(page) {
    this.page = page;
  }

  async call(name, ...args) {
    const { value, error } = await this.page.evaluate(([name, args]) => window.call(name, args), [name, args]);
    if (!error) return value;
    assert.ok(error.typed, `${name} rejected with something other than a TintypeError: ${error.name}: ${error.message}`);
    throw Object.assign(new Error(error.message), { code: error.code });
  }

  create = (options) => this.call("create", options);
  load = (source, options) => this.call("load", source, options);
  loadEntry = (id, url) => this.call("loadEntry", id, url);
  loadPicked = (id) => this.call("loadPicked", id);
  unload = (key) => this.call("unload", key);
  loadTogether = (...sources) => this.call("loadTogether", ...sources);
  notices = () => this.page.evaluate(() => window.notices);

  async draw(options) {
    const result = await this.call("draw", options);
    return result.images ? { ...result, images: result.images.map(withBytes) } : result;
  }

  async drawTogether(...jobs) {
    const { pictures, events } = await this.call("drawTogether", ...jobs);
    return { events, pictures: pictures.map((images) => images.map(withBytes)) };
  }

  /** How `call`, which runs in the page and sees nothing of the test's, ended: { value } or { error }. */
  async outcome(call) {
    const { value, error } = await this.page.evaluate(`outcome(${call})`);
    assert.ok(error === undefined || error.typed, `rejected with something other than a TintypeError: ${error?.name}: ${error?.message}`);
    return { value, error };
  }

  /** Asserts that `call`, which runs in the page, is refused so. */
  async refuses(call, code, message) {
    const { error } = await this.outcome(call);
    assert.equal(error?.code, code, error?.message ?? `${call} was not refused`);
    assert.match(error.message, message);
  }

  decode = async (address) => withBytes(await this.call("decode", address));
}

/** A site, a browser and an empty page with the API in it. What the page logs as an error is kept in `faults`. */
export async function openApi(options) {
  const site = await startSite(options);
  let browser;
  const close = async () => {
    await browser?.close();
    await site.close();
  };
  try {
    browser = await startBrowser(options);
    const { page, faults } = await openPage(browser, `${site.url}blank.html`);
    await page.waitForFunction(() => window.call !== undefined);
    return { site, browser, page, faults, api: new Api(page), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A new page at `url`, and what goes wrong in it. */
export async function openPage(browser, url, options) {
  const page = await browser.newPage(options);
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    // A failed request is what several tests are about; the browser logs each.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) faults.push(message.text());
  });
  await page.goto(url);
  return { page, faults };
}

/** How far two pictures' bytes are apart. */
export function difference(a, b) {
  assert.equal(a.length, b.length, "the pictures differ in size");
  let max = 0;
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    const apart = Math.abs(a[i] - b[i]);
    max = Math.max(max, apart);
    sum += apart;
  }
  return { max, mean: sum / a.length };
}

/** Whether a picture shows something: bytes of many values, not one flat colour. */
export const isPicture = (rgba) => new Set(rgba).size > 32;

export { startSite };
