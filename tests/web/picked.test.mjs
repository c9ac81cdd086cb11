// What a person picks or drops: folders, files, archives that were unpacked; read where they are.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { openApi } from "./harness.mjs";
import { golden } from "./hub.mjs";
import { wholeVocabulary } from "./safetensors.mjs";

const TINY = golden("sd1-ddim");
const ASKED = { prompt: "a red apple on white", seed: 0, steps: 1, width: 64, height: 64 };
const PICKLE = "PK\x03\x04\0\0\x08\x08";

/** Writes `files` below `root`. */
function write(root, files) {
  for (const [name, bytes] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    writeFileSync(path.join(root, name), bytes);
  }
  return root;
}

describe("picked and dropped", { timeout: 600_000 }, () => {
  let api, close, page, faults, root, cdp;

  before(async () => {
    root = mkdtempSync(path.join(tmpdir(), "picked-"));
    write(path.join(root, "tiny"), TINY);
    // An archive of a Mac's, unpacked.
    write(path.join(root, "unpacked/tiny sd"), TINY);
    write(path.join(root, "unpacked"), { "__MACOSX/tiny sd/._model_index.json": "x", "readme.txt": "x", ".DS_Store": "x" });
    write(path.join(root, "one"), { "style.safetensors": wholeVocabulary(), "._style.safetensors": "x", "preview.png": "x" });
    write(path.join(root, "several"), { "a.safetensors": wholeVocabulary(), "sub/b.safetensors": "x", "sub/c.json": "{}" });
    write(path.join(root, "old"), { "a.ckpt": "x", "b.pt": "x" });
    write(path.join(root, "empty"), { "notes.txt": "x" });
    ({ api, close, page, faults } = await openApi());
    await api.create({ backend: "cpu" });
    cdp = await page.context().newCDPSession(page);
    // As a page does it: what is dropped is handed on in the event itself.
    await page.evaluate((asked) => {
      const said = async (source) => {
        const { value, error } = await window.outcome(async () => {
          const checkpoint = await tintype.load(source);
          const { images } = await tintype.generate({ checkpoint, ...asked });
          await checkpoint.unload();
          return { name: checkpoint.name, warnings: checkpoint.warnings, drawn: images.length };
        });
        return error ? { code: error.code, message: error.message } : value;
      };
      document.body.style.height = "100vh";
      document.addEventListener("dragover", (event) => event.preventDefault());
      document.addEventListener("drop", (event) => {
        event.preventDefault();
        window.dropped = said(event.dataTransfer);
      });
      window.said = said;
      const input = Object.assign(document.createElement("input"), { type: "file", webkitdirectory: true, id: "folder" });
      input.addEventListener("change", () => (window.picked = said(input.files)));
      document.body.append(input);
    }, ASKED);
  });
  after(async () => {
    await close?.();
    rmSync(root, { recursive: true, force: true });
  });

  /** What came of dropping these. */
  async function drop(...names) {
    const data = { items: [], files: names.map((name) => path.join(root, name)), dragOperationsMask: 1 };
    await page.evaluate(() => delete window.dropped);
    for (const type of ["dragEnter", "dragOver", "drop"]) await cdp.send("Input.dispatchDragEvent", { type, x: 40, y: 40, data });
    await page.waitForFunction(() => window.dropped);
    return page.evaluate(() => window.dropped);
  }

  /** What came of picking this folder. */
  async function pick(name) {
    await page.evaluate(() => delete window.picked);
    await page.setInputFiles("#folder", path.join(root, name));
    await page.waitForFunction(() => window.picked);
    return page.evaluate(() => window.picked);
  }

  /** What came of a source that is made in the page of `File`s by their paths. */
  const made = (make, files) =>
    page.evaluate(
      ([make, files]) => {
        const all = Object.entries(files).map(([path, base64]) => {
          const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
          return { path, file: new File([bytes], path.split("/").pop()) };
        });
        return window.said(new Function("all", `return (${make})(all)`)(all));
      },
      [make, Object.fromEntries(Object.entries(files).map(([name, bytes]) => [name, Buffer.from(bytes).toString("base64")]))],
    );

  for (const [how, bring] of [["dropped", drop], ["picked", pick]]) {
    test(`a folder, ${how}`, async () => assert.deepEqual(await bring("tiny"), { name: "tiny", warnings: [], drawn: 1 }));

    test(`a folder with the checkpoint's below it, ${how}`, async () => {
      assert.deepEqual(await bring("unpacked"), { name: "tiny sd", warnings: [], drawn: 1 });
    });

    test(`a folder with one file, ${how}`, async () => assert.deepEqual(await bring("one"), { name: "style", warnings: [], drawn: 1 }));

    test(`folders of which nothing can be taken, ${how}`, async () => {
      for (const [name, code, message] of [
        ["several", "invalid-argument", /source: picked files: expected a folder with model_index\.json, or one \.safetensors file, .*choose one: "several\/(a|sub\/b)\.safetensors", "several/],
        ["old", "unsupported", /only pickles, .*: old\/[ab]\.(ckpt|pt), old/],
        ["empty", "not-found", /found empty\/notes\.txt/],
      ]) {
        const { code: found, message: said } = await bring(name);
        assert.equal(found, code, said);
        assert.match(said, message);
      }
    });
  }

  test("one file of several that were dropped, and several without an index", async () => {
    assert.deepEqual(await drop("one/style.safetensors"), { name: "style", warnings: [], drawn: 1 });
    assert.deepEqual(await drop("one/style.safetensors", "one/preview.png"), { name: "style", warnings: [], drawn: 1 });
    const { code, message } = await drop("one/style.safetensors", "several/a.safetensors");
    assert.equal(code, "invalid-argument");
    assert.match(message, /choose one: "(style|a)\.safetensors", "/);
  });

  test("entries and handles as browsers give them, in lists too", async () => {
    // A folder's reader gives a few at a time.
    const entries = `(all) => {
      const folder = (name, fullPath, children) => ({
        isFile: false, isDirectory: true, name, fullPath,
        createReader: () => {
          const left = [...children];
          return { readEntries: (done) => setTimeout(() => done(left.splice(0, 2))) };
        },
      });
      const build = (prefix) => {
        const here = all.filter(({ path }) => path.startsWith(prefix));
        const names = [...new Set(here.map(({ path }) => path.slice(prefix.length).split("/")[0]))];
        return names.map((name) => {
          const found = here.find(({ path }) => path === prefix + name);
          if (!found) return folder(name, "/" + prefix + name, build(prefix + name + "/"));
          return { isFile: true, isDirectory: false, name, fullPath: "/" + prefix + name, file: (done) => done(found.file) };
        });
      };
      return WRAP(folder("tiny", "/tiny", build("")));
    }`;
    const drawn = { name: "tiny", warnings: [], drawn: 1 };
    assert.deepEqual(await made(entries.replace("WRAP", ""), TINY), drawn);
    assert.deepEqual(await made(entries.replace("WRAP", "Array.of"), TINY), drawn);
    const relative = `(all) => all.map(({ path, file }) => Object.defineProperty(file, "webkitRelativePath", { value: "tiny/" + path }))`;
    assert.deepEqual(await made(relative, TINY), drawn);
    const dotted = `(all) => all.map(({ path, file }) => ({ path: "./" + path, file }))`;
    assert.deepEqual(await made(dotted, TINY), { ...drawn, name: "picked files" });
    const handles = `(all) => all.map(({ path, file }) => ({ kind: "file", name: file.name, getFile: async () => file }))`;
    assert.equal((await made(handles, { "a.safetensors": wholeVocabulary(), "b.txt": "x" })).name, "a");
    const refusing = `(all) => [{ kind: "file", name: "gone.safetensors", getFile: async () => { throw new DOMException("it is gone", "NotFoundError"); } }]`;
    const { code, message } = await made(refusing, {});
    assert.deepEqual([code, message], ["not-found", 'source: "gone.safetensors" could not be read: it is gone']);
  });

  test("files without their paths are told apart from none", async () => {
    const flat = `(all) => all.map(({ file }) => file)`;
    const { code, message } = await made(flat, TINY);
    assert.equal(code, "invalid-argument");
    assert.match(message, /expected each path once, found "(config\.json|.*)" twice: pick the folder/);
    const part = await made(flat, { "model_index.json": TINY["model_index.json"], "merges.txt": "x" });
    assert.deepEqual([part.code, /scheduler_config\.json|config\.json/.test(part.message)], ["not-found", true], part.message);
    const old = await made(flat, { "a.ckpt": `${PICKLE}${"\0".repeat(100)}` });
    assert.equal(old.code, "unsupported");
    for (const [source, message] of [["new DataTransfer()", /a drop without any/], ["[]", /no files/], ["[7]", /source\[0\]: expected a File or \{ path, file \}, found 7/]]) {
      await api.refuses(`() => tintype.load(${source})`, "invalid-argument", message);
    }
  });

  test("nothing that was picked is kept", async () => assert.deepEqual(await page.evaluate(() => tintype.store.list()), []));

  test("nothing was logged as an error", () => assert.deepEqual(faults, []));
});
