// What the page says by itself: to those who hear it, of what went wrong, and of what it runs on.

import { el } from "./dom.js";

export function say(text) {
  el("announce").textContent = text;
}

const ERRORS = {
  "invalid-argument": "That can't be drawn.",
  network: "The network failed.",
  "not-found": "Something is missing.",
  corrupt: "A file is damaged.",
  unsupported: "Not possible here.",
  "out-of-memory": "There is not enough memory.",
  quota: "There is not enough storage.",
  "device-lost": "The GPU was lost.",
};

export function showError(error) {
  if (error.code === "cancelled") return;
  el("error-code").textContent = ERRORS[error.code] ?? "Something went wrong.";
  el("error-message").textContent = error.message;
  el("error").hidden = false;
}

export function hideError({ refocus = false } = {}) {
  if (refocus && el("error").contains(document.activeElement)) el("generate").focus();
  el("error").hidden = true;
}

function line(kind, text, title = "") {
  const node = el("backend");
  node.dataset.kind = kind;
  node.title = title;
  // It is read out whenever it is set.
  if (node.textContent !== text) node.textContent = text;
}

export const showStarting = () => line("starting", "Starting…");
export const showNotRunning = () => line("failed", "Not running");
export const showBackend = ({ kind, name, threads, reason }) => {
  const cpu = threads > 1 ? `CPU, ${threads} threads` : "CPU";
  line(kind, `${kind === "webgpu" ? `WebGPU on ${name}` : cpu}: ${reason}`, name);
};
