// What happened without an error, each as a line that stands until a person dismisses it.

import { make } from "./dom.js";

const MOST = 4;

export class Notices {
  #root;

  constructor(root) {
    this.#root = root;
  }

  add(text) {
    const same = [...this.#root.children].find((line) => line.firstElementChild.textContent === text);
    same?.remove();
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
