// The panel in which a person sees what they brought before it is loaded. What came together is sorted: checkpoints, and the LoRAs
// and VAEs that go over one.
//   "load"  a checkpoint: { thing, options, defaults, loras }
//   "lay"   LoRAs over the chosen checkpoint: [thing]
//   "vae"   a VAE for it: thing

import { el, make } from "./dom.js";
import { Look } from "./look.js";
import { loraOf } from "./own.js";

const WHAT = { checkpoint: "a checkpoint", lora: "a LoRA", vae: "a VAE" };

function said({ name, kind, state, inspection }) {
  if (state === "failed") return `${name} could not be read.`;
  return inspection.unsupported.length ? `${name} can’t be used here.` : `${name} is ${WHAT[kind]}.`;
}

/** Looking into more at once would take long, and nobody means that. */
const MOST = 24;

export class Opening extends EventTarget {
  #root = el("opening");
  #list = el("opening-list");
  #looks = [];
  /** Whether what came with a checkpoint is for that one; null until that is known. */
  #together = null;
  #inspect;
  #target;
  #coming;

  /**
   * `inspect(thing, options)` looks inside one; `target()` gives the entry that LoRAs and VAEs would go over, `coming()` the one that is
   * being loaded, each if there is one.
   */
  constructor({ inspect, target, coming }) {
    super();
    this.#coming = coming;
    this.#inspect = inspect;
    this.#target = target;
    el("opening-close").addEventListener("click", () => this.#root.close());
    this.#root.addEventListener("close", () => this.#stop());
    // A press beside it.
    this.#root.addEventListener("click", (event) => event.target === this.#root && this.#root.close());
  }

  get isOpen() {
    return this.#root.open;
  }

  /** Looks at things, in place of those that are looked at. */
  open(things) {
    this.#stop();
    const hooks = {
      inspect: this.#inspect,
      onChange: () => this.#arrange(),
      onChoose: (thing) => this.open([thing]),
      onError: ({ message }) => this.#say(message),
    };
    this.#looks = things.slice(0, MOST).map((thing) => new Look(thing, hooks));
    this.#list.replaceChildren(...this.#looks.map(({ element }) => element));
    if (!this.isOpen) this.#root.showModal();
    el("opening-title").focus();
    for (const look of this.#looks) look.look();
  }

  #stop() {
    for (const look of this.#looks) look.stop();
    this.#looks = [];
    this.#together = null;
    this.#list.replaceChildren();
  }

  /** What is seen anyhow need only be heard. */
  #say(text, { seen = true } = {}) {
    const line = el("opening-said");
    line.textContent = text;
    line.classList.toggle("hidden", !seen);
  }

  /** Puts each where it belongs, once it is known what they are. */
  #arrange() {
    const looking = this.#looks.filter(({ state }) => state === "looking");
    if (looking.length) {
      for (const button of this.#list.querySelectorAll(".act button")) button.disabled = true;
      const what = looking.length > 1 ? `${looking.length} of ${this.#looks.length}` : looking[0].name;
      const first = this.#coming();
      this.#say(`Looking at ${what}${first ? `, once ${first.name} is here` : ""}…`);
      return;
    }
    const of = (kind) => this.#looks.filter((look) => look.state === "known" && look.kind === kind);
    const [loras, vaes] = ["lora", "vae"].map(of);
    const checkpoints = this.#looks.filter(({ isCheckpoint }) => isCheckpoint);
    // What came with one checkpoint is meant for it.
    this.#together ??= checkpoints.length === 1 && (checkpoints[0].canLoad || checkpoints[0].lacksVae);
    const joined = this.#together && checkpoints.length > 0;
    this.#say(this.#looks.map(said).join(" "), { seen: false });
    for (const element of this.#list.querySelectorAll(".act, .with")) element.remove();
    for (const look of [...loras, ...vaes]) look.element.hidden = joined;
    for (const look of checkpoints) if (look.state === "known") this.#offerLoad(look, joined ? loras : []);
    for (const look of of(null)) this.#offerLoad(look, []);
    for (const look of this.#looks) if (look.state === "failed") this.#button(look, "Look again", true, () => look.look(), "button");
    if (joined) {
      // It is looked at once more, with the VAE that came with it.
      if (vaes.length && checkpoints[0].takeVaes(vaes.map(({ thing }) => thing))) return;
    } else {
      if (loras.length) this.#offerLoras(loras);
      for (const look of vaes) this.#offerOver([look], "vae", (name) => `Use it as ${name}’s VAE`, look.thing);
    }
    // The keyboard goes to what can be done, unless it went elsewhere.
    if (document.activeElement === el("opening-title")) this.#list.querySelector(".act button:enabled")?.focus({ preventScroll: true });
  }

  /** The button that loads a checkpoint, and the LoRAs that came with it. */
  #offerLoad(look, looks) {
    const { meant = {} } = look.thing;
    const extras = [...(meant.loras ?? []), ...looks.map(({ thing }) => (thing.lora ??= loraOf(thing)))];
    if (extras.length) {
      const group = make("fieldset", { className: "with" });
      group.append(make("legend", { textContent: extras.length > 1 ? "The LoRAs that came with it" : "The LoRA that came with it" }));
      for (const lora of extras) {
        const label = make("label", { className: "switch" });
        const box = make("input", { type: "checkbox", checked: lora.on });
        box.addEventListener("change", () => (lora.on = box.checked));
        label.append(box, ` ${lora.name}${lora.scale === 1 ? "" : ` ${lora.scale}`}`);
        group.append(label);
      }
      look.element.append(group);
    }
    this.#button(look, "Load", look.canLoad, () => {
      const { thing, options, inspection } = look;
      this.#done([look, ...looks], "load", { thing, options, defaults: inspection.defaults, loras: extras.filter(({ on }) => on) });
    });
  }

  #offerLoras(looks) {
    const words = (name) => (looks.length > 1 ? `Lay them over ${name}` : `Lay it over ${name}`);
    this.#offerOver(looks, "lay", words, looks.map(({ thing }) => thing));
  }

  #offerOver(looks, type, words, detail) {
    const target = this.#target();
    const text = target ? words(target.name) : "There is no checkpoint that it could go over";
    const canBe = looks.every(({ inspection }) => inspection.unsupported.length === 0);
    this.#button(looks.at(-1), text, target !== null && canBe, () => this.#done(looks, type, detail));
  }

  #button(look, textContent, enabled, onClick, className = "primary") {
    const act = make("div", { className: "act" });
    const button = make("button", { type: "button", className, textContent, disabled: !enabled });
    button.setAttribute("aria-describedby", look.reasonId);
    button.addEventListener("click", onClick);
    act.append(button);
    look.element.append(act);
  }

  /** Tells what is to be done with some of them; others that can be used wait for their turn. */
  #done(looks, type, detail) {
    for (const { element } of looks) element.remove();
    this.#looks = this.#looks.filter((look) => !looks.includes(look));
    const left = this.#list.querySelector(".act button:enabled") !== null;
    if (!left) this.#root.close();
    this.dispatchEvent(new CustomEvent(type, { detail }));
    if (left) this.#arrange();
  }
}
