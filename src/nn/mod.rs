//! The layers that models are made of: functions over the graph builder, named and parametrised as diffusers' modules are.
//! A layer reads its weights below the path it is given. Nothing here knows a model's config.

mod attention;
mod embeddings;
mod layers;
mod resnet;
mod transformer;

pub use attention::{CrossAttention, cross_attention, self_attention};
pub use embeddings::timestep_embedding;
pub use layers::{
    activation, add, add_row, concat, conv1x1, conv2d, conv2d_padded, conv2d_without_bias, downsample, group_norm,
    layer_norm, linear, linear_joined, linear_without_bias, unary, upsample,
};
pub use resnet::{Resnet, resnet_block};
pub use transformer::{Transformer, transformer_2d};
