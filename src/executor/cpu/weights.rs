//! Packed weights of a component, widened to f32.

use super::Cpu;
use super::memory::{leave_room, read, write, zeros};
use crate::error::{Error, Result};
use crate::executor::{Packing, WeightDtype};
use crate::graph::ParamSpec;
use candle_core::Tensor;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Packed weights, each `[rows, columns]`, by [`ParamSpec::key`].
pub struct Weights(HashMap<String, Rc<Param>>);

struct Param {
    tensor: Tensor,
    packing: RefCell<Packing>,
}

impl Weights {
    /// Bytes of a parameter.
    pub(in super::super) fn bytes(spec: &ParamSpec) -> u64 {
        let [rows, columns] = spec.packed();
        (rows as u64).saturating_mul(columns as u64).saturating_mul(4)
    }

    /// These, but for what `over` has too.
    pub(in super::super) fn under(&self, over: &Self) -> Self {
        let mut params = self.0.clone();
        params.extend(over.0.iter().map(|(key, param)| (key.clone(), Rc::clone(param))));
        Self(params)
    }

    fn param(&self, spec: &ParamSpec) -> Result<&Param> {
        let key = spec.key();
        let param = (self.0.get(&key)).ok_or_else(|| Error::Internal(format!("no room was made for {key}")))?;
        let (held, wanted) = (param.tensor.dims(), spec.packed());
        if held != wanted {
            return Err(Error::Internal(format!("{key} is {held:?}, not {wanted:?}")));
        }
        Ok(param)
    }

    /// A parameter, if all of it was uploaded and it has the shape that is looked for.
    pub(super) fn get(&self, spec: &ParamSpec) -> Result<Tensor> {
        let param = self.param(spec)?;
        if !param.packing.borrow().is_whole() {
            return Err(Error::Internal(format!("{} was not uploaded", spec.key())));
        }
        Ok(param.tensor.clone())
    }
}

impl Cpu {
    pub(in super::super) fn allocate(&self, params: &[(ParamSpec, WeightDtype)]) -> Result<Weights> {
        let mut made = HashMap::with_capacity(params.len());
        for (spec, _) in params {
            let (key, [rows, columns]) = (spec.key(), spec.packed());
            let packing = RefCell::new(Packing::new(spec, columns)?);
            let tensor = zeros::<f32>(rows.saturating_mul(columns), &key)?.reshape((rows, columns))?;
            made.insert(key, Rc::new(Param { tensor, packing }));
        }
        leave_room()?;
        Ok(Weights(made))
    }

    pub(in super::super) fn upload(
        &self,
        weights: &Weights,
        spec: &ParamSpec,
        part: usize,
        from: WeightDtype,
        start: usize,
        bytes: &[u8],
    ) -> Result<()> {
        let Param { tensor, packing } = weights.param(spec)?;
        let mut packing = packing.borrow_mut();
        let mut placed = Ok(());
        write(tensor, |to: &mut [f32]| {
            placed = packing.widen(part, start, from, bytes, to);
        })?;
        placed
    }

    /// The tensors of a parameter, as they were uploaded.
    pub(in super::super) fn tensors(&self, weights: &Weights, spec: &ParamSpec) -> Result<Vec<Vec<f32>>> {
        let tensor = weights.get(spec)?;
        let packed = read::<f32>(&tensor)?;
        let [_, columns] = spec.packed();
        Packing::new(spec, columns)?.unpack(|i| packed[i])
    }
}
