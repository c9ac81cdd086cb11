// A checkpoint that is made in the page: a diffusers folder with a UNet of any shape, random weights, a text encoder as small as can
// be, and an autoencoder of TAESD's shape. It draws noise, as fast as a real one of that shape draws pictures.

import { decoderGraph, textGraph } from "./parts.js";
import { half } from "./read.js";
import { unetGraph } from "./unet.js";

/**
 * Floats of fewer bits: how they are made, that 1 is `one`, and their values. A browser without a disk (a private window, a headless one)
 * holds 500 MB of what pages make, and no more: the largest model is of 8 bits for that.
 */
const NARROW = {
  F16: { Values: Uint16Array, one: 0x3c00, signs: 0x83ff83ff, exponent: (power) => Math.max(0, 15 + power) * 0x04000400, float: half },
  F8_E4M3: { Values: Uint8Array, one: 0x38, signs: 0x87878787, exponent: (power) => Math.max(0, 7 + power) * 0x08080808, float: (bits) => EIGHTHS[bits] },
};

const product = (shape) => shape.reduce((a, b) => a * b, 1);

/** The same numbers each time: xorshift, of 32 bits. */
class Random {
  #state;

  constructor(seed) {
    this.#state = seed | 0 || 1;
  }

  #next() {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (this.#state = x);
  }

  /** From -bound to bound. */
  floats(values, bound) {
    const scale = bound / 2 ** 31;
    for (let i = 0; i < values.length; i++) values[i] = this.#next() * scale;
    return values;
  }

  /** Floats of fewer bits, of either sign, up to the bound. */
  narrow(length, { Values, signs, exponent }, bound) {
    // Sign and mantissa are random, the exponent is that below the bound; several at once.
    const fixed = exponent(Math.floor(Math.log2(bound)) - 1);
    const words = new Uint32Array(Math.ceil((length * Values.BYTES_PER_ELEMENT) / 4));
    for (let i = 0; i < words.length; i++) words[i] = (this.#next() & signs) | fixed;
    return new Values(words.buffer, 0, length);
  }
}

/** A weight's values: norms near 1, biases near 0, and layers that leave what goes through them as large as it was. */
function fill(name, shape, dtype, seed) {
  const random = new Random(seed);
  const isVector = shape.length === 1;
  const narrow = NARROW[dtype];
  if (isVector && name.endsWith("weight")) {
    if (narrow) return new narrow.Values(product(shape)).fill(narrow.one);
    return random.floats(new Float32Array(product(shape)), 0.1).map((value) => 1 + value);
  }
  const bound = isVector ? 0.05 : Math.sqrt(3 / product(shape.slice(1)));
  return narrow ? random.narrow(product(shape), narrow, bound) : random.floats(new Float32Array(product(shape)), bound);
}

/** The value of each float of 8 bits, by its bits. */
const EIGHTHS = Float32Array.from({ length: 256 }, (_, bits) => {
  const exponent = (bits >> 3) & 15;
  const size = exponent === 0 ? (bits & 7) * 2 ** -9 : (8 + (bits & 7)) * 2 ** (exponent - 10);
  return bits >> 7 ? -size : size;
});

/** Weights by name, each made when it is asked for. */
export class Weights {
  constructor(shapes, dtype, seed) {
    this.shapes = shapes;
    this.dtype = dtype;
    this.seed = seed;
    this.names = [...shapes.keys()];
  }

  values = (name) => fill(name, this.shapes.get(name), this.dtype, (this.seed + this.names.indexOf(name) + 1) * 0x9e3779b1);

  /** The same in f32. */
  floats = (name) => {
    const values = this.values(name);
    return NARROW[this.dtype] ? Float32Array.from(values, NARROW[this.dtype].float) : values;
  };

  get count() {
    return [...this.shapes.values()].reduce((sum, shape) => sum + product(shape), 0);
  }

  /** A safetensors file of them. */
  file() {
    const size = NARROW[this.dtype]?.Values.BYTES_PER_ELEMENT ?? 4;
    const header = { __metadata__: { format: "pt" } };
    let end = 0;
    for (const [name, shape] of this.shapes) {
      header[name] = { dtype: this.dtype, shape, data_offsets: [end, (end += product(shape) * size)] };
    }
    let text = JSON.stringify(header);
    text = text.padEnd(Math.ceil(text.length / 8) * 8);
    const length = new BigUint64Array([BigInt(text.length)]);
    // A Blob a piece: the browser may keep those on its disk.
    return new Blob([length, text, ...this.names.map((name) => new Blob([this.values(name)]))]);
  }
}

