//! The CPU executor: nodes of a plan over candle tensors, which are allocated once and written in place. One file an operation, each
//! of which cuts its work into units (`chunks` says how large); `run` plays them and gives way to other tasks in between; `pool` shares
//! a unit among threads. Loops over slices live in `kernels`, products among them: all of them are made of one tile. No model, no file
//! and no JavaScript is known here, but for the two functions by which `pool` has it wake the threads of a page.

mod add;
mod attention;
mod bands;
mod chunks;
mod concat;
mod conv2d;
mod embedding;
mod epilogue;
mod few;
mod group_norm;
mod instance;
mod kernels;
mod layer_norm;
mod linear;
mod memory;
mod operands;
mod pool;
mod product;
mod profile;
mod run;
mod source;
#[cfg(test)]
mod tests;
mod timestep_embedding;
mod unary;
mod upsample;
mod weights;
mod winograd;

use super::{BackendInfo, View};
use crate::error::{Error, Result};
use candle_core::Tensor;
use std::cell::Cell;

pub use instance::Instance;
use pool::Pool;
pub use product::product;
pub use weights::Weights;

/// The executor.
pub struct Cpu {
    info: BackendInfo,
    pool: Pool,
    /// Milliseconds of work between two pauses.
    slice_ms: f64,
    /// What is played a part at a time.
    sizes: bands::Sizes,
    /// When the last pause ended.
    resumed: Cell<f64>,
    /// When the first node ran since someone asked.
    pub(super) began: Cell<Option<f64>>,
}

/// Elements on the heap; a clone is a handle to the same ones.
#[derive(Clone)]
pub struct Buffer(Tensor);

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Cpu {
    /// The processor. It is always there.
    pub fn new() -> Self {
        Self::with_threads(pool::available())
    }

    /// The processor, by so many threads: in a page those that were started there.
    pub fn with_threads(threads: usize) -> Self {
        Self::with(threads, chunks::SLICE_MS)
    }

    fn with(threads: usize, slice_ms: f64) -> Self {
        let features = features();
        let name = if features.is_empty() {
            "candle".into()
        } else {
            format!("candle ({})", features.join(", "))
        };
        Self {
            info: BackendInfo {
                kind: "cpu",
                name,
                software: false,
                features,
                threads: threads.max(1),
            },
            pool: Pool::new(threads),
            slice_ms,
            sizes: bands::Sizes::default(),
            resumed: Cell::new(crate::platform::now_ms()),
            began: Cell::new(None),
        }
    }

    pub(super) fn info(&self) -> &BackendInfo {
        &self.info
    }

    pub(super) fn buffer(&self, len: usize) -> Result<Buffer> {
        memory::zeros::<f32>(len, "a buffer").map(Buffer)
    }

    pub(super) fn fill(&self, buffer: &Buffer, offset: usize, len: usize, data: &[f32]) -> Result<()> {
        if data.len() != len {
            return Err(Error::Internal(format!("{} values for a range of {len}", data.len())));
        }
        memory::write(&buffer.range(offset, len)?, |to: &mut [f32]| to.copy_from_slice(data))
    }

    pub(super) fn read(&self, buffer: &Buffer, offset: usize, len: usize) -> Result<Vec<f32>> {
        Ok(memory::read(&buffer.range(offset, len)?)?.to_vec())
    }

    pub(super) fn combine(
        &self,
        dst: &View,
        terms: &[(View, f32)],
        clamp: Option<f32>,
        mask: Option<&View>,
    ) -> Result<()> {
        const TERMS: usize = 4;
        const CHUNK: usize = 4096;
        if terms.len() > TERMS {
            return Err(Error::Internal(format!(
                "{} terms, where at most {TERMS} are combined",
                terms.len()
            )));
        }
        let to = local(dst)?;
        let mut sources = Vec::with_capacity(TERMS);
        for (source, factor) in terms {
            let from = local(source)?;
            if source.len != dst.len {
                return Err(Error::Internal(format!(
                    "{} elements combined into {}",
                    source.len, dst.len
                )));
            }
            if from.0.id() == to.0.id() && source.offset != dst.offset && source.offset.abs_diff(dst.offset) < dst.len {
                return Err(Error::Internal(
                    "a combination is written over a part of its source".into(),
                ));
            }
            sources.push((from.range(source.offset, source.len)?, *factor));
        }
        let mask = match mask {
            Some(mask) if mask.len != dst.len => {
                return Err(Error::Internal(format!(
                    "a mask of {} elements for {}",
                    mask.len, dst.len
                )));
            }
            Some(mask) => Some(local(mask)?.range(mask.offset, mask.len)?),
            None => None,
        };
        let to = to.range(dst.offset, dst.len)?;
        let mut sums = vec![0.0; CHUNK.min(dst.len)];
        for start in (0..dst.len).step_by(CHUNK) {
            let at = start..(start + CHUNK).min(dst.len);
            let sums = &mut sums[..at.len()];
            sums.fill(0.0);
            for (i, (source, factor)) in sources.iter().enumerate() {
                let source = memory::read::<f32>(source)?;
                let pairs = sums.iter_mut().zip(&source[at.clone()]);
                if i == 0 {
                    pairs.for_each(|(sum, x)| *sum = x * factor);
                } else {
                    pairs.for_each(|(sum, x)| *sum += x * factor);
                }
            }
            if let Some(c) = clamp {
                sums.iter_mut().for_each(|v| *v = unary::clamp(*v, -c, c));
            }
            let Some(mask) = &mask else {
                memory::write(&to, |to: &mut [f32]| to[at].copy_from_slice(sums))?;
                continue;
            };
            let mask = &memory::read::<f32>(mask)?[at.clone()];
            memory::write(&to, |to: &mut [f32]| {
                let each = to[at].iter_mut().zip(sums).zip(mask);
                each.filter(|(_, m)| **m != 0.0).for_each(|((to, sum), _)| *to = *sum);
            })?;
        }
        Ok(())
    }
}

impl Buffer {
    fn range(&self, offset: usize, len: usize) -> Result<Tensor> {
        let held = self.0.elem_count();
        match offset.checked_add(len) {
            Some(end) if end <= held => Ok(self.0.narrow(0, offset, len)?),
            _ => Err(Error::Internal(format!(
                "{len} elements at {offset} of a buffer of {held}"
            ))),
        }
    }
}

fn local(view: &View) -> Result<&Buffer> {
    match &view.buffer {
        super::Buffer::Cpu(buffer) => Ok(buffer),
        super::Buffer::Webgpu(_) => Err(super::foreign()),
    }
}

/// Instructions that products make use of.
fn features() -> Vec<String> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found = [
        ("simd128", cfg!(target_feature = "simd128")),
        ("relaxed-simd", cfg!(target_feature = "relaxed-simd")),
        ("neon", cfg!(target_feature = "neon")),
    ];
    found
        .iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| (*name).into())
        .collect()
}
