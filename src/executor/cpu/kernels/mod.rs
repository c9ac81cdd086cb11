//! Arithmetic on slices: no tensors, no shapes, no library. Loops are written so that LLVM vectorises them (wasm simd128, SSE,
//! NEON): no branch in the loop, no fused multiply-add (wasm has none, and would call a function for each).

mod act;
mod exp;
mod reduce;

pub(super) use act::{activate, geglu};
pub(super) use exp::{exp, softmax_row};
pub(super) use reduce::{max, sum, sum_of_squares};
