// Which of the two builds of the wasm this browser runs: one multiplies and adds in one instruction.

/** A function that does so: `(v128, v128, v128) -> v128`. */
const PROBE = [
  [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  [0x01, 0x08, 0x01, 0x60, 0x03, 0x7b, 0x7b, 0x7b, 0x01, 0x7b],
  [0x03, 0x02, 0x01, 0x00],
  [0x0a, 0x0d, 0x01, 0x0b, 0x00, 0x20, 0x00, 0x20, 0x01, 0x20, 0x02, 0xfd, 0x85, 0x02, 0x0b],
].flat();

/** Whether it has relaxed SIMD. */
export const relaxed = WebAssembly.validate(Uint8Array.from(PROBE));

const folder = new URL(relaxed ? "./wasm/relaxed/" : "./wasm/", import.meta.url).href;

/** Where the wasm is, and the glue that belongs to it. */
export const wasmUrl = `${folder}tintype_bg.wasm`;
export const glueUrl = `${folder}tintype.js`;

/** The glue. Whole names, for what gathers a site's modules by reading them. */
export const bindings = () => (relaxed ? import("./wasm/relaxed/tintype.js") : import("./wasm/tintype.js"));
