// The page: ties the form, the cards, the plate and the strip to the maker.

import { Tintype } from "../tintype/tintype.js";
import { listen as listenForThings } from "./bring.js";
import { Cards } from "./cards.js";
import { Compare } from "./compare.js";
import { Controls } from "./controls.js";
import { el, make } from "./dom.js";
import { listen as listenForKeys } from "./keys.js";
import { entryFor, fromHash, isShort, layersFor, thingFor, toHash } from "./link.js";
import { Maker } from "./maker.js";
import { Memory } from "./memory.js";
import { Mine } from "./mine.js";
import { Notices } from "./notices.js";
import { Opening } from "./opening.js";
import { Over } from "./over.js";
import { isKeptAt, lorasOf, remember } from "./own.js";
import { hideError, say, showBackend, showError, showNotRunning, showStarting } from "./says.js";
import { Shelf } from "./shelf.js";
import { Stage } from "./stage.js";
import { Strip } from "./strip.js";
import { fromAddress } from "./things.js";

/** Moving over the cards with the arrow keys should not fetch each of them, where they are to be fetched. */
const CHOICE_SETTLES_MS = 250;

const maker = new Maker();
const cards = new Cards(el("cards"), el("ways"));
const controls = new Controls(el("form"));
const stage = new Stage();
const strip = new Strip(el("strip"));
const notices = new Notices(el("notices"));
const shelf = new Shelf({
  store: () => maker.store,
  hasCard: (url) => cards.entries.some((entry) => isKeptAt(entry, url)),
});
const mine = new Mine(cards, maker, { onChange: cardsChanged, onChoose: (entry) => chosen(entry), onFail: showError });
const over = new Over(maker, { onError: showError });
const opening = new Opening({
  inspect: (thing, options) => maker.inspect(thing, options),
  target: () => cards.chosen,
  coming: () => maker.coming,
});
new Memory(maker);
const compare = new Compare({
  begin: () => el("form").reportValidity() && controls.sharedRecipe(),
  draw: drawCell,
  // What went wrong is said when it is this one's turn.
  preload: (entry) => maker.load(entry).catch(() => {}),
});

/** What is being drawn: { controller, recipe }, or null. */
let work = null;
/** LoRAs that bring no settings any more: they did, or came with a recipe that has its own. Each is an entry's list of them. */
const settled = new WeakSet();
let choiceTimer = 0;
/** The entry whose settings the form has. */
let offered = null;

async function startEngine() {
  showStarting();
  try {
    if (await maker.start(el("runs-on").value)) controls.samplers(maker.samplers);
  } catch (error) {
    showNotRunning();
    showError(error);
  }
}

function showWorking(working) {
  const held = [el("generate"), el("cancel")].includes(document.activeElement);
  el("generate").hidden = working;
  el("cancel").hidden = !working;
  if (held) el(working ? "cancel" : "generate").focus();
  if (working) el("actions").hidden = true;
}

function showWarnings(warnings) {
  el("warnings").replaceChildren(...warnings.map((text) => make("li", { textContent: text })));
  el("warnings").hidden = warnings.length === 0;
}

/** What can be done with the picture on the plate. */
function showActions() {
  const { shown } = stage;
  el("actions").hidden = work !== null || !shown;
  const other = shown && cards.chosen !== shown.entry;
  el("again").hidden = !other;
  if (other) el("again").textContent = `Draw this in ${cards.chosen.name}`;
}

function present(item) {
  stage.show(item);
  strip.mark(item);
  compare.mark(item);
  showWarnings(item.warnings);
  showActions();
  history.replaceState(null, "", toHash(item.recipe, item));
}

/** Draws `count` pictures of a recipe, one after the other, each with the next seed. */
async function draw(recipe, count = 1) {
  const entry = cards.chosen;
  const before = work;
  const mine = { controller: new AbortController(), recipe };
  work = mine;
  clearTimeout(choiceTimer);
  hideError();
  showWarnings([]);
  showWorking(true);
  stage.reveal();
  try {
    for (let index = 0; index < count && work === mine; index += 1) {
      const seed = BigInt.asUintN(64, BigInt(recipe.seed) + BigInt(index)).toString();
      const drawing = drawOne(entry, { ...recipe, seed }, mine, count > 1 ? ` (${index + 1} of ${count})` : "");
      // Only now, so that a download which both wait for goes on.
      before?.controller.abort();
      await drawing;
    }
  } catch (error) {
    if (work === mine) {
      stage.settle();
      showError(error);
      say(error.code === "cancelled" ? "Cancelled." : "");
    }
  } finally {
    if (work === mine) {
      work = null;
      showWorking(false);
      showActions();
    }
  }
}

