// Checkpoints of a person's own: a folder picked or dropped, or an address. Each becomes an entry like the catalogue's.

import { el } from "./dom.js";

let made = 0;

function entry(name, description, source) {
  made += 1;
  return { id: `own-${made}`, name, description, source, own: true };
}

function fromAddress(address) {
  const url = new URL(address, document.baseURI);
  const last = url.pathname.split("/").filter(Boolean).at(-1);
  return entry(decodeURIComponent(last ?? url.host), url.host, url.href);
}

/** What was kept of an address in an earlier visit. */
export const keptEntry = ({ name, url }) => entry(name, new URL(url).host, url);

/** The address that an entry's checkpoint is kept under: a folder's; nothing for a person's own files. */
export function addressOf({ source }) {
  const address = typeof source === "string" ? source : source?.url;
  return address?.replace(/[?#].*$/s, "").replace(/\/model_index\.json$/, "/").replace(/\/*$/, "/");
}

/** Calls `onEntry` with each checkpoint that a person brings, and `onError` with what was wrong with it. */
export function listen({ onEntry, onError }) {
  const folder = el("folder");
  const address = el("address");
  const row = el("address-row");
  const toggle = el("open-address");

  el("open-folder").addEventListener("click", () => folder.click());
  folder.addEventListener("change", () => {
    const files = [...folder.files];
    folder.value = "";
    if (files.length) onEntry(entry(files[0].webkitRelativePath.split("/")[0] || "Folder", "From this device", files));
  });

  toggle.addEventListener("click", () => {
    row.hidden = !row.hidden;
    toggle.setAttribute("aria-expanded", String(!row.hidden));
    if (!row.hidden) address.focus();
  });
  const add = () => {
    if (!address.value.trim() || !address.reportValidity()) return;
    onEntry(fromAddress(address.value.trim()));
    address.value = "";
    row.hidden = true;
    toggle.setAttribute("aria-expanded", "false");
  };
  el("address-add").addEventListener("click", add);
  address.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    add();
  });

  addEventListener("dragover", (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
  addEventListener("drop", async (event) => {
    const item = [...(event.dataTransfer?.items ?? [])].find(({ kind }) => kind === "file");
    if (!item) return;
    event.preventDefault();
    const handle = await item.getAsFileSystemHandle?.();
    if (handle?.kind === "directory") onEntry(entry(handle.name, "From this device", handle));
    else
      onError({ code: "unsupported", message: "Drop a checkpoint's folder here, or pick it with “Open a folder…”." });
  });
}