const VAE = {
  _class_name: "AutoencoderTiny",
  act_fn: "relu",
  decoder_block_out_channels: [64, 64, 64, 64],
  encoder_block_out_channels: [64, 64, 64, 64],
  in_channels: 3,
  latent_channels: 4,
  num_decoder_blocks: [3, 3, 3, 1],
  num_encoder_blocks: [1, 3, 3, 3],
  out_channels: 3,
  scaling_factor: 1,
  upsampling_scaling_factor: 2,
};

const SCHEDULER = {
  _class_name: "EulerDiscreteScheduler",
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  beta_start: 0.00085,
  num_train_timesteps: 1000,
  prediction_type: "epsilon",
  steps_offset: 1,
  timestep_spacing: "leading",
};

/** CLIP's alphabet: each byte, and each byte that ends a word. */
function vocabulary() {
  const visible = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  const letters = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(visible(byte) ? byte : next++));
  return [...letters, ...letters.map((letter) => `${letter}</w>`), "<|startoftext|>", "<|endoftext|>"];
}

/** A model's ONNX graph, and its weights. */
function part(graph, dtype, seed) {
  const shapes = new Map([...graph.weights].map(([name, { shape }]) => [name, shape]));
  return { graph, weights: new Weights(shapes, dtype, seed) };
}

/** A text encoder as small as can be. */
const small = (width) => ({ hidden_size: width, intermediate_size: width, num_hidden_layers: 1, num_attention_heads: 8 });

/**
 * The checkpoint of `model` (`{ name, unet, text, dtype, seed }`), as `load` takes what a person picked; the UNet by itself, and its
 * other models: `{ source, weights, graph, vae, text }`.
 */
export function makeCheckpoint({ name, unet, text: shape, dtype = "F32", seed = 1 }) {
  const side = unet.sample_size;
  const size = { height: side, width: side };
  const words = vocabulary();
  const ends = { bos_token_id: words.length - 2, eos_token_id: words.length - 1 };
  const config = {
    architectures: ["CLIPTextModel"],
    hidden_act: "quick_gelu",
    max_position_embeddings: 77,
    vocab_size: words.length,
    ...(shape ?? small(unet.cross_attention_dim)),
    ...ends,
  };
  const { graph, weights } = part(unetGraph(unet, size), dtype, seed);
  const text = part(textGraph(config), shape ? dtype : "F32", seed + 1000);
  const vae = part(decoderGraph(VAE, size), "F32", seed + 2000);
  const classes = {
    scheduler: ["diffusers", SCHEDULER._class_name],
    text_encoder: ["transformers", "CLIPTextModel"],
    tokenizer: ["transformers", "CLIPTokenizer"],
    unet: ["diffusers", "UNet2DConditionModel"],
    vae: ["diffusers", VAE._class_name],
  };
  const files = {
    "model_index.json": { _class_name: "StableDiffusionPipeline", ...classes },
    "scheduler/scheduler_config.json": SCHEDULER,
    "text_encoder/config.json": config,
    "text_encoder/model.safetensors": text.weights,
    "tokenizer/merges.txt": "#version: 0.2\n",
    "tokenizer/tokenizer_config.json": { model_max_length: 77, tokenizer_class: "CLIPTokenizer" },
    "tokenizer/vocab.json": Object.fromEntries(words.map((word, id) => [word, id])),
    "unet/config.json": { _class_name: "UNet2DConditionModel", ...unet },
    "unet/diffusion_pytorch_model.safetensors": weights,
    "vae/config.json": VAE,
    "vae/diffusion_pytorch_model.safetensors": vae.weights,
  };
  const blob = (content) => {
    if (content instanceof Weights) return content.file();
    return new Blob([typeof content === "string" ? content : JSON.stringify(content)]);
  };
  const source = Object.entries(files).map(([path, content]) => ({ path: `${name}/${path}`, file: blob(content) }));
  return { source, weights, graph, vae, text };
}
