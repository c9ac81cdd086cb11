// What a person brings to the page: looked at, loaded, removed, and there again in the next visit.
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openPage, startBrowser, startSite } from "./harness.mjs";
import { golden, startHub } from "./hub.mjs";
import { lora, withoutVae } from "./made.mjs";
import { wholeVocabulary } from "./safetensors.mjs";
import { DIST, fourStyles, notFound, send, shipped, silent } from "./server.mjs";

const GOLDEN = fileURLToPath(new URL("../golden", import.meta.url));
const KL = path.join(GOLDEN, "vae/kl-ldm.safetensors");
const DRAWN = { timeout: 120_000 };
const PICKLE = Buffer.concat([Buffer.from("PK\x03\x04\0\0\x08\x08", "latin1"), Buffer.alloc(4000)]);

describe("a person's own checkpoints in the page", { timeout: 1_200_000 }, () => {
  let site, browser, page, faults, folder, url;

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), "own-"));
    const files = {
      "tiny model.safetensors": wholeVocabulary(),
      "bare model.safetensors": withoutVae(),
      "old.ckpt": PICKLE,
      "paper.safetensors": lora(0.5),
      "other vae.safetensors": shipped("soft", "vae/diffusion_pytorch_model.safetensors"),
      "picture.png": Buffer.from("no weights"),
    };
    for (const [name, bytes] of Object.entries(files)) writeFileSync(path.join(folder, name), bytes);
    site = await startSite({ checkpoints: fourStyles() });
    browser = await startBrowser();
    url = new URL(`${site.folder("own", folder)}tiny%20model.safetensors`, site.url).href;
    ({ page, faults } = await openPage(browser, site.url));
    await page.waitForSelector("#generate:enabled");
  });
  // What one test leaves open would be in the next one's way.
  afterEach(() => page.$eval("#opening", (panel) => panel.open && panel.close()));
  after(async () => {
    await browser?.close();
    await site?.close();
    rmSync(folder, { recursive: true });
  });

  /** Drops files of this machine on the page, as the browser itself does. */
  async function drop(names, on = page) {
    const session = await on.context().newCDPSession(on);
    const data = { items: [], files: names.map((name) => path.resolve(folder, name)), dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"]) await session.send("Input.dispatchDragEvent", { type, x: 100, y: 100, data });
    await session.detach();
  }
  /** Drops files that exist in the page alone: without handles, or entries. */
  const dropMade = (names) =>
    page.evaluate(async (names) => {
      const data = new DataTransfer();
      for (const name of names) data.items.add(new File([await (await fetch(`/folders/own/${name}`)).blob()], name));
      for (const type of ["dragover", "drop"]) document.getElementById("plate").dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    }, names);
  const known = (on = page) => on.waitForFunction(() => document.querySelector("#opening[open] .act") && !document.querySelector("#opening [aria-busy]"), undefined, DRAWN);
  const panel = (selector, on = page) => on.$$eval(`#opening ${selector}`, (all) => all.map((node) => node.textContent));
  const closed = (on = page) => on.waitForSelector("#opening:not([open])", { state: "attached" });
  const names = (on = page) => on.$$eval("#cards .name", (all) => all.map((name) => name.textContent));
  const ready = (name, on = page) => on.waitForSelector(`.card[data-state="ready"]:has-text("${name}")`, DRAWN);
  const said = (on = page) => on.textContent("#opening-said");

  test("dragged over the page, it says where to drop; out of the window again, it does not", async () => {
    const session = await page.context().newCDPSession(page);
    const data = { items: [], files: [path.join(folder, "tiny model.safetensors")], dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver"]) await session.send("Input.dispatchDragEvent", { type, x: 100, y: 100, data });
    await page.waitForSelector("#veil", { state: "visible" });
    await session.send("Input.dispatchDragEvent", { type: "dragCancel", x: 100, y: 100, data });
    await page.waitForSelector("#veil", { state: "hidden" });
    await session.detach();
  });

  test("a file that was dropped is looked at: what it is, its parts, the memory that it takes", async () => {
    await drop(["tiny model.safetensors"]);
    await known();
    assert.ok(await page.isHidden("#veil"));
    assert.deepEqual(await panel("h3"), ["tiny model"]);
    assert.match((await panel(".look > .meta")).join(), /^SD 1\.x · single file · \d\.\d MB · From this device$/);
    const rows = ["text_encoderCLIPTextModel,f16, i64", "unetUNet2DConditionModel,f32", "vaeAutoencoderKL,f32"];
    assert.deepEqual(await page.$$eval("#opening tbody tr", (all) => all.map((row) => [...row.cells].slice(0, 2).map((cell) => cell.textContent).join())), rows);
    assert.match((await panel(".pairs")).join(), /Predictsepsilon.*Draws with.*steps.*Takes here.*\d+ of \d+ MB: weights \d+, drawing \d+/);
    assert.ok((await page.$eval("#opening .meter i", (part) => part.getBoundingClientRect().width)) > 0);
    assert.match(await said(), /^tiny model is a checkpoint\.$/);
    assert.deepEqual(await names(), ["Soft", "Flat", "3D", "Ink"], "loaded before anyone said so");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Load");
  });

  test("closed without loading, nothing has changed; the keys are the page's again", async () => {
    await page.keyboard.press("Escape");
    await closed();
    assert.deepEqual(await names(), ["Soft", "Flat", "3D", "Ink"]);
    await page.focus("#cards input:checked");
    await page.keyboard.press("2");
    assert.equal(await page.$eval("#cards input:checked", ({ value }) => value), "flat");
  });

  test("loaded under another name it is a card, and draws", async () => {
    await drop(["tiny model.safetensors"]);
    await known();
    await page.fill('#opening input[type="text"]', "Mine");
    await page.click("#opening .act button");
    await closed();
    await ready("Mine");
    assert.equal(await page.$eval("#cards input:checked", (radio) => radio.closest("label").querySelector(".name").textContent), "Mine");
    assert.match(await page.$eval(".card:has(:checked) .about", (about) => about.textContent), /^From this device$/);
    await page.fill("#prompt", "a red fox");
    await page.$eval("#steps", (field) => { field.value = 2; field.dispatchEvent(new Event("input", { bubbles: true })); });
    await page.click("#generate");
    await page.waitForSelector("#strip li", DRAWN);
    assert.match(await page.textContent("#done-meta"), /^Mine · seed/);
    const query = new URLSearchParams(new URL(page.url()).hash.slice(1));
    assert.deepEqual([query.get("prompt"), query.get("checkpoint"), query.get("from")], ["a red fox", null, null], "what is on this device has no address");
  });

  test("removed, its card is gone, and another is chosen", async () => {
    await page.click('#cards [aria-label="Remove Mine"]');
    assert.deepEqual(await names(), ["Soft", "Flat", "3D", "Ink"]);
    assert.equal(await page.$eval("#cards input:checked", ({ value }) => value), "soft");
    await page.waitForFunction(() => ![...document.querySelectorAll("#memory-list .name")].some((name) => name.textContent === "Mine"));
    await page.click("#strip li:last-child button");
    assert.match(await page.textContent("#done-meta"), /^Mine · seed/, "its picture is still there");
  });

  test("a file without a handle draws too, and says that it is for this visit", async () => {
    await dropMade(["tiny%20model.safetensors"]);
    await known();
    await page.keyboard.press("Enter");
    await ready("tiny%20model");
    assert.equal(await page.$eval(".card:has(:checked) .about", (about) => about.textContent), "From this device, for this visit");
    await page.click('#cards [aria-label^="Remove"]');
  });

  test("what can't be loaded says why, and its button does nothing", async () => {
    await drop(["old.ckpt"]);
    await known();
    assert.match((await panel(".reasons")).join(), /pickle/);
    assert.equal(await page.$eval("#opening .act button", ({ disabled }) => disabled), true);
    const reason = await page.$eval("#opening .act button", (button) => document.getElementById(button.getAttribute("aria-describedby")).textContent);
    assert.match(reason, /pickle/);
    assert.match(await said(), /can’t be used here/);
    await page.click("#opening-close");
    await closed();
    await drop(["picture.png"]);
    await page.waitForSelector("#error", { state: "visible" });
    assert.match(await page.textContent("#error-message"), /nothing in it to open/);
  });

  const offered = () => page.$$eval('#opening [id$="-vae"] option', (all) => all.map(({ textContent }) => textContent));
  const vaeIs = () => page.$eval('#opening [id$="-vae"]', ({ selectedOptions }) => selectedOptions[0].textContent);
  const loadable = () => page.waitForFunction(() => document.querySelector("#opening .act button:enabled")?.textContent === "Load", undefined, DRAWN);

  test("a checkpoint without a VAE is loaded with one from elsewhere", async () => {
    const kl = new URL(`${site.folder("vae", path.dirname(KL))}${path.basename(KL)}`, site.url).href;
    await drop(["bare model.safetensors"]);
    await known();
    assert.match((await panel(".reasons")).join(), /without an autoencoder/);
    assert.equal(await page.$eval("#opening .act button", ({ disabled }) => disabled), true);
    // Of what family it is was not said: a small one might not suit it.
    assert.deepEqual(await offered(), ["Its own", "Another…"]);
    await page.selectOption('#opening [id$="-vae"]', "another");
    await page.fill('#opening [aria-label="another VAE"] input[type="text"]', `${kl}x`);
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => /ldm\.safetensorsx/.test(document.querySelector("#opening .reasons")?.textContent), undefined, DRAWN);
    await page.selectOption('#opening [id$="-vae"]', "another");
    await page.fill('#opening [aria-label="another VAE"] input[type="text"]', kl);
    await page.keyboard.press("Enter");
    await loadable();
    assert.equal(await vaeIs(), "kl-ldm");
    assert.equal((await offered())[1], "TAESD (small and quick)");
    assert.match((await panel('[id$="-predicts"] option:first-child')).join(), /^As it seems: epsilon$/);
    await page.click("#opening .act button");
    await ready("bare model");
    assert.equal(await page.textContent("#over-sum"), "kl-ldm");
    await page.click('#cards [aria-label="Remove bare model"]');
  });

  test("a VAE that is dropped with a checkpoint that has none becomes its own, of a file and of a folder", async () => {
    const from = path.join(GOLDEN, "pipelines/sd1-ddim");
    cpSync(from, path.join(folder, "bare folder"), { recursive: true, filter: (name) => name !== path.join(from, "vae") });
    for (const name of ["bare model.safetensors", "bare folder"]) {
      await drop([name, KL]);
      await loadable();
      assert.deepEqual(await page.$$eval("#opening h3", (all) => all.filter((node) => node.checkVisibility()).map((node) => node.textContent)), [path.parse(name).name]);
      assert.equal(await vaeIs(), "kl-ldm");
      await page.click("#opening .act button");
      await ready(path.parse(name).name);
      assert.equal(await page.textContent("#over-sum"), "kl-ldm");
      await page.click(`#cards [aria-label="Remove ${path.parse(name).name}"]`);
    }
  });

  test("the small VAE that is offered is that of the checkpoint's family, once that is known", async () => {
    for (const [name, small] of [["sd1-ddim", "TAESD"], ["sdxl", "TAESDXL"]]) {
      await drop([path.join(GOLDEN, "pipelines", name)]);
      await known();
      assert.deepEqual(await offered(), ["Its own (AutoencoderKL)", `${small} (small and quick)`, "Another…"]);
      await page.keyboard.press("Escape");
    }
    const fresh = await openPage(browser, site.url);
    await fresh.page.waitForSelector("#generate:enabled");
    const beside = () => fresh.page.$$eval("#vae option", (all) => all.map(({ textContent }) => textContent));
    assert.deepEqual(await beside(), ["Its own", "Another…"]);
    await fresh.page.click('.card:has([value="ink"])');
    await ready("Ink", fresh.page);
    assert.equal((await beside())[1], "TAESD (small and quick)");
    await fresh.page.close();
  });

  test("two addresses that differ in their query alone are two checkpoints, and are kept as two", async () => {
    const named = (request, response) => send(request, response, wholeVocabulary(), "application/octet-stream", { "content-disposition": 'attachment; filename="x.safetensors"' });
    const host = new URL(site.changed("host", { download: named, "*": notFound }), site.url).href;
    for (const [id, name] of [["7", "Seven"], ["8", "Eight"]]) {
      await page.click("#open-address");
      await page.fill("#address", `${host}download?id=${id}&token=secret`);
      await page.keyboard.press("Enter");
      await known();
      await page.fill('#opening input[type="text"]', name);
      await page.click("#opening .act button");
      await ready(name);
      await page.waitForSelector(`#shelf-list [aria-label="Remove ${name}"]`);
    }
    const open = () => page.$$eval("#shelf-list [aria-label^=Open]", (all) => all.map(({ ariaLabel }) => ariaLabel).filter((label) => /Seven|Eight/.test(label)));
    assert.deepEqual(await open(), [], "there is a card of each");
    await page.click('#cards [aria-label="Remove Eight"]');
    await page.waitForSelector('#shelf-list [aria-label="Open Eight"]');
    assert.deepEqual(await open(), ["Open Eight"]);
    await page.click('#shelf-list [aria-label="Remove Eight"]');
    await page.waitForFunction(() => document.getElementById("shelf-said").textContent === "Eight was removed.");
    assert.ok(await page.$('#shelf-list [aria-label="Remove Seven"]'));
    await page.reload();
    await page.waitForSelector('.card[data-state="here"]:has-text("Seven")', DRAWN);
    await page.click('.card:has-text("Seven")');
    await page.click('#cards [aria-label="Remove Seven"]');
  });

  test("looking can be given up, and what is brought next takes its place", async () => {
    const slow = new URL(site.changed("slow", { "model_index.json": silent }), site.url).href;
    await page.click("#open-address");
    await page.fill("#address", slow);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#opening[open]");
    // What was chosen by a former test may yet be on its way.
    assert.match(await said(), /^Looking at slow(, once \w+ is here)?…$/);
    await drop(["tiny model.safetensors"]);
    await known();
    assert.deepEqual(await panel("h3"), ["tiny model"]);
    await page.click("#opening-close");
    await closed();
    assert.ok(await page.isHidden("#error"));
  });

  test("what an address lacks is said; looked at again, it is there", async () => {
    const missing = url.replace("tiny", "no");
    await page.click("#open-address");
    await page.fill("#address", missing);
    await page.click("#address-add");
    await known();
    assert.match((await panel(".reasons")).join(), /no(%20| )model\.safetensors/);
    writeFileSync(path.join(folder, "no model.safetensors"), wholeVocabulary());
    await page.click("#opening .act button");
    await page.waitForFunction(() => document.querySelector("#opening .act button:enabled")?.textContent === "Load", undefined, DRAWN);
    await page.keyboard.press("Escape");
  });

  test("an address that was loaded is there again in the next visit, and its link brings it to others", async () => {
    await page.click("#open-address");
    await page.fill("#address", `${url}?token=secret&kind=a`);
    await page.keyboard.press("Enter");
    await known();
    await page.selectOption('#opening [id$="-predicts"]', "v_prediction");
    await known();
    assert.match((await panel(".pairs")).join(), /Predictsv/);
    await page.click("#opening .act button");
    await ready("tiny model");
    await page.$eval("#steps", (field) => { field.value = 1; field.dispatchEvent(new Event("input", { bubbles: true })); });
    await page.fill("#seed", "5");
    await page.click("#generate");
    await page.waitForFunction(() => /tiny model · seed 5/.test(document.getElementById("done-meta").textContent), undefined, DRAWN);
    const query = new URLSearchParams(new URL(page.url()).hash.slice(1));
    assert.deepEqual([query.get("from"), query.get("predictionType")], [`${url}?kind=a`, "v_prediction"], "a token is not for others");

    await page.reload();
    await page.waitForSelector('.card:has-text("tiny model") input:checked', { state: "attached" });
    assert.equal(await page.$("#opening[open]"), null, "it is the one that is there");
    const link = page.url();
    await page.goto("about:blank");
    await page.goto(site.url);
    await page.waitForSelector('.card[data-state="here"]:has-text("tiny model")', DRAWN);
    await page.click('.card:has-text("tiny model")');
    await ready("tiny model");

    const other = await openPage(browser, link);
    await known(other.page);
    assert.deepEqual(await panel("h3", other.page), ["tiny model"]);
    assert.match((await panel(".pairs", other.page)).join(), /Predictsv/);
    assert.equal(await other.page.inputValue("#seed"), "5");
    await other.page.click("#opening .act button");
    await ready("tiny model", other.page);
    assert.deepEqual(other.faults, []);
    await other.page.close();
    await page.click('#cards [aria-label="Remove tiny model"]');
    await page.reload();
    await page.waitForSelector("#generate:enabled");
    assert.deepEqual(await names(), ["Soft", "Flat", "3D", "Ink"], "what was removed came back");
  });

  test("a picked file that the browser remembers is there again in the next visit", async () => {
    await page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      const handle = await root.getFileHandle("picked model.safetensors", { create: true });
      const writable = await handle.createWritable();
      await writable.write(await (await fetch("/folders/own/tiny%20model.safetensors")).blob());
      await writable.close();
      window.showOpenFilePicker = async () => [handle];
    });
    await page.click("#open-file");
    await known();
    await page.keyboard.press("Enter");
    await ready("picked model");
    await page.reload();
    await page.waitForSelector("#generate:enabled");
    await page.click('.card:has-text("picked model")');
    await ready("picked model");
    await page.click('#cards [aria-label="Remove picked model"]');
  });

  test("one that the browser may not read any more says so, and the page goes on", async () => {
    await drop(["tiny model.safetensors"]);
    await known();
    await page.keyboard.press("Enter");
    await ready("tiny model");
    await page.reload();
    await page.waitForSelector("#generate:enabled");
    await page.evaluate(() => {
      FileSystemHandle.prototype.queryPermission = async () => "prompt";
      FileSystemHandle.prototype.requestPermission = async () => "denied";
    });
    await page.click('.card:has-text("tiny model")');
    await page.waitForSelector("#error", { state: "visible" });
    assert.match(await page.textContent("#error-message"), /^tiny model: the browser was not allowed to read it/);
    await page.click('#cards [aria-label="Remove tiny model"]');
    await page.reload();
    await page.waitForSelector("#generate:enabled");
  });

  test("a folder of checkpoints and other things is sorted", async () => {
    const many = path.join(folder, "many");
    mkdirSync(many);
    writeFileSync(path.join(many, "one.safetensors"), wholeVocabulary());
    writeFileSync(path.join(many, "two.safetensors"), PICKLE);
    await drop([many]);
    await known();
    assert.deepEqual((await panel("h3")).sort(), ["one", "two"]);
    assert.deepEqual(await page.$$eval("#opening .act button", (all) => all.map(({ disabled }) => disabled).sort()), [false, true]);
    await page.keyboard.press("Escape");
    await drop([path.join(DIST, "checkpoints")]);
    await known();
    assert.deepEqual((await panel("h3")).sort(), ["3d", "animals", "flat", "ink", "lcm-lora", "soft"]);
    await page.keyboard.press("Escape");
  });

  test("pasted, an address is looked at; in the prompt it is text", async () => {
    const paste = (text, target) =>
      page.$eval(target, (node, text) => {
        const clipboardData = new DataTransfer();
        clipboardData.setData("text", text);
        node.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
      }, text);
    await paste(url, "#prompt");
    assert.equal(await page.$("#opening[open]"), null);
    await paste(url, "#plate");
    await known();
    assert.deepEqual(await panel("h3"), ["tiny model"]);
    await page.keyboard.press("Escape");
  });

  test("a picture of the page that is dragged is none of this", async () => {
    await page.evaluate(() => {
      const data = new DataTransfer();
      data.items.add(new File(["x"], "picture.png"));
      const image = document.getElementById("image");
      for (const type of ["dragstart", "dragover", "drop", "dragend"]) image.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    });
    assert.ok(await page.isHidden("#veil"));
    assert.equal(await page.$("#opening[open]"), null);
  });

  test("a repository is typed as its name; of several files in one, one is chosen", async () => {
    const hub = await startHub();
    try {
      hub.push("someone/tiny", golden("sd1-ddim"));
      hub.push("someone/styles", { "a.safetensors": lora(0.5), "b.safetensors": wholeVocabulary() });
      const context = await browser.newContext();
      await context.route("**/app/maker.js", async (route) => {
        const answer = await route.fetch();
        const [given, other] = ["Tintype.create({ backend })", `Tintype.create({ backend, hub: { url: ${JSON.stringify(hub.url)} } })`];
        const body = await answer.text();
        assert.ok(body.includes(given));
        await route.fulfill({ response: answer, body: body.replace(given, other) });
      });
      const own = await openPage(context, site.url);
      await own.page.waitForSelector("#generate:enabled");
      const type = async (address) => {
        await own.page.click("#open-address");
        await own.page.fill("#address", address);
        await own.page.keyboard.press("Enter");
        await known(own.page);
      };
      await type("someone/tiny");
      assert.match((await panel(".look > .meta", own.page)).join(), /^SD 1\.x · diffusers folder · .* · From someone\/tiny$/);
      await own.page.click("#opening .act button");
      await ready("tiny", own.page);
      await own.page.reload();
      await own.page.waitForSelector('.card[data-state="here"]:has-text("From someone/tiny")', DRAWN);
      assert.equal(await own.page.$('#shelf-list [aria-label="Open tiny"]'), null, "there is a card of it");

      await type("someone/styles");
      assert.match((await panel(".reasons", own.page)).join(), /choose one/);
      assert.deepEqual(await panel('[aria-label="To choose from"] button', own.page), ["someone/styles/a.safetensors", "someone/styles/b.safetensors"]);
      await own.page.click('#opening button:text-is("someone/styles/b.safetensors")');
      await own.page.waitForFunction(() => document.querySelector("#opening .act button:enabled")?.textContent === "Load", undefined, DRAWN);
      assert.deepEqual(await panel("h3", own.page), ["b"]);
      assert.deepEqual(own.faults, []);
      await context.close();
    } finally {
      await hub.close();
    }
  });

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));

  test("on a phone's width nothing of it sticks out, in dark and in light", async () => {
    for (const colorScheme of ["light", "dark"]) {
      const phone = await openPage(browser, site.url, { viewport: { width: 360, height: 740 }, colorScheme, reducedMotion: "reduce" });
      await phone.page.waitForSelector("#generate:enabled");
      await drop(["tiny model.safetensors", "old.ckpt"], phone.page);
      await known(phone.page);
      const wide = (selector) => phone.page.$eval(selector, (node) => node.scrollWidth - node.clientWidth);
      assert.ok((await wide("#opening")) <= 0, "the panel is too wide");
      await phone.page.keyboard.press("Escape");
      await phone.page.click("#over summary");
      await phone.page.click("#add-lora");
      await phone.page.selectOption("#vae", "another");
      assert.ok((await wide("html")) <= 0, "the page is too wide");
      await phone.page.close();
    }
  });
});
