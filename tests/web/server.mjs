// The tests' own server: dist/ as the plain static server gives it, and around it whatever a bad host might answer.
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { ISOLATION, listen, parseRange, staticFiles } from "../../tools/serve.mjs";

const HERE = path.dirname(fileURLToPath(import.meta.url));
export const DIST = path.resolve(HERE, "../../dist");
export const REFERENCE = path.resolve(HERE, "../golden/reference");

/** With the service worker that isolates it. */
const ISOLATED = `<!doctype html><meta charset="utf-8"><title>isolated</title><script src="isolation.js"></script><script type="module" src="/test/in-page.js"></script>`;

const BLANK = `<!doctype html><meta charset="utf-8"><title>blank</title><script type="module" src="/test/in-page.js"></script>`;

export function send(request, response, bytes, type, more = {}) {
  const range = parseRange(request.headers.range, bytes.length);
  const [first, last] = Array.isArray(range) ? range : [0, bytes.length - 1];
  const headers = { "content-type": type, "accept-ranges": "bytes", "content-length": last - first + 1, ...more };
  if (Array.isArray(range)) headers["content-range"] = `bytes ${first}-${last}/${bytes.length}`;
  response.writeHead(Array.isArray(range) ? 206 : 200, headers);
  response.end(request.method === "HEAD" ? undefined : bytes.subarray(first, last + 1));
}

/** A file of the shipped checkpoint `id`. */
export const shipped = (id, name) => readFileSync(path.join(DIST, "checkpoints", id, name));

/** In place of a file's bytes: the host has no such file. */
export const notFound = (request, response) => {
  response.writeHead(404, { "content-type": "text/html" });
  response.end("<!doctype html><title>404</title>");
};

/** In place of a file's bytes: the host answers every address with its front page, and calls that a success. */
export const frontPage = (request, response) => send(request, response, Buffer.from(BLANK), "text/html; charset=utf-8");

/** In place of a file's bytes: the connection breaks after `bytes` of them. */
export const cutOff = (bytes) => (request, response, original) => {
  const whole = original();
  response.writeHead(200, { "content-type": "application/octet-stream", "content-length": whole.length });
  response.write(whole.subarray(0, bytes), () => response.destroy());
};

/**
 * In place of a file's bytes: the first answer breaks off after `bytes` of them, the later ones are whole. `asked` gets each
 * request's Range; a host without `ranges` ignores it.
 */
export const cutOnce = (bytes, { ranges, asked }) => (request, response, original) => {
  asked.push(request.headers.range);
  if (asked.length === 1) return cutOff(bytes)(request, response, original);
  if (!ranges) delete request.headers.range;
  send(request, response, original(), "application/octet-stream");
};

/** In place of a file's bytes: the host takes the question and never answers. */
export const silent = () => {};

/** In place of a file's bytes: the host is out of order. */
export const broken = (request, response) => {
  response.writeHead(503, { "content-type": "text/plain" });
  response.end("out of order");
};

/** Four entries of the shipped catalogue, each without other ways of drawing: what most tests of the page are about. */
export function fourStyles() {
  const { checkpoints } = JSON.parse(shipped("", "checkpoints.json"));
  return ["soft", "flat", "3d", "ink"].map((id) => {
    const { way, ...entry } = checkpoints.find((entry) => entry.id === id);
    return entry;
  });
}

const CATALOGUE = "/checkpoints/checkpoints.json";
const catalogueOf = (checkpoints) => (request, response) =>
  send(request, response, Buffer.from(JSON.stringify({ checkpoints })), "application/json");

/**
 * A server on a free port of loopback, whose pages may use several threads if it is `isolated`: by the policy that the static server
 * has, or the one that is named. The catalogue has the shipped entries, or `checkpoints`.
 */
export async function startSite({ isolated = false, checkpoints } = {}) {
  const headers = isolated ? { ...ISOLATION, ...(typeof isolated === "string" && { "cross-origin-embedder-policy": isolated }) } : {};
  const dist = staticFiles(DIST, headers);
  const reference = staticFiles(REFERENCE);
  const inPage = staticFiles(HERE);
  const folders = new Map();
  const instead = new Map(checkpoints ? [[CATALOGUE, catalogueOf(checkpoints)]] : []);
  const log = [];

  const server = await listen(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const [, room, folder, ...rest] = pathname.split("/");
    if (pathname === "/blank.html") return send(request, response, Buffer.from(BLANK), "text/html; charset=utf-8", headers);
    if (instead.has(pathname)) return instead.get(pathname)(request, response);
    if (pathname.endsWith("/otherwise.html")) return send(request, response, Buffer.from(ISOLATED.replace("isolation.js", "other.js")), "text/html; charset=utf-8");
    if (pathname.endsWith("/isolated.html")) return send(request, response, Buffer.from(ISOLATED), "text/html; charset=utf-8");
    if (/\/(isolation|other)\.js$/.test(pathname)) request.url = "/tintype/isolation.js";
    if (room === "test" || room === "reference") {
      request.url = `/${[folder, ...rest].join("/")}`;
      return (room === "test" ? inPage : reference)(request, response);
    }
    if (room === "folders" && folders.has(folder)) {
      log.push({ method: request.method, pathname });
      request.url = `/${rest.join("/")}`;
      return folders.get(folder)(request, response);
    }
    if (room === "changed" && folders.has(folder)) {
      const { base, changes } = folders.get(folder);
      const name = decodeURIComponent(rest.join("/"));
      const change = changes[name] ?? changes["*"];
      if (typeof change === "function") return change(request, response, () => shipped(base, name));
      if (change !== undefined) return send(request, response, Buffer.from(change), "application/octet-stream");
      request.url = `/checkpoints/${base}/${rest.join("/")}`;
    }
    return dist(request, response);
  });

  return {
    url: server.url,
    close: server.close,
    /**
     * The address of a folder like the shipped checkpoint `base`, but for `changes`: file name ("*" for all others) to
     * the bytes or the text to give, or to a handler (request, response, original).
     */
    changed(name, changes, base = "soft") {
      folders.set(name, { base, changes });
      return `/changed/${name}/`;
    },
    /** The address of a folder of this machine. What is asked for goes to `requests`. */
    folder(name, root) {
      folders.set(name, staticFiles(root));
      return `/folders/${name}/`;
    },
    requests: log,
    /** Handlers in place of files, by their addresses: also of those that a worker's worker asks for, which a test sees nothing of. */
    instead,
    /** Gives other entries for the catalogue. */
    offer: (checkpoints) => instead.set(CATALOGUE, catalogueOf(checkpoints)),
    /** Gives a script of dist/ as `change` leaves its text, until `instead` lets go of it. */
    rewrite(pathname, change) {
      const changed = () => Buffer.from(change(readFileSync(path.join(DIST, pathname), "utf8")));
      instead.set(pathname, (request, response) => send(request, response, changed(), "text/javascript", headers));
    },
  };
}
