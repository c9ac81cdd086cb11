//! From tensors as a file has them to the layout that kernels read, piece by piece as the bytes arrive. Both executors use one
//! layout but for its width: rows that are padded, or, where they are wider than that, panels of columns one after the other.

use super::dtype::{WeightDtype, bf16_to_f32, e4m3_to_f32, e5m2_to_f32, half_to_f32};
use crate::error::{Error, Result};
use crate::graph::{Pack, ParamSpec};

/// Rows of a tensor that are transposed together, so that what is written next to each other is a cache line.
const BLOCK: usize = 32;
/// The same for what is left over.
const SMALL_BLOCK: usize = 8;

/// Where the elements of one tensor go in the packed parameter.
#[derive(Clone, Debug)]
struct Part {
    /// The tensor as `[first, inner, taps]`, of which element `[o, i, t]` goes to row `t · inner + i`, column `o`; or, if there is
    /// no such shape, rows of `width` elements as they are.
    transposed: Option<[usize; 2]>,
    /// Elements of the tensor.
    len: usize,
    /// Elements of the tensor in one packed row.
    width: usize,
    /// Where they start in it.
    column: usize,
    /// Elements that have come.
    arrived: usize,
}

/// How far a parameter is packed, and where what comes next belongs.
#[derive(Clone, Debug)]
pub struct Packing {
    key: String,
    parts: Vec<Part>,
    rows: usize,
    columns: usize,
    stride: usize,
}

/// Where a column begins, and how far it is from one of its elements to the next.
#[derive(Clone, Copy)]
struct Columns {
    rows: usize,
    stride: usize,
}

impl Columns {
    fn start(self, column: usize) -> usize {
        column / self.stride * self.rows * self.stride + column % self.stride
    }

    /// Whether `count` columns from this one on lie side by side.
    fn joined(self, column: usize, count: usize) -> bool {
        column % self.stride + count <= self.stride
    }
}

impl Packing {
    /// Nothing has come yet. `stride` is the number of elements from one packed row to the next: all columns and their padding,
    /// or fewer, and then what lies beyond follows in a panel of its own.
    ///
    /// # Errors
    /// [`Error::Internal`] if the parameter has no elements, or no such rows.
    pub fn new(spec: &ParamSpec, stride: usize) -> Result<Self> {
        let [rows, columns] = spec.packed();
        let mut column = 0;
        let mut parts = Vec::with_capacity(spec.parts.len());
        for part in &spec.parts {
            let first = part.shape.first().copied().unwrap_or(0);
            let len = part
                .shape
                .iter()
                .try_fold(1usize, |n, &d| n.checked_mul(d))
                .unwrap_or(0);
            let taps: usize = part.shape.iter().skip(2).product();
            let (transposed, width) = match spec.pack {
                Pack::Vector => (None, len),
                Pack::Table => (None, len.checked_div(first).unwrap_or(0)),
                Pack::Matrix | Pack::Gated => (Some([len.checked_div(first).unwrap_or(0), 1]), first),
                Pack::Conv => {
                    let inner = len.checked_div(first).and_then(|n| n.checked_div(taps));
                    (Some([inner.unwrap_or(0), taps]), first)
                }
            };
            let fits = width > 0 && width.checked_mul(rows) == Some(len) && column + width <= columns;
            if !fits || stride == 0 || transposed.is_none() && columns > stride {
                let (key, shape) = (spec.key(), &part.shape);
                return Err(Error::Internal(format!(
                    "{key}: {shape:?} does not fit into [{rows}, {columns}]"
                )));
            }
            parts.push(Part {
                transposed,
                len,
                width,
                column,
                arrived: 0,
            });
            column += width;
        }
        if column != columns {
            return Err(Error::Internal(format!(
                "{}: {column} columns of {columns}",
                spec.key()
            )));
        }
        Ok(Self {
            key: spec.key(),
            parts,
            rows,
            columns,
            stride,
        })
    }

    fn layout(&self) -> Columns {
        let (rows, stride) = (self.rows, self.stride);
        Columns { rows, stride }
    }

    /// Whether every part has come, all of it.
    pub fn is_whole(&self) -> bool {
        self.parts.iter().all(|p| p.arrived == p.len)
    }

