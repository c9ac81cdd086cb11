// A file of a host, as it arrives. A connection that breaks off or falls silent is taken up where it stopped.

import { contentRange, difference, facts, isPage, saysPage } from "./answer.js";
import { failure } from "./failure.js";

/** Milliseconds before each attempt to take a download up; new bytes start the count again. */
const PAUSES = [0, 1000, 4000];
/** How often a host that knows no ranges may send a file from its start again. */
const WHOLE_TRIES = 8;
/** The longest pause that a host may ask for. */
const LONGEST_PAUSE = 30_000;
/** A first byte may take this many times as long as the next ones: the host may have to look for it. */
const FIRST_BYTE = 3;

/** What is read at once. */
const SCRATCH = 256 << 10;

const WORTH_ANOTHER_TRY = (status) => status === 408 || status === 425 || status === 429 || status >= 500;

/** What can be tried again. */
class Broken extends Error {
  constructor(message, { later = 0, connected = true } = {}) {
    super(message);
    this.later = later;
    this.connected = connected;
  }
}

export class Download {
  #url;
  #place;
  #stallTimeout;
  #cache;
  #hub;
  /** Bytes that were read to see what they are, and are not handed on yet. */
  #ahead = null;
  /** Of the request under way. */
  #controller = null;
  #reader = null;
  /** Memory that the browser fills again and again, where it can: new memory for each piece piles up. */
  #scratch = null;
  #refills = false;
  #cancelled = new AbortController();
  #firstByte = false;
  /** How far the file has arrived. */
  #received = 0;
  /** Bytes that come a second time, as the host knows no ranges. */
  #skip = 0;
  /** Attempts since new bytes came, and answers that began anew. */
  #tries = 0;
  #restarts = 0;
  /** What the host said of the file. */
  facts = {};
  /** The Link header of the last answer. */
  link;

  /** `hub` knows what the hub's requests need. */
  constructor({ url, place, stallTimeout, cache = "default", hub }) {
    this.#url = url;
    this.#place = place;
    this.#stallTimeout = stallTimeout;
    this.#cache = cache;
    this.#hub = hub;
  }

