// sha256 of bytes as they stream, by the crate's wasm: the platform's digest wants all of them at once.

import { BUILDS, choose } from "../build.js";

/** What is copied into wasm at once: its memory grows by this and never shrinks. */
const PIECE = 1 << 20;

let Sha256;

/** Must have been called before the first hash: with a compiled module, and which build it is of. */
export async function startHashing({ build, module }) {
  try {
    await start(build, module);
  } catch (error) {
    if (build !== "threads") throw error;
    const one = choose(false).build;
    // Memory to share was had once, and may not be had again.
    await start(one, BUILDS[one].wasmUrl);
  }
}

async function start(build, wasm) {
  const bindings = await BUILDS[build].glue();
  await bindings.default({ module_or_path: wasm });
  ({ Sha256 } = bindings);
}

export class Hasher {
  #sha = new Sha256();

  update(bytes) {
    for (let at = 0; at < bytes.length; at += PIECE) this.#sha.update(bytes.subarray(at, at + PIECE));
  }

  /** 64 hexadecimal digits. The hasher is of no use afterwards. */
  finish() {
    return this.#sha.finish();
  }

  /** Lets go of a hash that nobody will ask for. */
  drop() {
    this.#sha.free();
  }
}

export function hashOf(text) {
  const hasher = new Hasher();
  hasher.update(new TextEncoder().encode(text));
  return hasher.finish();
}
