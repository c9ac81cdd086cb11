// The plate: where a picture comes up out of the blur, and stands when it is done.

import { el } from "./dom.js";
import { paint, toCanvas } from "./paint.js";
import { downloaded, duration, fileName, summary } from "./words.js";

export class Stage {
  #plate = el("plate");
  #picture = el("picture");
  #canvas = el("canvas");
  #image = el("image");
  #pixels = document.createElement("canvas");
  #shown = null;
  #workBegan = 0;

  constructor() {
    this.#pixels.width = 0;
    new ResizeObserver(() => this.#paint()).observe(this.#picture);
  }

  /** The picture that stands on the plate, or null. */
  get shown() {
    return this.#shown;
  }

  /** Clears the plate for a picture of this size; what was there dissolves. */
  begin({ title, width, height }) {
    this.#state("working");
    this.#image.hidden = true;
    this.#develop(0);
    if (width && height) this.#shape(width, height);
    this.#work(title, "", null);
  }

  /** On a phone the button that was pressed may be far below the plate. */
  reveal() {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.#plate.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  }

  downloading(name, progress) {
    const known = progress?.totalBytes > 0;
    this.#work(
      `Fetching ${name}`,
      known ? downloaded(progress) : "Asking how large it is",
      known ? progress.fraction : null,
    );
  }

  preparing(title, checkpoint) {
    this.#workBegan = performance.now();
    this.#work(title, `${checkpoint} is getting ready`, null);
  }

  step(title, { step, steps, preview }) {
    const left = ((performance.now() - this.#workBegan) / step) * (steps - step);
    const rest = step === steps ? " · finishing" : left > 1500 ? ` · ${duration(left)} left` : "";
    const text = `Step ${step} of ${steps}${rest}`;
    this.#work(title, text, step / steps);
    if (!preview) return;
    this.#draw(preview);
    this.#develop(step / steps);
  }

  /** Shows a finished picture: { imageData, url, name, parameters, ms }. */
  show(item) {
    const { imageData, parameters } = item;
    this.#shown = item;
    this.#shape(imageData.width, imageData.height);
    this.#draw(imageData);
    this.#develop(1);
    this.#image.src = item.url;
    this.#image.alt = `${parameters.prompt || "A picture"}, drawn by ${item.name}`;
    this.#image.hidden = false;
    el("done-title").textContent = parameters.prompt || "untitled";
    el("done-meta").textContent = summary(item);
    Object.assign(el("save"), { href: item.url, download: fileName(parameters) });
    this.#state("done");
  }

  /** Back to the last finished picture, or to the empty plate. */
  settle() {
    if (this.#shown) return this.show(this.#shown);
    this.#pixels.width = 0;
    this.#paint();
    this.#state("empty");
  }

  #state(state) {
    this.#plate.dataset.state = state;
    this.#plate.setAttribute("aria-busy", state === "working");
  }

  #develop(fraction) {
    this.#plate.style.setProperty("--developed", fraction);
  }

  #shape(width, height) {
    this.#picture.style.setProperty("--ratio", width / height);
  }

  #work(title, text, fraction) {
    el("working-title").textContent = title;
    el("working-meta").textContent = text;
    const bar = el("bar");
    bar.style.setProperty("--fraction", fraction ?? 0);
    bar.classList.toggle("unknown", fraction === null);
    if (fraction === null) bar.removeAttribute("aria-valuenow");
    else bar.setAttribute("aria-valuenow", Math.round(fraction * 100));
    bar.setAttribute("aria-valuetext", text);
  }

  #draw(imageData) {
    toCanvas(imageData, this.#pixels);
    this.#paint();
  }

  #paint() {
    paint(this.#canvas, this.#pixels.width > 0 ? this.#pixels : null);
  }
}
