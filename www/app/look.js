// One thing as it is looked at: what it is, and for a checkpoint what can be chosen before it is loaded.

import { make } from "./dom.js";
import { facts, inShort, predicted, reasons } from "./facts.js";
import { addressOf, fromAddress } from "./things.js";
import { VaeChoice } from "./vae.js";

const PREDICTIONS = ["epsilon", "v_prediction"];
/** What is said of a checkpoint without a VAE that is read, and of a folder where it should be. */
const NO_VAE = /without an autoencoder|(^|\/)vae\/config\.json: /;
const NO_VAE_HERE = /(^|\/)vae\/(config\.json|diffusion_pytorch_model)|expected a class for vae/;
let made = 0;

const field = (text, control) => {
  const root = make("div", { className: "field" });
  root.append(make("label", { htmlFor: control.id, textContent: text }), control);
  return root;
};

export class Look {
  /** What Tintype said of it; null until then, and where it failed. */
  inspection = null;
  /** "looking", "known" or "failed". */
  state = "looking";
  /** Why it can't be used. */
  #why = [];
  #hooks;
  #controller = null;
  #id = `look-${(made += 1)}`;
  #title = make("h3", { id: `${this.#id}-name` });
  #short = make("p", { className: "meta" });
  #said = make("div", {});
  #choices = null;
  #reason = make("div", { id: `${this.#id}-reason` });
  #variant = null;
  #predicts = null;
  /** What it says by itself that it predicts. */
  #found = new Option("", "");
  #vae = null;
  #tookVaes = false;
  #name = null;

