// The ways to bring a checkpoint, a LoRA or a VAE: picked, dropped anywhere on the page, pasted, or typed as an address.

import { el } from "./dom.js";
import { listenForAddress, listenForFiles } from "./pick.js";
import { fromAddress, fromTransfer } from "./things.js";

const TEXT = "textarea, [contenteditable], input:not([type=radio], [type=checkbox], [type=range], [type=button])";
/** Browsers tell of what is dragged at least twice a second. */
const DRAGGED_MS = 1500;
const NOTHING = "There is nothing in it to open: expected a .safetensors file, or a folder with such files.";

/** Calls `onThings` with what a person brings, and `onError` with what was wrong with it. */
export function listen({ onThings, onError }) {
  const bring = (things) => {
    if (things.length) onThings(things);
    else onError({ code: "unsupported", message: NOTHING });
  };
  const hooks = { onThings: bring, onError };
  listenForFiles(el("open-file"), el("file"), hooks);
  listenForFiles(el("open-folder"), el("folder"), hooks);
  listenForTyped(bring);
  listenForDrop(hooks);
  addEventListener("paste", (event) => {
    if (event.target.closest?.(TEXT)) return;
    const { files } = event.clipboardData;
    const text = event.clipboardData.getData("text").trim();
    const thing = /^(hf:|https?:)\S+$/i.test(text) && fromAddress(text);
    if (files.length) fromTransfer(event.clipboardData).then(bring, onError);
    else if (thing) bring([thing]);
    else return;
    event.preventDefault();
  });
}

function listenForTyped(bring) {
  const toggle = el("open-address");
  const show = (shown) => {
    el("address-row").hidden = !shown;
    toggle.setAttribute("aria-expanded", String(shown));
  };
  toggle.addEventListener("click", () => {
    show(el("address-row").hidden);
    if (!el("address-row").hidden) el("address").focus();
  });
  listenForAddress(el("address"), el("address-add"), (thing) => {
    show(false);
    bring([thing]);
  });
}

function listenForDrop({ onThings, onError }) {
  // A picture that is dragged out of this page is no checkpoint.
  let isOurs = false;
  let timer = 0;
  // Above the panel too, if that is open.
  const veil = (shown) => el("veil").togglePopover?.(shown);
  const address = (event) => !event.target.closest?.(TEXT) && event.dataTransfer.types.includes("text/uri-list");
  const isMeant = (event) => !isOurs && (event.dataTransfer?.types.includes("Files") || address(event));
  addEventListener("dragstart", () => (isOurs = true));
  addEventListener("dragend", () => (isOurs = false));
  addEventListener("dragover", (event) => {
    if (!isMeant(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    veil(true);
    // Not every way to give up is told; as long as something is dragged, this is.
    clearTimeout(timer);
    timer = setTimeout(veil, DRAGGED_MS, false);
  });
  // Out of the window.
  addEventListener("dragleave", (event) => event.relatedTarget === null && veil(false));
  addEventListener("drop", (event) => {
    veil(false);
    if (!isMeant(event)) return;
    event.preventDefault();
    const { dataTransfer } = event;
    if (dataTransfer.types.includes("Files")) return void fromTransfer(dataTransfer).then(onThings, onError);
    const thing = fromAddress(dataTransfer.getData("text/uri-list").split(/\r?\n/).find((line) => line && !line.startsWith("#")) ?? "");
    onThings(thing ? [thing] : []);
  });
}
