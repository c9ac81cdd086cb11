// The Hugging Face hub: what its requests need, what its refusals mean, and which files a repository has.
//
// A revision may move, so it is asked for its commit first, and all files are those of that commit. A listing is kept with the
// checkpoint that was loaded by it: then it needs no network, and that of a commit never has to be asked for again.

import { Download } from "./download.js";
import { failure } from "./failure.js";

const COMMIT = /^[0-9a-f]{40}$/;
const SHA256 = /^[0-9a-f]{64}$/;
/** Repositories of checkpoints have some tens of files. */
const MOST_PAGES = 20;
const MOST_BYTES = 32 << 20;
const MOST_LINK = 8 << 10;
/** Milliseconds that the hub is waited for where a listing is here already. */
const PATIENCE = 5000;

const encoded = (path) => path.split("/").map(encodeURIComponent).join("/");

/** The address after `rel="next"` of a Link header. */
const nextOf = (link) => /<([^<>]*)>\s*;[^,<]*\brel="?next\b/.exec((link ?? "").slice(0, MOST_LINK))?.[1];

export class Hub {
  #url;
  #token;
  #headers;
  #stallTimeout;
  /** Name of what was asked for → its listing: `{ hub, repo, commit, path, files }`. */
  #listings = new Map();

  constructor({ url = "https://huggingface.co", token, headers = {} } = {}, stallTimeout) {
    this.#url = new URL(url).href.replace(/\/*$/, "");
    this.#token = token || undefined;
    this.#headers = headers;
    this.#stallTimeout = stallTimeout;
  }