  /**
   * Asks for the file. `kept` are its first bytes, already here, and `before` what the host said when they came. Gives
   * how many of these hold still: all or none.
   */
  async open(kept = 0, before = {}) {
    if (kept > 0) {
      this.#received = kept;
      this.facts = { ...before };
      try {
        // A host without ranges sends it all, from its start: then what is kept is not needed.
        await this.#persist(() => this.#ask(kept, { orWhole: true }));
        if (this.#received === kept) return kept;
      } catch (error) {
        if (!error.changed) throw error;
        this.#received = 0;
        this.facts = {};
        await this.#persist(() => this.#ask(0));
      }
      return 0;
    }
    await this.#persist(() => this.#ask(0));
    return 0;
  }

  /** The next bytes, good until the next call, or null at the file's end. */
  async next() {
    for (;;) {
      let piece;
      try {
        piece = this.#ahead ?? (await this.#read());
        this.#ahead = null;
        if (piece === null && this.#received < (this.facts.size ?? 0)) throw new Broken("the answer ended early");
      } catch (error) {
        if (!(error instanceof Broken)) throw error;
        await this.#persist(() => this.#ask(this.#received), error);
        continue;
      }
      if (piece === null) {
        if (this.#skip === 0) return null;
        throw this.#changed(`expected at least ${this.#received} bytes, found ${this.#received - this.#skip}`);
      }
      const again = Math.min(this.#skip, piece.length);
      this.#skip -= again;
      if (again === piece.length) continue;
      piece = again ? piece.subarray(again) : piece;
      this.#received += piece.length;
      this.#tries = 0;
      return piece;
    }
  }

  cancel() {
    this.#cancelled.abort();
    this.#controller?.abort();
  }

  /** Runs `ask` until it succeeds, with pauses; `error` is what went wrong before. */
  async #persist(ask, error) {
    for (;;) {
      if (error) {
        const pause = PAUSES[this.#tries++];
        if (pause === undefined || !error.connected) throw this.#broken(error);
        await this.#pause(Math.max(pause, error.later));
      }
      try {
        return await ask();
      } catch (failed) {
        // What can't be reached at all is an error at once; what broke off may be out of reach for a while.
        if (!(failed instanceof Broken)) throw failed;
        if (error) failed.connected = true;
        error = failed;
      }
    }
  }

  #broken(error) {
    if (this.#received === 0) return failure("network", `${this.#place}: ${error.message}`, error);
    const size = this.facts.size === undefined ? "" : `expected ${this.facts.size} bytes, `;
    const found = `found ${this.#received} when the connection broke off`;
    return failure("network", `${this.#place}: ${size}${found}: ${error.message}`, error);
  }

  #pause(milliseconds) {
    const { signal } = this.#cancelled;
    return new Promise((resolve, reject) => {
      const stop = () => (clearTimeout(timer), reject(this.#stopped()));
      const timer = setTimeout(() => (signal.removeEventListener("abort", stop), resolve()), milliseconds);
      signal.addEventListener("abort", stop, { once: true });
      if (signal.aborted) stop();
    });
  }

  #stopped() {
    return failure("cancelled", `${this.#place}: the load was cancelled`);
  }

  /** What `work` gives, unless the host is silent for too long. */
  async #awake(milliseconds, work) {
    const controller = this.#controller;
    let silent = false;
    const timer = setTimeout(() => ((silent = true), controller.abort()), milliseconds);
    try {
      return await work();
    } catch (error) {
      if (this.#cancelled.signal.aborted) throw this.#stopped();
      if (silent) throw new Broken(`no bytes for ${milliseconds / 1000} s`);
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Asks for the bytes from `from` on, and checks that the answer is about the same file. */
  async #ask(from, { orWhole = false } = {}) {
    if (this.#cancelled.signal.aborted) throw this.#stopped();
    this.#controller?.abort();
    this.#controller = new AbortController();
    this.#reader = null;
    this.#ahead = null;
    const init = {
      // Alone and of this form, a range needs no preflight.
      headers: { ...this.#hub?.headers(this.#url), ...(from > 0 && { range: `bytes=${from}-` }) },
      signal: this.#controller.signal,
      referrerPolicy: "no-referrer",
      cache: this.#cache,
    };
    const response = await this.#awake(FIRST_BYTE * this.#stallTimeout, () => fetch(this.#url, init)).catch((error) => {
      if (error instanceof TypeError) throw new Broken(`the request failed: ${error.message}${this.#unnamed()}`, { connected: false });
      throw error;
    });
    const { status } = response;
    if (status === 416 && from > 0) return this.#beyond(response, from, orWhole);
    if (!response.ok) {
      this.#controller.abort();
      throw this.#refusal(response);
    }
    this.link = response.headers.get("link");
    const said = facts(response);
    const changed = difference(this.facts, said);
    if (changed) throw this.#changed(changed);
    const start = status === 206 ? (contentRange(response).start ?? from) : 0;
    if (start !== from && start !== 0) {
      throw this.#changed(`expected bytes from ${from} on, found them from ${start} on`);
    }
    for (const [key, value] of Object.entries(said)) this.facts[key] ??= value;
    if (this.#received > 0 && start === 0) {
      if (orWhole) this.#received = 0;
      else if (++this.#restarts > WHOLE_TRIES) {
        throw this.#broken(new Error(`the host sent it from its start ${WHOLE_TRIES} times`));
      }
    }
    this.#skip = this.#received - start;
    this.#firstByte = true;
    if (!response.body) return;
    try {
      this.#reader = response.body.getReader({ mode: "byob" });
      this.#refills = true;
    } catch {
      this.#reader = response.body.getReader();
      this.#refills = false;
    }
    if (saysPage(response)) await this.#refusePage();
  }

  /** Some hosts answer with a page, and call that a success, whatever they have not. */
  async #refusePage() {
    this.#ahead = await this.#read();
    if (!this.#ahead || !isPage(this.#ahead)) return;
    this.#controller.abort();
    const what = "the host answered with a page of HTML";
    // Of a file that was there, it is a passing fault.
    if (this.#received > 0) throw new Broken(what);
    throw failure("not-found", `${this.#place}: the host has no such file: ${what.replace("the host", "it")}`);
  }

  /** The host, where messages do not name it anyway. */
  #unnamed() {
    const { host } = new URL(this.#url);
    return this.#place.includes(host) ? "" : ` (${host})`;
  }

  /** The host says that the file has no byte at `from`: then all of it is here, or it is another file by now. */
  #beyond(response, from, orWhole) {
    this.#controller.abort();
    const changed = difference(this.facts, facts(response));
    if (changed) throw this.#changed(changed);
    const total = contentRange(response).total ?? this.facts.size;
    // How long it is, its end will tell.
    if (total === undefined) return this.#ask(0, { orWhole });
    if (total !== from) throw this.#changed(`expected more than ${from} bytes, found ${total}`);
    this.#skip = 0;
  }

  #refusal(response) {
    const { status, statusText, headers } = response;
    const known = this.#hub?.refusal(this.#url, this.#place, response);
    if (known) return Object.assign(known, { refused: true });
    if (status === 404 || status === 410) {
      return failure("not-found", `${this.#place}: the host has no such file (status ${status})`);
    }
    // Where nobody may list what is there, that is the answer for what isn't.
    if (status === 403 && this.#received === 0) {
      return failure("not-found", `${this.#place}: the host has no such file, or not for everyone (status 403)`);
    }
    const often = status === 429 ? ": the host asks to be asked less often" : "";
    const message = `expected status 200, found ${status} ${statusText}`.trim() + often + this.#unnamed();
    if (!WORTH_ANOTHER_TRY(status)) return failure("network", `${this.#place}: ${message}`);
    const asked = Number(headers.get("retry-after")) * 1000;
    return new Broken(message, { later: asked > 0 ? Math.min(asked, LONGEST_PAUSE) : 0 });
  }

  #changed(how) {
    this.#controller.abort();
    const error = failure("network", `${this.#place}: the file changed on its host while it was fetched: ${how}`);
    return Object.assign(error, { changed: true });
  }

  async #read() {
    if (!this.#reader) return null;
    const limit = (this.#firstByte ? FIRST_BYTE : 1) * this.#stallTimeout;
    for (;;) {
      const { done, value } = await this.#awake(limit, () => this.#fill()).catch((error) => {
        if (error instanceof Broken || error.code === "cancelled") throw error;
        throw new Broken(error.message);
      });
      if (this.#refills && value) this.#scratch = value.buffer;
      if (done) return null;
      this.#firstByte = false;
      if (value.length > 0) return value;
    }
  }
  #fill() {
    if (!this.#refills) return this.#reader.read();
    // A connection that broke off took it along.
    const scratch = this.#scratch ?? new ArrayBuffer(SCRATCH);
    this.#scratch = null;
    return this.#reader.read(new Uint8Array(scratch));
  }
}
