//! Schedules, steps and noise: pure host numbers. Nothing here knows a tensor of any device, a model or a checkpoint's
//! files. A [`SchedulerConfig`] (diffusers' `scheduler_config.json`) gives a [`Schedule`]: for each step the timestep,
//! and the linear combinations over named buffers that an executor runs. [`noise`] draws the numbers that torch draws.
//!
//! A scheduler is one file that implements `config::Scheduler`, a name in [`kind`] and a line in `config`. What follows
//! diffusers rounds to f32 where diffusers does and is computed in f64 elsewhere.

pub mod config;
pub mod kind;
pub mod noise;
pub mod schedule;

mod ddim;
mod ddpm;
mod deis_multistep;
mod diffusion;
mod dpm_solver_multistep;
mod euler;
mod euler_ancestral;
mod heun;
mod keys;
mod lcm;
mod linear;
mod multistep;
mod numeric;
mod pndm;
mod sigmas;
mod tcd;
mod unipc_multistep;

pub use config::SchedulerConfig;
pub use kind::{SamplerKind, SchedulerClass};
pub use schedule::{Combine, Schedule, Slot, Step};
