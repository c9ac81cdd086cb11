// diffusers' UNet2DConditionModel, operation by operation as torch's ONNX exporter writes it: group norms as instance norms of a
// reshaped picture, GELU by its error function, attention as products and a softmax. For SD 1.x and its distilled kin.

import { OnnxGraph } from "./onnx.js";

const LN_10000 = Math.log(10000);

/** Layers over an OnnxGraph. Images are `{ value, c, h, w }`. */
export class Layers {
  constructor(graph, config) {
    this.g = graph;
    this.config = config;
  }

  conv(name, x, co, kernel = 3, stride = 1, bias = true) {
    const pad = (kernel - 1) / 2;
    const weights = [this.g.weight(`${name}.weight`, [co, x.c, kernel, kernel])];
    if (bias) weights.push(this.g.weight(`${name}.bias`, [co]));
    const attributes = { dilations: [1, 1], group: 1, kernel_shape: [kernel, kernel], pads: [pad, pad, pad, pad], strides: [stride, stride] };
    const value = this.g.op("Conv", [x.value, ...weights], attributes);
    return { value, c: co, h: Math.ceil(x.h / stride), w: Math.ceil(x.w / stride) };
  }

  groupNorm(name, x, eps) {
    const { g } = this;
    const groups = this.config.norm_num_groups;
    const fill = (value) => g.constant(Array(groups).fill(value), [groups]);
    const grouped = g.op("Reshape", [x.value, g.integers(0, groups, -1)]);
    const norm = g.op("InstanceNormalization", [grouped, fill(1), fill(0)], { epsilon: { float: eps } });
    const back = g.op("Reshape", [norm, g.integers(1, x.c, x.h, x.w)]);
    const [weight, bias] = ["weight", "bias"].map((part) => g.weight(`${name}.${part}`, [x.c], { as: [x.c, 1, 1] }));
    return { ...x, value: g.op("Add", [g.op("Mul", [back, weight]), bias]) };
  }

  silu = (value) => this.g.op("Mul", [value, this.g.op("Sigmoid", [value])]);

  /** Of a matrix: one product with its bias. */
  gemm(name, x, ci, co) {
    const weights = [this.g.weight(`${name}.weight`, [co, ci]), this.g.weight(`${name}.bias`, [co])];
    return this.g.op("Gemm", [x, ...weights], { alpha: { float: 1 }, beta: { float: 1 }, transB: 1 });
  }

  /** Of a batch of matrices: a product, and its bias after it. */
  linear(name, x, ci, co, bias = true) {
    const product = this.g.op("MatMul", [x, this.g.weight(`${name}.weight`, [co, ci], { transposed: true })]);
    return bias ? this.g.op("Add", [this.g.weight(`${name}.bias`, [co]), product]) : product;
  }

  layerNorm(name, x, c) {
    const weights = [this.g.weight(`${name}.weight`, [c]), this.g.weight(`${name}.bias`, [c])];
    return this.g.op("LayerNormalization", [x, ...weights], { axis: -1, epsilon: { float: 1e-5 } });
  }

  gelu(x) {
    const { g } = this;
    const erf = g.op("Erf", [g.op("Div", [x, g.scalar(Math.SQRT2)])]);
    return g.op("Mul", [g.op("Mul", [x, g.op("Add", [erf, g.scalar(1)])]), g.scalar(0.5)]);
  }

  resnet(name, x, co, temb) {
    const { g, config } = this;
    const norm = (at, x) => {
      const out = this.groupNorm(`${name}.${at}`, x, config.norm_eps);
      return { ...out, value: this.silu(out.value) };
    };
    let h = this.conv(`${name}.conv1`, norm("norm1", x), co);
    const time = this.gemm(`${name}.time_emb_proj`, this.silu(temb.value), temb.c, co);
    const unsqueeze = (value, axis) => g.op("Unsqueeze", [value, g.integers(axis)]);
    h = { ...h, value: g.op("Add", [h.value, unsqueeze(unsqueeze(time, 2), 3)]) };
    h = this.conv(`${name}.conv2`, norm("norm2", h), co);
    const shortcut = x.c === co ? x : this.conv(`${name}.conv_shortcut`, x, co, 1);
    return { ...h, value: g.op("Div", [g.op("Add", [shortcut.value, h.value]), g.scalar(1)]) };
  }

  attention(name, x, context, tokens, contextTokens, c, contextChannels) {
    const { g } = this;
    const heads = this.config.attention_head_dim;
    const dim = c / heads;
    const split = (value, n, perm) =>
      g.op("Transpose", [g.op("Reshape", [value, g.integers(1, n, heads, dim)])], { perm });
    const q = split(this.linear(`${name}.to_q`, x, c, c, false), tokens, [0, 2, 1, 3]);
    const k = split(this.linear(`${name}.to_k`, context, contextChannels, c, false), contextTokens, [0, 2, 3, 1]);
    const v = split(this.linear(`${name}.to_v`, context, contextChannels, c, false), contextTokens, [0, 2, 1, 3]);
    // As the exporter has it: the root of the scale on either side.
    const scaled = (value) => g.op("Mul", [value, g.scalar(dim ** -0.25)]);
    const weights = g.op("Softmax", [g.op("MatMul", [scaled(q), scaled(k)])], { axis: -1 });
    const joined = g.op("Transpose", [g.op("MatMul", [weights, v])], { perm: [0, 2, 1, 3] });
    const out = this.linear(`${name}.to_out.0`, g.op("Reshape", [joined, g.integers(1, tokens, c)]), c, c);
    return g.op("Div", [out, g.scalar(1)]);
  }

