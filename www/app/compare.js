// Side by side: one prompt and seed in several checkpoints, a cell for each.

import { Cell } from "./cell.js";
import { el, make } from "./dom.js";
import { sheet } from "./sheet.js";
import { fileName } from "./words.js";

export class Compare extends EventTarget {
  /** The checkbox of each entry. */
  #boxes = new Map();
  #cells = [];
  #work = null;
  #begin;
  #draw;
  #preload;

  /**
   * `begin()` gives the recipe, or nothing where the form is not in order; `draw(entry, recipe, hooks)` gives a picture's
   * item; `preload(entry)` brings a checkpoint into memory meanwhile. Tells "pick" when a finished picture is chosen.
   */
  constructor({ begin, draw, preload }) {
    super();
    this.#begin = begin;
    this.#draw = draw;
    this.#preload = preload;
    el("compare-draw").addEventListener("click", () => this.#run());
    el("compare-cancel").addEventListener("click", () => this.cancel());
    el("compare-save").addEventListener("click", () => this.#save());
    el("compare-which").addEventListener("change", () => this.#show());
  }

  get isDrawing() {
    return this.#work !== null;
  }

  /** The checkpoints there are; what a person chose among them stays. */
  offer(entries) {
    for (const [entry, label] of this.#boxes) {
      if (entries.includes(entry)) continue;
      label.remove();
      this.#boxes.delete(entry);
    }
    for (const entry of entries) {
      if (this.#boxes.has(entry)) continue;
      const label = make("label", { className: "chip" });
      label.append(make("input", { type: "checkbox", checked: true, value: entry.id }), ` ${entry.name}`);
      el("compare-which").append(label);
      this.#boxes.set(entry, label);
    }
    this.#show();
  }

  cancel() {
    this.#work?.abort();
  }

  #chosen() {
    return [...this.#boxes].filter(([, label]) => label.querySelector("input").checked).map(([entry]) => entry);
  }

  #show() {
    const { length } = this.#chosen();
    const draw = el("compare-draw");
    const cancel = el("compare-cancel");
    const held = document.activeElement === draw || document.activeElement === cancel;
    draw.textContent = `Draw in ${length} ${length === 1 ? "checkpoint" : "checkpoints"}`;
    draw.disabled = length === 0;
    draw.hidden = this.isDrawing;
    cancel.hidden = !this.isDrawing;
    if (held) (this.isDrawing ? cancel : draw).focus();
    el("compare-save").hidden = this.isDrawing || !this.#cells.some(({ item }) => item);
    el("compare").setAttribute("aria-busy", this.isDrawing);
  }

  async #run() {
    const entries = this.#chosen();
    const recipe = !this.isDrawing && this.#begin();
    if (!recipe) return;
    const controller = new AbortController();
    this.#work = controller;
    this.#cells = entries.map((entry) => new Cell(entry, recipe, (detail) => this.dispatchEvent(new CustomEvent("pick", { detail }))));
    el("compare-cells").replaceChildren(...this.#cells.map(({ place }) => place));
    el("compare-title-of").textContent = `${recipe.prompt || "untitled"} · seed ${recipe.seed}`;
    this.#show();
    for (const [index, cell] of this.#cells.entries()) {
      if (controller.signal.aborted) cell.fail("Not drawn");
      else await this.#fill(cell, recipe, controller.signal, entries[index + 1]);
    }
    this.#work = null;
    this.#show();
    const drawn = this.#cells.filter(({ item }) => item).length;
    el("compare-said").textContent = `${drawn} of ${entries.length} ${entries.length === 1 ? "picture is" : "pictures are"} drawn.`;
  }

  /** Draws one; while it does, `next` is loaded. */
  async #fill(cell, recipe, signal, next) {
    el("compare-said").textContent = `Drawing in ${cell.entry.name}.`;
    try {
      const item = await this.#draw(cell.entry, recipe, {
        signal,
        onLoading: (progress) => cell.loading(progress),
        onLoaded: () => {
          cell.preparing();
          if (next && !signal.aborted) this.#preload(next);
        },
        onStep: (step) => !signal.aborted && cell.step(step),
      });
      cell.show(item);
    } catch (error) {
      cell.fail(error.code === "cancelled" ? "Cancelled" : error.message);
    }
  }

  /** Marks the picture that stands on the plate, if it is one of these. */
  mark(item) {
    for (const cell of this.#cells) cell.mark(cell.item === item);
  }

  async #save() {
    const items = this.#cells.map(({ item }) => item).filter(Boolean);
    const { prompt, seed } = items[0].parameters;
    const url = URL.createObjectURL(await sheet(items));
    make("a", { href: url, download: fileName({ prompt: `${prompt} side by side`, seed }) }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}
