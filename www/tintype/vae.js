// What `vae` takes → what the engine reads: an autoencoder from elsewhere.

import { VAE } from "./source.js";

/** `{ vae: { source, name? }, warnings }` in the engine's words; no `vae` where none is asked for. `call` names who asked. */
export async function resolveVae(sources, vae, call, signal) {
  if (vae === undefined) return { warnings: [] };
  const { source, hints, warnings } = await sources.find(vae, { where: `${call}: vae`, kind: VAE, signal });
  return { vae: { source, name: hints.name }, warnings };
}
