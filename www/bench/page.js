// The page: a form, what is being done, and the report as tables, a chart and JSON.

import { TintypeError } from "../tintype/tintype.js";
import { el, make } from "../app/dom.js";
import { canRace, measure, shipped } from "./measure.js";
import { MADE } from "./models.js";
import { bars, byKind, milliseconds, nodeTable, tables } from "./tables.js";

let all = [];
let controller = null;
let report = null;

function tableOf({ title, head, rows }) {
  const section = make("section", { className: "result" });
  const table = make("table", {});
  if (head.some(Boolean)) {
    const row = table.createTHead().insertRow();
    head.forEach((text) => row.append(make("th", { scope: "col", textContent: text })));
  }
  const body = table.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    cells.forEach((text, column) => row.append(make(column === 0 ? "th" : "td", { textContent: text, ...(column === 0 && { scope: "row" }) })));
  }
  const scroller = make("div", { className: "scroller", tabIndex: 0, role: "region", ariaLabel: title });
  scroller.append(table);
  section.append(make("h2", { textContent: title }), scroller);
  return section;
}

/** Bars of one scale; the longest is all of the width. */
function chartOf(title, items) {
  const most = Math.max(...items.map(({ ms }) => ms));
  const figure = make("figure", { className: "chart" });
  const list = make("ul", {});
  for (const { label, ms, ours } of items) {
    const item = make("li", { className: ours ? "ours" : "theirs" });
    const bar = make("i", {});
    bar.style.setProperty("--part", ms / most);
    const track = make("span", { className: "track" });
    track.append(bar);
    item.append(make("span", { className: "label", textContent: label }), track, make("span", { className: "value", textContent: milliseconds(ms) }));
    list.append(item);
  }
  figure.append(make("figcaption", { textContent: title }), list);
  return figure;
}

function show(found) {
  report = found;
  const raced = Boolean(found.race?.ort);
  const kinds = byKind(found.unet.nodes).map(({ kind, ms }) => ({ label: kind, ms, ours: true }));
  const charts = make("div", { className: "charts" });
  charts.append(
    chartOf(raced ? "A step of the UNet: shorter is faster" : "Shorter is faster", bars(found)),
    chartOf("Where a step's time goes", kinds.slice(0, 6)),
  );
  const everyNode = make("details", {});
  everyNode.append(make("summary", { textContent: "Every operation" }));
  everyNode.append(tableOf(nodeTable("UNet", found.unet)), tableOf(nodeTable("Decoder", found.vae)));
  el("results").replaceChildren(charts, ...tables(found).map(tableOf), everyNode);
  el("copy").hidden = false;
  el("said").textContent = found.race?.error ? `Done, but for the race: ${found.race.error}` : "Done.";
}

function fail(error) {
  if (error?.code === "cancelled" || controller?.signal.aborted) return void (el("said").textContent = "Stopped.");
  if (!(error instanceof TintypeError)) reportError(error);
  el("said").textContent = "";
  el("error-code").textContent = error?.code ?? "failed";
  el("error-message").textContent = error?.message ?? String(error);
  el("error").hidden = false;
}

/** A number of times; nothing, if it is none. */
const whole = (text) => (Number.isInteger(Number(text)) && Number(text) >= 1 ? Number(text) : undefined);

async function run(event) {
  event.preventDefault();
  if (controller) return;
  controller = new AbortController();
  const model = all.find(({ id }) => id === el("model").value);
  el("error").hidden = true;
  el("copy").hidden = true;
  el("results").replaceChildren();
  el("measure").disabled = true;
  el("stop").hidden = false;
  document.body.dataset.state = "measuring";
  try {
    const asked = new URLSearchParams(location.search);
    const [rounds, threads] = ["rounds", "threads"].map((name) => whole(asked.get(name)));
    show(
      await measure(model, {
        backend: el("runs-on").value,
        arithmetic: el("arithmetic").value,
        raced: el("race").checked && !el("race").disabled,
        rounds,
        threads,
        signal: controller.signal,
        onPhase: (text) => (el("said").textContent = `${text}…`),
      }),
    );
  } catch (error) {
    fail(error);
  } finally {
    controller = null;
    el("measure").disabled = false;
    el("stop").hidden = true;
    document.body.dataset.state = "idle";
  }
}

function choose() {
  const model = all.find(({ id }) => id === el("model").value);
  el("about").textContent = model?.about ?? "";
  el("race").disabled = !model || !canRace(model);
}

async function copy() {
  const text = JSON.stringify(report, null, 1);
  try {
    await navigator.clipboard.writeText(text);
    el("said").textContent = "Copied.";
  } catch {
    // Not allowed here: to be copied by hand.
    el("json").value = text;
    el("json").hidden = false;
    el("json").select();
  }
}

async function start() {
  el("form").addEventListener("submit", run);
  el("stop").addEventListener("click", () => controller?.abort());
  el("copy").addEventListener("click", copy);
  el("model").addEventListener("change", choose);
  const offer = (more) => {
    all = [...all, ...more];
    el("model").append(...more.map(({ id, name }) => make("option", { value: id, textContent: name })));
  };
  offer(MADE);
  // A link may say what is to be measured; it measures nothing by itself.
  const asked = new URLSearchParams(location.search);
  const offering = shipped().then(offer);
  if (asked.has("model") && MADE.every(({ id }) => id !== asked.get("model"))) await offering;
  for (const name of ["model", "runs-on", "arithmetic"]) {
    if (asked.has(name)) el(name).value = asked.get(name);
    if (el(name).selectedIndex < 0) el(name).selectedIndex = 0;
  }
  el("race").checked = asked.has("race");
  choose();
  el("measure").disabled = false;
  document.body.dataset.state = "idle";
}

start();
