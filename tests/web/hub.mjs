// The Hugging Face hub as a page sees it: revisions and paged listings on one origin, large files on another one behind it.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { listen, parseRange } from "../../tools/serve.mjs";

const GOLDENS = fileURLToPath(new URL("../golden/", import.meta.url));
const EXPOSED = "X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,X-Total-Count,ETag,Link,Accept-Ranges,Content-Range,X-Linked-Size,X-Linked-ETag,X-Xet-Hash";

const hash = (kind, bytes) => createHash(kind).update(bytes).digest("hex");
const isLarge = (name) => /\.(safetensors|ckpt|bin|gguf|zip)$/.test(name);

/** The files of a golden checkpoint, or of another folder of goldens, by their paths, without what only tests read. */
export function golden(name, folder = "pipelines") {
  const root = path.join(GOLDENS, folder, name);
  const entries = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = entries.map((entry) => path.relative(root, path.join(entry.parentPath ?? entry.path, entry.name)));
  const files = paths.filter((name) => !["case.json", "expected.safetensors"].includes(name));
  return Object.fromEntries(files.map((name) => [name, readFileSync(path.join(root, name))]));
}

/** A range of `bytes`, or all of them. */
function send(request, response, bytes, headers) {
  const range = parseRange(request.headers.range, bytes.length);
  const [first, last] = Array.isArray(range) ? range : [0, bytes.length - 1];
  const more = Array.isArray(range) ? { "content-range": `bytes ${first}-${last}/${bytes.length}` } : {};
  response.writeHead(Array.isArray(range) ? 206 : 200, { ...headers, ...more, "content-length": Math.max(0, last - first + 1) });
  response.end(request.method === "HEAD" ? undefined : bytes.subarray(first, last + 1));
}

/**
 * A hub. `push(repo, files, { branch, gated, secret })` makes a commit, which it gives, with these files, at the end of a branch;
 * `gated` and `secret` are the token that is needed for files, or for anything. `state` may be changed: `shut`, `limited` (429),
 * `corsless`, `cut` (bytes after which the next answer with a large file breaks off), `onRequest(entry)`. `log` has `{ host, method, url, headers }` of each request.
 */
