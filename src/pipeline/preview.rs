//! What a step looks like: a small picture of latents that are not finished.

use crate::image::Rgba;

/// RGB of each of four latent channels, for Stable Diffusion's autoencoder (from ComfyUI's `latent_formats.SD15`).
const RGB: [[f32; 3]; 4] = [
    [0.3512, 0.2297, 0.3227],
    [0.3250, 0.4974, 0.2350],
    [-0.2829, 0.1762, 0.2721],
    [-0.2120, -0.2616, -0.7177],
];

/// A pixel a latent, by a linear map; `latents` are `[height, width, 4]`.
pub(super) fn approximate(latents: &[f32], width: usize, height: usize) -> Rgba {
    let pixel = |latent: &[f32]| [0, 1, 2].map(|c| latent.iter().zip(&RGB).map(|(x, rgb)| x * rgb[c]).sum::<f32>());
    let pixels: Vec<f32> = latents.chunks_exact(4).flat_map(pixel).collect();
    Rgba::from_floats(&pixels, width, height).0
}