async function drawOne(entry, recipe, { controller }, place) {
  const title = `${recipe.prompt || "untitled"}${place}`;
  stage.begin({ title, ...recipe });
  say(`Drawing ${title} in ${entry.name}.`);
  const drawn = await maker.draw(entry, recipe, {
    signal: controller.signal,
    onLoading: (progress) => stage.downloading(entry.name, progress),
    onLoaded(checkpoint) {
      if (cards.chosen === entry) controls.offer(checkpoint.defaults);
      stage.preparing(title, entry.name);
    },
    onStep: (step) => !controller.signal.aborted && stage.step(title, step),
  });
  present(made(drawn, entry, recipe));
  say(`Done: ${title}.`);
}

/** Keeps a finished picture: what the strip, the cells and the plate show. */
function made(drawn, entry, recipe) {
  const item = { ...drawn, entry, recipe, name: entry.name, url: URL.createObjectURL(drawn.blob) };
  if (!cards.hasPicture(entry)) cards.picture(entry, item.url);
  el("session").hidden = false;
  strip.add(item);
  return item;
}

/** A picture of several; what its checkpoint set itself belongs to its recipe too. */
async function drawCell(entry, recipe, hooks) {
  const drawn = await maker.draw(entry, recipe, hooks);
  const { steps, guidanceScale, width, height } = drawn.parameters;
  const item = made(drawn, entry, { ...recipe, steps, guidanceScale, width, height });
  strip.mark(stage.shown);
  return item;
}

function generate() {
  if (!cards.chosen || !el("form").reportValidity()) return;
  draw(controls.takeRecipe(), controls.count);
}

/** The picture on the plate once more, in the checkpoint that is chosen now. */
function drawAgain(recipe = stage.shown.recipe) {
  const { prompt, negativePrompt, seed } = recipe;
  controls.restore({ prompt, negativePrompt, seed });
  draw(controls.takeRecipe());
}

/** A checkpoint that is not in memory may be on this device. */
function showStates() {
  cards.update((entry) => {
    const state = maker.state(entry);
    return state.state === "absent" && shelf.keeps(entry) ? { ...state, state: "here" } : state;
  });
}

/** What belongs to the card that is chosen now. */
function showChosen(entry) {
  showPrompts(entry);
  over.show(entry);
}

function showPrompts(entry) {
  const buttons = (entry.prompts ?? []).map((prompt) => {
    const button = make("button", { type: "button", className: "chip", textContent: prompt });
    button.addEventListener("click", () => {
      controls.prompt = prompt;
      generate();
    });
    return button;
  });
  el("tries").replaceChildren(...buttons);
}

const defaultsOf = (entry) => ({ ...entry.defaults, ...maker.state(entry).checkpoint?.defaults });

/** Another way's settings go before those that a person made for the one before. */
function offerDefaults(entry) {
  controls[offered && offered.way !== entry.way ? "bring" : "offer"](defaultsOf(entry));
  offered = entry;
}

function chosen(entry, { settled = maker.state(entry).state === "ready" } = {}) {
  showChosen(entry);
  offerDefaults(entry);
  showActions();
  clearTimeout(choiceTimer);
  if (settled) settle(entry);
  else choiceTimer = setTimeout(settle, CHOICE_SETTLES_MS, entry);
}

/** The choice stands: it is drawn with, or else loaded beside the picture that is being drawn. */
function settle(entry) {
  // Its card may be gone by now.
  if (!cards.has(entry)) return;
  maker.keepOnly(entry);
  const recipe = work?.recipe ?? stage.shown?.recipe;
  if (controls.keepsSeed && recipe) return drawAgain(recipe);
  maker.load(entry).then(({ defaults }) => cards.chosen === entry && controls.offer(defaults), showError);
}

function restore(item) {
  const { entry, recipe, loras, vae } = item;
  work?.controller.abort();
  // One whose card was removed is only shown.
  if (cards.has(entry)) {
    cards.choose(entry);
    showChosen(entry);
    over.restore({ loras, vae });
    settled.add(entry.loras);
    offerDefaults(entry);
  }
  controls.restore(recipe);
  hideError();
  present(item);
  say(`Showing ${item.parameters.prompt}, ${item.name}.`);
}

function restoreFromAddress() {
  const recipe = fromHash(location.hash);
  if (!recipe) return;
  const entry = entryFor(recipe, cards.entries);
  if (entry) {
    if (entry !== cards.chosen) cards.choose(entry);
    showChosen(entry);
    over.restore(layersFor(recipe, entry));
    settled.add(entry.loras);
    offerDefaults(entry);
  } else if (recipe.from) {
    // Whoever made the link chose what it loads: it is looked at, and a person decides.
    const thing = thingFor(recipe);
    if (thing) openThings([thing]);
  }
  controls.restore(recipe);
  showActions();
}

function cardsChanged() {
  compare.offer(cards.groups);
  shelf.refresh();
}

function removeOwn(entry) {
  mine.remove(entry);
  el("cards").querySelector("input:checked")?.focus();
  say(`${entry.name} was removed.`);
}

function openThings(things) {
  hideError();
  opening.open(things);
}

/** What LoRAs do to a checkpoint's defaults is seen in the form, and said. */
function bringDefaults(entry, { defaults }, loras) {
  if (cards.chosen !== entry) return;
  const taken = controls.bring(defaults, { keepsSet: settled.has(loras) });
  settled.add(loras);
  if (taken.length) over.saySettings(defaults, taken);
}

