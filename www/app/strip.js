// What was made in this session, newest first. One stop for Tab; the arrow keys move along it.

import { make } from "./dom.js";
import { summary } from "./words.js";

export class Strip extends EventTarget {
  #root;
  #buttons = [];

  constructor(root) {
    super();
    this.#root = root;
    root.addEventListener("keydown", (event) => this.#move(event));
  }

  add(item) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = summary(item);
    const image = make("img", { src: item.url, alt: "" });
    const title = make("span", { className: "title", textContent: item.parameters.prompt || "untitled" });
    const meta = make("span", { className: "meta", textContent: `${item.name} · ${item.parameters.seed}` });
    button.append(image, title, meta);
    button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("pick", { detail: item })));
    const place = document.createElement("li");
    place.append(button);
    this.#root.prepend(place);
    this.#buttons.unshift(button);
    button.item = item;
    this.mark(item);
    this.#root.scrollTo({ left: 0 });
  }

  /** Marks the picture that stands on the plate, if one does. Tab stops there, or at the newest. */
  mark(item) {
    const stop = this.#buttons.find((button) => button.item === item) ?? this.#buttons[0];
    for (const button of this.#buttons) {
      const current = button.item === item;
      button.ariaCurrent = current ? "true" : null;
      button.tabIndex = button === stop ? 0 : -1;
    }
  }

  #move(event) {
    const at = this.#buttons.indexOf(document.activeElement);
    const last = this.#buttons.length - 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const next = this.#buttons[Math.min(last, Math.max(0, to))];
    for (const button of this.#buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
  }
}
