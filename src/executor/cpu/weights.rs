//! Packed weights of a component, widened to f32.

use super::Cpu;
use super::memory::{leave_room, write, zeros};
use crate::error::{Error, Result};
use crate::executor::{WeightDtype, pack_part};
use crate::graph::ParamSpec;
use candle_core::Tensor;
use std::collections::HashMap;

/// Packed weights, each `[rows, columns]`, by [`ParamSpec::key`].
pub struct Weights(HashMap<String, Tensor>);

impl Weights {
    /// A parameter, if it has the shape that is looked for.
    pub(super) fn get(&self, spec: &ParamSpec) -> Result<Tensor> {
        let key = spec.key();
        let tensor = self
            .0
            .get(&key)
            .ok_or_else(|| Error::Internal(format!("no room was made for {key}")))?;
        if tensor.dims() != spec.packed() {
            return Err(Error::Internal(format!(
                "{key} is {:?}, not {:?}",
                tensor.dims(),
                spec.packed()
            )));
        }
        Ok(tensor.clone())
    }
}

impl Cpu {
    pub(in super::super) fn allocate(&self, params: &[(ParamSpec, WeightDtype)]) -> Result<Weights> {
        let mut tensors = HashMap::with_capacity(params.len());
        for (spec, _) in params {
            let (key, [rows, columns]) = (spec.key(), spec.packed());
            let len = rows.saturating_mul(columns);
            if len == 0 {
                return Err(Error::Internal(format!("{key} has no elements")));
            }
            let tensor = zeros::<f32>(len, &key)?.reshape((rows, columns))?;
            tensors.insert(key, tensor);
        }
        leave_room()?;
        Ok(Weights(tensors))
    }

    pub(in super::super) fn upload(
        &self,
        weights: &Weights,
        spec: &ParamSpec,
        part: usize,
        from: WeightDtype,
        bytes: &[u8],
    ) -> Result<()> {
        let tensor = weights.get(spec)?;
        let [rows, columns] = spec.packed();
        let packed = pack_part(spec, part, from, bytes)?;
        let end = packed.column.saturating_add(packed.width);
        if packed.width == 0 || end > columns || packed.data.len() != packed.width.saturating_mul(rows) {
            let (key, len) = (spec.key(), packed.data.len());
            return Err(Error::Internal(format!(
                "{key}: {len} elements for [{rows}, {columns}]"
            )));
        }
        write(&tensor, |to: &mut [f32]| {
            let to = to.chunks_exact_mut(columns);
            for (to, from) in to.zip(packed.data.chunks_exact(packed.width)) {
                to[packed.column..end].copy_from_slice(from);
            }
        })
    }
}