  /** Whether the hub has it, so that it may see the token. */
  #owns(url) {
    return url.startsWith(`${this.#url}/`);
  }

  /** What a request for `url` has besides. Where the hub redirects to another origin, the browser leaves the token out. */
  headers(url) {
    if (!this.#owns(url)) return {};
    return { ...this.#headers, ...(this.#token && { authorization: `Bearer ${this.#token}` }) };
  }

  /** What the files of a repository begin with, whose name may have a revision and a path behind it; undefined for other names. */
  folder(name) {
    const [, repo] = /^hf:([^/@]+\/[^/@]+)/.exec(name) ?? [];
    return repo && `${this.#url}/${repo}/resolve/`;
  }

  /** Whether what is at `url` can't be anything else another day. */
  isFixed(url) {
    return this.#owns(url) && /\/resolve\/[0-9a-f]{40}\//.test(url);
  }

  /** What an answer means that is no success, as an error; undefined where that is as with any host. Nothing of it is repeated. */
  refusal(url, place, { status, headers }) {
    if (!this.#owns(url) || ![401, 403, 404].includes(status)) return undefined;
    const [, repo] = /^\/(?:api\/models\/)?([^/]+\/[^/]+)/.exec(url.slice(this.#url.length)) ?? [];
    const page = `${this.#url}/${repo}`;
    const token = "create({ hub: { token } })";
    const because = (code, what) => failure(code, `${place}: ${what} (${this.#url} answered ${status})`);
    const code = headers.get("x-error-code");
    if (code === "GatedRepo") {
      const how = this.#token ? "the token's account has no access" : `it needs a token, by ${token}`;
      return because("network", `the repository is gated, and ${how}: its terms are to be accepted at ${page}`);
    }
    if (code === "RevisionNotFound") return because("not-found", "the repository has no such revision");
    if (code === "EntryNotFound") return because("not-found", "the repository has nothing of this name");
    if (code === "RepoNotFound" || (status === 401 && !this.#token)) {
      const how = this.#token ? "the token may not read it" : `it needs a token, by ${token}`;
      return because("not-found", `there is no repository ${repo}; or it is private, and ${how}`);
    }
    if (status === 401) return because("network", `the token was not accepted: look at what was given to ${token}`);
    if (status === 403) return because("network", `it is not for ${this.#token ? "this token" : `everyone: give a token, by ${token}`}`);
    return url.includes("/api/") ? because("not-found", "there is no such repository, revision or folder") : undefined;
  }

  /**
   * `{ url, files: { path: { size, sha256? } }, warnings }`: where the files below `path` of a repository's revision are, and what
   * is known of them. `asked` is the name of what is to be loaded; `kept(asked)` gives the listing that was kept with it.
   */
  async repository({ asked, repo, revision, path }, { kept, signal }) {
    const about = { hub: this.#url, repo, path };
    const isIt = (listing) => listing && Object.entries(about).every(([key, value]) => listing[key] === value);
    const known = [this.#listings.get(asked), await kept(asked)].find(isIt);
    const pinned = COMMIT.test(revision);
    if (pinned && known?.commit === revision) return this.#found(asked, known);
    const place = asked;
    const ask = { signal, patience: known && PATIENCE };
    try {
      const commit = pinned ? revision : await this.#commit(repo, revision, place, ask);
      if (known?.commit === commit) return this.#found(asked, known);
      return this.#found(asked, { ...about, commit, files: await this.#files(repo, commit, path, place, ask) });
    } catch (error) {
      if (!known || signal.aborted) throw error;
      // That there is no network is no news; a refusal is.
      const warnings = error.code === "network" && !error.refused ? [] : [`${error.message}; what was kept of it is used`];
      return this.#found(asked, known, warnings);
    }
  }

  /** The listing by which `asked` was found. */
  listing(asked) {
    return this.#listings.get(asked);
  }

  #found(asked, listing, warnings = []) {
    this.#listings.set(asked, listing);
    const { repo, commit, path, files } = listing;
    return { url: `${this.#url}/${repo}/resolve/${commit}/${path && `${encoded(path)}/`}`, files, warnings };
  }

  async #commit(repo, revision, place, ask) {
    const { value } = await this.#json(`${this.#url}/api/models/${repo}/revision/${encodeURIComponent(revision)}`, place, ask);
    if (!COMMIT.test(value?.sha)) throw failure("corrupt", `${place}: expected the revision's commit from ${this.#url}, found none`);
    return value.sha;
  }

  async #files(repo, commit, path, place, ask) {
    const first = `${this.#url}/api/models/${repo}/tree/${commit}${path && `/${encoded(path)}`}?recursive=true`;
    const files = {};
    let url = first;
    for (let page = 0; url; page++) {
      if (page === MOST_PAGES) throw failure("invalid-argument", `${place}: the repository has too many files to be one checkpoint: name a folder of it`);
      const { value, link } = await this.#json(url, place, ask);
      if (!Array.isArray(value)) throw failure("corrupt", `${place}: expected a list of files from ${this.#url}`);
      for (const entry of value) this.#take(entry, path, files);
      const next = nextOf(link);
      // A mirror may hand on the hub's own address: only what it asks for counts.
      url = next && URL.canParse(next, first) ? `${first.split("?")[0]}${new URL(next, first).search}` : null;
    }
    return files;
  }

  #take(entry, folder, files) {
    const { type, path, size, lfs } = entry ?? {};
    // What can't be asked for is not there.
    if (type !== "file" || typeof path !== "string" || !path.isWellFormed()) return;
    if (folder !== "" && !path.startsWith(`${folder}/`)) return;
    const bytes = lfs?.size ?? size;
    files[folder === "" ? path : path.slice(folder.length + 1)] = {
      ...(Number.isSafeInteger(bytes) && bytes >= 0 && { size: bytes }),
      ...(SHA256.test(lfs?.oid) && { sha256: lfs.oid }),
    };
  }

  /** `{ value, link }` of a JSON answer. */
  async #json(url, place, { signal, patience }) {
    const download = new Download({ url, place, stallTimeout: this.#stallTimeout, cache: "no-store", hub: this });
    const stop = () => download.cancel();
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    let late = false;
    const timer = patience && setTimeout(() => ((late = true), stop()), patience);
    const pieces = [];
    let length = 0;
    try {
      await download.open();
      for (let piece; (piece = await download.next()); pieces.push(piece.slice())) {
        length += piece.length;
        if (length > MOST_BYTES) throw failure("corrupt", `${place}: expected at most ${MOST_BYTES} bytes from ${this.#url}, found more`);
      }
    } catch (error) {
      throw late ? failure("network", `${place}: no answer from ${this.#url} for ${patience / 1000} s`) : error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
      download.cancel();
    }
    try {
      return { value: JSON.parse(await new Blob(pieces).text()), link: download.link };
    } catch (error) {
      throw failure("corrupt", `${place}: expected JSON from ${this.#url} (${error.message})`, error);
    }
  }
}
