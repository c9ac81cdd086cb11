// What `vae` takes → what the engine reads: an autoencoder from elsewhere.

import { TintypeError } from "./error.js";
import { resolve } from "./source.js";

/** `{ source, name? }` in the engine's words; undefined where none is asked for. `call` names who asked. */
export async function resolveVae(vae, call, signal) {
  if (vae === undefined) return undefined;
  try {
    const { source, hints } = await resolve(vae, signal);
    return { source, name: hints.name };
  } catch (error) {
    if (!(error instanceof TintypeError)) throw error;
    throw new TintypeError(error.code, error.message.replace(/^source/, `${call}: vae`), { cause: error.cause });
  }
}
