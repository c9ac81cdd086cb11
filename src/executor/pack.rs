//! From a tensor as the file has it to the layout that kernels read. Both executors use one layout, so it is made once here.

use crate::error::{Error, Result};
use crate::graph::{Pack, ParamSpec};

/// The types that weights are kept in; arithmetic is in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightDtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl WeightDtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The type that holds both without loss.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        if self == other { self } else { Self::F32 }
    }
}

/// Reads little-endian elements as f32.
fn widen(from: WeightDtype, bytes: &[u8]) -> Vec<f32> {
    match from {
        WeightDtype::F32 => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        WeightDtype::F16 => bytes
            .chunks_exact(2)
            .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
        WeightDtype::Bf16 => bytes
            .chunks_exact(2)
            .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
    }
}

/// A tensor in the parameter's layout: rows of `width` elements that belong at column `column` of each of the parameter's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedPart<T> {
    /// Row after row.
    pub data: Vec<T>,
    /// Elements of this part in a row.
    pub width: usize,
    /// Where they start in the parameter's row.
    pub column: usize,
}

/// Packs part `part` of `spec` and widens it to f32.
///
/// # Errors
/// [`Error::Internal`] if the bytes are not as many as the shape needs.
pub fn pack_part(spec: &ParamSpec, part: usize, from: WeightDtype, bytes: &[u8]) -> Result<PackedPart<f32>> {
    permute(spec, part, from, bytes, widen(from, bytes))
}

/// Packs part `part` of `spec`, two-byte elements kept as they are.
///
/// # Errors
/// [`Error::Internal`] if the bytes are not as many as the shape needs, or the elements have four bytes.
pub fn pack_part_bits(spec: &ParamSpec, part: usize, from: WeightDtype, bytes: &[u8]) -> Result<PackedPart<u16>> {
    if from.size() != 2 {
        return Err(Error::Internal(format!(
            "{}: elements of {} bytes",
            spec.key(),
            from.size()
        )));
    }
    permute(
        spec,
        part,
        from,
        bytes,
        bytes
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
            .collect(),
    )
}

fn permute<T: Copy>(
    spec: &ParamSpec,
    part: usize,
    from: WeightDtype,
    bytes: &[u8],
    data: Vec<T>,
) -> Result<PackedPart<T>> {
    let shape = spec.parts.get(part).map(|p| p.shape.as_slice()).unwrap_or_default();
    let len: usize = shape.iter().product();
    if shape.is_empty() || bytes.len() != len * from.size() {
        return Err(Error::Internal(format!(
            "{}: {} bytes for {shape:?} of {from:?}",
            spec.key(),
            bytes.len()
        )));
    }
    let first = shape[0];
    let column = if spec.pack == Pack::Table {
        0
    } else {
        spec.parts[..part].iter().map(|p| p.shape[0]).sum()
    };
    Ok(match spec.pack {
        Pack::Vector => PackedPart {
            data,
            width: first,
            column,
        },
        Pack::Table => PackedPart {
            data,
            width: len / first,
            column,
        },
        // [n, k] → [k, n]
        Pack::Matrix => PackedPart {
            data: transpose(&data, first, len / first),
            width: first,
            column,
        },
        // [co, ci, kh, kw] → [kh, kw, ci, co]
        Pack::Conv => {
            let (ci, taps) = (shape[1], shape[2..].iter().product::<usize>());
            let mut out = Vec::with_capacity(len);
            for tap in 0..taps {
                for i in 0..ci {
                    out.extend((0..first).map(|o| data[(o * ci + i) * taps + tap]));
                }
            }
            PackedPart {
                data: out,
                width: first,
                column,
            }
        }
    })
}

fn transpose<T: Copy>(data: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(data.len());
    for c in 0..columns {
        out.extend((0..rows).map(|r| data[r * columns + c]));
    }
    out
}
