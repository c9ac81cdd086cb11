//! Every constant that tuning may change, and nothing else. What is legal is in `select`.

/// Dispatches in one submit; with more, a page's own drawing starves.
pub(super) const DISPATCHES_PER_SUBMIT: usize = 16;

/// Milliseconds of work in one submit, as estimated.
pub(super) const SUBMIT_MS: f64 = 50.0;

/// Milliseconds of work that may be under way before the next is submitted. Less would leave a fast GPU idle between submits.
pub(super) const IN_FLIGHT_MS: f64 = 100.0;

/// What a dispatch costs apart from its arithmetic, in operations.
pub(super) const DISPATCH_COST: u64 = 2_000_000;

/// Operations a millisecond, until the first measurement: a small GPU, and a processor that plays one.
pub(super) const FIRST_SPEED: f64 = 1e8;
/// See [`FIRST_SPEED`].
pub(super) const FIRST_SPEED_SOFTWARE: f64 = 2e6;

/// How much of a new measurement of speed is believed.
pub(super) const SPEED_WEIGHT: f64 = 0.25;

/// Rows and columns of a tile of a product. The shader has the same numbers.
pub(super) const GEMM_TILE: usize = 32;

/// The tile's depth. The shader has the same number.
pub(super) const GEMM_DEPTH: usize = 16;

/// Rows and columns that a thread of the kernel without workgroup memory makes. The shader has the same number. Of 4, 8 and 16,
/// on llvmpipe and SwiftShader: 16 is a quarter faster again on large products, and wastes more on small ones.
pub(super) const GEMM_THREAD: usize = 8;

/// Elements of a group up to which one workgroup normalises it whole, which saves two dispatches.
pub(super) const GROUP_NORM_WHOLE: usize = 16_384;

/// Elements of a group that one workgroup sums where there are more.
pub(super) const GROUP_NORM_CHUNK: usize = 32_768;

/// Bytes handed to the queue after which it is told to begin copying, so that its own copies do not pile up.
pub(super) const UPLOAD_BYTES: usize = 64 << 20;

/// Bytes handed to the queue in one call: a browser copies each call's bytes at once.
pub(super) const UPLOAD_PIECE: usize = 8 << 20;

/// Threads that normalise a group of channels together.
pub(super) const GROUP_NORM_THREADS: usize = 256;

/// Threads that normalise a row.
pub(super) const LAYER_NORM_THREADS: usize = 64;