    /// Elements of the packed parameter, padding included.
    pub fn elements(&self) -> usize {
        let panels = self.columns.div_ceil(self.stride);
        panels.saturating_mul(self.rows).saturating_mul(self.stride)
    }

    /// Whether the packed parameter is the one tensor as it is, so that its bytes can go where they belong unseen.
    pub fn is_plain(&self) -> bool {
        matches!(self.parts.as_slice(), [only] if only.transposed.is_none() && only.width == self.stride)
    }

    /// Counts `count` elements from element `start` of a part as arrived. Pieces come in order; one from 0 begins again.
    ///
    /// # Errors
    /// [`Error::Internal`] for a piece out of turn, or beyond the tensor.
    pub fn advance(&mut self, part: usize, start: usize, count: usize) -> Result<()> {
        let key = &self.key;
        let Some(p) = self.parts.get_mut(part) else {
            return Err(Error::Internal(format!("{key} has no part {part}")));
        };
        if start != 0 && start != p.arrived || start.checked_add(count).is_none_or(|end| end > p.len) {
            let (arrived, len) = (p.arrived, p.len);
            return Err(Error::Internal(format!(
                "{key}: {count} elements at {start} of part {part}, of which {arrived} of {len} have come"
            )));
        }
        p.arrived = start + count;
        Ok(())
    }

    /// Puts bytes of dtype `from`, little endian, from element `start` of a part on, into `to`, widened to f32.
    ///
    /// # Errors
    /// Those of [`advance`](Self::advance); [`Error::Internal`] for half an element, or if `to` is not the packed parameter.
    pub fn widen(&mut self, part: usize, start: usize, from: WeightDtype, bytes: &[u8], to: &mut [f32]) -> Result<()> {
        let (each, halves, words) = (bytes.as_chunks(), bytes.as_chunks(), bytes.as_chunks());
        match from {
            WeightDtype::F32 => self.place(part, start, words, f32::from_le_bytes, to),
            WeightDtype::F16 => self.place(part, start, halves, |b| half_to_f32(u16::from_le_bytes(b)), to),
            WeightDtype::Bf16 => self.place(part, start, halves, |b| bf16_to_f32(u16::from_le_bytes(b)), to),
            WeightDtype::E4m3 => self.place(part, start, each, |[b]| e4m3_to_f32(b), to),
            WeightDtype::E5m2 => self.place(part, start, each, |[b]| e5m2_to_f32(b), to),
        }
    }

    /// The same for two-byte elements, which are kept as they are where `from` is `kept`, and rounded where it is not.
    ///
    /// # Errors
    /// Those of [`widen`](Self::widen).
    pub fn halve(
        &mut self,
        part: usize,
        start: usize,
        [from, kept]: [WeightDtype; 2],
        bytes: &[u8],
        to: &mut [u16],
    ) -> Result<()> {
        let (each, halves, words) = (bytes.as_chunks(), bytes.as_chunks(), bytes.as_chunks());
        let narrow = move |x: f32| match kept {
            WeightDtype::Bf16 => half::bf16::from_f32(x).to_bits(),
            _ => half::f16::from_f32(x).to_bits(),
        };
        match from {
            _ if from == kept => self.place(part, start, halves, u16::from_le_bytes, to),
            WeightDtype::F32 => self.place(part, start, words, |b| narrow(f32::from_le_bytes(b)), to),
            WeightDtype::F16 => self.place(part, start, halves, |b| narrow(half_to_f32(u16::from_le_bytes(b))), to),
            WeightDtype::Bf16 => self.place(part, start, halves, |b| narrow(bf16_to_f32(u16::from_le_bytes(b))), to),
            WeightDtype::E4m3 => self.place(part, start, each, |[b]| narrow(e4m3_to_f32(b)), to),
            WeightDtype::E5m2 => self.place(part, start, each, |[b]| narrow(e5m2_to_f32(b)), to),
        }
    }

    /// The same for elements of one byte, which are never rounded to.
    ///
    /// # Errors
    /// Those of [`widen`](Self::widen); [`Error::Internal`] if `from` is not `kept`.
    pub fn keep(
        &mut self,
        part: usize,
        start: usize,
        [from, kept]: [WeightDtype; 2],
        bytes: &[u8],
        to: &mut [u8],
    ) -> Result<()> {
        if from != kept {
            let key = &self.key;
            return Err(Error::Internal(format!(
                "{key}: expected elements of {kept:?}, found {from:?}"
            )));
        }
        self.place(part, start, bytes.as_chunks(), |[b]| b, to)
    }

