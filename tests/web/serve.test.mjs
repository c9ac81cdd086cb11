// The static server that `build.sh run` and the other tests stand on.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { listen, staticFiles } from "../../tools/serve.mjs";

describe("the static server", () => {
  let folder, server;

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), "serve-"));
    mkdirSync(path.join(folder, "site/sub"), { recursive: true });
    writeFileSync(path.join(folder, "secret.txt"), "secret");
    writeFileSync(path.join(folder, "site/sub/index.html"), "<p>sub");
    writeFileSync(path.join(folder, "site/a.wasm"), "0123456789");
    writeFileSync(path.join(folder, "site/empty.js"), "");
    server = await listen(staticFiles(path.join(folder, "site")));
  });
  after(async () => {
    await server.close();
    rmSync(folder, { recursive: true });
  });

  const get = (name, headers = {}) => fetch(new URL(name, server.url), { headers, redirect: "manual" });
  /** As `fetch` would not send it: with its dots. */
  const raw = (name) =>
    new Promise((resolve, reject) => {
      const { hostname, port } = new URL(server.url);
      request({ hostname, port, path: name }, (response) => resolve(response.resume().statusCode)).on("error", reject).end();
    });

  test("types, sizes, and folders", async () => {
    const wasm = await get("a.wasm");
    assert.deepEqual([wasm.status, wasm.headers.get("content-type"), await wasm.text()], [200, "application/wasm", "0123456789"]);
    const script = await get("empty.js");
    assert.match(script.headers.get("content-type"), /^text\/javascript/);
    assert.equal(await script.text(), "");
    assert.equal(await (await get("sub/")).text(), "<p>sub");
    const bare = await get("sub");
    assert.deepEqual([bare.status, bare.headers.get("location")], [301, "/sub/"]);
    assert.equal((await get("none")).status, 404);
  });

  test("ranges", async () => {
    const cases = { "bytes=2-4": "234", "bytes=7-": "789", "bytes=-3": "789", "bytes=5-99": "56789", "bytes=-99": "0123456789" };
    for (const [range, body] of Object.entries(cases)) {
      const part = await get("a.wasm", { range });
      assert.deepEqual([part.status, await part.text()], [206, body], range);
    }
    assert.equal((await get("a.wasm", { range: "bytes=2-4" })).headers.get("content-range"), "bytes 2-4/10");
    const beyond = await get("a.wasm", { range: "bytes=10-" });
    assert.deepEqual([beyond.status, beyond.headers.get("content-range")], [416, "bytes */10"]);
    for (const range of ["bytes=4-2", "bytes=0-1,3-4", "lines=1-2"]) assert.equal((await get("a.wasm", { range })).status, 200, range);
  });

  test("what is known is not sent again, and a range of an older version isn't given", async () => {
    const etag = (await get("a.wasm")).headers.get("etag");
    assert.equal((await get("a.wasm", { "if-none-match": etag })).status, 304);
    assert.equal((await get("a.wasm", { range: "bytes=1-2", "if-range": etag })).status, 206);
    assert.equal((await get("a.wasm", { range: "bytes=1-2", "if-range": '"other"' })).status, 200);
  });

  test("nothing outside the folder, and only reading", async () => {
    for (const name of ["/../secret.txt", "/%2e%2e/secret.txt", "/sub/..%2f..%2fsecret.txt", "/%00", "/%"]) {
      assert.equal(await raw(name), 404, name);
    }
    assert.equal((await fetch(server.url, { method: "POST" })).status, 405);
  });
});
