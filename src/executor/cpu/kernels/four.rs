//! Four numbers that are added and multiplied at once.

use std::ops::{Add, Mul, Sub};

/// Four numbers.
#[derive(Clone, Copy)]
pub(super) struct Four(Register);

#[cfg(target_arch = "wasm32")]
type Register = core::arch::wasm32::v128;
#[cfg(not(target_arch = "wasm32"))]
type Register = [f32; 4];

impl Four {
    #[inline(always)]
    pub(super) fn new(x: [f32; 4]) -> Self {
        Self(bytemuck::must_cast(x))
    }

    #[inline(always)]
    pub(super) fn get(self) -> [f32; 4] {
        bytemuck::must_cast(self.0)
    }
}

#[cfg(target_arch = "wasm32")]
mod with {
    pub(super) use core::arch::wasm32::{f32x4_add as add, f32x4_mul as mul, f32x4_splat as splat, f32x4_sub as sub};
}

#[cfg(not(target_arch = "wasm32"))]
mod with {
    #[inline(always)]
    pub(super) fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    pub(super) fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    pub(super) fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    pub(super) fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
}

impl Add for Four {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(with::add(self.0, other.0))
    }
}

impl Sub for Four {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(with::sub(self.0, other.0))
    }
}

impl Mul<f32> for Four {
    type Output = Self;

    #[inline(always)]
    fn mul(self, factor: f32) -> Self {
        Self(with::mul(self.0, with::splat(factor)))
    }
}
