//! The innermost product: four rows by two vectors of columns, which is all that the registers of wasm on x86 hold. Everything
//! that multiplies matrices brings its operands into the layout that this reads: one step of `k` after the other.
#![allow(unsafe_code, reason = "instructions that the processor was asked for")]

/// Rows of a tile.
pub(in super::super) const ROWS: usize = 4;
/// Columns of a tile.
pub(in super::super) const COLUMNS: usize = if cfg!(target_arch = "x86_64") { 16 } else { 8 };

/// One step of the rows' operand.
pub(in super::super) type Tall = [f32; ROWS];
/// One step of the columns' operand.
pub(in super::super) type Wide = [f32; COLUMNS];
/// Sums of a tile, row by row.
pub(in super::super) type Sums = [Wide; ROWS];

/// Adds `aᵀ · b` to `sums`, over the steps that both have.
#[inline(always)]
pub(in super::super) fn tile(a: &[Tall], b: &[Wide], sums: &mut Sums) {
    #[cfg(target_arch = "x86_64")]
    if fused() {
        // SAFETY: the processor has these instructions, as was asked.
        return unsafe { avx2(a, b, sums) };
    }
    plain(a, b, sums);
}

/// Whether the processor multiplies and adds eight numbers at once.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(in super::super) fn fused() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Not unrolled: the engine's compiler would run out of registers, for all loads of an unrolled loop come first.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
fn plain(a: &[Tall], b: &[Wide], sums: &mut Sums) {
    use bytemuck::must_cast;
    use core::arch::wasm32::{f32x4_splat, v128};
    #[inline(always)]
    fn madd(a: v128, b: v128, c: v128) -> v128 {
        #[cfg(target_feature = "relaxed-simd")]
        return core::arch::wasm32::f32x4_relaxed_madd(a, b, c);
        #[cfg(not(target_feature = "relaxed-simd"))]
        core::arch::wasm32::f32x4_add(c, core::arch::wasm32::f32x4_mul(a, b))
    }
    let mut acc: [[v128; 2]; ROWS] = must_cast(*sums);
    for (a, b) in a.iter().zip(b) {
        let b: [v128; 2] = must_cast(*b);
        for (acc, &a) in acc.iter_mut().zip(a) {
            let a = f32x4_splat(a);
            *acc = [madd(a, b[0], acc[0]), madd(a, b[1], acc[1])];
        }
    }
    *sums = must_cast(acc);
}

#[cfg(not(target_arch = "wasm32"))]
#[inline(always)]
fn plain(a: &[Tall], b: &[Wide], sums: &mut Sums) {
    let mut acc = *sums;
    for (a, b) in a.iter().zip(b) {
        for (acc, a) in acc.iter_mut().zip(a) {
            for (acc, b) in acc.iter_mut().zip(b) {
                *acc += a * b;
            }
        }
    }
    *sums = acc;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(a: &[Tall], b: &[Wide], sums: &mut Sums) {
    use core::arch::x86_64::{__m256, _mm256_fmadd_ps, _mm256_set1_ps};
    // SAFETY (both ways): vectors are numbers of the same size, any bits of which are valid.
    let mut acc: [[__m256; 2]; ROWS] = unsafe { std::mem::transmute(*sums) };
    for (a, b) in a.iter().zip(b) {
        let b: [__m256; 2] = unsafe { std::mem::transmute(*b) };
        for (acc, &a) in acc.iter_mut().zip(a) {
            let a = _mm256_set1_ps(a);
            *acc = [_mm256_fmadd_ps(a, b[0], acc[0]), _mm256_fmadd_ps(a, b[1], acc[1])];
        }
    }
    *sums = unsafe { std::mem::transmute::<[[__m256; 2]; ROWS], Sums>(acc) };
}

/// Puts four rows side by side: the steps of the rows' operand. Rows are as long as `to`.
pub(in super::super) fn interleave(rows: [&[f32]; ROWS], to: &mut [Tall]) {
    let len = to.len();
    let [a, b, c, d] = rows.map(|r| &r[..len]);
    let (fours, rest) = to.as_chunks_mut::<4>();
    let whole = fours.len() * 4;
    for (i, to) in fours.iter_mut().enumerate() {
        let at = |x: &[f32]| -> [f32; 4] { std::array::from_fn(|j| x[i * 4 + j]) };
        *to = transpose([at(a), at(b), at(c), at(d)]);
    }
    for (i, to) in (whole..).zip(rest) {
        *to = [a[i], b[i], c[i], d[i]];
    }
}

#[cfg(target_arch = "wasm32")]
#[inline(always)]
pub(super) fn transpose(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    use bytemuck::must_cast;
    use core::arch::wasm32::{i32x4_shuffle as words, i64x2_shuffle as pairs, v128};
    let [a, b, c, d]: [v128; 4] = must_cast(rows);
    let (ab, cd) = (words::<0, 4, 1, 5>(a, b), words::<0, 4, 1, 5>(c, d));
    let (ef, gh) = (words::<2, 6, 3, 7>(a, b), words::<2, 6, 3, 7>(c, d));
    must_cast([
        pairs::<0, 2>(ab, cd),
        pairs::<1, 3>(ab, cd),
        pairs::<0, 2>(ef, gh),
        pairs::<1, 3>(ef, gh),
    ])
}

#[cfg(not(target_arch = "wasm32"))]
#[inline(always)]
pub(super) fn transpose(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    std::array::from_fn(|column| rows.map(|row| row[column]))
}