    /// The tensors that the parameter is made of, as a file has them: the inverse of packing. `at` gives a packed element.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn unpack(&self, at: impl Fn(usize) -> f32) -> Result<Vec<Vec<f32>>> {
        let mut tensors = Vec::with_capacity(self.parts.len());
        for p in &self.parts {
            let mut tensor = Vec::new();
            let room = tensor.try_reserve_exact(p.len);
            room.map_err(|_| Error::OutOfMemory(format!("{}: {} elements to read it back", self.key, p.len)))?;
            let start = |column: usize| self.layout().start(p.column + column);
            let packed = |row: usize, column: usize| at(row * self.stride + start(column));
            match p.transposed {
                None => tensor.extend((0..p.len).map(|i| packed(i / p.width, i % p.width))),
                Some([inner, taps]) => {
                    tensor.resize(p.len, 0.0);
                    let len = inner * taps;
                    for (block, rows) in tensor.chunks_mut(BLOCK * len).enumerate() {
                        for i in 0..len {
                            let row = (i % taps) * inner + i / taps;
                            for (column, to) in rows.iter_mut().skip(i).step_by(len).enumerate() {
                                *to = packed(row, block * BLOCK + column);
                            }
                        }
                    }
                }
            }
            tensors.push(tensor);
        }
        Ok(tensors)
    }

    fn place<E: Element, T: Copy>(
        &mut self,
        part: usize,
        start: usize,
        (elements, rest): (&[E], &[u8]),
        convert: impl Fn(E) -> T,
        to: &mut [T],
    ) -> Result<()> {
        if !rest.is_empty() || to.len() != self.elements() {
            let (key, found) = (&self.key, to.len());
            return Err(Error::Internal(format!(
                "{key}: {} bytes left over, {found} elements of {}",
                rest.len(),
                self.elements()
            )));
        }
        self.advance(part, start, elements.len())?;
        let Columns { rows, stride } = self.layout();
        let p = &self.parts[part];
        match p.transposed {
            Some(shape) => transpose(shape, start, elements, convert, to, p.column, Columns { rows, stride }),
            None => {
                let (mut at, mut elements) = (start, elements);
                while !elements.is_empty() {
                    let (row, column) = (at / p.width, at % p.width);
                    let (now, later) = elements.split_at(elements.len().min(p.width - column));
                    let to = &mut to[row * self.stride + p.column + column..];
                    to.iter_mut().zip(now).for_each(|(to, e)| *to = convert(*e));
                    (at, elements) = (at + now.len(), later);
                }
            }
        }
        Ok(())
    }
}

/// Elements from number `at` on of a tensor `[_, inner, taps]`, to columns of `taps · inner`.
fn transpose<E: Element, T: Copy>(
    shape: [usize; 2],
    mut at: usize,
    mut elements: &[E],
    convert: impl Fn(E) -> T,
    to: &mut [T],
    first_column: usize,
    columns: Columns,
) {
    let (len, stride) = (shape[0] * shape[1], columns.stride);
    while !elements.is_empty() {
        let (column, first) = (first_column + at / len, at % len);
        let whole = |rows: usize| first == 0 && elements.len() >= rows * len && columns.joined(column, rows);
        let to = &mut to[columns.start(column)..];
        let count = if whole(BLOCK) {
            E::rows::<BLOCK, T>(shape, elements, &convert, to, stride)
        } else if whole(SMALL_BLOCK) {
            E::rows::<SMALL_BLOCK, T>(shape, elements, &convert, to, stride)
        } else {
            let now = &elements[..elements.len().min(len - first)];
            let mut place = Place::new(shape, first);
            for e in now {
                to[place.next_row() * stride] = convert(*e);
            }
            now.len()
        };
        (at, elements) = (at + count, &elements[count..]);
    }
}

/// The packed row of one element after the other of a tensor's row `[inner, taps]`.
struct Place {
    shape: [usize; 2],
    i: usize,
    tap: usize,
}

impl Place {
    fn new(shape: [usize; 2], first: usize) -> Self {
        let (i, tap) = (first / shape[1], first % shape[1]);
        Self { shape, i, tap }
    }

