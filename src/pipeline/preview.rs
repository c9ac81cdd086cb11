//! What a step looks like: a small picture of latents that are not finished.

use crate::image::Rgba;

/// RGB of each of four latent channels, for Stable Diffusion's autoencoder (from ComfyUI's `latent_formats.SD15`).
const RGB: [[f32; 3]; 4] = [
    [0.3512, 0.2297, 0.3227],
    [0.3250, 0.4974, 0.2350],
    [-0.2829, 0.1762, 0.2721],
    [-0.2120, -0.2616, -0.7177],
];

/// The same for SDXL's autoencoder, and what is added.
const RGB_XL: [[f32; 3]; 4] = [
    [0.3651, 0.4232, 0.4341],
    [-0.2533, -0.0042, 0.1068],
    [0.1076, 0.1111, -0.0362],
    [-0.3165, -0.2492, -0.2188],
];
const BIAS_XL: [f32; 3] = [0.1084, -0.0175, -0.0011];

/// A pixel a latent, by a linear map; `latents` are `[height, width, 4]`.
pub(super) fn approximate(latents: &[f32], width: usize, height: usize, xl: bool) -> Rgba {
    let (map, bias) = if xl { (&RGB_XL, BIAS_XL) } else { (&RGB, [0.0; 3]) };
    let channel = |latent: &[f32], c: usize| latent.iter().zip(map).map(|(x, rgb)| x * rgb[c]).sum::<f32>() + bias[c];
    let pixel = |latent: &[f32]| [0, 1, 2].map(|c| channel(latent, c));
    let pixels: Vec<f32> = latents.chunks_exact(4).flat_map(pixel).collect();
    Rgba::from_floats(&pixels, width, height).0
}
