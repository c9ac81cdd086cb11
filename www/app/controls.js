// The form: what a person has set, and what the chosen checkpoint sets for what they left alone.

const NUMBERS = ["steps", "guidanceScale", "width", "height"];
const TEXTS = ["prompt", "negativePrompt", "sampler"];
const POINTED_MS = 2000;

/** 32 bits: what the noise's generator takes of a seed. */
export const randomSeed = () => String(crypto.getRandomValues(new Uint32Array(1))[0]);

export class Controls {
  #form;
  #fields;
  /** Fields that a person or a restored picture has set: a checkpoint's defaults leave these alone. */
  #set = new Set();
  #defaults = {};
  /** What a person had set before a LoRA or another way brought other defaults: { default, value } by name. */
  #aside = new Map();
  #seedIsUsed = false;

  constructor(form) {
    this.#form = form;
    this.#fields = form.elements;
    form.addEventListener("input", ({ target }) => {
      if (target.name === "seed") this.#seedIsUsed = false;
      if (target.name) this.#set.add(target.name);
      this.#show();
    });
    form.addEventListener("change", ({ target }) => {
      if (target.name === "width" || target.name === "height") this.#snap(target);
    });
    // A field that is wrong must be in sight for the browser to say so.
    form.addEventListener("invalid", ({ target }) => target.closest("details")?.setAttribute("open", ""), true);
    form.querySelector("#dice").addEventListener("click", () => this.rollSeed());
    form.querySelector("#swap").addEventListener("click", () => this.#swap());
    form.querySelector("#reset").addEventListener("click", () => this.reset());
    this.rollSeed();
    this.#show();
  }

  get keepsSeed() {
    return this.#fields.keep.checked;
  }

  get count() {
    return Number(this.#fields.count.value);
  }

  get prompt() {
    return this.#fields.prompt.value.trim();
  }

  set prompt(text) {
    this.#fields.prompt.value = text;
  }

  rollSeed() {
    this.#fields.seed.value = randomSeed();
    this.#seedIsUsed = false;
  }

  /**
   * What to draw, "" being the checkpoint's own sampler. A seed that has been drawn gives way to a new one, unless it
   * is to be kept.
   */
  takeRecipe() {
    if (this.#seedIsUsed && !this.keepsSeed) this.rollSeed();
    return this.#read();
  }

  /** What to draw in several checkpoints, with the seed that is seen: what nobody has set is left to each of them. */
  sharedRecipe() {
    const recipe = this.#read();
    for (const name of NUMBERS) if (!this.#set.has(name)) delete recipe[name];
    return recipe;
  }

  #read() {
    this.#seedIsUsed = true;
    const { seed, negativePrompt, sampler } = this.#fields;
    const recipe = {
      prompt: this.prompt,
      negativePrompt: negativePrompt.value.trim(),
      seed: seed.value,
      sampler: sampler.value,
    };
    for (const name of NUMBERS) {
      if (this.#fields[name].value !== "") recipe[name] = this.#fields[name].valueAsNumber;
    }
    return recipe;
  }

  /** Takes a picture's recipe (or an address's) into the form. */
  restore(recipe) {
    for (const name of [...NUMBERS, ...TEXTS]) {
      if (recipe[name] === undefined) continue;
      this.#setField(name, recipe[name]);
      this.#set.add(name);
    }
    if (/^\d{1,20}$/.test(recipe.seed ?? "")) {
      this.#fields.seed.value = recipe.seed;
      this.#seedIsUsed = false;
    }
    this.#show();
  }

  /** Takes a checkpoint's defaults for what nobody has set. */
  offer(defaults) {
    this.#defaults = { ...defaults };
    this.#fields.sampler.options[0].textContent = defaults.sampler ? `Default (${defaults.sampler})` : "Default";
    if (defaults.factor) this.#fields.width.step = this.#fields.height.step = defaults.factor;
    for (const name of NUMBERS) {
      if (!this.#set.has(name) && defaults[name] !== undefined) this.#setField(name, defaults[name]);
    }
    this.#show();
  }

  /**
   * Takes other defaults of the same checkpoint, as a LoRA or another way of drawing brings them. Where one is another, it goes before what a person has
   * set; that comes back with the former default, unless they set something since. With `keepsSet` what is set stays. Gives the names
   * of those that were taken.
   */
  bring(defaults, { keepsSet = false } = {}) {
    const before = this.#defaults;
    const others = [...NUMBERS, "sampler"].filter((name) => defaults[name] !== before[name]);
    const stays = (name) => keepsSet && this.#set.has(name);
    const taken = others.filter((name) => !stays(name));
    // What was set before that is given up.
    for (const name of others.filter(stays)) this.#aside.delete(name);
    for (const name of taken) {
      const kept = this.#aside.get(name);
      if (kept && kept.default === defaults[name]) {
        this.#aside.delete(name);
        if (!this.#set.has(name)) this.restore({ [name]: kept.value });
      } else if (this.#set.delete(name)) {
        if (!kept) this.#aside.set(name, { default: before[name], value: this.#fields[name].value });
        if (name === "sampler") this.#setField(name, "");
      }
      this.#point(this.#fields[name].closest(".field"));
    }
    this.offer(defaults);
    return taken;
  }

  /** Shows that a field changed by itself. */
  #point(field) {
    field.classList.add("brought");
    setTimeout(() => field.classList.remove("brought"), POINTED_MS);
  }

  reset() {
    for (const name of [...NUMBERS, "sampler"]) this.#set.delete(name);
    this.#aside.clear();
    this.#setField("sampler", "");
    this.offer(this.#defaults);
  }

  samplers(names) {
    const { sampler } = this.#fields;
    const { value } = sampler;
    sampler.replaceChildren(sampler.options[0], ...names.map((name) => new Option(name, name)));
    this.#setField("sampler", value);
  }

  #setField(name, value) {
    const field = this.#fields[name];
    // A slider would silently take the nearest value that it can show; a size that a checkpoint has itself can be drawn.
    if (field.max && Number(value) > Number(field.max)) field.max = value;
    if (field.min && Number(value) < Number(field.min)) field.min = value;
    if (field.type === "range" && Number(value) % Number(field.step || 1) !== 0) field.step = "any";
    const missing = field.options && ![...field.options].some((option) => option.value === value);
    if (missing) field.add(new Option(value, value));
    field.value = value;
  }

  #snap(field) {
    if (field.value === "") return;
    const step = Number(field.step);
    const nearest = Math.round(field.valueAsNumber / step) * step;
    field.value = Math.min(field.max, Math.max(field.min, nearest || field.min));
  }

  #swap() {
    const { width, height } = this.#fields;
    [width.value, height.value] = [height.value, width.value];
    this.#set.add("width").add("height");
  }

  #show() {
    const { steps, guidanceScale } = this.#fields;
    this.#form.querySelector("#steps-value").value = steps.value;
    this.#form.querySelector("#guidance-value").value = guidanceScale.value;
    for (const range of [steps, guidanceScale]) {
      range.style.setProperty("--at", (range.value - range.min) / (range.max - range.min));
    }
  }
}
