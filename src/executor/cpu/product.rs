//! A matrix product for who needs one outside of a plan.

use super::memory::read;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};

/// `a [m, k] · b [k, n]`, on the processor whatever the executor is.
///
/// # Errors
/// [`Error::Internal`] if lengths and sizes differ; [`Error::OutOfMemory`].
pub fn product(a: &[f32], b: &[f32], [m, k, n]: [usize; 3]) -> Result<Vec<f32>> {
    let count = usize::saturating_mul;
    if a.len() != count(m, k) || b.len() != count(k, n) {
        return Err(Error::Internal(format!(
            "{} and {} elements for a product of [{m}, {k}] and [{k}, {n}]",
            a.len(),
            b.len()
        )));
    }
    // Copies of the operands, the result, and the result's copy: candle itself can only abort.
    let needed = a
        .len()
        .saturating_add(b.len())
        .saturating_add(count(m, n).saturating_mul(2));
    let room = Vec::<f32>::new().try_reserve_exact(needed);
    room.map_err(|_| Error::OutOfMemory(format!("a product of [{m}, {k}] and [{k}, {n}]")))?;
    let a = Tensor::from_slice(a, (m, k), &Device::Cpu)?;
    let b = Tensor::from_slice(b, (k, n), &Device::Cpu)?;
    let product = a.matmul(&b)?;
    let elements = read::<f32>(&product)?;
    Ok(elements.to_vec())
}