export async function startHub({ page = 4 } = {}) {
  const repos = new Map();
  const log = [];
  const state = { shut: false, limited: false, corsless: false, cut: null, onRequest: () => {} };

  const cdn = await listen((request, response) => {
    log.push({ host: "cdn", method: request.method, url: request.url, headers: request.headers });
    // A request that needs to be asked for first is one too many: that is how the real one is.
    if (request.method === "OPTIONS") return response.writeHead(403).end();
    const url = new URL(request.url, "http://cdn");
    const [, , repo, sha256] = url.pathname.split("/").map(decodeURIComponent);
    const bytes = [...repos.get(repo).commits.values()].flatMap((files) => Object.values(files)).find((bytes) => hash("sha256", bytes) === sha256);
    // Of a xet file, the tag is a hash of another kind.
    const headers = { "access-control-allow-origin": "*", "access-control-expose-headers": "*", etag: `"${hash("sha256", `xet ${sha256}`)}"` };
    if (state.cut === null) return send(request, response, bytes, headers);
    response.writeHead(200, { ...headers, "content-length": bytes.length });
    response.write(bytes.subarray(0, state.cut), () => setTimeout(() => response.destroy(), 30));
    state.cut = null;
  });

  const hub = await listen((request, response) => {
    const entry = { host: "hub", method: request.method, url: request.url, headers: request.headers };
    log.push(entry);
    state.onRequest(entry);
    if (state.shut) return response.destroy();
    const cors = state.corsless ? {} : { "access-control-allow-origin": request.headers.origin ?? "*", "access-control-expose-headers": EXPOSED, vary: "Origin" };
    if (request.method === "OPTIONS") {
      return response.writeHead(204, { ...cors, "access-control-allow-headers": request.headers["access-control-request-headers"] ?? "" }).end();
    }
    const fail = (status, code, message) => {
      const headers = { ...cors, "content-type": "text/plain", "x-error-message": message, ...(code && { "x-error-code": code }) };
      response.writeHead(status, headers).end(JSON.stringify({ error: message }));
    };
    if (state.limited) return fail(429, undefined, "We had to rate limit you");
    const url = new URL(request.url, "http://hub");
    const parts = url.pathname.slice(1).split("/").map(decodeURIComponent);
    const isApi = parts[0] === "api";
    if (isApi && parts[1] === "resolve-cache") {
      const [, , , org, name, commit, ...rest] = parts;
      const bytes = repos.get(`${org}/${name}`).commits.get(commit)[rest.join("/")];
      return send(request, response, bytes, { ...cors, etag: `"${hash("sha1", bytes)}"`, "x-repo-commit": commit });
    }
    const [org, name, verb, ...rest] = isApi ? parts.slice(2) : parts;
    const repo = repos.get(`${org}/${name}`);
    const token = request.headers.authorization?.replace(/^Bearer /, "");
    const known = token !== undefined && [...repos.values()].some(({ gated, secret }) => [gated, secret].includes(token));
    if (token !== undefined && !known) return fail(401, undefined, `Invalid credentials in Authorization header: ${token}`);
    if (!repo || (repo.secret && repo.secret !== token)) {
      return token ? fail(404, "RepoNotFound", "Repository not found") : fail(401, undefined, "Invalid username or password.");
    }
    const commit = repo.branches.get(rest[0]) ?? (repo.commits.has(rest[0]) ? rest[0] : undefined);
    if (!commit) return fail(404, "RevisionNotFound", `Invalid rev id: ${rest[0]}`);
    const files = repo.commits.get(commit);
    const at = rest.slice(1).join("/");
    const json = (value, headers = {}) => response.writeHead(200, { ...cors, "content-type": "application/json", ...headers }).end(JSON.stringify(value));

    if (isApi && verb === "revision") return json({ id: `${org}/${name}`, sha: commit, siblings: Object.keys(files).map((rfilename) => ({ rfilename })) });
    if (isApi && verb === "tree") {
      const inside = (name) => at === "" || name.startsWith(`${at}/`);
      const entries = new Map();
      for (const [name, bytes] of Object.entries(files)) {
        if (!inside(name)) continue;
        const folder = name.split("/").slice(0, -1).join("/");
        if (folder !== at && folder !== "") entries.set(folder, { type: "directory", oid: hash("sha1", folder), size: 0, path: folder });
        const lfs = isLarge(name) ? { lfs: { oid: hash("sha256", bytes), size: bytes.length, pointerSize: 134 }, xetHash: hash("sha256", name) } : {};
        entries.set(name, { type: "file", oid: hash("sha1", bytes), size: bytes.length, ...lfs, path: name });
      }
      if (entries.size === 0) return fail(404, "EntryNotFound", `${at} does not exist on "${rest[0]}"`);
      const all = [...entries.values()];
      const first = Number(url.searchParams.get("cursor") ?? 0);
      const next = new URL(url);
      next.searchParams.set("cursor", first + page);
      // As a mirror does that hands on what the real one says.
      const link = first + page < all.length ? { link: `<https://hub.invalid${next.pathname}${next.search}>; rel="next"` } : {};
      return json(all.slice(first, first + page), link);
    }
    if (verb !== "resolve") return fail(404, undefined, "Not found");
    if (repo.gated && repo.gated !== token) {
      return fail(token ? 403 : 401, "GatedRepo", `Access to model ${org}/${name} is restricted. ${token ?? ""}`);
    }
    const bytes = files[at];
    if (!bytes) return fail(404, "EntryNotFound", "Entry not found");
    const path = at.split("/").map(encodeURIComponent).join("/");
    const location = isLarge(at)
      ? `${cdn.url}xet-bridge/${encodeURIComponent(`${org}/${name}`)}/${hash("sha256", bytes)}?signed=1`
      : `/api/resolve-cache/models/${org}/${name}/${commit}/${path}`;
    response.writeHead(isLarge(at) ? 302 : 307, { ...cors, location, "x-repo-commit": commit }).end();
  });

  let commits = 0;
  return {
    url: hub.url,
    cdn: cdn.url,
    state,
    log,
    close: () => Promise.all([hub.close(), cdn.close()]),
    push(name, files, { branch = "main", gated, secret } = {}) {
      const repo = repos.get(name) ?? { commits: new Map(), branches: new Map() };
      repos.set(name, Object.assign(repo, { gated, secret }));
      const commit = hash("sha1", `${name} ${++commits}`);
      repo.commits.set(commit, files);
      repo.branches.set(branch, commit);
      return commit;
    },
    /** What was asked for, but for what browsers ask by themselves; the log is empty afterwards. */
    asked: () => log.splice(0).filter(({ method }) => method !== "OPTIONS"),
  };
}
