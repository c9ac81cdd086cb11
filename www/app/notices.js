// What happened without an error, each as a line that stands until a person dismisses it.

import { make } from "./dom.js";

const MOST = 4;

/** The library's messages begin with a small letter, as errors do; addresses have to. */
const sentence = (text) => (/^[a-z]+:/.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1));

export class Notices {
  #root;

  constructor(root) {
    this.#root = root;
  }

  /** What says no more than a line that stands is left out; a line that says less gives way. */
  add(message) {
    const text = sentence(message);
    const lines = [...this.#root.children].map((line) => [line, line.firstElementChild.textContent]);
    if (lines.some(([, before]) => before !== text && before.endsWith(text))) return;
    for (const [line, before] of lines) if (text.endsWith(before)) line.remove();
    const line = document.createElement("li");
    const close = make("button", { type: "button", className: "icon", ariaLabel: "Dismiss" });
    // A copy of the one in the document, for its drawing.
    close.append(document.querySelector("#error-close svg").cloneNode(true));
    close.addEventListener("click", () => this.#dismiss(line));
    line.append(make("p", { textContent: text }), close);
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
