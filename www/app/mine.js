// Checkpoints of a person's own: from the panel to a card, for this visit and for the next.

import { entryOf, forget, remember, remembered } from "./own.js";

export class Mine {
  #cards;
  #maker;
  #hooks;

  /**
   * `onChange()` hears that there are other cards; `onChoose(entry)` that one was chosen; `onFail(error)` what was wrong with one.
   */
  constructor(cards, maker, hooks) {
    this.#cards = cards;
    this.#maker = maker;
    this.#hooks = hooks;
  }

  /** The cards of earlier visits. */
  async restore() {
    for (const entry of await remembered()) this.#cards.add(entry);
  }

  /** A card for a thing that is loaded so; it goes again if it can't be loaded. */
  async add({ thing, ...how }) {
    const entry = entryOf(thing, how);
    const before = this.#cards.chosen;
    this.#cards.add(entry);
    this.#hooks.onChange();
    this.#cards.choose(entry).scrollIntoView({ block: "nearest" });
    this.#hooks.onChoose(entry);
    try {
      await this.#maker.load(entry);
      remember(entry);
    } catch (error) {
      if (error.code === "cancelled") return;
      this.#hooks.onFail(error);
      this.#takeAway(entry, before);
    }
  }

  /** Takes a card away, and its checkpoint out of memory. What the store keeps of it stays there. */
  remove(entry) {
    this.#maker.remove(entry);
    forget(entry);
    this.#takeAway(entry);
  }

  /** If it was chosen, `next` is chosen in its place. */
  #takeAway(entry, next = this.#cards.shown.find((other) => other !== entry)) {
    this.#cards.remove(entry);
    this.#hooks.onChange();
    if (this.#cards.chosen !== entry || !this.#cards.has(next)) return;
    this.#cards.choose(next);
    this.#hooks.onChoose(next);
  }
}
