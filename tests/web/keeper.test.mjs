// The worker that fetches and keeps files, against hosts that cut, stall, lie and change their minds.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { after, before, beforeEach, describe, test } from "node:test";
import { startPersistent } from "./harness.mjs";
import { noise, sha256, startHost } from "./keeper-host.mjs";

const MB = 1 << 20;

/** The calls of keeper-page.js, made from Node; what rejects there rejects here with the same `code`. */
function driver(page) {
  const call = async (name, ...args) => {
    const { value, error } = await page.evaluate(([name, args]) => window.call(name, args), [name, args]);
    if (error) throw Object.assign(new Error(error.message), { code: error.code });
    return value;
  };
  return new Proxy({}, { get: (_, name) => (...args) => call(name, ...args) });
}

/** A function that gives the bytes which the worker `name`, begun by `start`, holds: objects and buffers. */
async function watchHeap(context, page, name, start) {
  const cdp = await context.newCDPSession(page);
  const waiting = new Map();
  cdp.on("Target.receivedMessageFromTarget", ({ message }) => {
    const { id, result } = JSON.parse(message);
    waiting.get(id)?.(result);
  });
  let sessionId;
  cdp.on("Target.attachedToTarget", (attached) => {
    if (attached.targetInfo.url.endsWith(name)) ({ sessionId } = attached);
  });
  await cdp.send("Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
  await start();
  assert.ok(sessionId, `no worker ${name} was seen`);
  let last = 0;
  const ask = async (method) => {
    const id = ++last;
    const answer = new Promise((resolve) => waiting.set(id, resolve));
    await cdp.send("Target.sendMessageToTarget", { sessionId, message: JSON.stringify({ id, method }) });
    return answer;
  };
  return async () => {
    // What is garbage already depends on the browser's mood.
    await ask("HeapProfiler.collectGarbage");
    const { usedSize, backingStorageSize } = await ask("Runtime.getHeapUsage");
    return usedSize + backingStorageSize;
  };
}

describe("the keeper", { timeout: 600_000 }, () => {
  let host, profile, context, page, keeper;

  const open = async () => {
    const page = await context.newPage();
    await page.goto(`${host.url}blank.html`);
    await page.waitForFunction(() => window.call !== undefined);
    return { page, keeper: driver(page) };
  };
  const notices = () => page.evaluate(() => window.notices);
  const kept = async () => {
    const { blobs, partial } = await keeper.disk();
    return { blobs: Object.keys(blobs), partial: Object.keys(partial) };
  };
  const nothingKept = async () => assert.deepEqual(await kept(), { blobs: [], partial: [] });
  const one = async (url, expected) => (await keeper.load("x", [{ url, place: "unet/x", ...expected }])).files[0];
  const eventually = async (what, check) => {
    for (let tries = 0; tries < 100; tries++) {
      if (await check()) return;
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    assert.fail(`it never happened: ${what}`);
  };

  /** Runs `work` while keepers that are started run `script` before the module `name`. */
  const patched = async (name, script, work) => {
    const address = `**/tintype/keeper/${name}`;
    await page.route(address, async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: `${script}\n${await response.text()}` });
    });
    await work().finally(() => page.unroute(address));
  };

  before(async () => {
    host = await startHost();
    profile = mkdtempSync(path.join(tmpdir(), "keeper-"));
    context = await startPersistent(profile);
    ({ page, keeper } = await open());
  });
  after(async () => {
    await context?.close();
    await host?.close();
    rmSync(profile, { recursive: true, force: true });
  });
  beforeEach(async () => {
    host.shut(false);
    host.forget();
    assert.equal(await keeper.start({ stallTimeout: 500 }), undefined);
    await keeper.store("clear");
    await nothingKept();
  });

  test("stored once, it loads with its host shut, without a request", async () => {
    const bytes = noise(12 * MB + 5, 1);
    const url = host.put("once", { bytes, etag: '"1"' });
    const first = await one(url);
    assert.deepEqual(first, { size: bytes.length, stored: false, length: bytes.length, sha256: sha256(bytes), told: sha256(bytes) });
    assert.deepEqual((await keeper.disk()).blobs, { [sha256(bytes)]: bytes.length });
    host.shut(true);
    host.forget();
    await keeper.start();
    // With its hash from a catalogue, there is nothing to ask afterwards either.
    assert.deepEqual(await one(url, { sha256: sha256(bytes) }), { ...first, stored: true });
    assert.deepEqual(host.requests(), []);
    assert.deepEqual(await one(url), { ...first, stored: true });
    await eventually("a look for a newer version", () => host.requests().length > 0);
    assert.ok(host.requests().every(({ method }) => method === "HEAD"));
    assert.deepEqual(await notices(), []);
  });

  test("ten cuts at random places cost no more than 2 % of the bytes", async (t) => {
    const bytes = noise(40 * MB, 2);
    const cuts = Array.from({ length: 10 }, () => Math.floor((1 + Math.random() * 4) * MB * 0.7));
    t.diagnostic(`cut after ${cuts.join(", ")} bytes`);
    const url = host.put("cut", { bytes, etag: '"1"', cuts });
    const file = await one(url);
    assert.equal(file.sha256, sha256(bytes));
    const requests = host.requests("cut");
    assert.equal(requests.length, 11);
    assert.ok(requests.slice(1).every(({ status, range }) => status === 206 && /^bytes=\d+-$/.test(range)));
    assert.ok(host.sent("cut") <= 1.02 * bytes.length, `${host.sent("cut")} bytes for ${bytes.length}`);
    assert.deepEqual(await kept(), { blobs: [sha256(bytes)], partial: [] });
  });

  test("the same where the host knows no ranges, or hides all it can", async () => {
    const bytes = noise(8 * MB, 3);
    const whole = host.put("no-ranges", { bytes, ranges: false, cuts: [2 * MB, 5 * MB] });
    assert.equal((await one(whole)).sha256, sha256(bytes));
    assert.equal(host.requests("no-ranges").length, 3);
    const other = host.put("other-origin", { bytes: noise(8 * MB, 4), etag: '"1"', cuts: [MB, 3 * MB] }, { other: true });
    const file = await one(other);
    assert.equal(file.sha256, sha256(noise(8 * MB, 4)));
    assert.equal(file.size, undefined);
    assert.deepEqual(host.requests("other-origin").map(({ method }) => method), ["GET", "GET", "GET"]);
  });

  test("a host that does not end: that there is no more is asked, or learnt by fetching it again", async () => {
    const bytes = noise(3 * MB, 41);
    const url = host.put("endless", { bytes, length: false, stalls: [bytes.length] });
    assert.equal((await one(url)).sha256, sha256(bytes));
    assert.deepEqual(host.requests("endless").map(({ status, range }) => [status, range]), [[200, undefined], [416, `bytes=${bytes.length}-`]]);
    const other = noise(3 * MB, 42);
    const hidden = host.put("endless-other", { bytes: other, stalls: [other.length], length: false }, { other: true });
    assert.equal((await one(hidden)).sha256, sha256(other));
    assert.deepEqual(host.requests("endless-other").map(({ status }) => status), [200, 416, 200]);
  });

  test("a compressed answer's length is not the file's", async () => {
    const bytes = Buffer.alloc(3 * MB, "tintype");
    const url = host.put("compressed", { bytes: gzipSync(bytes), headers: { "content-encoding": "gzip" } });
    const { size, length, sha256: found } = await one(url);
    assert.deepEqual([size, length, found], [undefined, bytes.length, sha256(bytes)]);
    assert.equal((await one(url)).size, bytes.length);
  });

  test("a host that always breaks off is an error that says how far it came, and the next try goes on from there", async () => {
    const bytes = noise(4 * MB, 5);
    const url = host.put("breaks", { bytes, cuts: [MB, 0, 0, 0, 0] });
    await assert.rejects(one(url), { code: "network", message: new RegExp(`^unet/x: expected ${bytes.length} bytes, found ${MB} `) });
    host.forget();
    host.change("breaks", { cuts: [] });
    assert.equal((await one(url)).sha256, sha256(bytes));
    assert.deepEqual(host.requests("breaks").map(({ range }) => range), [`bytes=${MB}-`]);
  });

  test("a host without ranges may begin anew 8 times", async () => {
    const cuts = (count) => Array.from({ length: count }, (_, index) => (index + 1) * 100_000);
    const bytes = noise(2 * MB, 45);
    assert.equal((await one(host.put("anew", { bytes, ranges: false, cuts: cuts(8) }))).sha256, sha256(bytes));
    const url = host.put("anew-again", { bytes, ranges: false, cuts: cuts(9) });
    await assert.rejects(one(url), { code: "network", message: /^unet\/x: expected 2097152 bytes, found 900000 .* 8 times$/ });
    assert.equal(host.requests("anew-again").length, 10);
  });

  test("an answer that begins elsewhere is not taken for the rest", async () => {
    const url = host.put("early", { bytes: noise(2 * MB, 46), cuts: [MB], early: 100 });
    await assert.rejects(one(url), { code: "network", message: /expected bytes from 1048576 on, found them from 1048476 on/ });
    await nothingKept();
  });

  test("when one file fails for want of a network, those that came whole stay", async () => {
    const bytes = noise(MB, 47);
    const [whole, empty] = [host.put("whole", { bytes }), host.put("empty", { bytes: Buffer.alloc(0) })];
    const refused = host.put("refused", { bytes, statuses: [402] });
    await keeper.begin("some");
    for (const [url, place] of [[whole, "a"], [empty, "b"]]) {
      await keeper.open("some", url, place);
      await keeper.read(place);
    }
    await assert.rejects(keeper.open("some", refused, "c"), { code: "network" });
    await keeper.abort("some", "network");
    host.shut(true);
    const { files } = await keeper.load("some", [{ url: whole, place: "a" }, { url: empty, place: "b" }]);
    assert.deepEqual(files.map(({ stored, length, sha256 }) => [stored, length, sha256]), [[true, MB, sha256(bytes)], [true, 0, sha256("")]]);
  });

  test("silence is taken for a cut", async () => {
    const bytes = noise(6 * MB, 6);
    const url = host.put("stall", { bytes, mute: 1, stalls: [2 * MB, 0] });
    const started = performance.now();
    assert.equal((await one(url)).sha256, sha256(bytes));
    assert.ok(performance.now() - started > 1500 + 500 + 1500);
    const rest = `bytes=${2 * MB}-`;
    assert.deepEqual(host.requests("stall").map(({ range }) => range), [undefined, undefined, rest, rest]);
  });

  test("a load that is given up while its host keeps silent lets the file go", async () => {
    await keeper.start({ stallTimeout: 20_000 });
    const bytes = noise(MB, 43);
    const url = host.put("mute", { bytes, mute: 1 });
    await keeper.begin("mute");
    const opening = assert.rejects(keeper.open("mute", url, "unet/x"), { code: "cancelled", message: /^unet\/x: / });
    await eventually("a request", () => host.requests("mute").length === 1);
    await keeper.abort("mute", "cancelled");
    await opening;
    assert.equal((await one(url)).sha256, sha256(bytes));
    assert.deepEqual(await kept(), { blobs: [sha256(bytes)], partial: [] });
    // The same where the reader goes away without a word.
    await keeper.store("clear");
    host.change("mute", { mute: 1 });
    await keeper.begin("gone");
    page.evaluate(([url]) => void window.call("open", ["gone", url, "unet/x"]), [url]);
    await eventually("a request", () => host.requests("mute").length === 3);
    await keeper.disconnect();
    await keeper.connect();
    assert.equal((await one(url)).sha256, sha256(bytes));
    assert.deepEqual(await kept(), { blobs: [sha256(bytes)], partial: [] });
  });

  test("a load that is given up before its host was asked does not wait for it", async () => {
    await keeper.start({ stallTimeout: 20_000 });
    const url = host.put("hasty", { bytes: noise(MB, 50), mute: 1 });
    const { code, milliseconds } = await keeper.hasty("hasty", url);
    assert.equal(code, "cancelled");
    assert.ok(milliseconds < 5000, `it took ${milliseconds} ms`);
  });

  test("what is given up while the keeper dies is nobody's error", async () => assert.equal(await keeper.orphans(), 0));

  test("a file that was missing is looked for after a load, and is there for good once it came", async () => {
    const [config, bytes] = [noise(1000, 51), noise(MB, 52)];
    const [there, url] = [host.put("optional/there", { bytes: config }), host.put("optional/missing", {})];
    /** Loads, with the file if there is one; whether there is. */
    const load = async () => {
      await keeper.begin("optional");
      await keeper.open("optional", there, "there");
      await keeper.read("there");
      const found = await keeper.open("optional", url, "missing").then(
        async () => (await keeper.read("missing")).sha256,
        ({ code }) => code,
      );
      await keeper.commit("optional", { id: "optional", name: "optional", url: there });
      return found;
    };
    assert.equal(await load(), "not-found");
    host.put("optional/missing", { bytes });
    assert.equal(await load(), "not-found");
    await eventually("a notice", async () => (await notices()).length > 0);
    for (let time = 0; time < 3; time++) assert.equal(await load(), sha256(bytes), `load ${time}`);
  });

  test("two variants of one folder stay, and a newer version of a file takes the older one's place", async () => {
    const names = ["config", "half", "full"];
    const bytes = Object.fromEntries(names.map((name, index) => [name, noise(MB + index, 53 + index)]));
    const urls = Object.fromEntries(names.map((name) => [name, host.put(`variants/${name}`, { bytes: bytes[name], etag: '"1"' })]));
    const load = (variant) => keeper.load("v", [{ url: urls.config, place: "config" }, { url: urls[variant], place: variant }]);
    const hashes = () => names.map((name) => sha256(bytes[name])).sort();
    await load("half");
    await load("full");
    assert.deepEqual((await kept()).blobs.sort(), hashes());
    assert.deepEqual((await keeper.store("list")).map(({ files, complete }) => [files, complete]), [[3, true]]);
    const { files } = await load("half");
    assert.deepEqual(files.map(({ stored }) => stored), [true, true]);
    bytes.full = noise(MB + 2, 56);
    host.change("variants/full", { bytes: bytes.full, etag: '"2"' });
    await load("full");
    await eventually("a notice", async () => (await notices()).length > 0);
    await load("full");
    assert.deepEqual((await kept()).blobs.sort(), hashes());
    await keeper.store("remove", "v");
    await nothingKept();
  });

  test("what was skipped and is not stored is missing from the checkpoint", async () => {
    const [config, bytes] = [noise(1000, 57), noise(MB, 58)];
    const [there, url] = [host.put("skipped/there", { bytes: config }), host.put("skipped/weights", { bytes, delay: 100 })];
    const complete = async () => (await keeper.store("list")).map(({ files, complete }) => [files, complete]);
    const load = async (read) => {
      await keeper.begin("skipped");
      await keeper.open("skipped", there, "there");
      await keeper.read("there");
      await keeper.open("skipped", url, "weights", { sha256: sha256(bytes) });
      await (read ? keeper.read("weights") : keeper.skip("weights"));
      await keeper.commit("skipped", { id: "skipped", name: "skipped", url: there });
    };
    await load(false);
    assert.deepEqual(await complete(), [[2, false]]);
    host.change("skipped/weights", { delay: 0 });
    await load(true);
    assert.deepEqual(await complete(), [[2, true]]);
    await load(false);
    assert.deepEqual(await complete(), [[2, true]]);
  });

  test("an index of an earlier version is taken over", async () => {
    await keeper.stop();
    await keeper.ancient();
    assert.equal(await keeper.start(), undefined);
    assert.deepEqual(await notices(), []);
    assert.deepEqual(await keeper.store("list"), []);
    const bytes = noise(MB, 59);
    const url = host.put("after-ancient", { bytes });
    const { warnings } = await keeper.load("new", [{ url, place: "x" }]);
    assert.deepEqual(warnings, []);
    assert.deepEqual((await keeper.store("list")).map(({ url, complete }) => [url, complete]), [[url, true]]);
  });

  test("missing files and refusals", async () => {
    await assert.rejects(one(host.put("none", {})), { code: "not-found", message: /^unet\/x: .*404/ });
    await assert.rejects(one(host.put("gone", { statuses: [410] })), { code: "not-found", message: /410/ });
    await assert.rejects(one(host.put("secret", { statuses: [403] })), { code: "not-found", message: /^unet\/x: .*not for everyone.*403/ });
    await assert.rejects(one(host.put("dear", { statuses: [402] })), { code: "network", message: /expected status 200, found 402/ });
    await assert.rejects(one("http://127.0.0.1:9/x"), { code: "network", message: /^unet\/x: the request failed: .*127\.0\.0\.1:9/ });
    assert.equal(host.requests().length, 4);
    const bytes = noise(MB, 7);
    assert.equal((await one(host.put("busy", { bytes, statuses: [503, 429] }))).sha256, sha256(bytes));
    assert.deepEqual((await kept()).partial, []);
  });

  test("a wrong hash, a wrong length: refused, not kept, and the next try is clean", async () => {
    const bytes = noise(8 * MB, 8);
    const bad = Buffer.from(bytes);
    bad[5 * MB] ^= 1;
    const expected = { size: bytes.length, sha256: sha256(bytes) };
    const url = host.put("wrong", { bytes: bad });
    const wrong = { code: "corrupt", message: `unet/x: expected sha256 ${expected.sha256}, found ${sha256(bad)}` };
    await assert.rejects(one(url, expected), wrong);
    await nothingKept();
    host.change("wrong", { bytes: bytes.subarray(0, 5 * MB) });
    await assert.rejects(one(url, expected), { code: "corrupt", message: `unet/x: expected ${bytes.length} bytes, found ${5 * MB}` });
    for (const size of [7 * MB, 9 * MB]) {
      host.change("wrong", { bytes: noise(size, 8), length: false });
      await assert.rejects(one(url, expected), { code: "corrupt", message: /^unet\/x: expected 8388608 bytes, found \d+/ });
      await nothingKept();
    }
    host.change("wrong", { bytes });
    assert.equal((await one(url, expected)).stored, false);
    assert.equal((await one(url, expected)).stored, true);
  });

  test("an ETag that is a sha256 counts as the file's; a host that insists on other bytes is believed", async () => {
    const bytes = noise(MB, 9);
    const url = host.put("hub", { bytes, etag: `"${sha256(bytes)}"` });
    await keeper.begin("hub");
    assert.equal((await keeper.open("hub", url, "unet/x")).sha256, sha256(bytes));
    await keeper.abort("hub", "cancelled");
    host.change("hub", { etag: `"${"0".repeat(64)}"` });
    await keeper.store("clear");
    await assert.rejects(one(url), { code: "corrupt", message: /expected sha256 0{64} as its ETag says, found/ });
    await nothingKept();
    assert.equal((await one(url)).sha256, sha256(bytes));
  });

  test("what was seen first is expected again, unless the host says that it is new", async () => {
    const [old, other] = [noise(MB, 10), noise(MB, 11)];
    const url = host.put("first", { bytes: old, etag: '"1"' });
    await one(url);
    await keeper.lose(sha256(old));
    host.change("first", { bytes: other });
    await assert.rejects(one(url), { code: "corrupt", message: `unet/x: expected sha256 ${sha256(old)} as at first, found ${sha256(other)}` });
    host.change("first", { etag: '"2"' });
    assert.equal((await one(url)).sha256, sha256(other));
    assert.deepEqual((await kept()).blobs, [sha256(other)]);
  });

  test("a front page in place of a file is not kept when the load finds it corrupt", async () => {
    const html = Buffer.from("<!doctype html><title>Welcome</title>");
    // Said to be one, it is taken for what it is: that there is no file.
    await assert.rejects(one(host.put("front", { bytes: html, type: "text/html" })), { code: "not-found", message: /^unet\/x: .*page of HTML/ });
    await nothingKept();
    const typed = noise(1000, 49);
    assert.equal((await one(host.put("typed", { bytes: typed, type: "text/html; charset=utf-8" }))).sha256, sha256(typed));
    await keeper.store("clear");
    const url = host.put("page", { bytes: html, etag: '"1"' });
    await keeper.begin("html");
    await keeper.open("html", url, "model_index.json");
    await keeper.read("model_index.json");
    // The page is closed before the load could say what it thinks of it.
    await keeper.start();
    assert.equal((await kept()).blobs.length, 1);
    await keeper.begin("html");
    assert.equal((await keeper.open("html", url, "model_index.json")).stored, true);
    await keeper.read("model_index.json");
    await keeper.abort("html", "corrupt");
    await nothingKept();
    const bytes = noise(1000, 12);
    host.change("page", { bytes });
    assert.equal((await one(url)).sha256, sha256(bytes));
    // Neither is what came of a file that the load gave up when it saw that.
    const slow = host.put("page-slow", { bytes: noise(8 * MB, 48), delay: 2 }, { other: true });
    await keeper.begin("slow");
    await keeper.open("slow", slow, "unet/x");
    await keeper.read("unet/x", MB);
    await keeper.cancel("unet/x");
    await keeper.abort("slow", "corrupt");
    assert.deepEqual(await kept(), { blobs: [sha256(bytes)], partial: [] });
    // Once it has been part of a checkpoint, a failure of something else doesn't take it away.
    await keeper.begin("later");
    await keeper.open("later", url, "model_index.json");
    await keeper.read("model_index.json");
    await keeper.abort("later", "unsupported");
    assert.deepEqual((await kept()).blobs, [sha256(bytes)]);
    assert.equal((await one(url)).stored, true);
  });

  test("a stored file that is not as it was is refused once, then fetched", async () => {
    const bytes = noise(5 * MB, 13);
    const url = host.put("damaged", { bytes });
    for (const size of [3 * MB, 6 * MB]) {
      await one(url);
      await keeper.damage(sha256(bytes), { size });
      await assert.rejects(one(url), { code: "corrupt", message: `unet/x: expected ${bytes.length} bytes in the store, found ${size}` });
      await nothingKept();
    }
    assert.equal((await one(url)).stored, false);
    await keeper.lose(sha256(bytes));
    assert.equal((await one(url)).stored, false);
    // The right length but wrong bytes: the load notices, and the next one is clean.
    await keeper.damage(sha256(bytes), { flip: 4 * MB });
    await keeper.begin("flipped");
    await keeper.open("flipped", url, "unet/x");
    await keeper.read("unet/x");
    await keeper.abort("flipped", "corrupt");
    await nothingKept();
    assert.equal((await one(url)).sha256, sha256(bytes));
  });

  test("a page that is reloaded in the middle fetches the rest only", async () => {
    const bytes = noise(24 * MB, 14);
    const url = host.put("reload", { bytes, etag: '"1"', delay: 2 });
    await keeper.begin("reload");
    await keeper.open("reload", url, "unet/x");
    await keeper.read("unet/x", 10 * MB);
    await page.reload();
    await page.waitForFunction(() => window.call !== undefined);
    await keeper.start();
    const [there] = Object.values((await keeper.disk()).partial);
    assert.ok(there >= 10 * MB && there < bytes.length, `${there} bytes are kept`);
    host.forget();
    host.change("reload", { delay: 0 });
    assert.equal((await one(url)).sha256, sha256(bytes));
    assert.deepEqual(host.requests("reload").map(({ range, status }) => [range, status]), [[`bytes=${there}-`, 206]]);
    assert.equal(host.sent("reload") < bytes.length - there + MB, true);
    assert.deepEqual(await kept(), { blobs: [sha256(bytes)], partial: [] });
  });

  test("what is kept of an older version is not gone on from; nor is it where the host knows no ranges", async () => {
    const [old, bytes] = [noise(8 * MB, 15), noise(8 * MB, 16)];
    const url = host.put("older", { bytes: old, etag: '"1"', cuts: [3 * MB], statuses: [200, 403] });
    await assert.rejects(one(url), { code: "network" });
    assert.deepEqual(Object.values((await keeper.disk()).partial), [3 * MB]);
    host.change("older", { bytes, etag: '"2"', cuts: [] });
    host.forget();
    assert.equal((await one(url)).sha256, sha256(bytes));
    assert.deepEqual(host.requests("older").map(({ range }) => range), [`bytes=${3 * MB}-`, undefined]);

    const whole = host.put("older-whole", { bytes, ranges: false, cuts: [3 * MB], statuses: [200, 403] });
    await assert.rejects(one(whole), { code: "network" });
    host.change("older-whole", { cuts: [] });
    host.forget();
    assert.equal((await one(whole)).sha256, sha256(bytes));
    assert.equal(host.requests("older-whole").length, 1);
  });

  test("a file that changes while it is fetched is an error, and nothing of it is kept", async () => {
    const bytes = noise(8 * MB, 17);
    const url = host.put("changing", { bytes, etag: '"1"', cuts: [6 * MB], delay: 1 });
    await keeper.begin("changing");
    await keeper.open("changing", url, "unet/x");
    await keeper.read("unet/x", MB);
    host.change("changing", { bytes: noise(8 * MB, 18), etag: '"2"', delay: 0 });
    await assert.rejects(keeper.read("unet/x"), { code: "network", message: /unet\/x: the file changed on its host.* ETag 1, found 2/ });
    await nothingKept();
    assert.equal((await one(url)).sha256, sha256(noise(8 * MB, 18)));
  });

  test("a newer version is noticed after the load, and fetched the next time", async () => {
    const [old, bytes] = [noise(2 * MB, 19), noise(2 * MB + 1, 20)];
    const url = host.put("newer", { bytes: old, lastModified: "Mon, 01 Jan 2024 00:00:00 GMT" }, { other: true });
    await one(url);
    host.change("newer", { bytes, lastModified: "Tue, 02 Jan 2024 00:00:00 GMT" });
    assert.equal((await one(url)).sha256, sha256(old));
    await eventually("a notice", async () => (await notices()).length > 0);
    const [{ kind, message }] = await notices();
    assert.equal(kind, "store");
    assert.match(message, /^unet\/x: changed on its host.*02 Jan 2024/);
    // Out of reach, the older one is better than none.
    host.shut(true);
    const { files, warnings } = await keeper.load("x", [{ url, place: "unet/x" }]);
    assert.deepEqual([files[0].stored, files[0].sha256], [true, sha256(old)]);
    assert.match(warnings[0], /^unet\/x: an older version from the store is used: /);
    host.shut(false);
    assert.equal((await one(url)).sha256, sha256(bytes));
    // It takes its older version's place.
    assert.deepEqual((await kept()).blobs, [sha256(bytes)]);
  });

  test("two addresses with the same bytes are one file, and one is enough to know the other by its hash", async () => {
    const bytes = noise(3 * MB, 21);
    const hash = sha256(bytes);
    const [a, b, c] = ["a", "b", "c"].map((name) => host.put(`same-${name}`, { bytes }));
    await keeper.load("a", [{ url: a, place: "vae/x" }]);
    await keeper.load("b", [{ url: b, place: "vae/x" }]);
    assert.deepEqual(await kept(), { blobs: [hash], partial: [] });
    const { files } = await keeper.load("c", [{ url: c, place: "vae/x", sha256: hash.toUpperCase(), size: bytes.length }]);
    assert.equal(files[0].stored, true);
    assert.deepEqual(host.requests("same-c"), []);
    assert.deepEqual(await keeper.store("sizes"), {
      bytes: bytes.length,
      blobs: 1,
      partialBytes: 0,
      checkpoints: { a: bytes.length, b: bytes.length, c: bytes.length },
    });
    await keeper.store("remove", "a");
    await keeper.store("remove", b);
    assert.deepEqual((await kept()).blobs, [hash]);
    host.shut(true);
    assert.equal((await one(c)).stored, true);
  });

  test("list, sizes, remove, verify, quota", async () => {
    const [x, y, shared] = [noise(2 * MB, 22), noise(3 * MB, 23), noise(MB, 24)];
    const urls = { x: host.put("x", { bytes: x }), y: host.put("y", { bytes: y }), shared: host.put("shared", { bytes: shared }) };
    await keeper.load("soft", [{ url: urls.x, place: "unet" }, { url: urls.shared, place: "vae" }]);
    await keeper.load("flat", [{ url: urls.y, place: "unet" }, { url: urls.shared, place: "vae" }]);
    const list = await keeper.store("list");
    assert.deepEqual(
      list.map(({ lastUsed, ...rest }) => ({ ...rest, recent: Date.now() - Date.parse(lastUsed) < 60_000 })),
      [
        { id: "flat", name: "flat", url: urls.y, bytes: 4 * MB, files: 2, complete: true, recent: true },
        { id: "soft", name: "soft", url: urls.x, bytes: 3 * MB, files: 2, complete: true, recent: true },
      ],
    );
    const sizes = { bytes: 6 * MB, blobs: 3, partialBytes: 0, checkpoints: { soft: 3 * MB, flat: 4 * MB } };
    assert.deepEqual(await keeper.store("sizes"), sizes);
    const { events, ...verified } = await keeper.store("verify");
    assert.deepEqual(verified, { files: 3, bytes: 6 * MB, bad: [] });
    assert.equal(events.at(-1).loadedBytes, 6 * MB);
    await assert.rejects(keeper.stopped("verify"), { code: "cancelled", message: "it was cancelled" });

    await keeper.damage(sha256(y), { flip: 1000 });
    const damaged = Buffer.from(y);
    damaged[1000] ^= 1;
    const { bad } = await keeper.store("verify");
    assert.deepEqual(bad, [{ url: urls.y, expected: sha256(y), found: sha256(damaged) }]);
    assert.deepEqual(Object.fromEntries((await keeper.store("list")).map(({ id, complete }) => [id, complete])), { flat: false, soft: true });

    await keeper.store("remove", "flat");
    assert.deepEqual((await kept()).blobs.sort(), [sha256(x), sha256(shared)].sort());
    await assert.rejects(keeper.store("remove", "flat"), { code: "not-found", message: /"flat"/ });
    await keeper.store("remove", urls.x);
    await nothingKept();
    assert.deepEqual(await keeper.store("list"), []);
    const { usage, quota, persisted } = await keeper.store("quota");
    assert.ok(usage >= 0 && quota > usage && persisted === false);
    await assert.rejects(keeper.store("burn"), { code: "invalid-argument", message: /burn/ });
  });

  test("what is kept of a file is not gone on from for ever if nothing would show that it changed", async () => {
    const bytes = noise(4 * MB, 49);
    for (const [name, what, status] of [["undated", {}, 200], ["dated", { lastModified: "Mon, 01 Jan 2024 00:00:00 GMT" }, 206]]) {
      const url = host.put(name, { ...what, bytes, cuts: [MB], statuses: [200, 403] }, { other: true });
      await keeper.start();
      await assert.rejects(one(url), { code: "network" });
      host.forget();
      await patched("store.js", "const now = Date.now; Date.now = () => now() + 25 * 3600 * 1000;", async () => {
        await keeper.start();
        assert.equal((await one(url)).sha256, sha256(bytes));
      });
      assert.deepEqual(host.requests(name).map(({ status }) => status), [status]);
      await keeper.store("clear");
    }
  });

  test("what was begun and never loaded can be removed by its address", async () => {
    const url = host.put("folder/begun", { bytes: noise(4 * MB, 25), cuts: [MB], statuses: [200, 403] });
    await assert.rejects(one(url), { code: "network" });
    assert.equal((await keeper.store("sizes")).partialBytes, MB);
    await keeper.store("remove", `${host.url}files/folder/`);
    await nothingKept();
  });

  describe("with little room", () => {
    let cdp;
    const quota = async (bytes) => {
      const { usage } = await keeper.store("quota");
      await cdp.send("Storage.overrideQuotaForOrigin", { origin: new URL(host.url).origin, quotaSize: usage + bytes });
    };
    before(async () => (cdp = await context.newCDPSession(page)));
    after(() => cdp.send("Storage.overrideQuotaForOrigin", { origin: new URL(host.url).origin }));
    beforeEach(() => cdp.send("Storage.overrideQuotaForOrigin", { origin: new URL(host.url).origin }));

    test("a file that does not fit is passed on all the same, and it says so", async () => {
      await quota(8 * MB);
      const bytes = noise(16 * MB, 26);
      const known = await keeper.load("big", [{ url: host.put("big", { bytes }), place: "unet/big" }]);
      assert.equal(known.files[0].sha256, sha256(bytes));
      assert.equal(known.warnings.length, 1);
      assert.match(known.warnings[0], /^unet\/big: not stored: .* was used up after \d\.\d MB of 16\.8 MB$/);
      assert.deepEqual(await notices(), [{ kind: "quota", message: known.warnings[0] }]);
      await nothingKept();
      // The same where its size is not known beforehand.
      const unknown = await keeper.load("big", [{ url: host.put("big-other", { bytes }, { other: true }), place: "unet/other" }]);
      assert.equal(unknown.files[0].sha256, sha256(bytes));
      assert.match(unknown.warnings[0], /^unet\/other: not stored: .* was used up after \d\.\d MB$/);
      assert.deepEqual((await notices()).map(({ kind }) => kind), ["quota", "quota"]);
      await nothingKept();
      assert.deepEqual(await keeper.store("list"), []);
    });

    test("where the browser says beforehand that it does not fit, nothing is written", async () => {
      // Chromium tells pages of 10 GB, whatever there is.
      const told = "navigator.storage.estimate = async () => ({ usage: 1e6, quota: 6e6 });";
      await patched("store.js", told, async () => {
        await keeper.start();
        const bytes = noise(8 * MB, 28);
        const { files, warnings } = await keeper.load("told", [{ url: host.put("told", { bytes }), place: "unet/told" }]);
        assert.equal(files[0].sha256, sha256(bytes));
        assert.deepEqual(warnings, ["unet/told: not stored: 8.4 MB do not fit into the 5.0 MB that this site may still keep"]);
        await nothingKept();
        // Each counts the other.
        const pair = await keeper.load("pair", ["a", "b"].map((place) => ({ url: host.put(place, { bytes: noise(3 * MB, 29), delay: 2 }), place })));
        assert.equal(pair.warnings.length, 1);
        assert.equal((await kept()).blobs.length, 1);
      });
    });

    test("what is kept of a file that no longer fits is read, then given up", async () => {
      const bytes = noise(16 * MB, 27);
      const url = host.put("half", { bytes, etag: '"1"', cuts: [10 * MB], statuses: [200, 403] });
      await assert.rejects(one(url), { code: "network" });
      await quota(2 * MB);
      host.change("half", { cuts: [] });
      host.forget();
      const { files, warnings } = await keeper.load("half", [{ url, place: "unet/half" }]);
      assert.equal(files[0].sha256, sha256(bytes));
      assert.match(warnings[0], /^unet\/half: not stored/);
      assert.equal(host.requests("half").length, 1);
      await nothingKept();
    });

    test("with evict, what was used longest ago gives way, but nothing of the load itself", async () => {
      await keeper.start({ store: "evict" });
      const names = ["oldest", "older", "mine"];
      const bytes = Object.fromEntries(names.map((name, index) => [name, noise(6 * MB, 30 + index)]));
      const urls = Object.fromEntries(names.map((name) => [name, host.put(name, { bytes: bytes[name] })]));
      for (const name of names) await keeper.load(name, [{ url: urls[name], place: name }]);
      // "oldest" was used last now, and "older" longest ago; but that is the one being loaded.
      await keeper.load("oldest", [{ url: urls.oldest, place: "oldest" }]);
      // Chromium counts a growing file as somewhat larger than it is.
      await quota(4 * MB);
      const added = noise(6.5 * MB, 33);
      const { warnings, files } = await keeper.load("older", [
        { url: urls.older, place: "older" },
        { url: host.put("added", { bytes: added }), place: "added" },
      ]);
      assert.deepEqual(warnings, []);
      assert.equal(files[1].sha256, sha256(added));
      assert.deepEqual((await keeper.store("list")).map(({ id, complete }) => [id, complete]), [["older", true], ["oldest", true]]);
      assert.deepEqual(await notices(), [{ kind: "quota", message: "to make room, the store let go of mine" }]);
      // Not even all of it would do.
      const huge = noise(30 * MB, 34);
      const big = await keeper.load("huge", [{ url: host.put("huge", { bytes: huge }), place: "huge" }]);
      assert.match(big.warnings[0], /^huge: not stored/);
      assert.deepEqual((await keeper.store("list")).map(({ id }) => id), ["older", "oldest"]);
    });
  });

  test("two pages at once: both get it, it is kept once", async () => {
    const bytes = noise(16 * MB, 40);
    const url = host.put("two", { bytes, etag: '"1"', delay: 1 });
    const second = await open();
    await second.keeper.start();
    const loads = await Promise.all([one(url), second.keeper.load("x", [{ url, place: "unet/x" }])]);
    assert.equal(loads[0].sha256, sha256(bytes));
    assert.equal(loads[1].files[0].sha256, sha256(bytes));
    assert.deepEqual(await kept(), { blobs: [sha256(bytes)], partial: [] });
    assert.deepEqual([loads[1].warnings, await notices()], [[], []]);
    assert.deepEqual((await keeper.store("list")).map(({ complete }) => complete), [true]);
    // Both read it from the store, too, at the same time.
    const again = await Promise.all([one(url), second.keeper.load("x", [{ url, place: "unet/x" }])]);
    assert.deepEqual([again[0].stored, again[1].files[0].stored], [true, true]);
    await second.page.close();
  });

  test("where the browser lets one reader in at a time, the second one reads too", async () => {
    // More than is on its way at once: the first reader holds it.
    const bytes = noise(24 * MB, 44);
    const url = host.put("one-reader", { bytes });
    await one(url);
    const exclusive = `const make = FileSystemFileHandle.prototype.createSyncAccessHandle;
      FileSystemFileHandle.prototype.createSyncAccessHandle = function () { return make.call(this); };`;
    await patched("folder.js", exclusive, async () => {
      await keeper.start();
      await keeper.begin("first");
      await keeper.open("first", url, "held");
      await keeper.read("held", MB);
      const { stored, sha256: found } = await one(url);
      assert.deepEqual([stored, found], [true, sha256(bytes)]);
      assert.equal((await keeper.read("held")).sha256, sha256(bytes));
    });
  });

  test("it holds its lock while it lives; what it can't start with is fatal", async () => {
    await keeper.start({ lock: "alive" });
    const held = () => page.evaluate(async () => (await navigator.locks.query()).held.map(({ name }) => name));
    assert.ok((await held()).includes("alive"));
    await keeper.stop();
    await eventually("the end of the lock", async () => !(await held()).includes("alive"));
    await patched("hash.js", "throw new Error('no wasm here');", async () => {
      const worker = page.evaluate(
        () => new Promise((resolve) => (new Worker("/tintype/keeper.js", { type: "module" }).onerror = ({ message }) => resolve(message))),
      );
      assert.match(await worker, /no wasm here/);
    });
    assert.match(await keeper.start({ module: "none" }), /^the keeper could not start: /);
  });

  test("several files at once; one that is cancelled goes on from where it was", async () => {
    const list = Array.from({ length: 6 }, (_, index) => {
      const bytes = noise(3 * MB + index, 50 + index);
      return { bytes, url: host.put(`several-${index}`, { bytes }), place: `file ${index}` };
    });
    const { files } = await keeper.load("several", list.map(({ url, place }) => ({ url, place })));
    assert.deepEqual(files.map(({ sha256 }) => sha256), list.map(({ bytes }) => sha256(bytes)));

    const bytes = noise(32 * MB, 60);
    const url = host.put("cancelled", { bytes, etag: '"1"', delay: 1 });
    await keeper.begin("c");
    await keeper.open("c", url, "unet/x");
    await keeper.read("unet/x", 4 * MB);
    const reading = assert.rejects(keeper.read("unet/x"), { code: "cancelled", message: "unet/x: the load was cancelled" });
    await keeper.cancel("unet/x");
    await reading;
    await keeper.abort("c", "cancelled");
    const [there] = Object.values((await keeper.disk()).partial);
    assert.ok(there >= 4 * MB && there < 32 * MB);
    host.forget();
    host.change("cancelled", { delay: 0 });
    assert.equal((await one(url)).sha256, sha256(bytes));
    assert.deepEqual(host.requests("cancelled").map(({ range }) => range), [`bytes=${there}-`]);
  });

  test("a reader that stops reading stops the host; one that dies lets its file go", async () => {
    const bytes = noise(64 * MB, 61);
    const url = host.put("slow", { bytes, etag: '"1"' });
    await keeper.begin("slow");
    await keeper.open("slow", url, "unet/x");
    let before;
    await eventually("a pause", async () => {
      const [now] = Object.values((await keeper.disk()).partial);
      const same = now === before && now > 0;
      before = now;
      return same;
    });
    assert.ok(before >= 7 * MB && before <= 10 * MB, `${before} bytes were asked for`);
    await keeper.connect();
    host.forget();
    assert.equal((await one(url)).sha256, sha256(bytes));
    assert.deepEqual(host.requests("slow").map(({ range }) => range), [`bytes=${before}-`]);
    assert.deepEqual(await kept(), { blobs: [sha256(bytes)], partial: [] });
  });

  test("a large file is never in memory as a whole; how fast a stored one is read (printed, not judged)", async (t) => {
    const heap = await watchHeap(context, page, "keeper.js", () => keeper.start());
    const bytes = noise(256 * MB, 80);
    const url = host.put("fast", { bytes });
    const started = performance.now();
    await keeper.begin("fast");
    await keeper.open("fast", url, "unet/x");
    let done = false;
    const skimmed = keeper.skim("unet/x").finally(() => (done = true));
    let peak = 0;
    while (!done) peak = Math.max(peak, await heap());
    assert.equal(await skimmed, sha256(bytes));
    t.diagnostic(`the keeper's memory: ${(peak / MB).toFixed(1)} MiB`);
    assert.ok(peak > MB && peak < 64 * MB);
    t.diagnostic(`fetched, hashed and stored: ${Math.round(256 / ((performance.now() - started) / 1000))} MiB/s`);
    await keeper.commit("fast", { id: "fast", name: "fast", url });
    const { stored, raw } = await keeper.speed(url, sha256(bytes));
    const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
    const shown = (list) => `${list.map(Math.round).join(", ")} MiB/s`;
    t.diagnostic(`through files.js: ${shown(stored)}`);
    t.diagnostic(`a raw loop:       ${shown(raw)}; ratio of the medians ${(median(stored) / median(raw)).toFixed(2)}`);
  });

  test("with the store off, or without a place for files, all comes from the network and it says so once", async () => {
    const bytes = noise(2 * MB, 70);
    const url = host.put("off", { bytes, cuts: [MB] });
    await keeper.start({ store: "off" });
    for (let time = 0; time < 2; time++) {
      const { files, warnings } = await keeper.load("off", [{ url, place: "a" }, { url, place: "b" }]);
      assert.deepEqual(files.map(({ stored, sha256 }) => [stored, sha256]), Array(2).fill([false, sha256(bytes)]));
      assert.deepEqual(warnings, ["files are not stored: the store is off"]);
    }
    assert.deepEqual(await notices(), [{ kind: "store", message: "files are not stored: the store is off" }]);
    await nothingKept();

    // As a browser without OPFS, or in a private window.
    const broken = "navigator.storage.getDirectory = async () => { throw new DOMException('private window', 'SecurityError'); };";
    await patched("store.js", broken, async () => {
      await keeper.start();
      const { files, warnings } = await keeper.load("none", [{ url, place: "a" }]);
      assert.equal(files[0].sha256, sha256(bytes));
      assert.deepEqual(warnings, ["files are not stored: private window"]);
      assert.deepEqual(await keeper.store("list"), []);
      assert.deepEqual(await keeper.store("verify"), { files: 0, bytes: 0, bad: [], events: [] });
      await assert.rejects(keeper.store("remove", "x"), { code: "not-found" });
      assert.equal((await notices()).length, 1);
    });
  });
});
