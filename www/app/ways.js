// The ways of drawing with the chosen checkpoint, where it has several: in many steps, in four, in one.

import { make } from "./dom.js";

export class Ways {
  #root;
  #onChoose;
  #chosen;

  /** `onChoose()` hears that a person chose another. */
  constructor(root, onChoose) {
    this.#root = root;
    this.#onChoose = onChoose;
  }

  /** What tells the way from others, in its entry's words; it stays while checkpoints are chosen that don't have it. */
  get chosen() {
    return this.#chosen;
  }

  choose(way) {
    this.#chosen = way;
  }

  /** The entries to choose from. */
  offer(entries) {
    const ways = entries.length > 1 ? entries.map(({ way, name }) => way ?? name) : [];
    const shown = [...this.#root.querySelectorAll("input")];
    if (ways.join("\n") !== shown.map(({ value }) => value).join("\n")) {
      this.#root.querySelector(".options").replaceChildren(...ways.map((way) => this.#option(way)));
    }
    this.#root.hidden = ways.length === 0;
    const index = Math.max(0, entries.findIndex(({ way }) => way === this.#chosen));
    const radio = this.#root.querySelectorAll("input")[index];
    if (radio) radio.checked = true;
  }

  #option(way) {
    const label = make("label", { className: "chip" });
    const radio = make("input", { type: "radio", name: "way", value: way });
    radio.addEventListener("change", () => {
      this.#chosen = way;
      this.#onChoose();
    });
    label.append(radio, way);
    return label;
  }
}
