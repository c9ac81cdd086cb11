//! Packed weights of a component, in the dtype of their file. Kernels widen what they are about to use.

use super::Cpu;
use super::kernels::{COLUMNS, Elements, Panels};
use super::memory::{filled, leave_room};
use crate::error::{Error, Result};
use crate::executor::{Packing, WeightDtype};
use crate::graph::{Pack, ParamSpec};
use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// Packed weights by [`ParamSpec::key`].
pub struct Weights(HashMap<String, Rc<Param>>);

/// A parameter. A handle to it is an [`Rc`].
pub(super) struct Param {
    /// Rows and columns.
    packed: [usize; 2],
    filling: RefCell<Filling>,
}

struct Filling {
    packing: Packing,
    data: Data,
}

enum Data {
    F32(Vec<f32>),
    Half(Vec<u16>, WeightDtype),
    Byte(Vec<u8>, WeightDtype),
}

impl Data {
    fn elements(&self) -> Elements<'_> {
        match self {
            Self::F32(x) => Elements::F32(x),
            Self::Half(x, WeightDtype::Bf16) => Elements::Bf16(x),
            Self::Half(x, _) => Elements::F16(x),
            Self::Byte(x, WeightDtype::E5m2) => Elements::E5m2(x),
            Self::Byte(x, _) => Elements::E4m3(x),
        }
    }
}

/// Elements from one packed row to the next: what is multiplied lies in panels.
fn stride(spec: &ParamSpec) -> usize {
    match spec.pack {
        Pack::Matrix | Pack::Gated | Pack::Conv => COLUMNS,
        Pack::Vector | Pack::Table => spec.packed()[1],
    }
}

/// Vectors are f32 always.
fn kept_in(spec: &ParamSpec, dtype: WeightDtype) -> WeightDtype {
    if spec.pack == Pack::Vector {
        WeightDtype::F32
    } else {
        dtype
    }
}

/// The elements of a parameter for as long as this is held.
pub(super) struct Held<'a>(Ref<'a, Filling>, usize);

impl Held<'_> {
    /// As they lie.
    pub(super) fn elements(&self) -> Elements<'_> {
        self.0.data.elements()
    }

    /// Those of a matrix or a convolution.
    pub(super) fn panels(&self) -> Panels<'_> {
        let (elements, steps) = (self.elements(), self.1);
        Panels { elements, steps }
    }
}

impl Param {
    /// Rows and columns.
    pub(super) fn dims(&self) -> [usize; 2] {
        self.packed
    }

    pub(super) fn hold(&self) -> Held<'_> {
        Held(self.filling.borrow(), self.packed[0])
    }

    /// All elements of a vector.
    pub(super) fn vector(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.packed[0] * self.packed[1]];
        self.hold().elements().widen(0, &mut all);
        all
    }
}

impl Weights {
    /// Bytes of a parameter.
    pub(in super::super) fn bytes(spec: &ParamSpec, dtype: WeightDtype) -> u64 {
        let [rows, columns] = spec.packed();
        let stride = stride(spec).max(1);
        let columns = (columns as u64).div_ceil(stride as u64).saturating_mul(stride as u64);
        let elements = (rows as u64).saturating_mul(columns);
        elements.saturating_mul(kept_in(spec, dtype).size() as u64)
    }

    /// These, but for what `over` has too.
    pub(in super::super) fn under(&self, over: &Self) -> Self {
        let mut params = self.0.clone();
        params.extend(over.0.iter().map(|(key, param)| (key.clone(), Rc::clone(param))));
        Self(params)
    }

    fn param(&self, spec: &ParamSpec) -> Result<&Rc<Param>> {
        let key = spec.key();
        let param = (self.0.get(&key)).ok_or_else(|| Error::Internal(format!("no room was made for {key}")))?;
        let (held, wanted) = (param.packed, spec.packed());
        if held != wanted {
            return Err(Error::Internal(format!("{key} is {held:?}, not {wanted:?}")));
        }
        Ok(param)
    }

    /// What a parameter is kept in.
    pub(in super::super) fn dtype(&self, spec: &ParamSpec) -> Result<WeightDtype> {
        Ok(match self.param(spec)?.filling.borrow().data {
            Data::F32(_) => WeightDtype::F32,
            Data::Half(_, dtype) | Data::Byte(_, dtype) => dtype,
        })
    }

    /// A parameter, if all of it was uploaded and it has the shape that is looked for.
    pub(super) fn get(&self, spec: &ParamSpec) -> Result<Rc<Param>> {
        let param = self.param(spec)?;
        if !param.filling.borrow().packing.is_whole() {
            return Err(Error::Internal(format!("{} was not uploaded", spec.key())));
        }
        Ok(param.clone())
    }
}

impl Cpu {
    pub(in super::super) fn allocate(&self, params: &[(ParamSpec, WeightDtype)]) -> Result<Weights> {
        let mut made = HashMap::with_capacity(params.len());
        for (spec, dtype) in params {
            let key = spec.key();
            let packing = Packing::new(spec, stride(spec))?;
            let kept = kept_in(spec, *dtype);
            let data = match kept.size() {
                1 => Data::Byte(filled(packing.elements(), 0, &key)?, kept),
                2 => Data::Half(filled(packing.elements(), 0, &key)?, kept),
                _ => Data::F32(filled(packing.elements(), 0.0, &key)?),
            };
            let param = Param {
                packed: spec.packed(),
                filling: RefCell::new(Filling { packing, data }),
            };
            made.insert(key, Rc::new(param));
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
        let Filling { packing, data } = &mut *weights.param(spec)?.filling.borrow_mut();
        match data {
            Data::F32(to) => packing.widen(part, start, from, bytes, to),
            Data::Half(to, kept) => packing.halve(part, start, [from, *kept], bytes, to),
            Data::Byte(to, kept) => packing.keep(part, start, [from, *kept], bytes, to),
        }
    }

    /// The tensors of a parameter, as they were uploaded.
    pub(in super::super) fn tensors(&self, weights: &Weights, spec: &ParamSpec) -> Result<Vec<Vec<f32>>> {
        let param = weights.get(spec)?;
        let filling = param.filling.borrow();
        let elements = filling.data.elements();
        filling.packing.unpack(|i| elements.at(i))
    }
}
