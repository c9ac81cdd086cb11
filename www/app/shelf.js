// "On this device": what is kept here, how much room it takes, and what can be done with it.

import { el, make } from "./dom.js";
import { meter } from "./meter.js";
import { isKeptAt } from "./own.js";
import { ago, size } from "./words.js";

export class Shelf extends EventTarget {
  #store = () => undefined;
  #kept = [];
  #refreshing = null;
  #again = false;
  #busy = false;
  #hasCard = () => true;

  /** `store()` gives the store, once there is one; `hasCard(url)` whether a card of the page is of what is kept there. */
  constructor({ store, hasCard }) {
    super();
    this.#store = store;
    this.#hasCard = hasCard;
    el("shelf-clear").addEventListener("click", () => this.#clear());
    el("shelf-verify").addEventListener("click", () => this.#do(() => this.#verify()));
    el("shelf-persist").addEventListener("click", () => this.#do(() => this.#persist()));
  }

  /** Whether all of an entry's checkpoint is kept here. */
  keeps(entry) {
    return this.#kept.some((kept) => kept.complete && isKeptAt(entry, kept.url));
  }

  /** Shows what is kept now. Calls during one that runs are taken together. */
  refresh() {
    if (this.#refreshing) {
      this.#again = true;
      return this.#refreshing;
    }
    this.#refreshing = this.#refresh().finally(() => {
      this.#refreshing = null;
      if (!this.#again) return;
      this.#again = false;
      this.refresh();
    });
    return this.#refreshing;
  }

  async #refresh() {
    const store = this.#store();
    if (!store) return;
    try {
      const [kept, sizes, quota] = await Promise.all([store.list(), store.sizes(), store.quota()]);
      if (store !== this.#store()) return;
      this.#kept = kept;
      this.#show(sizes, quota);
      this.dispatchEvent(new Event("change"));
    } catch (error) {
      // Closed meanwhile: the next engine's start asks again.
      if (store === this.#store()) this.#say(error.message);
    }
  }

  #show({ bytes, partialBytes, checkpoints }, { usage, quota, persisted }) {
    const figures = bytes ? size(bytes) : "Nothing yet";
    el("shelf-figures").textContent = quota ? `${figures} of ${size(quota)} allowed` : figures;
    const used = usage === undefined || usage <= bytes * 1.1 ? "" : `The whole site takes ${size(usage)}. `;
    const unfinished = partialBytes ? `Unfinished downloads take ${size(partialBytes)}. ` : "";
    const promise = persisted
      ? "The browser keeps it for good."
      : "The browser may clear it when the device runs short of storage.";
    el("shelf-about").textContent = bytes ? used + unfinished + promise : "What is downloaded is kept here, and not fetched a second time.";
    meter(el("shelf-meter"), { text: el("shelf-figures").textContent, total: quota, parts: [bytes] });
    el("shelf-list").replaceChildren(...this.#kept.map((kept) => this.#line(kept, checkpoints[kept.id])));
    el("shelf-persist").hidden = persisted || !bytes;
    for (const id of ["shelf-clear", "shelf-verify"]) el(id).hidden = !bytes;
  }

  #line(kept, bytes) {
    const line = document.createElement("li");
    const words = make("p", { className: "what" });
    const name = make("span", { className: "name", textContent: kept.name, title: kept.url });
    const facts = [bytes === undefined ? "" : size(bytes), `used ${ago(kept.lastUsed)}`, kept.complete ? "" : "not all of it"];
    const about = make("span", { className: "meta", textContent: facts.filter(Boolean).join(" · ") });
    words.append(name, about);
    line.append(words);
    if (!this.#hasCard(kept.url)) {
      const open = make("button", { type: "button", className: "button", textContent: "Open", ariaLabel: `Open ${kept.name}` });
      open.addEventListener("click", () => this.dispatchEvent(new CustomEvent("open", { detail: kept })));
      line.append(open);
    }
    const remove = make("button", { type: "button", className: "button", textContent: "Remove", ariaLabel: `Remove ${kept.name}` });
    remove.addEventListener("click", () => this.#do(() => this.#remove(kept)));
    line.append(remove);
    return line;
  }

  async #remove({ id, name }) {
    await this.#store().remove(id);
    await this.refresh();
    // The button that had the focus is gone.
    el("shelf").focus();
    return `${name} was removed.`;
  }

  #clear() {
    if (!confirm("Remove all checkpoints that are kept on this device? They would have to be downloaded again.")) return;
    this.#do(async () => {
      await this.#store().clear();
      await this.refresh();
      el("shelf").focus();
      return "All of it was removed.";
    });
  }

  async #verify() {
    const onProgress = ({ loadedBytes, totalBytes }) => (el("shelf-said").textContent = `Read ${size(loadedBytes)} of ${size(totalBytes)}…`);
    const { files, bytes, bad } = await this.#store().verify({ onProgress });
    await this.refresh();
    if (bad.length === 0) return `All ${files} files (${size(bytes)}) are as they came.`;
    const names = bad.map(({ url }) => url?.split("/").slice(-2).join("/") ?? "a file of none").join(", ");
    return `${bad.length} of ${files} files were damaged, and are fetched again when they are needed: ${names}.`;
  }

  async #persist() {
    const granted = await this.#store().persist();
    await this.refresh();
    if (granted) el("shelf").focus();
    return granted ? "The browser promised to keep it." : "The browser did not promise it: it does so for sites that are used often, or bookmarked.";
  }

  /** One at a time; what comes of it is said. */
  async #do(action) {
    if (this.#busy || !this.#store()) return;
    this.#busy = true;
    try {
      this.#say(await action());
    } catch (error) {
      this.#say(error.message);
      this.refresh();
    } finally {
      this.#busy = false;
    }
  }

  #say(text) {
    el("shelf-said").textContent = text;
  }
}
