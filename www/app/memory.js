// "In memory": how much of the budget is taken, and by which checkpoints.

import { el, make } from "./dom.js";
import { meter } from "./meter.js";
import { mebibytes } from "./words.js";

export class Memory {
  #maker;

  constructor(maker) {
    this.#maker = maker;
    maker.addEventListener("held", () => this.#show());
    this.#show();
  }

  #show() {
    const { memory, residents } = this.#maker;
    const { budget = 0, weights = 0, working = 0, gpu = 0, wasm = 0 } = memory ?? {};
    const figures = memory ? `${mebibytes(weights + working)} of ${mebibytes(budget)} MB` : "Nothing yet";
    el("memory-figures").textContent = figures;
    meter(el("memory-meter"), { text: figures, total: budget, parts: [weights, working] });
    const of = (what, bytes) => `${what} ${mebibytes(bytes)}\u00a0MB`;
    const parts = [
      `${of("weights", weights)}, counted once where checkpoints share them`,
      of("drawing", working),
      gpu && of("GPU in all", gpu),
      wasm && of("WebAssembly in all", wasm),
    ];
    el("memory-about").textContent = memory ? parts.filter(Boolean).join("\u00a0· ") : "A checkpoint comes into memory when it is chosen.";
    this.#list(residents);
  }

  #list(residents) {
    const list = el("memory-list");
    const held = list.contains(document.activeElement);
    list.replaceChildren(...residents.map((checkpoint) => this.#line(checkpoint)));
    // The button that had the focus is gone.
    if (held) el("memory").focus();
  }

  #line(checkpoint) {
    const line = document.createElement("li");
    const words = make("p", { className: "what" });
    const about = `${checkpoint.family} · ${mebibytes(checkpoint.bytes)} MB`;
    words.append(
      make("span", { className: "name", textContent: checkpoint.name }),
      make("span", { className: "meta", textContent: about }),
    );
    const unload = make("button", { type: "button", className: "button", textContent: "Unload", ariaLabel: `Unload ${checkpoint.name}` });
    unload.addEventListener("click", () => checkpoint.unload());
    line.append(words, unload);
    return line;
  }
}
