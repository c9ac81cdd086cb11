//! Every constant that tuning may change, and the choices that are made by them. What is legal is in `select`.

use super::select::{Choice, Product, Tile};

/// Dispatches in one submit; with more, a page's own drawing starves.
pub(super) const DISPATCHES_PER_SUBMIT: usize = 16;

/// Milliseconds of work in one submit, as estimated.
pub(super) const SUBMIT_MS: f64 = 50.0;

/// Milliseconds of work that may be under way before the next is submitted. Less would leave a fast GPU idle between submits.
pub(super) const IN_FLIGHT_MS: f64 = 100.0;

/// Operations of a dispatch at most; what has more is parted. 50 ms of a GPU that does 200 of them a nanosecond.
pub(super) const DISPATCH_MOST: u64 = 10_000_000_000;
/// The same of a processor that plays a GPU.
pub(super) const DISPATCH_MOST_SOFTWARE: u64 = 500_000_000;

/// What a dispatch costs apart from its arithmetic, in operations.
pub(super) const DISPATCH_COST: u64 = 2_000_000;

/// Operations a millisecond, until the first measurement: a small GPU, and a processor that plays one.
pub(super) const FIRST_SPEED: f64 = 1e8;
/// See [`FIRST_SPEED`].
pub(super) const FIRST_SPEED_SOFTWARE: f64 = 2e6;

/// How much of a new measurement of speed is believed.
pub(super) const SPEED_WEIGHT: f64 = 0.25;

/// Workgroups that keep a GPU busy; with fewer, smaller tiles and slices of the depth make more.
pub(super) const ENOUGH_WORKGROUPS: usize = 128;

/// The depth of a slice at least: less is not worth adding up.
pub(super) const SLICE_DEPTH: usize = 768;

/// Rows up to which a product is flat.
pub(super) const FLAT_ROWS: usize = 8;

/// Columns up to which it is tall.
pub(super) const TALL_COLUMNS: usize = 8;

/// The way to run a product, of those that are legal, until it is known by measurement.
pub(super) fn product(product: &Product, choices: &[Choice]) -> Option<Choice> {
    let tile = [Tile::Flat, Tile::Tall, Tile::Big, Tile::Small, Tile::Registers]
        .into_iter()
        .filter(|&tile| choices.iter().any(|c| c.tile == tile))
        .find(|&tile| match tile {
            Tile::Flat => product.m <= FLAT_ROWS,
            Tile::Tall => product.n <= TALL_COLUMNS,
            Tile::Big => product.tiles(tile) >= ENOUGH_WORKGROUPS,
            Tile::Small | Tile::Registers => true,
        })?;
    let enough =
        |slices: usize| product.tiles(tile) * slices >= ENOUGH_WORKGROUPS || product.k < 2 * slices * SLICE_DEPTH;
    let of_tile = || choices.iter().filter(|c| c.tile == tile);
    let slices = of_tile()
        .map(|c| c.slices)
        .find(|&s| enough(s))
        .or(of_tile().map(|c| c.slices).max())?;
    of_tile()
        .filter(|c| c.slices == slices)
        // A loader that joins, scales and activates saves writing and reading; halves are faster where they are allowed.
        .min_by_key(|c| (c.apart, !c.half))
        .copied()
}

/// Elements of a group up to which one workgroup makes its statistics, which saves a dispatch.
pub(super) const GROUP_NORM_WHOLE: usize = 65_536;

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

/// Milliseconds that products of a plan are raced, all together, before each picture until no more is to be found out; of
/// [`RACE_PRODUCTS`] with some ten ways each that is some ten pictures on a GPU.
pub(super) const RACE_MS: f64 = 2000.0;

/// Products of a plan that are raced at most, the heaviest.
pub(super) const RACE_PRODUCTS: usize = 16;

/// Operations of a product that is raced, at most: some 70 ms of a small GPU, in which a page draws nothing.
pub(super) const RACE_FLOP: u64 = 20_000_000_000;

/// Bytes of all values that it reads and writes at most, which are there twice for the race.
pub(super) const RACE_BYTES: u64 = 64 << 20;

/// Milliseconds that a way of running one is repeated, within one pass: timestamps are rounded to 0.1 ms, which is less than
/// [`RACE_MARGIN`] of this.
pub(super) const RACE_SPAN_MS: f64 = 5.0;

/// How much faster than the policy's own way another has to be.
pub(super) const RACE_MARGIN: f64 = 0.03;

/// How far a result may be from that of the policy's own way, over the largest value; and of 16-bit floats.
pub(super) const RACE_APART: f32 = 1e-4;
/// See [`RACE_APART`].
pub(super) const RACE_APART_HALF: f32 = 2e-2;

/// The ways to run a product that are raced, the policy's own first: other tiles in its number of slices, and its tile in twice as
/// many and half as many; each with halves where they are allowed, and with what is read apart.
pub(super) fn raced(of: &Product, choices: &[Choice]) -> Vec<Choice> {
    let Some(own) = product(of, choices) else {
        return Vec::new();
    };
    let is_near = |c: &Choice| match c.tile == own.tile {
        true => [own.slices / 2, own.slices, own.slices * 2].contains(&c.slices),
        false => c.slices == own.slices,
    };
    let differences = |c: &Choice| usize::from(c.half != own.half) + usize::from(c.apart != own.apart);
    let others = choices
        .iter()
        .filter(|c| **c != own && is_near(c) && differences(c) <= 1);
    std::iter::once(own).chain(others.copied()).collect()
}
