// Files that the tests bring: tiny, and made here.
import { join, parse, tensors, wholeVocabulary, without } from "./safetensors.mjs";
import { shipped } from "./server.mjs";

/** A single file that has no VAE in it. */
export function withoutVae() {
  const whole = wholeVocabulary();
  return tensors(parse(whole).header)
    .filter((name) => name.startsWith("first_stage_model."))
    .reduce(without, whole);
}

/** A LoRA over attention of the shipped checkpoint, of rank 2, with kohya's names; `strength` is how much it changes. */
export function lora(strength) {
  const { header } = parse(shipped("soft", "unet/diffusion_pytorch_model.safetensors"));
  let state = 1;
  const random = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1);
  const made = {};
  const parts = [];
  let end = 0;
  const add = (name, shape, scale) => {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random() * scale);
    made[name] = { dtype: "F32", shape, data_offsets: [end, (end += values.byteLength)] };
    parts.push(Buffer.from(values.buffer));
  };
  for (const name of tensors(header).filter((name) => /\.(to_q|to_v)\.weight$/.test(name))) {
    const [out, inner] = header[name].shape;
    const module = `lora_unet_${name.replace(/\.weight$/, "").replaceAll(".", "_")}`;
    add(`${module}.lora_down.weight`, [2, inner], inner ** -0.5);
    add(`${module}.lora_up.weight`, [out, 2], strength);
  }
  return join(made, Buffer.concat(parts));
}