async function addCatalogue() {
  const entries = await Tintype.catalogue("checkpoints/checkpoints.json");
  for (const [index, source] of entries.entries()) {
    const { id, of, description, image, prompts, defaults } = source;
    const name = String(source.name ?? id ?? source.url);
    const way = source.way == null ? undefined : String(source.way);
    try {
      const loras = lorasOf(source.loras ?? []);
      cards.add({ id, of, way, name, description, image, prompts, defaults, source, loras, vae: null });
    } catch ({ message }) {
      notices.add(`checkpoints.json: checkpoints[${index}] is left out: ${message}`);
    }
  }
  const learned = new Map();
  for (const [{ name, source }] of cards.groups) {
    if (source.credits) learned.set(source.credits, [...(learned.get(source.credits) ?? []), name]);
  }
  const credits = [...learned].map(([from, names]) => `${names.join(", ")} from ${from}`);
  el("credits").firstElementChild.textContent = `What the checkpoints learned from: ${credits.join("; ")}.`;
  el("credits").hidden = credits.length === 0;
}

function chooseFirst() {
  const [first] = cards.entries;
  if (!first) return;
  cards.choose(first);
  showChosen(first);
  offerDefaults(first);
}

async function flash(button, action, done = "Copied") {
  const label = button.textContent;
  try {
    await action();
    button.textContent = done;
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => (button.textContent = label), 1500);
}

el("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!work) generate();
});
el("cancel").addEventListener("click", () => work?.controller.abort());
el("again").addEventListener("click", () => drawAgain());
el("error-close").addEventListener("click", () => hideError({ refocus: true }));
el("copy").addEventListener("click", () =>
  flash(el("copy"), () => navigator.clipboard.write([new ClipboardItem({ "image/png": stage.shown.blob })])),
);
el("link").addEventListener("click", () => {
  const done = isShort(stage.shown) ? "Copied, but for what is on this device" : "Copied";
  flash(el("link"), () => navigator.clipboard.writeText(location.href), done);
});
el("runs-on").addEventListener("change", () => {
  work?.controller.abort();
  compare.cancel();
  hideError();
  startEngine();
});
addEventListener("keydown", (event) => {
  // The panel has keys of its own.
  if (event.isComposing || opening.isOpen) return;
  const inPrompt = event.target === el("prompt") && !event.shiftKey;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey || inPrompt)) {
    event.preventDefault();
    if (!work) generate();
  } else if (event.key === "Escape") {
    if (work) work.controller.abort();
    else if (compare.isDrawing) compare.cancel();
    else hideError({ refocus: true });
  }
});
cards.addEventListener("choose", () => chosen(cards.chosen));
cards.addEventListener("show", showStates);
cards.addEventListener("pick", () => {
  chosen(cards.chosen, { settled: true });
  say(`${cards.chosen.name} is chosen.`);
});
listenForKeys((digit) => !opening.isOpen && cards.pick(digit));
strip.addEventListener("pick", ({ detail }) => restore(detail));
compare.addEventListener("pick", ({ detail }) => {
  restore(detail);
  stage.reveal();
});
maker.addEventListener("change", showStates);
maker.addEventListener("held", () => {
  if (maker.backend) showBackend(maker.backend);
  shelf.refresh();
});
// What the line of the backend says need not be said twice.
maker.addEventListener("notice", ({ detail }) => detail !== maker.backend?.reason && notices.add(detail));
shelf.addEventListener("change", showStates);
shelf.addEventListener("open", ({ detail: { name, url } }) => openThings([{ ...fromAddress(url), name }]));
cards.addEventListener("remove", ({ detail }) => removeOwn(detail));
opening.addEventListener("load", ({ detail }) => {
  // A link's recipe is in the form already.
  if (detail.thing.meant) settled.add(detail.loras);
  mine.add(detail);
});
opening.addEventListener("lay", ({ detail }) => over.add(detail));
opening.addEventListener("vae", ({ detail }) => {
  over.reveal();
  over.useVae(detail);
});
over.addEventListener("change", ({ detail }) => remember(detail));
// What comes with LoRAs is told apart from what the checkpoint has by itself.
maker.layers.addEventListener("laying", ({ detail: { entry, checkpoint, progress } }) => {
  if (!progress && cards.chosen === entry) controls.offer(checkpoint.defaults);
});
over.addEventListener("laid", ({ detail: { entry, checkpoint, loras } }) => bringDefaults(entry, checkpoint, loras));
addEventListener("hashchange", restoreFromAddress);
listenForThings({ onThings: openThings, onError: showError });

const engine = startEngine();
try {
  await addCatalogue();
} catch (error) {
  showError(error);
}
await mine.restore();
chooseFirst();
cardsChanged();
restoreFromAddress();
el("generate").disabled = false;
if (matchMedia("(pointer: fine)").matches) el("prompt").focus({ preventScroll: true });
await engine;
