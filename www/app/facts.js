// What Tintype says of a thing before it is loaded, as a person reads it.

import { make } from "./dom.js";
import { meter } from "./meter.js";
import { mebibytes, size } from "./words.js";

const LAYOUTS = { diffusers: "diffusers folder", "single-file": "single file" };

/** What a UNet predicts, by diffusers' name. */
export const predicted = (type) => (type === "v_prediction" ? "v" : type);

const list = (className, texts) => {
  const root = make("ul", { className });
  root.append(...texts.map((textContent) => make("li", { textContent })));
  return root;
};

/** "SD 1.x · single file · 1.42 GB", "LoRA for SDXL · 0.14 GB" */
export function inShort({ kind, family, layout, bytes, components }) {
  const [part] = components;
  const what = {
    checkpoint: [family, LAYOUTS[layout]],
    lora: [family ? `LoRA for ${family}` : "LoRA"],
    vae: ["VAE", part?.class, part?.dtypes.join(", ")],
  };
  return [...(what[kind] ?? []), bytes > 0 && size(bytes)].filter(Boolean).join(" · ");
}

function pairs(entries) {
  const root = make("dl", { className: "pairs" });
  for (const [name, value] of entries) root.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
  return root;
}

function table(components) {
  const root = make("table", { className: "parts" });
  const row = (cells, tag) => {
    const line = make("tr", {});
    line.append(...cells.map((cell, at) => make(at === 0 || tag === "th" ? "th" : "td", { scope: tag === "th" ? "col" : at === 0 ? "row" : "", ...cell })));
    return line;
  };
  root.createTHead().append(row([{ textContent: "Part" }, { textContent: "Type" }, { textContent: "Size" }], "th"));
  const body = root.createTBody();
  for (const { name, class: of, dtypes, bytes } of components) {
    const line = row([{ textContent: name }, { textContent: dtypes.join(", ") }, { textContent: size(bytes) }], "td");
    line.firstElementChild.append(make("span", { className: "meta", textContent: of }));
    body.append(line);
  }
  return root;
}

function memoryOf({ weights, working, peak }, budget) {
  const root = make("div", { className: "needs" });
  const bar = make("div", { className: "meter", role: "meter", ariaLabel: "Memory" });
  const text = `${mebibytes(peak)}${budget ? ` of ${mebibytes(budget)}` : ""} MB: weights ${mebibytes(weights)}, drawing ${mebibytes(working)}`;
  meter(bar, { text, total: budget, parts: [weights, working] });
  root.append(make("p", { className: budget && peak > budget ? "short" : "", textContent: text }), bar);
  return root;
}

/** All that is known of a checkpoint. */
export function facts({ components, predictionType, defaults, memory, warnings }) {
  const root = make("div", { className: "facts" });
  const known = [];
  if (predictionType) known.push(["Predicts", predicted(predictionType)]);
  if (defaults) {
    const { width, height, steps, guidanceScale, sampler } = defaults;
    const parts = [`${width}\u00a0×\u00a0${height}`, `${steps} ${steps === 1 ? "step" : "steps"}`, `guidance ${guidanceScale}`, sampler];
    known.push(["Draws with", parts.filter(Boolean).join(", ")]);
  }
  if (known.length) root.append(pairs(known));
  if (memory) {
    const needs = pairs([["Takes here", ""]]);
    needs.lastElementChild.append(memoryOf(memory, memory.budget));
    root.append(needs);
  }
  if (components.length) root.append(table(components));
  if (warnings.length) root.append(list("warnings", warnings));
  return root;
}

/** Why it can't be used, by name. */
export const reasons = (unsupported) => list("reasons", unsupported);
