//! Finished pictures: [`png`] writes RGBA with the generation parameters in a text chunk and reads that text back,
//! [`parameters`] knows the text's form. `pixels`: floats to bytes. No tensors, no devices, and no decoding of pictures: the
//! browser does that.

pub mod parameters;
mod pixels;
pub mod png;

pub use parameters::Parameters;
pub use pixels::Rgba;
