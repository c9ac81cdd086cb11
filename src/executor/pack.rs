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
    let (halves, words) = (bytes.as_chunks::<2>().0, bytes.as_chunks::<4>().0);
    match from {
        WeightDtype::F32 => permute(spec, part, from, bytes, |i| f32::from_le_bytes(words[i])),
        WeightDtype::F16 => permute(spec, part, from, bytes, |i| {
            half::f16::from_le_bytes(halves[i]).to_f32()
        }),
        WeightDtype::Bf16 => permute(spec, part, from, bytes, |i| {
            half::bf16::from_le_bytes(halves[i]).to_f32()
        }),
    }
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
    let halves = bytes.as_chunks::<2>().0;
    permute(spec, part, from, bytes, |i| u16::from_le_bytes(halves[i]))
}

/// Makes the packed elements straight from the bytes: a copy in between would need as much memory once more.
fn permute<T>(
    spec: &ParamSpec,
    part: usize,
    from: WeightDtype,
    bytes: &[u8],
    element: impl Fn(usize) -> T,
) -> Result<PackedPart<T>> {
    let shape = spec.parts.get(part).map(|p| p.shape.as_slice()).unwrap_or_default();
    let size = shape.iter().try_fold(from.size(), |n, &d| n.checked_mul(d));
    if shape.is_empty() || size != Some(bytes.len()) || bytes.is_empty() {
        let (key, found) = (spec.key(), bytes.len());
        return Err(Error::Internal(format!(
            "{key}: {found} bytes for {shape:?} of {from:?}"
        )));
    }
    let len = bytes.len() / from.size();
    let first = shape[0];
    let column = spec.parts[..part]
        .iter()
        .map(|p| p.shape.first().copied().unwrap_or(0))
        .sum();
    // The tensor as [first, inner, taps] becomes [taps, inner, first].
    let transposed = |inner: usize, taps: usize| {
        let mut data = Vec::with_capacity(len);
        for tap in 0..taps {
            for i in 0..inner {
                data.extend((0..first).map(|o| element((o * inner + i) * taps + tap)));
            }
        }
        data
    };
    let (data, width, column) = match spec.pack {
        Pack::Vector => ((0..len).map(element).collect(), len, column),
        Pack::Table => ((0..len).map(element).collect(), len / first, 0),
        Pack::Matrix => (transposed(len / first, 1), first, column),
        Pack::Conv => {
            let taps = shape.iter().skip(2).product();
            (transposed(len / first / taps, taps), first, column)
        }
    };
    Ok(PackedPart { data, width, column })
}
