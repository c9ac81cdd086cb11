// What is at an address that does not say whether it is a folder's or a file's.

import { Download } from "./download.js";
import { failure } from "./failure.js";

const label = (url) => url.replace(/[?#].*$/s, "");

/** The first bytes of what is there and the name that its host gives it; what is there is not read. */
async function glance(url, { stallTimeout, hub }, signal) {
  const download = new Download({ url, place: label(url), stallTimeout, cache: "no-store", hub });
  const stop = () => download.cancel();
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  try {
    await download.open();
    const piece = await download.next();
    return { start: piece?.slice(0, 64) ?? new Uint8Array(), name: download.facts.name };
  } finally {
    signal.removeEventListener("abort", stop);
    download.cancel();
  }
}

/**
 * `{ folder: true }`, if there is one of the files `index` below `url`; else `{ name? }`, if there is a file. What is kept of either is
 * believed.
 */
export async function tell({ url, index }, keeper, signal) {
  const below = index.map((name) => {
    const below = new URL(url);
    below.pathname += `/${name}`;
    return below.href;
  });
  const kept = async (url) => {
    const { record } = (await keeper.store?.find(url, {}).catch(() => null)) ?? {};
    return record?.sha256 ? record : null;
  };
  const file = await kept(url);
  if (file) return { name: file.name };
  for (const url of below) if (await kept(url)) return { folder: true };
  const failures = [];
  for (const url of below) {
    try {
      const { start } = await glance(url, keeper, signal);
      // Some hosts answer whatever is below a file's address with the file.
      if (/^\s*\{\s*["}]/.test(new TextDecoder().decode(start))) return { folder: true };
    } catch (error) {
      if (error.code === "cancelled") throw error;
      failures.push(error);
    }
  }
  try {
    const { name } = await glance(url, keeper, signal);
    return { name };
  } catch (error) {
    if (error.code === "cancelled" || below.length === 0) throw error;
    const code = [...failures, error].some(({ code }) => code === "network") ? "network" : "not-found";
    const why = [...new Set([error, ...failures].map(({ message }) => message))].join("; ");
    throw failure(code, `${label(url)}: expected a folder with ${index.join(" or ")}, or a file: ${why}`, error);
  }
}