  transformer(name, x, text) {
    const { g } = this;
    const { c, h, w } = x;
    const tokens = h * w;
    const projected = this.conv(`${name}.proj_in`, this.groupNorm(`${name}.norm`, x, 1e-6), c, 1);
    let y = g.op("Transpose", [projected.value], { perm: [0, 2, 3, 1] });
    y = g.op("Reshape", [y, g.integers(1, tokens, c)]);
    const block = `${name}.transformer_blocks.0`;
    const add = (more) => (y = g.op("Add", [more, y]));
    let n = this.layerNorm(`${block}.norm1`, y, c);
    add(this.attention(`${block}.attn1`, n, n, tokens, tokens, c, c));
    n = this.layerNorm(`${block}.norm2`, y, c);
    add(this.attention(`${block}.attn2`, n, text.value, tokens, text.tokens, c, text.c));
    n = this.layerNorm(`${block}.norm3`, y, c);
    const both = this.linear(`${block}.ff.net.0.proj`, n, c, 8 * c);
    const [value, gate] = g.op("Split", [both, g.integers(4 * c, 4 * c)], { axis: -1 }, 2);
    add(this.linear(`${block}.ff.net.2`, g.op("Mul", [value, this.gelu(gate)]), 4 * c, c));
    y = g.op("Reshape", [y, g.integers(1, h, w, c)]);
    y = g.op("Transpose", [y], { perm: [0, 3, 1, 2] });
    const out = this.conv(`${name}.proj_out`, { ...x, value: y }, c, 1);
    return { ...out, value: g.op("Add", [out.value, x.value]) };
  }

  /** diffusers' `Timesteps` and `TimestepEmbedding`. */
  time(timestep, c) {
    const { g } = this;
    const half = c / 2;
    const frequencies = Array.from({ length: half }, (_, i) => Math.exp((-LN_10000 * i) / half));
    const column = g.op("Unsqueeze", [timestep, g.integers(1)]);
    const angles = g.op("Mul", [column, g.constant(frequencies, [1, half])]);
    const both = g.op("Concat", [g.op("Sin", [angles]), g.op("Cos", [angles])], { axis: -1 });
    const part = (from, to) => g.op("Slice", [both, g.integers(from), g.integers(to), g.integers(1), g.integers(1)]);
    const embedding = g.op("Concat", [part(half, c), part(0, half)], { axis: -1 });
    const first = this.gemm("time_embedding.linear_1", embedding, c, 4 * c);
    return { value: this.gemm("time_embedding.linear_2", this.silu(first), 4 * c, 4 * c), c: 4 * c };
  }

  /** Twice as large: each pixel four times. */
  enlarged(x) {
    const scales = this.g.constant([1, 1, 2, 2], [4]);
    const attributes = { coordinate_transformation_mode: "asymmetric", mode: "nearest", nearest_mode: "floor" };
    const value = this.g.op("Resize", [x.value, "", scales], attributes);
    return { value, c: x.c, h: 2 * x.h, w: 2 * x.w };
  }
}

/** The graph of a UNet, batch 1, for latents of `height` and `width`. Its weights are those of diffusers' state dict. */
export function unetGraph(config, { height, width, tokens = 77 }) {
  const graph = new OnnxGraph();
  const l = new Layers(graph, config);
  const channels = config.block_out_channels;
  const sizes = [1, config.in_channels, height, width];
  const text = { value: graph.input("encoder_hidden_states", [1, tokens, config.cross_attention_dim]), c: config.cross_attention_dim, tokens };
  const sample = { value: graph.input("sample", sizes), c: config.in_channels, h: height, w: width };
  const temb = l.time(graph.input("timestep", [1]), channels[0]);

  let x = l.conv("conv_in", sample, channels[0]);
  const skips = [x];
  config.down_block_types.forEach((type, i) => {
    const name = `down_blocks.${i}`;
    for (let j = 0; j < config.layers_per_block; j++) {
      x = l.resnet(`${name}.resnets.${j}`, x, channels[i], temb);
      if (type === "CrossAttnDownBlock2D") x = l.transformer(`${name}.attentions.${j}`, x, text);
      skips.push(x);
    }
    if (i + 1 === channels.length) return;
    x = l.conv(`${name}.downsamplers.0.conv`, x, channels[i], 3, 2);
    skips.push(x);
  });

  if (config.mid_block_type !== null) {
    x = l.resnet("mid_block.resnets.0", x, x.c, temb);
    x = l.transformer("mid_block.attentions.0", x, text);
    x = l.resnet("mid_block.resnets.1", x, x.c, temb);
  }

  config.up_block_types.forEach((type, i) => {
    const name = `up_blocks.${i}`;
    const co = channels[channels.length - 1 - i];
    for (let j = 0; j <= config.layers_per_block; j++) {
      const skip = skips.pop();
      const value = graph.op("Concat", [x.value, skip.value], { axis: 1 });
      x = l.resnet(`${name}.resnets.${j}`, { ...x, value, c: x.c + skip.c }, co, temb);
      if (type === "CrossAttnUpBlock2D") x = l.transformer(`${name}.attentions.${j}`, x, text);
    }
    if (i + 1 < channels.length) x = l.conv(`${name}.upsamplers.0.conv`, l.enlarged(x), x.c);
  });

  x = l.groupNorm("conv_norm_out", x, config.norm_eps);
  x = l.conv("conv_out", { ...x, value: l.silu(x.value) }, config.out_channels);
  graph.output("out_sample", [1, config.out_channels, height, width], x.value);
  return graph;
}
