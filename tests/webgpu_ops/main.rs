//! Each operation of the WebGPU executor, in every way that it may run, against a plain loop and against the CPU executor: in odd
//! sizes, with every epilogue and every dtype of weights.
//! Without an adapter these tests fail; `TINTYPE_NO_GPU=1` passes over them.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod attention;
mod calls;
mod case;
mod conv;
#[path = "../common/eighths.rs"]
#[allow(unreachable_pub, reason = "other tests share it")]
mod eighth;
mod eighths;
#[path = "../common/executors.rs"]
#[allow(dead_code, unreachable_pub, reason = "these tests make executors of their own")]
mod executors;
mod linear;
mod norm;
mod odd;
mod pointwise;
