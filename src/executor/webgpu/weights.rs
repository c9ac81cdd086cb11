//! Packed weights: rows padded to a multiple of four columns, in the dtype they were allocated in.

use super::Webgpu;
use super::buffers::Buffer;
use super::policy;
use crate::error::{Error, Result};
use crate::executor::{WeightDtype, pack_part, pack_part_bits};
use crate::graph::{Pack, ParamSpec};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// Packed weights of a component.
pub struct Weights {
    params: HashMap<String, Param>,
    /// What is bound to these weights is dropped once this is gone.
    pub(super) alive: Rc<()>,
}

/// A parameter.
pub(super) struct Param {
    pub buffer: Buffer,
    pub dtype: WeightDtype,
    rows: usize,
    columns: usize,
    whole: Cell<bool>,
    pending: RefCell<Option<Pending>>,
}

/// A parameter of several parts, or with padding, until all of it is there: copies to the GPU are of whole words, at places that
/// parts of a row need not have.
struct Pending {
    bytes: Vec<u8>,
    arrived: Vec<bool>,
}

/// Vectors are f32 always.
fn kept_in(spec: &ParamSpec, dtype: WeightDtype) -> WeightDtype {
    if spec.pack == Pack::Vector {
        WeightDtype::F32
    } else {
        dtype
    }
}

impl Weights {
    /// The parameter, once all of it was uploaded.
    pub(super) fn get(&self, spec: &ParamSpec) -> Result<&Param> {
        match self.params.get(&spec.key()) {
            Some(param) if param.whole.get() => Ok(param),
            Some(_) => Err(Error::Internal(format!("{} was not uploaded", spec.key()))),
            None => Err(Error::Internal(format!("{} was not allocated", spec.key()))),
        }
    }
}

impl Param {
    fn padded(&self) -> usize {
        self.columns.next_multiple_of(4)
    }
}

impl Webgpu {
    pub(in crate::executor) async fn allocate(&self, params: &[(ParamSpec, WeightDtype)]) -> Result<Weights> {
        let make = || {
            let mut made = HashMap::new();
            for (spec, dtype) in params {
                let [rows, columns] = spec.packed();
                let dtype = kept_in(spec, *dtype);
                let elements = columns.checked_next_multiple_of(4).and_then(|c| c.checked_mul(rows));
                let bytes = elements.and_then(|n| n.checked_mul(dtype.size()));
                let bytes = bytes.ok_or_else(|| Error::OutOfMemory(format!("{} cannot be held", spec.key())))?;
                let buffer = Buffer::new(&self.device, &spec.key(), bytes.div_ceil(4))?;
                let (whole, pending) = (Cell::new(false), RefCell::new(None));
                made.insert(
                    spec.key(),
                    Param {
                        buffer,
                        dtype,
                        rows,
                        columns,
                        whole,
                        pending,
                    },
                );
            }
            Ok(Weights {
                params: made,
                alive: Rc::new(()),
            })
        };
        let bytes: u64 = (params.iter())
            .map(|(spec, dtype)| {
                let [rows, columns] = spec.packed();
                (rows as u64)
                    .saturating_mul(columns as u64)
                    .saturating_mul(kept_in(spec, *dtype).size() as u64)
            })
            .fold(0, u64::saturating_add);
        self.device
            .guarded(make)
            .await
            .map_err(|e| e.at(format!("{bytes} bytes of weights")))
    }

    pub(in crate::executor) fn upload(
        &self,
        weights: &Weights,
        spec: &ParamSpec,
        part: usize,
        from: WeightDtype,
        bytes: &[u8],
    ) -> Result<()> {
        let missing = || Error::Internal(format!("{} was not allocated", spec.key()));
        let param = weights.params.get(&spec.key()).ok_or_else(missing)?;
        if param.dtype == WeightDtype::F32 {
            let packed = pack_part(spec, part, from, bytes)?;
            self.place(
                param,
                spec,
                part,
                bytemuck::cast_slice(&packed.data),
                packed.width,
                packed.column,
            )
        } else if param.dtype == from {
            let packed = pack_part_bits(spec, part, from, bytes)?;
            self.place(
                param,
                spec,
                part,
                bytemuck::cast_slice(&packed.data),
                packed.width,
                packed.column,
            )
        } else {
            let packed = pack_part(spec, part, from, bytes)?;
            let narrow = |&x: &f32| match param.dtype {
                WeightDtype::Bf16 => half::bf16::from_f32(x).to_bits(),
                WeightDtype::F16 | WeightDtype::F32 => half::f16::from_f32(x).to_bits(),
            };
            let data: Vec<u16> = packed.data.iter().map(narrow).collect();
            self.place(
                param,
                spec,
                part,
                bytemuck::cast_slice(&data),
                packed.width,
                packed.column,
            )
        }
    }

    /// Puts rows of `width` elements at column `column`.
    fn place(
        &self,
        param: &Param,
        spec: &ParamSpec,
        part: usize,
        data: &[u8],
        width: usize,
        column: usize,
    ) -> Result<()> {
        let size = param.dtype.size();
        if width + column > param.columns || data.len() != param.rows * width * size {
            return Err(Error::Internal(format!(
                "{}: {} bytes do not fit into [{}, {}]",
                spec.key(),
                data.len(),
                param.rows,
                param.columns
            )));
        }
        if width == param.padded() {
            param.buffer.write(&self.device, 0, data)?;
            param.whole.set(true);
            self.flush(data.len());
            return Ok(());
        }
        let mut slot = param.pending.borrow_mut();
        let pending = slot.get_or_insert_with(|| Pending {
            bytes: vec![0; param.rows * param.padded() * size],
            arrived: vec![false; spec.parts.len()],
        });
        let rows = pending.bytes.chunks_exact_mut(param.padded() * size);
        for (to, row) in rows.zip(data.chunks_exact((width * size).max(1))) {
            to[column * size..][..row.len()].copy_from_slice(row);
        }
        if let Some(arrived) = pending.arrived.get_mut(part) {
            *arrived = true;
        }
        if pending.arrived.iter().all(|&a| a) {
            param.buffer.write(&self.device, 0, &pending.bytes)?;
            param.whole.set(true);
            self.flush(pending.bytes.len());
            *slot = None;
        }
        Ok(())
    }

    /// The queue keeps copies of what it was handed until something is submitted.
    fn flush(&self, bytes: usize) {
        let waiting = self.waiting.get() + bytes;
        self.waiting.set(if waiting < policy::UPLOAD_BYTES {
            waiting
        } else {
            self.device.queue.submit([]);
            0
        });
    }
}