    fn next_row(&mut self) -> usize {
        let row = self.tap * self.shape[0] + self.i;
        self.tap += 1;
        if self.tap == self.shape[1] {
            (self.i, self.tap) = (self.i + 1, 0);
        }
        row
    }
}

/// An element as a file has it.
trait Element: Copy {
    /// The first `ROWS` rows of `elements` at once, one element after the other. Gives how many elements that were.
    fn rows<const ROWS: usize, T: Copy>(
        shape: [usize; 2],
        elements: &[Self],
        convert: &impl Fn(Self) -> T,
        to: &mut [T],
        stride: usize,
    ) -> usize {
        let len = shape[0] * shape[1];
        let rows: [&[Self]; ROWS] = std::array::from_fn(|r| &elements[r * len..][..len]);
        let mut place = Place::new(shape, 0);
        for from in 0..len {
            let to = &mut to[place.next_row() * stride..][..ROWS];
            to.iter_mut().zip(&rows).for_each(|(to, row)| *to = convert(row[from]));
        }
        ROWS * len
    }
}

impl Element for [u8; 1] {}
impl Element for [u8; 4] {}

/// Rows and columns of a square of halves that is transposed in registers.
const SQUARE: usize = 8;

impl Element for [u8; 2] {
    fn rows<const ROWS: usize, T: Copy>(
        shape: [usize; 2],
        elements: &[Self],
        convert: &impl Fn(Self) -> T,
        to: &mut [T],
        stride: usize,
    ) -> usize {
        let len = shape[0] * shape[1];
        let rows: [(&[[Self; SQUARE]], &[Self]); ROWS] =
            std::array::from_fn(|r| elements[r * len..][..len].as_chunks());
        let mut place = Place::new(shape, 0);
        for from in 0..len / SQUARE {
            let mut places = [0; SQUARE];
            places.iter_mut().for_each(|p| *p = place.next_row() * stride);
            for first in (0..ROWS).step_by(SQUARE) {
                let mut all = [[[0; 2]; SQUARE]; SQUARE];
                for (to, row) in all.iter_mut().zip(&rows[first..]) {
                    *to = row.0[from];
                }
                for (place, row) in places.iter().zip(square(all)) {
                    let to = &mut to[place + first..][..SQUARE];
                    to.iter_mut().zip(row).for_each(|(to, e)| *to = convert(e));
                }
            }
        }
        for from in 0..len % SQUARE {
            let to = &mut to[place.next_row() * stride..][..ROWS];
            to.iter_mut()
                .zip(&rows)
                .for_each(|(to, row)| *to = convert(row.1[from]));
        }
        ROWS * len
    }
}

/// Rows become columns.
#[cfg(not(target_arch = "wasm32"))]
fn square(rows: [[[u8; 2]; SQUARE]; SQUARE]) -> [[[u8; 2]; SQUARE]; SQUARE] {
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}

