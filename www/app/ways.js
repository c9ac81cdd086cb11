// The ways of drawing with the chosen checkpoint, where it has several: in many steps, in four, in one.

import { make } from "./dom.js";

export class Ways {
  /** What tells the way from others, in its entry's words; it stays while checkpoints are chosen that don't have it. */
  chosen;
  #root;
  #onChoose;

  /** `onChoose()` hears that a person chose another. */
  constructor(root, onChoose) {
    this.#root = root;
    this.#onChoose = onChoose;
  }

  /** The entries to choose from. Gives true where the focus was on one of those before, and there is none now. */
  offer(entries) {
    const held = this.#root.contains(document.activeElement);
    const ways = entries.length > 1 ? entries.map(({ way }) => way) : [];
    const shown = [...this.#root.querySelectorAll("input")];
    if (ways.join("\n") !== shown.map(({ value }) => value).join("\n")) {
      this.#root.querySelector(".options").replaceChildren(...ways.map((way) => this.#option(way)));
    }
    this.#root.hidden = ways.length === 0;
    const radio = this.#root.querySelectorAll("input")[Math.max(0, ways.indexOf(this.chosen))];
    if (radio) radio.checked = true;
    if (held) radio?.focus({ preventScroll: true });
    return held && !radio;
  }

  #option(way) {
    const label = make("label", { className: "chip" });
    const radio = make("input", { type: "radio", name: "way", value: way });
    radio.addEventListener("change", () => {
      this.chosen = way;
      this.#onChoose();
    });
    label.append(radio, way);
    return label;
  }
}
