// A host of large files for the keeper's tests: generated, counted, and as bad as each test wants it.
import { createCipheriv, createHash } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { listen, parseRange, staticFiles } from "../../tools/serve.mjs";
import { DIST } from "./server.mjs";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const BLANK = `<!doctype html><meta charset="utf-8"><title>blank</title><script type="module" src="/test/keeper-page.js"></script>`;
const PIECE = 64 << 10;
/** What a busy machine's browser takes to read what lies ready, and more. */
const ARRIVES_MS = 250;

/** `size` bytes that look random and are the same for the same `seed`. */
export function noise(size, seed = 0) {
  const cipher = createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16));
  return cipher.update(Buffer.alloc(size));
}

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

const taken = (response) =>
  new Promise((resolve) => {
    const go = () => {
      response.off("drain", go).off("close", go);
      resolve();
    };
    response.on("drain", go).on("close", go);
  });

/** Resolves when all that was written is the system's to deliver. */
const flushed = (response) => new Promise((resolve) => response.write("", resolve));

/** Writes `bytes` piece by piece, no faster than they are taken. */
async function write(response, bytes, delay) {
  for (let at = 0; at < bytes.length && !response.destroyed; at += PIECE) {
    if (!response.write(bytes.subarray(at, at + PIECE))) await taken(response);
    if (delay) await pause(delay);
  }
}

/** Serves dist/, the tests' scripts, and under /files/ what `put` was given. `other` is the same as another origin. */
export async function startHost() {
  const dist = staticFiles(DIST);
  const scripts = staticFiles(HERE);
  const files = new Map();
  const log = [];
  let down = false;

  /**
   * What a file may have: bytes, etag, lastModified, type; ranges (default true); length (default true); cuts: bytes after
   * which each request's connection breaks; stalls: the same, with silence; mute: requests without an answer; delay: milliseconds between pieces; statuses:
   * of the next requests; early: how many bytes before the asked ones a range begins; headers.
   */
  async function file(request, response, name) {
    const entry = { name, method: request.method, range: request.headers.range, sent: 0 };
    log.push(entry);
    if (down) return response.destroy();
    const what = files.get(name) ?? {};
    if (what.mute > 0) return void what.mute--;
    const { bytes, etag, lastModified, type, ranges = true, length = true, cuts, stalls, delay, statuses, early = 0, headers: more } = what;
    const headers = { "access-control-allow-origin": "*", ...more };
    const status = statuses?.shift() ?? (bytes ? 200 : 404);
    entry.status = status;
    if (status !== 200) return response.writeHead(status, headers).end();
    const range = ranges ? parseRange(request.headers.range, bytes.length) : null;
    if (range === "unsatisfiable") {
      entry.status = 416;
      return response.writeHead(416, { ...headers, "content-range": `bytes */${bytes.length}` }).end();
    }
    const [asked, last] = range ?? [0, bytes.length - 1];
    const first = Math.max(0, asked - early);
    const body = bytes.subarray(first, last + 1);
    entry.status = range ? 206 : 200;
    if (range) headers["content-range"] = `bytes ${first}-${last}/${bytes.length}`;
    if (etag) headers.etag = etag;
    if (lastModified) headers["last-modified"] = lastModified;
    if (length) headers["content-length"] = body.length;
    response.writeHead(entry.status, { "content-type": type ?? "application/octet-stream", ...headers });
    if (request.method === "HEAD") return response.end();
    response.flushHeaders();
    const stall = stalls?.shift();
    const cut = stall ?? cuts?.shift();
    const part = cut === undefined ? body : body.subarray(0, cut);
    const { socket } = request;
    const before = socket.bytesWritten;
    response.on("close", () => (entry.sent = socket.bytesWritten - before));
    await write(response, part, delay);
    if (stall !== undefined) return;
    if (part.length === body.length) return response.end();
    await flushed(response);
    // Browsers drop what a page has not read yet when a body breaks off, however politely: time to read it.
    await pause(ARRIVES_MS);
    response.destroy();
  }

  const handler = (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname.startsWith("/files/")) return file(request, response, pathname.slice("/files/".length));
    if (pathname === "/blank.html") return response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(BLANK);
    if (pathname.startsWith("/test/")) {
      request.url = pathname.slice("/test".length);
      return scripts(request, response);
    }
    return dist(request, response);
  };
  const server = await listen(handler);
  const second = await listen(handler);

  return {
    url: server.url,
    close: () => Promise.all([server.close(), second.close()]),
    /** A file's address; `other`: on another origin, whose headers are mostly hidden. */
    put(name, what, { other = false } = {}) {
      files.set(name, what);
      return `${other ? second.url : server.url}files/${name}`;
    },
    change: (name, what) => Object.assign(files.get(name), what),
    requests: (name) => log.filter((entry) => !name || entry.name === name),
    sent: (name) => log.filter((entry) => entry.name === name).reduce((sum, { sent }) => sum + sent, 0),
    forget: () => log.splice(0),
    shut: (value) => (down = value),
  };
}
