//! What the tests of arithmetic share: golden tensors, the executors of this machine, and playing a graph once.
#![allow(dead_code, reason = "each test is a crate of its own and uses a part")]
#![allow(unused_imports, unreachable_pub, reason = "the same")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod eighths;
mod executors;
mod pictures;
mod play;
mod random;
mod shipped;
mod single_file;
mod tensors;

pub use eighths::{eighths, nearest};
pub use executors::{cpu, webgpu, webgpu_as_gpu, webgpu_in_halves};
pub use pictures::{PIPELINES, byte_distance, draw, is_same_picture, load, load_encoder};
pub use play::{distance, open, place, play};
pub use random::random_weights;
pub use shipped::{Defaults, Entry, catalogue, shipped, tokens_of};
pub use single_file::{SD1, SD2, SDXL, single_file};
pub use tensors::{Golden, Tensor, golden_path};

/// For each test named, which is a function of an executor, one `#[test]` for each executor.
#[macro_export]
macro_rules! on_each_executor {
    ($($test:ident),+ $(,)?) => {
        mod on_cpu {
            $(#[test] fn $test() { super::$test($crate::common::cpu()); })+
        }
        mod on_webgpu {
            $(#[test] fn $test() { if let Some(executor) = $crate::common::webgpu() { super::$test(executor); } })+
        }
        mod on_webgpu_as_gpu {
            $(#[test] fn $test() { if let Some(executor) = $crate::common::webgpu_as_gpu() { super::$test(executor); } })+
        }
    };
}
