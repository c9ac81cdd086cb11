//! Four numbers that are added and multiplied at once.

use std::ops::{Add, Div, Mul, Sub};

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

    /// Four times the same.
    #[inline(always)]
    pub(super) fn splat(x: f32) -> Self {
        Self(with::splat(x))
    }

    /// `self · factor + sum`, rounded once where the build has an instruction for it.
    #[inline(always)]
    pub(super) fn times_plus(self, factor: f32, sum: Self) -> Self {
        self.by_plus(Self::splat(factor), sum)
    }

    /// The same with four factors.
    #[inline(always)]
    pub(super) fn by_plus(self, factor: Self, sum: Self) -> Self {
        Self(with::madd(self.0, factor.0, sum.0))
    }

    /// Zero where `x` is below `bound`.
    #[inline(always)]
    pub(super) fn unless_below(self, x: Self, bound: f32) -> Self {
        Self(with::unless_below(self.0, x.0, with::splat(bound)))
    }

    /// Without its signs.
    #[inline(always)]
    pub(super) fn abs(self) -> Self {
        Self(with::abs(self.0))
    }

    /// With the signs of `sign`.
    #[inline(always)]
    pub(super) fn copysign(self, sign: Self) -> Self {
        Self(with::copysign(self.0, sign.0))
    }

    /// `self` where `x` is below `bound`, and `other` elsewhere.
    #[inline(always)]
    pub(super) fn where_below(self, x: Self, bound: f32, other: Self) -> Self {
        Self(with::where_below(self.0, x.0, with::splat(bound), other.0))
    }

    /// 2 to the power of the low bits, as a sum with 1.5 · 2²³ has them.
    #[inline(always)]
    pub(super) fn power_of_two(self) -> Self {
        Self(with::power_of_two(self.0))
    }
}

#[cfg(target_arch = "wasm32")]
mod with {
    pub(super) use core::arch::wasm32::{f32x4_abs as abs, f32x4_add as add, f32x4_div as div, f32x4_mul as mul};
    use core::arch::wasm32::{f32x4_lt, i32x4_add, i32x4_shl, i32x4_splat, v128, v128_andnot, v128_bitselect};
    pub(super) use core::arch::wasm32::{f32x4_splat as splat, f32x4_sub as sub};

    #[inline(always)]
    pub(super) fn copysign(x: v128, sign: v128) -> v128 {
        v128_bitselect(sign, x, i32x4_splat(i32::MIN))
    }

    #[inline(always)]
    pub(super) fn where_below(value: v128, x: v128, bound: v128, other: v128) -> v128 {
        v128_bitselect(value, other, f32x4_lt(x, bound))
    }

    #[inline(always)]
    pub(super) fn madd(a: v128, b: v128, c: v128) -> v128 {
        #[cfg(target_feature = "relaxed-simd")]
        return core::arch::wasm32::f32x4_relaxed_madd(a, b, c);
        #[cfg(not(target_feature = "relaxed-simd"))]
        add(c, mul(a, b))
    }

    #[inline(always)]
    pub(super) fn unless_below(value: v128, x: v128, bound: v128) -> v128 {
        v128_andnot(value, f32x4_lt(x, bound))
    }

    #[inline(always)]
    pub(super) fn power_of_two(x: v128) -> v128 {
        i32x4_add(i32x4_shl(x, 23), i32x4_splat(127 << 23))
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod with {
    use std::array::from_fn;
    type Four = [f32; 4];

    #[inline(always)]
    pub(super) fn splat(x: f32) -> Four {
        [x; 4]
    }

    #[inline(always)]
    pub(super) fn add(a: Four, b: Four) -> Four {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    pub(super) fn sub(a: Four, b: Four) -> Four {
        from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    pub(super) fn mul(a: Four, b: Four) -> Four {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    pub(super) fn div(a: Four, b: Four) -> Four {
        from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    pub(super) fn abs(x: Four) -> Four {
        x.map(f32::abs)
    }

    #[inline(always)]
    pub(super) fn copysign(x: Four, sign: Four) -> Four {
        from_fn(|i| x[i].copysign(sign[i]))
    }

    #[inline(always)]
    pub(super) fn where_below(value: Four, x: Four, bound: Four, other: Four) -> Four {
        from_fn(|i| if x[i] < bound[i] { value[i] } else { other[i] })
    }

    #[inline(always)]
    pub(super) fn madd(a: Four, b: Four, c: Four) -> Four {
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    pub(super) fn unless_below(value: Four, x: Four, bound: Four) -> Four {
        from_fn(|i| if x[i] < bound[i] { 0.0 } else { value[i] })
    }

    #[inline(always)]
    pub(super) fn power_of_two(x: Four) -> Four {
        x.map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(127 << 23)))
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

impl Mul for Four {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(with::mul(self.0, other.0))
    }
}

impl Div for Four {
    type Output = Self;

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(with::div(self.0, other.0))
    }
}
