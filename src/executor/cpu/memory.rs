//! candle tensors as memory: made once, read and written in place. What candle says against it becomes our error here.

use crate::error::{Error, Result};
use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, Tensor, WithDType};
use std::cell::Cell;
use std::ops::{Deref, Range};

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        Self::Internal(format!("candle: {e}"))
    }
}

/// Room for what is too small to be asked for by [`filled`]: lists of a matrix's rows for each part of the work, and statistics.
const WORKING_BYTES: usize = 16 << 20;

/// A tensor of zeros in one dimension. `what` it is for is said where there is no room.
pub(super) fn zeros<T: WithDType>(len: usize, what: &str) -> Result<Tensor> {
    Ok(Tensor::from_vec(filled(len, T::zero(), what)?, len, &Device::Cpu)?)
}

/// `len` times the same. `what` it is for is said where there is no room.
pub(super) fn filled<T: Copy>(len: usize, with: T, what: &str) -> Result<Vec<T>> {
    let mut data = reserve(len, what)?;
    data.resize(len, with);
    Ok(data)
}

/// Makes `data` at least so long. `what` it is for is said where there is no room.
pub(super) fn grow<T: Copy>(data: &mut Vec<T>, len: usize, with: T, what: &str) -> Result<()> {
    let missing = len.saturating_sub(data.len());
    if missing > 0 {
        let reserved = data.try_reserve_exact(missing);
        reserved.map_err(|_| no_room::<T>(len, what))?;
        data.resize(len, with);
    }
    Ok(())
}

/// Checks that there is room beside what was allocated for what cannot report that there is none.
pub(super) fn leave_room() -> Result<()> {
    reserve::<u8>(WORKING_BYTES, "working memory").map(drop)
}

fn reserve<T>(len: usize, what: &str) -> Result<Vec<T>> {
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| no_room::<T>(len, what))?;
    Ok(data)
}

fn no_room<T>(len: usize, what: &str) -> Error {
    let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
    Error::OutOfMemory(format!("{what}: {bytes} bytes are needed{}", in_use()))
}

#[cfg(not(target_arch = "wasm32"))]
fn in_use() -> String {
    String::new()
}

/// The address space is what there is: 4 GiB, in pages of 64 KiB.
#[cfg(target_arch = "wasm32")]
fn in_use() -> String {
    let bytes = core::arch::wasm32::memory_size(0) as u64 * 65536;
    format!(
        ", and {bytes} of the {} that a page's WebAssembly can address are taken",
        1u64 << 32
    )
}

/// The elements of a tensor that lie one after the other, for as long as this is held.
pub(super) struct Elements<G, T> {
    storage: G,
    range: Range<usize>,
    element: std::marker::PhantomData<T>,
}

impl<G: Deref<Target = Storage>, T: WithDType> Deref for Elements<G, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &*self.storage {
            // The type was looked at when this was made.
            Storage::Cpu(s) => s.as_slice().map_or(&[], |s| &s[self.range.clone()]),
            _ => &[],
        }
    }
}

/// Reads the elements of a tensor.
pub(super) fn read<T: WithDType>(tensor: &Tensor) -> Result<Elements<impl Deref<Target = Storage> + '_, T>> {
    if tensor.dtype() != T::DTYPE {
        return Err(Error::Internal(format!("{:?} read as {:?}", tensor.dtype(), T::DTYPE)));
    }
    let (storage, layout) = tensor.storage_and_layout();
    Ok(Elements {
        range: range(layout)?,
        storage,
        element: std::marker::PhantomData,
    })
}

fn range(layout: &Layout) -> candle_core::Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => candle_core::bail!("the elements do not lie one after the other"),
    }
}

/// A type of element that tensors can be written in.
pub(super) trait Writable: WithDType {
    fn elements(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Writable for f32 {
    fn elements(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        if let CpuStorage::F32(v) = storage {
            Some(v)
        } else {
            None
        }
    }
}

impl Writable for u32 {
    fn elements(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        if let CpuStorage::U32(v) = storage {
            Some(v)
        } else {
            None
        }
    }
}

struct Write<F, T>(Cell<Option<F>>, std::marker::PhantomData<T>);

impl<T: Writable, F: FnOnce(&mut [T])> InplaceOp1 for Write<F, T> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (Some(f), Some(all)) = (self.0.take(), T::elements(storage)) else {
            candle_core::bail!("written as {:?}", T::DTYPE);
        };
        f(&mut all[range(layout)?]);
        Ok(())
    }
}

/// Changes the elements of a tensor in place. `f` must not read the same tensor.
pub(super) fn write<T: Writable>(tensor: &Tensor, f: impl FnOnce(&mut [T])) -> Result<()> {
    Ok(tensor.inplace_op1(&Write(Cell::new(Some(f)), std::marker::PhantomData))?)
}

/// Rows `rows` of a tensor that holds a matrix of `columns`.
pub(super) fn matrix(tensor: &Tensor, rows: Range<usize>, columns: usize) -> Result<Tensor> {
    let part = tensor.narrow(0, rows.start * columns, rows.len() * columns)?;
    Ok(part.reshape((rows.len(), columns))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn written_in_place() {
        let t = zeros::<f32>(6, "six").unwrap();
        let row = matrix(&t, 1..2, 3).unwrap();
        write(&row, |r: &mut [f32]| r.copy_from_slice(&[1.0, 2.0, 3.0])).unwrap();
        assert_eq!(*read::<f32>(&t).unwrap(), [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn wrong_types_and_lengths_are_errors() {
        let ids = zeros::<u32>(3, "ids").unwrap();
        assert_eq!(read::<f32>(&ids).err().unwrap().code(), "internal");
        assert_eq!(write(&ids, |_: &mut [f32]| ()).unwrap_err().code(), "internal");
        assert_eq!(matrix(&ids, 0..2, 2).unwrap_err().code(), "internal");
        let t = zeros::<f32>(6, "six").unwrap().reshape((2, 3)).unwrap();
        assert_eq!(read::<f32>(&t.t().unwrap()).err().unwrap().code(), "internal");
    }

    #[test]
    fn no_room_is_said() {
        // In wasm there is room for one of this size, which takes no memory while nobody writes to it.
        let mut first = Vec::<u8>::new();
        let _ = first.try_reserve_exact(isize::MAX as usize);
        let e = zeros::<f32>(isize::MAX as usize / 4, "slot 3").unwrap_err();
        assert_eq!(e.code(), "out-of-memory");
        let needed = format!("slot 3: {} bytes are needed", isize::MAX - 3);
        assert!(e.message().starts_with(&needed), "{e}");
        let mut lines = vec![1.0f32];
        let e = grow(&mut lines, isize::MAX as usize / 4, 0.0, "lines").unwrap_err();
        assert_eq!(e.code(), "out-of-memory");
        grow(&mut lines, 3, 0.0, "lines").unwrap();
        grow(&mut lines, 2, 5.0, "lines").unwrap();
        assert_eq!(lines, [1.0, 0.0, 0.0]);
    }
}
