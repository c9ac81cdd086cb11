// The choice of a VAE: the checkpoint's own, the tiny one of its kind, or another from a file or an address.

import { make } from "./dom.js";
import { pickRow } from "./pick.js";

/** Small, quick and near the original: one for the latents of SD, one for those of SDXL. */
const TAESD = { name: "TAESD", source: "hf:madebyollin/taesd" };
const TAESDXL = { name: "TAESDXL", source: "hf:madebyollin/taesdxl" };
const isTiny = ({ source }) => [TAESD, TAESDXL].some((tiny) => tiny.source === source);

/** The one for a checkpoint of these components; none while they are not known, since the other's colours would be wrong. */
function tinyFor(components = []) {
  if (components.length === 0) return null;
  return components.some(({ name }) => name === "text_encoder_2") ? TAESDXL : TAESD;
}

const OWN = "own";
const ANOTHER = "another";

export class VaeChoice {
  #select;
  #row;
  /** What a person brought, and all that there is to choose from. */
  #things = [];
  #known = [];
  #value = null;
  #onChange;

  /** `onChange(vae)` hears of a thing, or of null for the checkpoint's own. */
  constructor({ id, onChange, onError }) {
    this.#onChange = onChange;
    const field = make("div", { className: "field" });
    const label = make("label", { htmlFor: id, textContent: "VAE" });
    this.#select = make("select", { id });
    this.#row = pickRow("another VAE", { multiple: false, onError, onThings: ([thing]) => this.#take(thing) });
    this.#row.hidden = true;
    field.append(label, this.#select);
    this.element = make("div", { className: "vae" });
    this.element.append(field, this.#row);
    this.#select.addEventListener("change", () => this.#chosen());
  }

  /** The one that is chosen; null for the checkpoint's own. */
  get value() {
    return this.#value;
  }

  /** What there is to choose from: `components` are the checkpoint's, where they are known. */
  offer({ components, things = [], value = null }) {
    const tiny = tinyFor(components);
    const others = [...things, ...this.#things, value].filter((thing) => thing && !isTiny(thing));
    this.#things = [...new Map(others.map((thing) => [thing.source, thing])).values()];
    const chosen = value && isTiny(value) && value.source !== tiny?.source ? value : null;
    this.#value = value;
    const own = components?.find(({ name }) => name === "vae")?.class;
    // A checkpoint whose VAE is another's says that one's class.
    const ownText = own && !value ? `Its own (${own})` : "Its own";
    this.#known = [tiny, chosen, ...this.#things].filter(Boolean);
    const option = (thing, index) => new Option(isTiny(thing) ? `${thing.name} (small and quick)` : thing.name, String(index));
    this.#select.replaceChildren(new Option(ownText, OWN), ...this.#known.map(option), new Option("Another…", ANOTHER));
    this.#show();
  }

  #show() {
    const at = this.#known.findIndex(({ source }) => source === this.#value?.source);
    this.#select.value = at < 0 ? OWN : String(at);
    this.#row.hidden = true;
  }

  #chosen() {
    const { value } = this.#select;
    this.#row.hidden = value !== ANOTHER;
    if (value === ANOTHER) return this.#row.querySelector("button").focus();
    this.#value = value === OWN ? null : this.#known[Number(value)];
    this.#onChange(this.#value);
  }

  #take(thing) {
    this.#things.push(thing);
    this.#value = thing;
    this.#onChange(thing);
  }
}
