//! Which tensors a component's parameters are made of, and reading them.

use crate::checkpoint::safetensors::{as_matrix, of_no_use};
use crate::checkpoint::{Component, DType, TensorInfo};
use crate::error::{Error, Result};
use crate::executor::{Executor, WeightDtype, Weights};
use crate::graph::{ParamPart, ParamSpec};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// The parameters of a component, and which tensors they are made of.
pub(super) struct Wanted {
    pub(super) params: Rc<Vec<(ParamSpec, WeightDtype)>>,
    /// For each tensor: which parameters it is part of, and which part.
    places: HashMap<String, Vec<(usize, usize)>>,
}

impl Wanted {
    /// Finds each parameter's tensors in the component's files.
    pub(super) fn new(component: &Component, needed: &[ParamSpec]) -> Result<Self> {
        let mut places: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
        let mut params = Vec::new();
        for (i, spec) in needed.iter().enumerate() {
            let mut kept: Option<WeightDtype> = None;
            for (p, part) in spec.parts.iter().enumerate() {
                let dtype = find(component, part)?;
                kept = Some(kept.map_or(dtype, |k| k.join(dtype)));
                places.entry(part.name.clone()).or_default().push((i, p));
            }
            params.push((spec.clone(), kept.unwrap_or(WeightDtype::F32)));
        }
        Ok(Self {
            params: Rc::new(params),
            places,
        })
    }

    /// Names tensors that no parameter of the `whole` model is made of, but for those that every pipeline leaves alone.
    pub(super) fn unused(&self, component: &Component, whole: &[ParamSpec]) -> Option<String> {
        let parts = whole.iter().flat_map(|spec| &spec.parts);
        let whole: HashSet<&str> = parts.map(|part| part.name.as_str()).collect();
        let unused = component.tensors().map(|tensor| tensor.name.as_str());
        let unused = unused.filter(|name| !whole.contains(name) && !left_alone(component.name, name));
        let unused: Vec<&str> = unused.collect();
        of_no_use(&unused).map(|what| format!("{}: {what}", component.name))
    }

    /// Whether a tensor of this name is needed.
    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Puts a piece of a tensor into `weights`.
    pub(super) fn place(
        &self,
        executor: &Executor,
        weights: &Weights,
        tensor: &TensorInfo,
        start: u64,
        piece: &[u8],
    ) -> Result<()> {
        let dtype = weight_dtype(tensor.dtype).ok_or_else(|| Error::Internal(tensor.name.clone()))?;
        // A tensor that does not fit into memory was refused when its room was made.
        let start = usize::try_from(start).map_err(|_| Error::Internal(tensor.name.clone()))?;
        let start = start / dtype.size();
        for &(param, part) in self.places.get(&tensor.name).into_iter().flatten() {
            executor.upload(weights, &self.params[param].0, part, dtype, start, piece)?;
        }
        Ok(())
    }
}

/// Whether a tensor of a component is of no use for text to image, wherever it comes from: numbers that older versions of
/// transformers saved, and the half of an autoencoder that encodes.
fn left_alone(component: &str, tensor: &str) -> bool {
    match component {
        "text_encoder" | "text_encoder_2" => tensor.ends_with("position_ids"),
        "vae" => tensor.starts_with("encoder.") || tensor.starts_with("quant_conv."),
        _ => false,
    }
}

/// The dtype of a tensor that must be there, of this shape.
fn find(component: &Component, part: &ParamPart) -> Result<WeightDtype> {
    let ParamPart { name, shape } = part;
    let tensor = component
        .tensor(name)
        .ok_or_else(|| Error::Corrupt(format!("tensor {name:?} is missing")))?;
    if as_matrix(&tensor.shape) != as_matrix(shape) {
        return Err(Error::Corrupt(format!(
            "tensor {name:?}: expected shape {shape:?}, found {:?}",
            tensor.shape
        )));
    }
    weight_dtype(tensor.dtype).ok_or_else(|| {
        Error::Unsupported(format!(
            "tensor {name:?}: expected dtype F32, F16, BF16, F8_E4M3 or F8_E5M2, found {:?}",
            tensor.dtype
        ))
    })
}

/// What a tensor is handed over as.
fn weight_dtype(dtype: DType) -> Option<WeightDtype> {
    match dtype {
        DType::F32 => Some(WeightDtype::F32),
        DType::F16 => Some(WeightDtype::F16),
        DType::BF16 => Some(WeightDtype::Bf16),
        DType::F8_E4M3 => Some(WeightDtype::E4m3),
        DType::F8_E5M2 => Some(WeightDtype::E5m2),
        _ => None,
    }
}