/// Rows become columns: pairs, then fours, then eights of rows are interleaved.
#[cfg(target_arch = "wasm32")]
fn square(rows: [[[u8; 2]; SQUARE]; SQUARE]) -> [[[u8; 2]; SQUARE]; SQUARE] {
    use core::arch::wasm32::{i16x8_shuffle, i32x4_shuffle, i64x2_shuffle, v128};
    let low = |a: usize, b: usize| {
        i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(bytemuck::must_cast(rows[a]), bytemuck::must_cast(rows[b]))
    };
    let high = |a: usize, b: usize| {
        i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(bytemuck::must_cast(rows[a]), bytemuck::must_cast(rows[b]))
    };
    // Four columns of two rows, then of four, then of all.
    let four = |a: v128, b: v128, c: v128, d: v128| {
        let (ab, cd) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<0, 4, 1, 5>(c, d));
        let (ef, gh) = (i32x4_shuffle::<2, 6, 3, 7>(a, b), i32x4_shuffle::<2, 6, 3, 7>(c, d));
        [
            i64x2_shuffle::<0, 2>(ab, cd),
            i64x2_shuffle::<1, 3>(ab, cd),
            i64x2_shuffle::<0, 2>(ef, gh),
            i64x2_shuffle::<1, 3>(ef, gh),
        ]
    };
    let [a, b, c, d] = four(low(0, 1), low(2, 3), low(4, 5), low(6, 7));
    let [e, f, g, h] = four(high(0, 1), high(2, 3), high(4, 5), high(6, 7));
    bytemuck::must_cast([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::ParamPart;

    fn spec(pack: Pack, shapes: &[&[usize]]) -> ParamSpec {
        let part = |(i, shape): (usize, &&[usize])| ParamPart {
            name: format!("p{i}"),
            shape: shape.to_vec(),
        };
        ParamSpec {
            parts: shapes.iter().enumerate().map(part).collect(),
            pack,
        }
    }

    /// Packs numbered tensors in pieces of `piece` elements.
    fn packed(spec: &ParamSpec, stride: usize, piece: usize) -> Vec<f32> {
        let mut packing = Packing::new(spec, stride).unwrap();
        let mut to = vec![-1.0; packing.elements()];
        for (i, part) in spec.parts.iter().enumerate() {
            let all: Vec<f32> = (0..part.shape.iter().product())
                .map(|n: usize| (i * 100_000 + n) as f32)
                .collect();
            for (n, run) in all.chunks(piece).enumerate() {
                assert!(!packing.is_whole());
                let bytes = bytemuck::cast_slice(run);
                packing.widen(i, n * piece, WeightDtype::F32, bytes, &mut to).unwrap();
            }
        }
        assert!(packing.is_whole());
        to
    }

    /// Where each element must be, one by one.
    fn naive(spec: &ParamSpec, stride: usize) -> Vec<f32> {
        let [rows, columns] = spec.packed();
        let mut to = vec![-1.0; columns.div_ceil(stride) * rows * stride];
        let mut column = 0;
        for (i, part) in spec.parts.iter().enumerate() {
            let (first, len) = (part.shape[0], part.shape.iter().product::<usize>());
            let taps: usize = part.shape.iter().skip(2).product();
            for n in 0..len {
                let (row, c) = match spec.pack {
                    Pack::Vector => (0, n),
                    Pack::Table => (n / (len / first), n % (len / first)),
                    Pack::Matrix | Pack::Gated => (n % (len / first), n / (len / first)),
                    Pack::Conv => {
                        let (o, rest) = (n / (len / first), n % (len / first));
                        ((rest % taps) * (len / first / taps) + rest / taps, o)
                    }
                };
                let c = column + c;
                to[(c / stride * rows + row) * stride + c % stride] = (i * 100_000 + n) as f32;
            }
            column += if spec.pack == Pack::Vector { len } else { first };
        }
        to
    }

    #[test]
    fn pieces_of_any_length_give_the_same() {
        let cases = [
            (spec(Pack::Matrix, &[&[37, 5], &[3, 5], &[16, 5]]), 56),
            (spec(Pack::Matrix, &[&[37, 5]]), 40),
            (spec(Pack::Matrix, &[&[37, 5], &[3, 5], &[16, 5]]), 8),
            (spec(Pack::Matrix, &[&[40, 5]]), 16),
            (spec(Pack::Conv, &[&[21, 6, 3, 3]]), 8),
            (spec(Pack::Conv, &[&[21, 6, 3, 3]]), 24),
            (spec(Pack::Conv, &[&[4, 1, 1, 2], &[5, 1, 1, 2]]), 9),
            (spec(Pack::Vector, &[&[7], &[3]]), 12),
            (spec(Pack::Table, &[&[9, 6]]), 8),
            (spec(Pack::Table, &[&[9, 8]]), 8),
        ];
        for (spec, stride) in cases {
            let expected = naive(&spec, stride);
            for piece in [1, 4, 7, 90, 4096] {
                assert_eq!(packed(&spec, stride, piece), expected, "{spec:?} in pieces of {piece}");
            }
            let tensors = Packing::new(&spec, stride).unwrap().unpack(|i| expected[i]).unwrap();
            for (i, (tensor, part)) in tensors.iter().zip(&spec.parts).enumerate() {
                let all = (0..part.shape.iter().product()).map(|n: usize| (i * 100_000 + n) as f32);
                assert!(tensor.iter().copied().eq(all), "{spec:?} taken apart");
            }
        }
    }

    #[test]
    fn halves_are_kept_or_rounded() {
        let spec = spec(Pack::Matrix, &[&[1, 2]]);
        let mut packing = Packing::new(&spec, 1).unwrap();
        let mut to = [0u16; 2];
        let dtypes = [WeightDtype::F16, WeightDtype::F16];
        packing.halve(0, 0, dtypes, &[1, 2, 3, 4], &mut to).unwrap();
        assert_eq!(to, [0x0201, 0x0403]);
        let dtypes = [WeightDtype::F32, WeightDtype::Bf16];
        let bytes: Vec<u8> = [1.0f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        packing.halve(0, 0, dtypes, &bytes, &mut to).unwrap();
        assert_eq!(to, [0x3f80, 0xc000]);
    }

    #[test]
    fn bytes_are_transposed_and_never_rounded_to() {
        let spec = spec(Pack::Conv, &[&[33, 3, 2, 1]]);
        let expected: Vec<u8> = packed(&spec, 33, 198).into_iter().map(|x| x as u8).collect();
        let bytes: Vec<u8> = (0..198).collect();
        let kept = [WeightDtype::E4m3; 2];
        for piece in [4, 100, 198] {
            let mut packing = Packing::new(&spec, 33).unwrap();
            let mut to = vec![0; packing.elements()];
            for (n, run) in bytes.chunks(piece).enumerate() {
                packing.keep(0, n * piece, kept, run, &mut to).unwrap();
            }
            assert_eq!(to, expected, "in pieces of {piece}");
        }
        let mut packing = Packing::new(&spec, 33).unwrap();
        let error = packing.keep(0, 0, [WeightDtype::F16, WeightDtype::E4m3], &bytes, &mut [0; 198]);
        assert_eq!(error.unwrap_err().message(), "p0: expected elements of E4m3, found F16");
    }

    #[test]
    fn halves_are_transposed_as_singles_are() {
        for (inner, taps, first) in [(5, 9, 71), (8, 1, 40), (3, 1, 32), (16, 9, 33)] {
            let shape: &[usize] = &[first, inner, taps, 1];
            let spec = spec(Pack::Conv, &[shape]);
            let count = first * inner * taps;
            let expected: Vec<u16> = {
                let singles = packed(&spec, first, count);
                singles.into_iter().map(|x| x as u16).collect()
            };
            let halves: Vec<u16> = (0..count as u16).collect();
            for piece in [4, 1000, count] {
                let mut packing = Packing::new(&spec, first).unwrap();
                let mut to = vec![0u16; packing.elements()];
                for (n, run) in halves.chunks(piece).enumerate() {
                    let bytes = bytemuck::cast_slice(run);
                    packing
                        .halve(0, n * piece, [WeightDtype::F16; 2], bytes, &mut to)
                        .unwrap();
                }
                assert_eq!(to, expected, "{shape:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn every_float_of_sixteen_bits_is_widened_as_torch_does_it() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/dtypes.json")).unwrap();
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (name, dtype) in [("F16", WeightDtype::F16), ("BF16", WeightDtype::Bf16)] {
            let mut packing = Packing::new(&spec(Pack::Vector, &[&[1 << 16]]), 1 << 16).unwrap();
            let mut wide = vec![0.0f32; 1 << 16];
            packing.widen(0, 0, dtype, &all, &mut wide).unwrap();
            let bits = |x: &f32| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
            let bytes: Vec<u8> = wide.iter().flat_map(|x| bits(x).to_le_bytes()).collect();
            let digest = crate::checkpoint::expected::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes));
            assert_eq!(golden[name], digest, "{name}");
        }
    }

    #[test]
    fn what_is_out_of_turn_is_refused() {
        let spec = spec(Pack::Vector, &[&[4]]);
        let mut packing = Packing::new(&spec, 4).unwrap();
        let mut to = [0.0; 4];
        let mut put = |part, start, bytes: &[u8]| packing.widen(part, start, WeightDtype::F32, bytes, &mut to);
        assert!(put(0, 0, &[0; 8]).is_ok());
        for (part, start, len) in [
            (0, 1, 4),
            (0, 3, 4),
            (0, 2, 12),
            (1, 0, 4),
            (0, 2, 3),
            (0, usize::MAX, 4),
        ] {
            let error = put(part, start, &vec![0; len]).unwrap_err();
            assert_eq!(error.code(), "internal", "{part} {start} {len}");
        }
        assert!(put(0, 2, &[0; 8]).is_ok());
        assert!(Packing::new(&spec, 3).is_err());
    }
}
