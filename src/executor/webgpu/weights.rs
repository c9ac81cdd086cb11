//! Packed weights: rows padded to a multiple of four columns, in the dtype they were allocated in.

use super::Webgpu;
use super::buffers::Buffer;
use super::policy;
use crate::error::{Error, Result};
use crate::executor::dtype::{bf16_to_f32, e4m3_to_f32, e5m2_to_f32, half_to_f32};
use crate::executor::{Packing, WeightDtype};
use crate::graph::{Pack, ParamSpec};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Packed weights of a component.
pub struct Weights {
    params: HashMap<String, Rc<Param>>,
    /// What is bound to these weights is dropped once this is gone.
    pub(super) alive: Rc<()>,
}

/// A parameter.
pub(super) struct Param {
    pub buffer: Buffer,
    pub dtype: WeightDtype,
    filling: RefCell<Filling>,
}

/// A parameter while it arrives.
struct Filling {
    packing: Packing,
    /// The packed elements, until all are there: copies to the GPU are of whole words, at places that parts of a row need not have.
    staging: Vec<u32>,
}

/// Vectors are f32 always.
fn kept_in(spec: &ParamSpec, dtype: WeightDtype) -> WeightDtype {
    if spec.pack == Pack::Vector {
        WeightDtype::F32
    } else {
        dtype
    }
}

/// Where column `c` of a row of values and then gates goes: each gate is beside its value. What pads the row stays.
fn place_beside(c: usize, columns: usize) -> usize {
    let half = columns / 2;
    match c {
        _ if c < half => 2 * c,
        _ if c < columns => 2 * (c - half) + 1,
        _ => c,
    }
}

fn beside<T: Copy>(packed: &mut [T], columns: usize) {
    let stride = columns.next_multiple_of(4);
    for row in packed.chunks_exact_mut(stride) {
        let old = row.to_vec();
        old.into_iter()
            .enumerate()
            .for_each(|(c, x)| row[place_beside(c, columns)] = x);
    }
}

impl Weights {
    /// Bytes of a parameter.
    pub(in super::super) fn bytes(spec: &ParamSpec, dtype: WeightDtype) -> u64 {
        let [rows, columns] = spec.packed();
        let elements = (rows as u64).saturating_mul((columns as u64).div_ceil(4).saturating_mul(4));
        let bytes = elements.saturating_mul(kept_in(spec, dtype).size() as u64);
        bytes.div_ceil(16).saturating_mul(16)
    }

    /// These, but for what `over` has too. They are bound for themselves.
    pub(in super::super) fn under(&self, over: &Self) -> Self {
        let mut params = self.params.clone();
        params.extend(over.params.iter().map(|(key, param)| (key.clone(), Rc::clone(param))));
        Self {
            params,
            alive: Rc::new(()),
        }
    }

    /// The parameter, once all of it was uploaded.
    pub(super) fn get(&self, spec: &ParamSpec) -> Result<&Param> {
        let key = spec.key();
        match self.params.get(&key) {
            Some(param) if param.filling.borrow().packing.is_whole() => Ok(param),
            Some(_) => Err(Error::Internal(format!("{key} was not uploaded"))),
            None => Err(Error::Internal(format!("{key} was not allocated"))),
        }
    }
}

