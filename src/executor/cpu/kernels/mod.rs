//! Arithmetic on slices: no tensors, no shapes, no library. Most loops are written so that LLVM vectorises them (wasm simd128, SSE,
//! NEON): no branch in the loop, and no fused multiply-add, which most builds lack and would call a function for. `tile` and `four`
//! say by hand what the heaviest ones are made of, fused where the build has that (relaxed SIMD, AVX2).

mod act;
mod attention;
mod exp;
mod four;
mod panels;
mod reduce;
mod strips;
pub(super) mod taps;
mod tile;
pub(super) mod winograd;

pub(super) use act::{activate, geglu};
pub(super) use attention::{Attending, Memory};
pub(super) use exp::exp;
pub(super) use panels::{Elements, Panels, multiply, stack, tall, tiles};
pub(super) use reduce::{deviations, sum, sum_of_squares};
pub(super) use strips::strips;
pub(super) use tile::{COLUMNS, ROWS, Tall};
