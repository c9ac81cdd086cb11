// What happened without an error, each as a line that stands until a person dismisses it.

import { make } from "./dom.js";

const MOST = 4;

/** The library's messages begin with a small letter, as errors do; addresses have to. */
const sentence = (text) => (/^[a-z]+:/.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1));

export class Notices {
  #root;
  /** What each line was told as. */
  #told = new WeakMap();

  constructor(root) {
    this.#root = root;
  }

  /** What says no more than a line that stands is left out; a line that says less gives way. */
  add(message) {
    const lines = [...this.#root.children].map((line) => [line, this.#told.get(line)]);
    if (lines.some(([, before]) => before !== message && before.endsWith(message))) return;
    for (const [line, before] of lines) if (message.endsWith(before)) line.remove();
    const line = document.createElement("li");
    this.#told.set(line, message);
    const close = make("button", { type: "button", className: "icon", ariaLabel: "Dismiss" });
    // A copy of the one in the document, for its drawing.
    close.append(document.querySelector("#error-close svg").cloneNode(true));
    close.addEventListener("click", () => this.#dismiss(line));
    line.append(make("p", { textContent: sentence(message) }), close);
    this.#root.append(line);
    if (this.#root.children.length > MOST) this.#root.firstElementChild.remove();
  }

  /** The focus goes to the next line's button, or to what the page is for. */
  #dismiss(line) {
    const next = line.nextElementSibling ?? line.previousElementSibling;
    line.remove();
    (next?.querySelector("button") ?? document.getElementById("prompt")).focus();
  }
}
