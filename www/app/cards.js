// The checkpoints as cards: a group of radio buttons, each with a sample picture and how much of it is here.

import { make } from "./dom.js";
import { downloaded } from "./words.js";

export class Cards extends EventTarget {
  #root;
  /** By entry: the nodes of its card that change. */
  #cards = new Map();
  #chosen = null;

  constructor(root) {
    super();
    this.#root = root;
  }

  get entries() {
    return [...this.#cards.keys()];
  }

  get chosen() {
    return this.#chosen;
  }

  add(entry) {
    const label = document.createElement("label");
    label.className = "card";
    const radio = make("input", { type: "radio", name: "checkpoint", value: entry.id });
    const frame = make("span", { className: "thumb" });
    const words = make("span", { className: "words" });
    const name = make("span", { className: "name", textContent: entry.name });
    const about = make("span", { className: "about", textContent: entry.description ?? "" });
    const bar = make("i", { className: "fill" });
    words.append(name, about);
    label.append(radio, frame, words, bar);
    this.#root.append(label);
    this.#cards.set(entry, { label, radio, frame, about, bar });
    this.picture(entry, entry.image);
    radio.addEventListener("change", () => {
      this.#chosen = entry;
      this.dispatchEvent(new Event("choose"));
    });
  }

  remove(entry) {
    this.#cards.get(entry).label.remove();
    this.#cards.delete(entry);
  }

  /** The sample picture; until there is one, the name's first letter. */
  picture(entry, url) {
    const { frame } = this.#cards.get(entry);
    if (!url) return frame.replaceChildren([...entry.name][0] ?? "?");
    const image = make("img", { src: url, alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => frame.replaceChildren([...entry.name][0] ?? "?"));
    frame.replaceChildren(image);
  }

  hasPicture(entry) {
    return this.#cards.get(entry).frame.querySelector("img") !== null;
  }

  /** Marks a card as chosen without saying so to those who listen. */
  choose(entry) {
    this.#chosen = entry;
    this.#cards.get(entry).radio.checked = true;
  }

  /** Shows how far each is: `stateOf(entry)` gives { state, progress }. */
  update(stateOf) {
    for (const [entry, { label, about, bar }] of this.#cards) {
      const { state, progress } = stateOf(entry);
      label.dataset.state = state;
      label.title = state === "here" ? "In memory" : "";
      bar.style.setProperty("--fraction", progress?.fraction ?? 0);
      const text = state === "coming" && progress?.totalBytes ? downloaded(progress) : (entry.description ?? "");
      if (about.textContent !== text) about.textContent = text;
    }
  }
}