impl Webgpu {
    pub(in crate::executor) async fn allocate(&self, params: &[(ParamSpec, WeightDtype)]) -> Result<Weights> {
        let make = || {
            let mut made = HashMap::new();
            for (spec, dtype) in params {
                let [_, columns] = spec.packed();
                let dtype = kept_in(spec, *dtype);
                let packing = Packing::new(spec, columns.next_multiple_of(4))?;
                let words = packing.elements().saturating_mul(dtype.size()).div_ceil(4);
                let buffer = Buffer::new(&self.device, &spec.key(), words)?;
                let staging = Vec::new();
                let filling = RefCell::new(Filling { packing, staging });
                made.insert(spec.key(), Rc::new(Param { buffer, dtype, filling }));
            }
            Ok(Weights {
                params: made,
                alive: Rc::new(()),
            })
        };
        let bytes = (params.iter())
            .map(|(spec, dtype)| Weights::bytes(spec, *dtype))
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
        start: usize,
        bytes: &[u8],
    ) -> Result<()> {
        let missing = || Error::Internal(format!("{} was not allocated", spec.key()));
        let Param { buffer, dtype, filling } = &**weights.params.get(&spec.key()).ok_or_else(missing)?;
        let mut filling = filling.borrow_mut();
        let Filling { packing, staging } = &mut *filling;
        if packing.is_plain() && from == *dtype {
            packing.advance(part, start, bytes.len() / from.size())?;
            buffer.write_bytes(&self.device, start as u64 * from.size() as u64, bytes)?;
            self.flush(bytes.len());
            return Ok(());
        }
        let elements = packing.elements();
        let words = elements.saturating_mul(dtype.size()).div_ceil(4);
        if staging.is_empty() {
            let room = staging.try_reserve_exact(words);
            room.map_err(|_| Error::OutOfMemory(format!("{}: {words} words to pack it in", spec.key())))?;
            staging.resize(words, 0);
        }
        let dtypes = [from, *dtype];
        match dtype.size() {
            1 => packing.keep(
                part,
                start,
                dtypes,
                bytes,
                &mut bytemuck::cast_slice_mut(staging)[..elements],
            )?,
            2 => packing.halve(
                part,
                start,
                dtypes,
                bytes,
                &mut bytemuck::cast_slice_mut(staging)[..elements],
            )?,
            _ => packing.widen(part, start, from, bytes, bytemuck::cast_slice_mut(staging))?,
        }
        if packing.is_whole() {
            if spec.pack == Pack::Gated {
                let [_, columns] = spec.packed();
                match dtype.size() {
                    1 => beside::<u8>(&mut bytemuck::cast_slice_mut(staging)[..elements], columns),
                    2 => beside::<u16>(&mut bytemuck::cast_slice_mut(staging)[..elements], columns),
                    _ => beside(staging, columns),
                }
            }
            for (i, piece) in staging.chunks(policy::UPLOAD_PIECE / 4).enumerate() {
                buffer.write(&self.device, i * policy::UPLOAD_PIECE / 4, bytemuck::cast_slice(piece))?;
                self.flush(piece.len() * 4);
            }
            *staging = Vec::new();
        }
        Ok(())
    }

    /// The tensors of a parameter, read back to the bit.
    pub(in crate::executor) async fn tensors(&self, weights: &Weights, spec: &ParamSpec) -> Result<Vec<Vec<f32>>> {
        let param = weights.get(spec)?;
        let (buffer, dtype) = (param.buffer.clone(), param.dtype);
        let [_, columns] = spec.packed();
        let stride = columns.next_multiple_of(4);
        let packing = Packing::new(spec, stride)?;
        let words = self.read_words(&buffer, 0, buffer.len()).await?;
        let place = |i: usize| match spec.pack {
            Pack::Gated => i / stride * stride + place_beside(i % stride, columns),
            _ => i,
        };
        let half = |i: usize| (words[i / 2] >> (i % 2 * 16)) as u16;
        let byte = |i: usize| (words[i / 4] >> (i % 4 * 8)) as u8;
        packing.unpack(|i| match (dtype, place(i)) {
            (WeightDtype::F32, i) => f32::from_bits(words[i]),
            (WeightDtype::F16, i) => half_to_f32(half(i)),
            (WeightDtype::Bf16, i) => bf16_to_f32(half(i)),
            (WeightDtype::E4m3, i) => e4m3_to_f32(byte(i)),
            (WeightDtype::E5m2, i) => e5m2_to_f32(byte(i)),
        })
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
