// Beside the UNet: diffusers' decoder of an AutoencoderTiny and transformers' CLIP text model, operation by operation as torch's ONNX
// exporter writes them.

import { OnnxGraph } from "./onnx.js";
import { Layers } from "./unet.js";

const relu = (g, x) => ({ ...x, value: g.op("Relu", [x.value]) });

/** The graph of a tiny decoder, batch 1, for latents of `height` and `width`, scaled as a sampler leaves them. Its weights are those of diffusers' state dict. */
export function decoderGraph(config, { height, width }) {
  const { decoder_block_out_channels: channels, num_decoder_blocks: blocks, latent_channels: latents, scaling_factor: scale } = config;
  const g = new OnnxGraph();
  const l = new Layers(g, config);
  let next = 0;
  const layer = () => `decoder.layers.${next++}`;
  const input = g.input("latents", [1, latents, height, width]);
  // What is out of range is bent back.
  const bent = g.op("Mul", [g.op("Tanh", [g.op("Div", [input, g.scalar(3 * scale)])]), g.scalar(3)]);
  let x = relu(g, l.conv(layer(), { value: bent, c: latents, h: height, w: width }, channels[0]));
  layer();
  blocks.forEach((count, stage) => {
    const c = channels[stage];
    for (let i = 0; i < count; i++) {
      const block = layer();
      const first = relu(g, l.conv(`${block}.conv.0`, x, c));
      const second = relu(g, l.conv(`${block}.conv.2`, first, c));
      const third = l.conv(`${block}.conv.4`, second, c);
      x = relu(g, { ...third, value: g.op("Add", [third.value, x.value]) });
    }
    if (stage + 1 === blocks.length) return void (x = l.conv(layer(), x, 3));
    layer();
    x = l.conv(layer(), l.enlarged(x), c, 3, 1, false);
  });
  const out = g.op("Sub", [g.op("Mul", [x.value, g.scalar(2)]), g.scalar(1)]);
  g.output("sample_out", [1, 3, x.h, x.w], out);
  return g;
}

/** The graph of a text encoder for one prompt of `tokens`. Its weights are those of transformers' state dict. */
export function textGraph(config, tokens = config.max_position_embeddings) {
  const { hidden_size: width, intermediate_size: inner, num_attention_heads: heads, vocab_size: vocabulary } = config;
  const g = new OnnxGraph();
  const l = new Layers(g, config);
  const ids = g.input("input_ids", [1, tokens], "i64");
  const places = g.constant(Array.from({ length: tokens }, (_, i) => i), [1, tokens], "i64");
  const row = (table, count, at) => g.op("Gather", [g.weight(`text_model.embeddings.${table}.weight`, [count, width]), at], { axis: 0 });
  let x = g.op("Add", [row("token_embedding", vocabulary, ids), row("position_embedding", config.max_position_embeddings, places)]);
  const hidden = Array.from({ length: tokens * tokens }, (_, i) => (i % tokens > Math.floor(i / tokens) ? -3.4028234663852886e38 : 0));
  const mask = g.constant(hidden, [1, 1, tokens, tokens]);
  const dim = width / heads;
  const split = (value, perm) => g.op("Transpose", [g.op("Reshape", [value, g.integers(1, tokens, heads, dim)])], { perm });
  // As the exporter has it: the root of the scale on either side.
  const scaled = (value) => g.op("Mul", [value, g.scalar(dim ** -0.25)]);
  const act = {
    quick_gelu: (x) => g.op("Mul", [x, g.op("Sigmoid", [g.op("Mul", [x, g.scalar(1.702)])])]),
    gelu: (x) => l.gelu(x),
  }[config.hidden_act];
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const name = `text_model.encoder.layers.${i}`;
    const n = l.layerNorm(`${name}.layer_norm1`, x, width);
    const project = (part) => l.linear(`${name}.self_attn.${part}_proj`, n, width, width);
    const [q, k, v] = [split(project("q"), [0, 2, 1, 3]), split(project("k"), [0, 2, 3, 1]), split(project("v"), [0, 2, 1, 3])];
    const scores = g.op("Add", [g.op("MatMul", [scaled(q), scaled(k)]), mask]);
    const mixed = g.op("MatMul", [g.op("Softmax", [scores], { axis: -1 }), v]);
    const joined = g.op("Reshape", [g.op("Transpose", [mixed], { perm: [0, 2, 1, 3] }), g.integers(1, tokens, width)]);
    x = g.op("Add", [x, l.linear(`${name}.self_attn.out_proj`, joined, width, width)]);
    const first = l.linear(`${name}.mlp.fc1`, l.layerNorm(`${name}.layer_norm2`, x, width), width, inner);
    x = g.op("Add", [x, l.linear(`${name}.mlp.fc2`, act(first), inner, width)]);
  }
  g.output("last_hidden_state", [1, tokens, width], l.layerNorm("text_model.final_layer_norm", x, width));
  return g;
}
