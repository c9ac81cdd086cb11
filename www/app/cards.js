// The checkpoints as cards: a group of radio buttons, each with a sample picture, its key and how much of it is here.

import { make } from "./dom.js";
import { downloaded } from "./words.js";

/** What a card says of where its checkpoint is, and what that means. */
const MARKS = {
  here: ["here", "Kept on this device: no download needed"],
  ready: ["ready", "In memory: draws at once"],
};
const KEYS = 9;

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
    const place = make("div", { className: "place" });
    const label = make("label", { className: "card" });
    const radio = make("input", { type: "radio", name: "checkpoint", value: entry.id });
    const frame = make("span", { className: "thumb" });
    const key = make("kbd", { className: "key", ariaHidden: "true" });
    const words = make("span", { className: "words" });
    const head = make("span", { className: "head" });
    const name = make("span", { className: "name", textContent: entry.name });
    const mark = make("span", { className: "mark" });
    const about = make("span", { className: "about", textContent: entry.description ?? "" });
    const bar = make("i", { className: "fill" });
    head.append(name, mark);
    words.append(head, about);
    label.append(radio, frame, key, words, bar);
    place.append(label);
    if (entry.own) place.append(this.#removal(entry));
    this.#root.append(place);
    this.#cards.set(entry, { place, label, radio, frame, key, mark, about, bar });
    this.#number();
    this.picture(entry, entry.image);
    radio.addEventListener("change", () => {
      this.#chosen = entry;
      this.dispatchEvent(new Event("choose"));
    });
  }

  /** A button that takes a card of a person's own away. */
  #removal(entry) {
    const button = make("button", { type: "button", className: "icon remove", ariaLabel: `Remove ${entry.name}`, title: "Remove" });
    // A copy of the one in the document, for its drawing.
    button.append(document.querySelector("#error-close svg").cloneNode(true));
    button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("remove", { detail: entry })));
    return button;
  }

  has(entry) {
    return this.#cards.has(entry);
  }

  remove(entry) {
    this.#cards.get(entry).place.remove();
    this.#cards.delete(entry);
    this.#number();
  }

  #number() {
    [...this.#cards.values()].forEach(({ radio, key }, index) => {
      const digit = index < KEYS ? String(index + 1) : "";
      key.textContent = digit;
      if (digit) radio.setAttribute("aria-keyshortcuts", `${digit} Alt+${digit}`);
      else radio.removeAttribute("aria-keyshortcuts");
    });
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
    const { radio, label } = this.#cards.get(entry);
    // Focus within the group stays on what is chosen.
    if (this.#root.contains(document.activeElement)) radio.focus({ preventScroll: true });
    radio.checked = true;
    return label;
  }

  /** Chooses the n-th card and tells; gives false where there is none. */
  pick(n) {
    const entry = this.entries[n - 1];
    if (!entry) return false;
    this.choose(entry).scrollIntoView({ block: "nearest" });
    this.dispatchEvent(new Event("pick"));
    return true;
  }

  /** Shows how far each is: `stateOf(entry)` gives { state, progress }. */
  update(stateOf) {
    for (const [entry, { label, mark, about, bar }] of this.#cards) {
      const { state, progress } = stateOf(entry);
      const [word, meaning] = MARKS[state] ?? ["", ""];
      label.dataset.state = state;
      label.title = meaning;
      if (mark.textContent !== word) mark.textContent = word;
      bar.style.setProperty("--fraction", progress?.fraction ?? 0);
      const text = state === "coming" && progress?.totalBytes ? downloaded(progress) : (entry.description ?? "");
      if (about.textContent !== text) about.textContent = text;
    }
  }
}
