//! Each operation of the WebGPU executor against a plain loop, in odd sizes, with every epilogue and every dtype of weights.
//! Without an adapter these tests fail; `TINTYPE_NO_GPU=1` passes over them.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod attention;
mod calls;
mod case;
mod conv;
mod linear;
mod norm;
mod pointwise;