  /**
   * A thing may say what is `meant` to be chosen: { variant, predictionType, vae }. `inspect(thing, options)` looks inside;
   * `onChange(look)` hears whenever more is known, `onChoose(thing)` of what is to be looked at in its place, `onError(error)` of files
   * that can't be read.
   */
  constructor(thing, hooks) {
    this.thing = thing;
    this.#hooks = hooks;
    this.element = make("article", { className: "look" });
    this.element.setAttribute("aria-labelledby", this.#title.id);
    this.#title.textContent = thing.name;
    this.#short.textContent = thing.from;
    this.element.append(this.#title, this.#short, this.#said, this.#reason);
  }

  get kind() {
    return this.inspection?.kind ?? null;
  }

  get name() {
    return this.#name?.value.trim() || this.thing.name;
  }

  get canLoad() {
    return this.state === "known" && this.kind === "checkpoint" && this.inspection.unsupported.length === 0;
  }

  /** Whether it has no VAE, or none that is read: with another one it may be loaded. Only the reasons tell. */
  get lacksVae() {
    // Of a folder that has none, a file is missing.
    const isMissing = this.state === "failed" && this.#isFolder && NO_VAE_HERE.test(this.#why[0]);
    return isMissing || (this.state === "known" && this.kind === "checkpoint" && this.#why.some((why) => NO_VAE.test(why)));
  }

  get isCheckpoint() {
    return (this.state === "known" && this.kind === "checkpoint") || this.lacksVae;
  }

  /** The id of what says why it can't be loaded. */
  get reasonId() {
    return this.#reason.id;
  }

  /** What was chosen: { name, variant, predictionType, vae }. */
  get options() {
    const { meant = {} } = this.thing;
    return {
      name: this.name,
      variant: (this.#variant?.value.trim() ?? meant.variant) || undefined,
      predictionType: (this.#predicts?.value ?? meant.predictionType) || undefined,
      vae: this.#vae ? this.#vae.value : (meant.vae ?? null),
    };
  }

  stop() {
    this.#controller?.abort();
  }

  /** Looks inside, anew if something else was chosen. */
  async look() {
    this.stop();
    const controller = new AbortController();
    this.#controller = controller;
    this.state = "looking";
    this.element.setAttribute("aria-busy", "true");
    this.#hooks.onChange(this);
    try {
      const inspection = await this.#hooks.inspect(this.thing, { ...this.options, signal: controller.signal });
      if (this.#controller !== controller) return;
      this.inspection = inspection;
      this.state = "known";
      this.#show();
    } catch (error) {
      if (this.#controller !== controller || controller.signal.aborted) return;
      this.state = "failed";
      this.#fail(error);
    }
    this.element.removeAttribute("aria-busy");
    this.#hooks.onChange(this);
  }

  #show() {
    const { inspection, thing } = this;
    this.#short.textContent = [inShort(inspection), thing.from].filter(Boolean).join(" · ");
    this.#why = inspection.unsupported;
    this.#reason.replaceChildren(...(this.#why.length ? [reasons(this.#why)] : []));
    if (this.kind !== "checkpoint") return this.#said.replaceChildren();
    this.#said.replaceChildren(facts(inspection));
    if (inspection.components.length > 0 || this.lacksVae) this.#offer();
    this.#vae?.offer({ components: inspection.components, value: this.#vae.value });
    const { predictionType } = inspection;
    if (!this.#predicts?.value) this.#found.textContent = `As it seems${predictionType ? `: ${predicted(predictionType)}` : ""}`;
  }

  #fail({ message }) {
    this.#why = [message];
    this.#short.textContent = this.thing.from;
    this.#said.replaceChildren();
    this.#reason.replaceChildren(reasons([message]), ...this.#named(message));
    if (this.#mayHaveVariants || this.lacksVae) this.#offer();
    this.#vae?.offer({ value: this.#vae.value });
  }

  /** Buttons for what a message names of a repository, to choose from. */
  #named(message) {
    const names = /choose one: (.*)$/s.exec(message)?.[1].split(", ") ?? [];
    const buttons = names.filter((name) => name.startsWith("hf:")).map((name) => {
      const button = make("button", { type: "button", className: "text", textContent: name.slice(3) });
      button.addEventListener("click", () => this.#hooks.onChoose(fromAddress(name)));
      return button;
    });
    if (buttons.length === 0) return [];
    const group = make("div", { className: "own", role: "group", ariaLabel: "To choose from" });
    group.append(...buttons);
    return [group];
  }

  /** Whether it may be told which variant is meant: files say themselves which there are. */
  get #mayHaveVariants() {
    const { variants = [] } = this.thing;
    return variants.length > 0 || (this.#isFolder && addressOf(this.thing) !== undefined);
  }

  get #isFolder() {
    if (this.inspection) return this.inspection.layout === "diffusers";
    const address = addressOf(this.thing);
    const { source } = this.thing;
    return address === undefined ? Array.isArray(source) || source.kind === "directory" : !/\.\w+$/.test(address);
  }

  /** Adds what can be chosen, once. */
  #offer() {
    if (this.#choices) return;
    this.#choices = make("div", { className: "choices" });
    const again = () => this.look();
    this.#name = make("input", { type: "text", id: `${this.#id}-called`, value: this.thing.name, maxLength: 80, autocomplete: "off" });
    this.#choices.append(field("Name", this.#name));
    if (this.#mayHaveVariants) this.#choices.append(field("Variant", this.#variantControl(again)));
    if (this.inspection?.layout === "single-file") this.#choices.append(field("Predicts", this.#predictsControl(again)));
    this.#vae = new VaeChoice({
      id: `${this.#id}-vae`,
      onError: this.#hooks.onError,
      onChange: () => this.look(),
    });
    this.#choices.append(this.#vae.element);
    this.#vae.offer({ components: this.inspection?.components, value: this.thing.meant?.vae ?? null });
    this.#said.after(this.#choices);
  }

  #variantControl(again) {
    const { variants = [] } = this.thing;
    const id = `${this.#id}-variant`;
    if (addressOf(this.thing) === undefined) {
      this.#variant = make("select", { id });
      this.#variant.append(new Option("The usual files", ""), ...variants.map((name) => new Option(name, name)));
    } else this.#variant = make("input", { type: "text", id, placeholder: "fp16, if it has one", autocomplete: "off", spellcheck: false });
    this.#variant.value = this.thing.meant?.variant ?? "";
    this.#variant.addEventListener("change", again);
    return this.#variant;
  }

  #predictsControl(again) {
    this.#predicts = make("select", { id: `${this.#id}-predicts` });
    this.#predicts.append(this.#found, ...PREDICTIONS.map((type) => new Option(predicted(type), type)));
    this.#predicts.value = this.thing.meant?.predictionType ?? "";
    this.#predicts.addEventListener("change", again);
    return this.#predicts;
  }

  /** Takes VAEs that came with it as choices, the last one as chosen; gives false where they were taken before. */
  takeVaes(things) {
    if (this.#tookVaes || !this.#vae) return false;
    this.#tookVaes = true;
    this.#vae.offer({ components: this.inspection?.components, things, value: things.at(-1) });
    this.look();
    return true;
  }
}
