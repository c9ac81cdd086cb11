// Asks a person for files, a folder, or an address.

import { make } from "./dom.js";
import { fromAddress, fromFiles, fromHandles } from "./things.js";

const TYPES = [{ description: "Weights", accept: { "application/octet-stream": [".safetensors"] } }];

/**
 * `button` asks for files, or for a folder where `input` is for one: by the picker that gives handles, which can be kept for
 * another visit, and where there is none, by `input`. Calls `onThings` with what was picked, if anything was.
 */
export function listenForFiles(button, input, { onThings, onError }) {
  const ask = input.webkitdirectory ? "showDirectoryPicker" : "showOpenFilePicker";
  const tell = (picked) => picked.then((things) => onThings(things), onError);
  button.addEventListener("click", async () => {
    try {
      const handles = [await globalThis[ask]({ multiple: input.multiple, types: TYPES })].flat();
      tell(fromHandles(handles));
    } catch (error) {
      // Neither is there everywhere, nor allowed in a frame of another site.
      if (error.name !== "AbortError") input.click();
    }
  });
  input.addEventListener("change", () => {
    tell(fromFiles(input.files));
    input.value = "";
  });
}

/** Calls `onThing` with what is typed into `field`, when `button` is pressed or Enter, which does nothing else then. */
export function listenForAddress(field, button, onThing) {
  const add = () => {
    const text = field.value.trim();
    if (!text) return field.focus();
    const thing = fromAddress(text);
    field.setCustomValidity(thing ? "" : "This is no address.");
    if (!thing) return field.reportValidity();
    field.value = "";
    onThing(thing);
  };
  field.addEventListener("input", () => field.setCustomValidity(""));
  button.addEventListener("click", add);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    add();
  });
}

let made = 0;

/** A row in which files are chosen or an address is typed; `what` says what for. */
export function pickRow(what, { onThings, onError, multiple = true }) {
  made += 1;
  const row = make("div", { className: "pick", role: "group", ariaLabel: what });
  const choose = make("button", { type: "button", className: "button", textContent: multiple ? "Choose files…" : "Choose a file…" });
  const input = make("input", { type: "file", accept: ".safetensors", multiple, hidden: true, tabIndex: -1, ariaLabel: what });
  const field = make("input", { type: "text", id: `pick-${made}`, inputMode: "url", placeholder: "https://… or org/name", autocomplete: "off", spellcheck: false });
  const label = make("label", { htmlFor: field.id, className: "hidden", textContent: `Address of ${what}` });
  const add = make("button", { type: "button", className: "button", textContent: "Add" });
  listenForFiles(choose, input, { onThings, onError });
  listenForAddress(field, add, (thing) => onThings([thing]));
  row.append(choose, input, label, field, add);
  return row;
}
