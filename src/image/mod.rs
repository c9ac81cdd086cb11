//! Pictures: [`png`] writes RGBA with the generation parameters in a text chunk and reads that text back, [`parameters`] knows the
//! text's form. `pixels`: floats to bytes and back; `resize`: bytes of another size. No tensors, no devices, and no decoding of
//! pictures: the browser does that.

pub mod parameters;
mod pixels;
pub mod png;
mod resize;

pub use parameters::Parameters;
pub use pixels::{MAX_SIDE, Rgba};
