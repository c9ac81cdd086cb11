// What can be measured: UNets that are made in the page, each as diffusers' configuration has it, and the page's own checkpoints.

const SD = {
  act_fn: "silu",
  center_input_sample: false,
  downsample_padding: 1,
  flip_sin_to_cos: true,
  freq_shift: 0,
  in_channels: 4,
  layers_per_block: 1,
  norm_eps: 1e-5,
  norm_num_groups: 32,
  out_channels: 4,
};

const SMALL = {
  ...SD,
  sample_size: 8,
  block_out_channels: [32, 64],
  attention_head_dim: 4,
  norm_num_groups: 8,
  down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"],
  up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
};

/** CLIP ViT-L, but for its vocabulary. */
const CLIP_L = { hidden_size: 768, intermediate_size: 3072, num_hidden_layers: 12, num_attention_heads: 12 };

/** onnxruntime-web can be given each of them, with its weights in f32. `others`: what else it is given, on the CPU. */
export const MADE = [
  {
    id: "unet",
    name: "UNet of 52 M parameters",
    about: "latents 32 × 32, made here, nothing to fetch",
    unet: {
      ...SD,
      sample_size: 32,
      block_out_channels: [128, 256, 512],
      cross_attention_dim: 768,
      attention_head_dim: 8,
      down_block_types: ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
      up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    },
  },
  {
    id: "bk-sdm-tiny",
    name: "UNet of BK-SDM-Tiny's shape, 323 M parameters",
    about: "latents 64 × 64, weights of 8 bits, made here, 330 MB of memory; 2 GB more for a race",
    others: ["vae"],
    dtype: "F8_E4M3",
    unet: {
      ...SD,
      sample_size: 64,
      block_out_channels: [320, 640, 1280],
      cross_attention_dim: 768,
      attention_head_dim: 8,
      mid_block_type: null,
      down_block_types: ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
      up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    },
  },
  {
    id: "clip-l",
    name: "Text encoder of CLIP ViT-L's shape, 85 M parameters",
    about: "in half precision, made here, beside the small UNet",
    dtype: "F16",
    others: ["text"],
    text: CLIP_L,
    unet: { ...SMALL, cross_attention_dim: 768 },
  },
  {
    id: "small",
    name: "Small UNet of 0.8 M parameters",
    about: "latents 8 × 8, for a first look",
    dtype: "F8_E4M3",
    unet: { ...SMALL, cross_attention_dim: 64 },
  },
];
