// The checkpoints as cards: a group of radio buttons, each with a sample picture, its key and how much of it is here. Entries that are
// other ways of drawing with a checkpoint share its card; which way is chosen for all cards at once, below them.

import { make } from "./dom.js";
import { Ways } from "./ways.js";
import { downloaded } from "./words.js";

/** What a card says of where its checkpoint is, and what that means. */
const MARKS = {
  here: ["here", "Kept on this device: no download needed"],
  ready: ["ready", "In memory: draws at once"],
};
const KEYS = 9;

export class Cards extends EventTarget {
  #root;
  #ways;
  /** Each card's entries, and the nodes that change. */
  #cards = [];
  /** The address of an entry's sample picture, where it is another than the entry's own; null where that can't be had. */
  #pictures = new Map();
  #chosen = null;

  constructor(root, ways) {
    super();
    this.#root = root;
    this.#ways = new Ways(ways, () => this.#turnTo(this.#cardOf(this.#chosen)));
  }

  get entries() {
    return this.groups.flat();
  }

  /** What each card stands for now. */
  get shown() {
    return this.#cards.map((card) => this.#shown(card));
  }

  /** The entries of each card. */
  get groups() {
    return this.#cards.map(({ entries }) => entries);
  }

  get chosen() {
    return this.#chosen;
  }

  add(entry) {
    const card = this.#cards.find(({ entries: [first] }) => typeof entry.of === "string" && !first.own && first.id === entry.of);
    if (!card) return this.#addCard(entry);
    for (const each of [card.entries[0], entry]) each.way ??= each.name;
    if (card.entries.some(({ way }) => way === entry.way)) throw new Error(`way: there is one already that is named "${entry.way}"`);
    card.entries.push(entry);
  }

  #addCard(entry) {
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
    const card = { entries: [entry], place, label, radio, frame, key, mark, about, bar };
    this.#cards.push(card);
    this.#number();
    this.#showPicture(card);
    radio.addEventListener("change", () => this.#turnTo(card));
  }

  /** A person chose a card, or another way for it. */
  #turnTo(card) {
    this.#chosen = this.#shown(card);
    this.#showWays();
    this.dispatchEvent(new Event("choose"));
  }

  /** A button that takes a card of a person's own away. */
  #removal(entry) {
    const button = make("button", { type: "button", className: "icon remove", ariaLabel: `Remove ${entry.name}`, title: "Remove" });
    // A copy of the one in the document, for its drawing.
    button.append(document.querySelector("#error-close svg").cloneNode(true));
    button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("remove", { detail: entry })));
    return button;
  }

  #cardOf(entry) {
    return this.#cards.find(({ entries }) => entries.includes(entry));
  }

  /** Of a card's entries the one that it stands for now. */
  #shown({ entries }) {
    return entries.find(({ way }) => way === this.#ways.chosen) ?? entries[0];
  }

  /** The ways of the chosen card to choose from, and what all cards stand for. */
  #showWays() {
    const card = this.#cardOf(this.#chosen);
    const isLost = this.#ways.offer(card?.entries ?? []);
    if (isLost) card.radio.focus({ preventScroll: true });
    for (const card of this.#cards) this.#showPicture(card);
    this.dispatchEvent(new Event("show"));
  }

  has(entry) {
    return this.#cardOf(entry) !== undefined;
  }

  /** Takes the card of a single entry away. */
  remove(entry) {
    const card = this.#cardOf(entry);
    card.place.remove();
    this.#cards = this.#cards.filter((other) => other !== card);
    this.#pictures.delete(entry);
    this.#number();
  }

  #number() {
    this.#cards.forEach(({ radio, key }, index) => {
      const digit = index < KEYS ? String(index + 1) : "";
      key.textContent = digit;
      if (digit) radio.setAttribute("aria-keyshortcuts", `${digit} Alt+${digit}`);
      else radio.removeAttribute("aria-keyshortcuts");
    });
  }

  /** The sample picture; until there is one, the name's first letter. */
  picture(entry, url) {
    if (!this.has(entry)) return;
    this.#pictures.set(entry, url);
    this.#showPicture(this.#cardOf(entry));
  }

  hasPicture(entry) {
    return Boolean(this.#pictureOf(entry));
  }

  #pictureOf(entry) {
    return this.#pictures.has(entry) ? this.#pictures.get(entry) : entry.image;
  }

  #showPicture(card) {
    const entry = this.#shown(card);
    const url = this.#pictureOf(entry);
    if (!url) return card.frame.replaceChildren([...entry.name][0] ?? "?");
    if (card.frame.querySelector("img")?.src === new URL(url, document.baseURI).href) return;
    const image = make("img", { src: url, alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => {
      if (this.#pictureOf(entry) === url) this.#pictures.set(entry, null);
      if (image.isConnected) this.#showPicture(card);
    });
    card.frame.replaceChildren(image);
  }

  /** Marks a card as chosen without saying so to those who listen. */
  choose(entry) {
    this.#chosen = entry;
    const { entries, radio, label } = this.#cardOf(entry);
    if (entry !== this.#shown({ entries })) this.#ways.chosen = entry.way;
    this.#showWays();
    // Focus within the group stays on what is chosen.
    if (this.#root.contains(document.activeElement)) radio.focus({ preventScroll: true });
    radio.checked = true;
    return label;
  }

  /** Chooses the n-th card and tells; gives false where there is none. */
  pick(n) {
    const card = this.#cards[n - 1];
    if (!card) return false;
    this.choose(this.#shown(card)).scrollIntoView({ block: "nearest" });
    this.dispatchEvent(new Event("pick"));
    return true;
  }

  /** Shows how far each is: `stateOf(entry)` gives { state, progress }. */
  update(stateOf) {
    for (const card of this.#cards) {
      const { label, mark, about, bar } = card;
      const entry = this.#shown(card);
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
