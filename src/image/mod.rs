//! Finished pictures: [`png`] writes RGBA with the generation parameters in a text chunk and reads that text back,
//! [`parameters`] knows the text's form. No tensors, no devices, and no decoding of pixels: the browser does that.

pub mod parameters;
pub mod png;

pub use parameters::Parameters;
