// Which of the three builds of the wasm this browser runs: two multiply and add in one instruction, one of them by several threads.

/** A function that multiplies and adds so: `(v128, v128, v128) -> v128`. */
const PROBE = [
  [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  [0x01, 0x08, 0x01, 0x60, 0x03, 0x7b, 0x7b, 0x7b, 0x01, 0x7b],
  [0x03, 0x02, 0x01, 0x00],
  [0x0a, 0x0d, 0x01, 0x0b, 0x00, 0x20, 0x00, 0x20, 0x01, 0x20, 0x02, 0xfd, 0x85, 0x02, 0x0b],
].flat();

/** Whether it has relaxed SIMD. */
const relaxed = WebAssembly.validate(Uint8Array.from(PROBE));

// Memory that is shared needs another glue. Addresses are written out: bundlers look for exactly this.
const glue = () => import("./wasm/tintype.js");
export const BUILDS = {
  plain: { wasmUrl: new URL("./wasm/tintype_bg.wasm", import.meta.url).href, glue },
  relaxed: { wasmUrl: new URL("./wasm/tintype_relaxed_bg.wasm", import.meta.url).href, glue },
  threads: { wasmUrl: new URL("./wasm/tintype_threads_bg.wasm", import.meta.url).href, glue: () => import("./wasm/tintype_threads.js") },
};

/** Threads beyond which a step gains little. */
const MOST = 8;

/** Half of what there is may be the other halves of the same cores, or slow ones. */
const several = (there) => Math.floor(Math.min(there, Math.max(4, there / 2), MOST));

/** Whether pages here may share memory, as much of it as wasm can address. */
function shares() {
  if (!globalThis.crossOriginIsolated) return false;
  try {
    return new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true }).buffer instanceof SharedArrayBuffer;
  } catch {
    return false;
  }
}

/** The build's name, and by how many threads it is to run: at most `asked`, if that is said, and one unless `cpu` computes. */
export function choose(cpu, asked = several(navigator.hardwareConcurrency ?? 1)) {
  if (cpu && asked > 1 && relaxed && shares()) return { build: "threads", threads: asked };
  return { build: relaxed ? "relaxed" : "plain", threads: 1 };
}
