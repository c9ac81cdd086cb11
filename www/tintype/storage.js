// The worker that fetches, hashes and keeps files, and what a page may ask of what is kept.

import { TintypeError } from "./error.js";
import { Link, lockName, startWorker } from "./link.js";
import { check, guarded, invalid, VERIFY } from "./options.js";

const SCRIPT = new URL("./keeper.js", import.meta.url);

// Written out in one expression: bundlers look for exactly this.
const start = () =>
  startWorker(SCRIPT, "tintype keeper", () => new Worker(new URL("./keeper.js", import.meta.url), { type: "module", name: "tintype keeper" }));

/** What messages call a command: some are asked by whatever takes a source. */
const named = (command) => (["tell", "repository"].includes(command) ? "looking at the source" : `store.${command}`);

/** One that cannot even start would die again at once: only a few follow one another. */
const MOST_DEATHS = 5;
/** One that lived for so many milliseconds, or answered, could. */
const LASTED = 10_000;

export class Storage {
  #options;
  #hooks;
  #link = null;
  #module;
  #closed = false;
  /** How many workers have died so far, and how many of them in a row. */
  deaths = 0;
  #inRow = 0;
  /** Whether the one that computes was told that there is none any more. */
  #givenUp = false;

  /**
   * `onNotice(detail)` hears what a person should know; `onDeath(again, death)` that a worker died, and whether another one is to
   * take its place; `onReturn()` that there is one after all. Nobody is connected to either yet.
   */
  constructor(options, hooks) {
    this.#options = options;
    this.#hooks = hooks;
  }

  /** Gives the worker a port to one that computes. `module`, with its build, is for its hashes. */
  connect(port, module) {
    this.#module = module;
    this.#givenUp = false;
    this.#alive()?.post({ type: "connect", port }, [port]);
  }

  /** Asks the worker; if it dies over it, another one once more. */
  async command(command, args = [], options = {}) {
    for (let again = false; ; again = true) {
      const link = this.#alive();
      try {
        const value = await link.call("store", { command, args }, { ...options, what: named(command) });
        this.#inRow = 0;
        return value;
      } catch (error) {
        if (!link.death || again || options.signal?.aborted || this.#closed) throw error;
      }
    }
  }

  close(now, later) {
    this.#closed = true;
    this.#link?.close(now, later);
  }

  #alive() {
    if (this.#link?.isOpen || this.#closed) return this.#link;
    const lock = lockName();
    const onMessage = ({ type, detail }) => type === "notice" && this.#hooks.onNotice(detail);
    this.#link = new Link(start, { lock, onMessage, onDeath: () => this.#died() });
    this.#link.post({ type: "start", module: this.#module, options: { ...this.#options, lock } });
    if (this.#givenUp) this.#hooks.onReturn();
    return this.#link;
  }

  #died() {
    this.deaths += 1;
    if (performance.now() - this.#link.readyAt >= LASTED) this.#inRow = 0;
    const again = ++this.#inRow <= MOST_DEATHS;
    this.#givenUp = !again;
    this.#hooks.onDeath(again, this.#link.death);
  }
}

/** What `tintype.store` is. */
export function storeOf(storage) {
  const text = (value, where) => {
    if (typeof value !== "string") throw invalid(`${where}: expected the id or address of a kept checkpoint`);
    return value;
  };
  return Object.freeze({
    list: async () => storage.command("list"),
    sizes: async () => storage.command("sizes"),
    remove: async (idOrUrl) => storage.command("remove", [text(idOrUrl, "store.remove")]),
    clear: async () => storage.command("clear"),
    quota: async () => storage.command("quota"),
    async verify(options) {
      const { signal, onProgress } = check("store.verify", VERIFY, options);
      return storage.command("verify", [], { signal, onEvent: onProgress && guarded(onProgress) });
    },
    /** Only a page may ask for this, no worker. */
    async persist() {
      if (!navigator.storage?.persist) throw new TintypeError("unsupported", "store.persist: this browser cannot be asked for it");
      return navigator.storage.persist();
    },
  });
}
