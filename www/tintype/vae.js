// What `vae` takes → what the engine reads: an autoencoder from elsewhere.

import { gather, isPicked } from "./picked.js";

/** Each makes a folder one with an autoencoder in it: its own, or a checkpoint's. */
const INDEXES = ["model_index.json", "config.json"];

/**
 * `{ source, name? }` in the engine's words, and what a person should know of where it comes from; without a source where none is
 * asked for. `call` names who asked.
 */
export async function resolveVae(sources, vae, call, signal) {
  if (vae === undefined) return { warnings: [] };
  const where = `${call}: vae`;
  // TAESD's two halves.
  if (isPicked(vae)) {
    const files = await gather(vae, where, signal);
    if (files.length === 2 && files.every(({ path }) => path.endsWith(".safetensors"))) {
      return { vae: { source: { kind: "files", files } }, warnings: [] };
    }
    vae = files;
  }
  const { source, hints, warnings } = await sources.find(vae, { where, indexes: INDEXES, signal });
  return { vae: { source, name: hints.name }, warnings };
}
