// What goes over the chosen checkpoint, or into it: its LoRAs, and its VAE.

import { el, make } from "./dom.js";
import { LoraLine } from "./lora.js";
import { loraOf } from "./own.js";
import { pickRow } from "./pick.js";
import { VaeChoice } from "./vae.js";
import { downloaded } from "./words.js";

/** Each change is merged anew: not more often than a person means it. */
const MOVED_MS = 600;
const SETTLED_MS = 150;

export class Over extends EventTarget {
  #maker;
  #entry = null;
  /** The LoRAs' lines by their keys. */
  #lines = new Map();
  /** By entry: what waits until its LoRAs are no longer moved. */
  #timers = new WeakMap();
  #vae;
  /** What the menu of VAEs was made for. */
  #offered = "";
  #onError;

  /**
   * Tells "change" when the LoRAs or the VAE of an entry became others: the entry; "laid" when LoRAs were laid: { entry, checkpoint, loras }.
   * `onError(error)` hears what could not be.
   */
  constructor(maker, { onError }) {
    super();
    this.#maker = maker;
    this.#onError = onError;
    const toggle = el("add-lora");
    const show = (shown) => {
      add.hidden = !shown;
      toggle.setAttribute("aria-expanded", String(shown));
    };
    const onThings = (things) => {
      show(false);
      this.add(things);
    };
    const add = pickRow("a LoRA", { onError, onThings });
    show(false);
    toggle.after(add);
    toggle.addEventListener("click", () => {
      show(add.hidden);
      if (!add.hidden) add.querySelector("button").focus();
    });
    this.#vae = new VaeChoice({ id: "vae", onError, onChange: (vae) => this.useVae(vae) });
    el("over-said").before(this.#vae.element);
    const { layers } = maker;
    layers.addEventListener("laying", ({ detail }) => this.#laying(detail));
    layers.addEventListener("laid", ({ detail }) => this.#laid(detail));
    layers.addEventListener("failed", ({ detail: { entry, error } }) => {
      onError(error);
      if (entry !== this.#entry) return;
      this.#say(entry.loras.some(({ on }) => on) ? "It stays as it was." : "");
      this.#show();
    });
    maker.addEventListener("change", () => this.#showVae());
  }

  /** Shows what goes over an entry. */
  show(entry) {
    if (entry !== this.#entry) this.#say("");
    this.#entry = entry;
    this.#show();
  }

  /** Opens the part of the page where it is seen. */
  reveal() {
    el("over").open = true;
  }

  add(things) {
    this.reveal();
    this.#wish([...this.#entry.loras, ...things.map((thing) => loraOf(thing))], SETTLED_MS);
    this.#lines.get(this.#entry.loras.at(-1).key)?.element.querySelector("input").focus();
  }

  /** Loads the checkpoint anew with another VAE, or with its own. Of several at once, the last one counts. */
  async useVae(vae) {
    const entry = this.#entry;
    this.#say(vae ? `Taking ${vae.name} for its VAE…` : "Taking its own VAE…");
    try {
      if (!(await this.#maker.reload(entry, { vae }))) return;
      if (entry === this.#entry) this.#say(vae ? `${vae.name} is its VAE.` : "It has its own VAE.");
      this.#changed(entry);
    } catch (error) {
      if (entry === this.#entry) this.#say("");
      this.#onError(error);
    }
    this.#show();
  }

  /** Brings back what a picture was drawn with. */
  restore({ loras, vae }) {
    const entry = this.#entry;
    const isOther = vae?.source !== entry.vae?.source;
    // What was never loaded is not loaded for that.
    if (this.#maker.state(entry).state === "absent" && !this.#maker.state(entry).checkpoint) {
      Object.assign(entry, { loras, vae: isOther ? vae : entry.vae });
      return this.#show();
    }
    if (loras !== entry.loras) this.#wish(loras, MOVED_MS);
    if (isOther) this.useVae(vae);
  }

  /** Says what LoRAs changed of the checkpoint's own settings. */
  saySettings({ steps, guidanceScale, sampler }, names) {
    const said = { steps: `${steps} ${steps === 1 ? "step" : "steps"}`, guidanceScale: `guidance ${guidanceScale}`, sampler };
    const parts = names.map((name) => said[name]).filter(Boolean);
    if (parts.length) this.#say(`${el("over-said").textContent} Its own settings are now ${parts.join(", ")}.`);
  }

  #wish(loras, soon) {
    const entry = this.#entry;
    entry.loras = loras;
    this.#show();
    clearTimeout(this.#timers.get(entry));
    const settle = () => {
      this.#changed(entry);
      this.#maker.lay(entry).catch(this.#onError);
    };
    this.#timers.set(entry, setTimeout(settle, soon));
  }

  #laying({ entry, progress }) {
    if (entry !== this.#entry) return;
    this.#say(progress?.totalBytes > 0 && progress.fraction < 1 ? `Fetching: ${downloaded(progress)}` : "Laying it over…");
  }

  #laid({ entry, checkpoint, loras, warnings }) {
    const tell = () => this.dispatchEvent(new CustomEvent("laid", { detail: { entry, checkpoint, loras } }));
    if (entry !== this.#entry) return tell();
    const names = entry.loras.filter(({ on }) => on).map(({ name, scale }) => `${name} ${scale}`);
    this.#say(names.length ? `Over ${entry.name}: ${names.join(", ")}.` : `Nothing lies over ${entry.name}.`);
    this.#warn(warnings);
    this.#show();
    tell();
  }

  #changed(entry) {
    // Whoever changes something has seen what was missing.
    entry.missing = [];
    this.dispatchEvent(new CustomEvent("change", { detail: entry }));
  }

  #say(text) {
    if (el("over-said").textContent !== text) el("over-said").textContent = text;
  }

  #warn(warnings) {
    el("over-warnings").replaceChildren(...warnings.map((textContent) => make("li", { textContent })));
    el("over-warnings").hidden = warnings.length === 0;
  }

  #show() {
    const entry = this.#entry;
    if (!entry) return;
    const { loras, vae, missing = [] } = entry;
    const keys = new Set(loras.map(({ key }) => key));
    for (const [key, { element }] of this.#lines) {
      if (keys.has(key)) continue;
      element.remove();
      this.#lines.delete(key);
    }
    for (const lora of loras) this.#line(lora).show(lora);
    const elements = loras.map(({ key }) => this.#lines.get(key).element);
    // A slider that is taken out and put back is let go of.
    if (elements.some((element, at) => el("loras").children[at] !== element)) el("loras").replaceChildren(...elements);
    el("loras").hidden = loras.length === 0;
    const on = loras.filter((lora) => lora.on).length;
    const parts = [on && `${on} ${on === 1 ? "LoRA" : "LoRAs"}`, vae?.name].filter(Boolean);
    el("over-sum").textContent = parts.join(", ");
    el("over-missing").textContent = missing.length ? `Not there any more, as they were picked files: ${missing.join(", ")}.` : "";
    const checkpoint = this.#maker.state(entry).checkpoint;
    this.#warn(checkpoint ? this.#maker.layers.over(checkpoint).warnings : []);
    this.#showVae();
  }

  #line(lora) {
    const { key } = lora;
    const known = this.#lines.get(key);
    if (known) return known;
    const line = new LoraLine(lora, {
      onChange: (change, settled) => {
        const loras = this.#entry.loras.map((other) => (other.key === key ? { ...other, ...change } : other));
        this.#wish(loras, settled ? SETTLED_MS : MOVED_MS);
      },
      onRemove: () => {
        this.#wish(this.#entry.loras.filter((other) => other.key !== key), SETTLED_MS);
        // The button that had the focus is gone.
        (el("loras").querySelector("button") ?? el("add-lora")).focus();
      },
    });
    this.#lines.set(key, line);
    return line;
  }

  #showVae() {
    const entry = this.#entry;
    if (!entry) return;
    const { checkpoint } = this.#maker.state(entry);
    // Progress changes nothing here, and a menu that is open stays open.
    const offered = `${entry.id} ${entry.vae?.name} ${checkpoint?.id}`;
    if (offered === this.#offered) return;
    this.#offered = offered;
    this.#vae.offer({ components: checkpoint?.components, value: entry.vae });
  }
}
