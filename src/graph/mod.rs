//! What a model writes (a [`Graph`] of [`Op`]s) and what an executor plays (a [`Plan`]: fused, with shapes, rates and memory
//! slots). Activations are NHWC, weights keep the names and shapes of diffusers. No arithmetic and no device in this folder.

mod alone;
mod builder;
mod dump;
mod fuse;
mod halves;
mod op;
mod plan;
mod shape;
mod traffic;

pub use builder::{Graph, Path, Value};
pub use fuse::fuse;
pub use op::{Activation, Epilogue, Node, Op, Pack, ParamPart, ParamSpec, Prologue, Rate, Unary};
pub(crate) use plan::Slots;
pub use plan::{Plan, Slot, ValueInfo};
pub use shape::{Element, Shape};
pub use traffic::Traffic;
