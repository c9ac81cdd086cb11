//! Schedules, steps and noise: pure host numbers. Nothing here knows a tensor of any device, a model or a checkpoint's
//! files. A scheduler configuration (diffusers' `scheduler_config.json`) gives a [`Schedule`]: for each step the timestep,
//! and the linear combinations over named buffers that an executor runs. [`noise`] draws the numbers that torch draws.

pub mod kind;
pub mod noise;
pub mod schedule;

pub use kind::{SamplerKind, SchedulerClass};
pub use schedule::{Combine, Schedule, Slot, Step};
