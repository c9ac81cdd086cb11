// A cell of "side by side": a picture as it comes, and the name of its checkpoint.

import { make } from "./dom.js";
import { paint, toCanvas } from "./paint.js";
import { downloaded, duration } from "./words.js";

export class Cell {
  /** The finished picture. */
  item = null;
  #button = make("button", { type: "button", disabled: true });
  #canvas = make("canvas", { ariaHidden: "true" });
  #meta = make("span", { className: "meta" });
  #pixels = null;

  /** `at`: its [row, column], where the cells are a table. */
  constructor(entry, recipe, { at, onPick }) {
    const { width, height } = recipe;
    this.entry = entry;
    this.recipe = recipe;
    this.at = at;
    this.place = document.createElement("li");
    if (at) ["--row", "--column"].forEach((name, i) => this.place.style.setProperty(name, at[i] + 1));
    const frame = make("span", { className: "frame" });
    frame.append(this.#canvas);
    this.#button.append(frame, make("span", { className: "title", textContent: entry.name }), this.#meta);
    this.place.append(this.#button);
    this.#shape(width ?? entry.defaults?.width ?? 1, height ?? entry.defaults?.height ?? width ?? 1);
    this.#say("Waiting");
    this.#button.addEventListener("click", () => onPick(this.item));
    new ResizeObserver(() => paint(this.#canvas, this.#pixels)).observe(this.#canvas);
  }

  loading(progress) {
    this.#say(progress?.totalBytes > 0 ? downloaded(progress) : "Fetching");
  }

  preparing() {
    this.#say("Getting ready");
  }

  step({ step, steps, preview }) {
    this.#say(`Step ${step} of ${steps}`);
    if (preview) this.#draw(preview, step / steps);
  }

  show(item) {
    this.item = item;
    this.#shape(item.imageData.width, item.imageData.height);
    this.#draw(item.imageData, 1);
    this.#say(duration(item.ms));
    this.#button.disabled = false;
    this.#button.title = `Go on with ${item.name} and these settings`;
  }

  fail(message) {
    this.#pixels = null;
    paint(this.#canvas, null);
    this.#say(message);
    this.place.classList.add("failed");
  }

  /** Whether it is the one on the plate. */
  mark(current) {
    this.#button.ariaCurrent = current ? "true" : null;
  }

  #shape(width, height) {
    this.place.style.setProperty("--ratio", width / height);
  }

  #draw(imageData, developed) {
    this.place.style.setProperty("--developed", developed);
    this.#pixels = toCanvas(imageData, this.#pixels ?? undefined);
    paint(this.#canvas, this.#pixels);
  }

  #say(text) {
    this.#meta.textContent = text;
  }
}
