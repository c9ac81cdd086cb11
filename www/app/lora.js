// A LoRA's line: whether it lies there, how much of it, and a button to take it off.

import { make } from "./dom.js";
import { isLasting } from "./things.js";

const MIN = -1;
const MAX = 2;
/** What a person may type; the slider shows as much of it as it can. */
const MOST = 10;

let made = 0;

export class LoraLine {
  #box = make("input", { type: "checkbox" });
  #slider;
  #number;

  /** `onChange({ on, scale }, settled)` hears of what a person sets; `settled` when they let go. `onRemove()` takes it off. */
  constructor(lora, { onChange, onRemove }) {
    const { name } = lora;
    const id = `lora-${(made += 1)}`;
    this.element = make("li", { className: "lora" });
    const label = make("label", { className: "called" });
    label.append(this.#box, make("span", { className: "name", textContent: name, title: name }));
    const about = make("span", { className: "meta", textContent: isLasting(lora) ? "" : "for this visit" });
    const [slider, number] = ["range", "number"].map((type) => make("input", { type, step: 0.05, ariaLabel: `How much of ${name}` }));
    Object.assign(slider, { id, min: MIN, max: MAX });
    Object.assign(number, { min: -MOST, max: MOST, ariaLabel: `How much of ${name}, as a number` });
    this.#slider = slider;
    this.#number = number;
    // The same drawing as every button that takes something away.
    const remove = make("button", { type: "button", className: "icon", ariaLabel: `Take ${name} off`, title: "Take it off" });
    remove.append(document.querySelector("#error-close svg").cloneNode(true));
    remove.addEventListener("click", onRemove);
    this.#box.addEventListener("change", () => onChange({ on: this.#box.checked }, true));
    const moved = ({ target, type }) => {
      const scale = target.valueAsNumber;
      if (!Number.isFinite(scale) || Math.abs(scale) > MOST) return;
      (target === slider ? number : slider).value = scale;
      onChange({ scale }, type === "change");
    };
    for (const input of [slider, number]) for (const type of ["input", "change"]) input.addEventListener(type, moved);
    number.addEventListener("blur", () => this.show(this.#lora));
    this.element.append(label, remove, about, slider, number);
    this.show(lora);
  }

  #lora;

  show(lora) {
    this.#lora = lora;
    const { on, scale } = lora;
    this.#box.checked = on;
    this.element.classList.toggle("off", !on);
    // What is being typed is left alone.
    if (document.activeElement !== this.#number) this.#number.value = scale;
    this.#slider.value = scale;
  }
}
