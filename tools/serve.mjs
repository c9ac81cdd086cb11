// A small static server: right MIME types, ranges, validators, and the headers by which a page may use several threads. It is for
// trying a page here, so it listens on loopback.
//   node tools/serve.mjs FOLDER [--port 8080] [--host 127.0.0.1] [--plain]
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const TYPES = {
  css: "text/css; charset=utf-8",
  html: "text/html; charset=utf-8",
  ico: "image/x-icon",
  jpg: "image/jpeg",
  js: "text/javascript; charset=utf-8",
  json: "application/json; charset=utf-8",
  map: "application/json; charset=utf-8",
  md: "text/markdown; charset=utf-8",
  mjs: "text/javascript; charset=utf-8",
  png: "image/png",
  svg: "image/svg+xml",
  ts: "text/plain; charset=utf-8",
  txt: "text/plain; charset=utf-8",
  wasm: "application/wasm",
  webmanifest: "application/manifest+json",
  webp: "image/webp",
};

/** The file that a URL's path names inside `root`, or null where it names none or tries to leave it. */
async function locate(root, url) {
  let name;
  try {
    name = decodeURIComponent(new URL(url, "http://localhost").pathname);
  } catch {
    return null;
  }
  const base = path.resolve(root);
  let file = path.resolve(base, `.${path.posix.normalize(name)}`);
  if (name.includes("\0") || (file !== base && !file.startsWith(base + path.sep))) return null;
  let info = await stat(file).catch(() => null);
  if (info?.isDirectory()) {
    // Without its slash, a folder's relative links would point beside it.
    if (!name.endsWith("/")) return { redirect: `${new URL(url, "http://localhost").pathname}/` };
    file = path.join(file, "index.html");
    info = await stat(file).catch(() => null);
  }
  return info?.isFile() ? { file, info } : null;
}

/** One `bytes=` range of a body of `size` bytes: [first, last], null for "send all", "unsatisfiable" for a 416. */
export function parseRange(header, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (!match || (match[1] === "" && match[2] === "")) return null;
  const suffix = match[1] === "";
  const first = suffix ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const last = suffix || match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (!suffix && match[2] !== "" && Number(match[2]) < first) return null;
  return first > last ? "unsatisfiable" : [first, last];
}

/** What isolates a page from other origins, so that its workers may share memory. Pictures from elsewhere are still shown, without cookies. */
export const ISOLATION = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "credentialless",
};

/** A request handler for the files under `root`; `more` are headers of each answer. */
export function staticFiles(root, more = {}) {
  return async (request, response) => {
    const plain = (status, text, headers = {}) => {
      response.writeHead(status, { ...more, "content-type": "text/plain; charset=utf-8", ...headers });
      response.end(request.method === "HEAD" ? undefined : `${text}\n`);
    };
    if (request.method !== "GET" && request.method !== "HEAD") {
      return plain(405, "only GET and HEAD", { allow: "GET, HEAD" });
    }
    const found = await locate(root, request.url);
    if (!found) return plain(404, `no such file: ${request.url}`);
    if (found.redirect) return plain(301, found.redirect, { location: found.redirect });

    const { file, info } = found;
    const etag = `"${info.size.toString(16)}-${Math.trunc(info.mtimeMs).toString(16)}"`;
    const headers = {
      ...more,
      "accept-ranges": "bytes",
      "cache-control": "no-cache",
      "content-type": TYPES[path.extname(file).slice(1).toLowerCase()] ?? "application/octet-stream",
      "last-modified": info.mtime.toUTCString(),
      etag,
    };
    if (request.headers["if-none-match"] === etag) {
      response.writeHead(304, headers);
      return response.end();
    }
    const fresh = [undefined, etag, headers["last-modified"]].includes(request.headers["if-range"]);
    const range = fresh ? parseRange(request.headers.range, info.size) : null;
    if (range === "unsatisfiable") return plain(416, "no such range", { "content-range": `bytes */${info.size}` });
    const [first, last] = range ?? [0, info.size - 1];
    headers["content-length"] = last - first + 1;
    if (range) headers["content-range"] = `bytes ${first}-${last}/${info.size}`;
    response.writeHead(range ? 206 : 200, headers);
    if (request.method === "HEAD" || info.size === 0) return response.end();
    createReadStream(file, { start: first, end: last }).on("error", () => response.destroy()).pipe(response);
  };
}

/** Listens with `handler`; port 0 takes a free one. Gives the address and how to stop. */
export async function listen(handler, { port = 0, host = "127.0.0.1" } = {}) {
  const server = createServer((request, response) => {
    Promise.resolve(handler(request, response)).catch((error) => {
      console.error(error);
      response.destroy();
    });
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  const shown = host.includes(":") ? `[${host}]` : host;
  return {
    url: `http://${shown}:${server.address().port}/`,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      port: { type: "string", default: "8080" },
      host: { type: "string", default: "127.0.0.1" },
      // Without those headers, as most hosts are.
      plain: { type: "boolean", default: false },
    },
  });
  const root = positionals[0] ?? ".";
  try {
    const { url } = await listen(staticFiles(root, values.plain ? {} : ISOLATION), { port: Number(values.port), host: values.host });
    console.log(`Tintype is at ${url}  (Ctrl-C stops it)`);
  } catch (error) {
    console.error(`can't serve ${root} on ${values.host}:${values.port}: ${error.message}`);
    process.exitCode = 1;
  }
}
