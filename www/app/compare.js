// Side by side: one prompt and seed in several checkpoints, a cell for each. Where they have several ways of drawing it is a table: a
// row for each checkpoint, a column for each way that is ticked; on a wide page the other way round where that takes fewer rows.

import { Cell } from "./cell.js";
import { el, make } from "./dom.js";
import { sheet } from "./sheet.js";
import { fileName } from "./words.js";

const hasWays = ({ length }) => length > 1;
/** With more, the pictures of a row would be too small. */
const MOST_COLUMNS = 6;

export class Compare extends EventTarget {
  /** The checkbox of each group of entries, by its first. */
  #boxes = new Map();
  /** The checkbox of each way. */
  #ways = new Map();
  #groups = [];
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
    for (const boxes of ["compare-which", "compare-ways"]) el(boxes).addEventListener("change", () => this.#show());
  }

  get isDrawing() {
    return this.#work !== null;
  }

  /** The checkpoints there are, each with its ways of drawing; what a person chose among them stays. */
  offer(groups) {
    this.#groups = groups;
    const boxes = (root, known, wanted) => {
      for (const [key, label] of known) {
        if (wanted.has(key)) continue;
        label.remove();
        known.delete(key);
      }
      for (const [key, { value, name }] of wanted) {
        if (known.has(key)) continue;
        const label = make("label", { className: "chip" });
        label.append(make("input", { type: "checkbox", checked: true, value }), ` ${name}`);
        root.append(label);
        known.set(key, label);
      }
    };
    boxes(el("compare-which"), this.#boxes, new Map(groups.map(([first]) => [first, { value: first.id, name: first.name }])));
    const ways = groups.filter(hasWays).flatMap((entries) => entries.map(({ way }) => way));
    boxes(el("compare-ways"), this.#ways, new Map(ways.map((way) => [way, { value: way, name: way }])));
    this.#show();
  }

  cancel() {
    this.#work?.abort();
  }

  /** The entries to draw in, those of each checkpoint by themselves. */
  #rows() {
    const isTicked = (label) => label.querySelector("input").checked;
    const ticked = this.#groups.filter(([first]) => isTicked(this.#boxes.get(first)));
    const rows = ticked.map((entries) => (hasWays(entries) ? entries.filter(({ way }) => isTicked(this.#ways.get(way))) : entries));
    return rows.filter(({ length }) => length > 0);
  }

  /** The cells of these rows. What ways differ by is left to each of them. */
  #cellsOf(rows, recipe) {
    const { steps, guidanceScale, ...rest } = recipe;
    const isOfWays = new Set(this.#groups.filter(hasWays).flat());
    const those = rows.flat().filter((entry) => isOfWays.has(entry));
    const ways = [...new Set(those.map(({ way }) => way))];
    // Ways that no two checkpoints share, as where they have no names of their own, make no columns.
    const areShared = ways.length < those.length || rows.filter(([entry]) => isOfWays.has(entry)).length === 1;
    const isTable = ways.length > 1 && ways.length <= MOST_COLUMNS && areShared;
    const cells = el("compare-cells");
    cells.classList.toggle("table", isTable);
    cells.classList.toggle("turned", isTable && rows.length > ways.length && rows.length <= MOST_COLUMNS);
    cells.style.setProperty("--ways", ways.length);
    cells.style.setProperty("--checkpoints", rows.length);
    const onPick = (detail) => this.dispatchEvent(new CustomEvent("pick", { detail }));
    return rows.flatMap((entries, row) =>
      entries.map((entry) => {
        const at = isTable ? [row, Math.max(0, ways.indexOf(entry.way))] : undefined;
        return new Cell(entry, isOfWays.has(entry) ? { ...rest, sampler: "" } : recipe, { at, onPick });
      }),
    );
  }

  #show() {
    const rows = this.#rows();
    const { length } = rows.flat();
    const draw = el("compare-draw");
    const cancel = el("compare-cancel");
    const held = document.activeElement === draw || document.activeElement === cancel;
    const pictures = length > rows.length ? `${length} pictures in ` : "in ";
    draw.textContent = `Draw ${pictures}${rows.length} ${rows.length === 1 ? "checkpoint" : "checkpoints"}`;
    draw.disabled = length === 0;
    draw.hidden = this.isDrawing;
    cancel.hidden = !this.isDrawing;
    if (held) (this.isDrawing ? cancel : draw).focus();
    el("compare-save").hidden = this.isDrawing || !this.#cells.some(({ item }) => item);
    el("compare").setAttribute("aria-busy", this.isDrawing);
  }

  async #run() {
    const rows = this.#rows();
    const recipe = !this.isDrawing && this.#begin();
    if (!recipe) return;
    const controller = new AbortController();
    this.#work = controller;
    this.#cells = this.#cellsOf(rows, recipe);
    el("compare-cells").replaceChildren(...this.#cells.map(({ place }) => place));
    el("compare-title-of").textContent = `${recipe.prompt || "untitled"} · seed ${recipe.seed}`;
    this.#show();
    for (const [index, cell] of this.#cells.entries()) {
      if (controller.signal.aborted) cell.fail("Not drawn");
      else await this.#fill(cell, controller.signal, this.#cells[index + 1]?.entry);
    }
    this.#work = null;
    this.#show();
    const drawn = this.#cells.filter(({ item }) => item).length;
    el("compare-said").textContent = `${drawn} of ${this.#cells.length} ${this.#cells.length === 1 ? "picture is" : "pictures are"} drawn.`;
  }

  /** Draws one; while it does, `next` is loaded. */
  async #fill(cell, signal, next) {
    el("compare-said").textContent = `Drawing in ${cell.entry.name}.`;
    try {
      const item = await this.#draw(cell.entry, cell.recipe, {
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
    const drawn = this.#cells.filter(({ item }) => item);
    const items = drawn.map(({ item }) => item);
    const places = drawn.map(({ at }) => at);
    const { prompt, seed } = items[0].parameters;
    const url = URL.createObjectURL(await sheet(items, places.every(Boolean) ? places : undefined));
    make("a", { href: url, download: fileName({ prompt: `${prompt} side by side`, seed }) }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}
