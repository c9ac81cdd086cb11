//! e to the power of x, within 1.5 ulp, without a branch.

use super::four::Four;

/// Adding and taking away 1.5 · 2²³ rounds to the nearest whole number, which stands in the low bits meanwhile.
const ROUND: f32 = 12_582_912.0;

/// e^x. Infinity above 88.7, zero below -104; NaN stays NaN.
#[inline(always)]
pub(in super::super) fn exp(x: f32) -> f32 {
    // Comparisons rather than `f32::min`, which would swallow NaN. At the bounds the result is infinity and zero already.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -105.0 { -105.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first of few bits, so that n times it is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    // Cephes' polynomial.
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 0.166_666_65;
    p = p * r + 0.5;
    let p = p * (r * r) + r + 1.0;
    // Two factors, for neither 2^128 nor what lies below 2^-126 can be made from an exponent alone.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// The same of numbers that are not above zero, within 2 ulp; zero already below -87, and NaN stays NaN.
#[inline(always)]
pub(super) fn exp_of_negative(x: Four) -> Four {
    let shifted = x.times_plus(std::f32::consts::LOG2_E, Four::splat(ROUND));
    let n = shifted - Four::splat(ROUND);
    let r = n.times_plus(2.121_944_4e-4, n.times_plus(-0.693_359_4, x));
    let p = r.times_plus(1.987_569_2e-4, Four::splat(1.398_2e-3));
    let p = p.by_plus(r, Four::splat(8.333_452e-3));
    let p = p.by_plus(r, Four::splat(4.166_579_6e-2));
    let p = p.by_plus(r, Four::splat(0.166_666_65));
    let p = p.by_plus(r, Four::splat(0.5));
    let p = p.by_plus(r, Four::splat(1.0)).by_plus(r, Four::splat(1.0));
    (p * shifted.power_of_two()).unless_below(x, -87.0)
}

/// 2^x of numbers that are not above zero, within 3 ulp; zero already below -126, and NaN stays NaN. For sums of many, in which the
/// last digit of each is of no account.
#[inline(always)]
pub(super) fn exp2_of_negative(x: Four) -> Four {
    let shifted = x + Four::splat(ROUND);
    let r = x - (shifted - Four::splat(ROUND));
    // Minimax on half a unit either way.
    let p = r.times_plus(1.327_647_2e-3, Four::splat(9.675_541e-3));
    let p = p.by_plus(r, Four::splat(5.550_713_3e-2));
    let p = p.by_plus(r, Four::splat(0.240_221_2));
    let p = p.by_plus(r, Four::splat(0.693_146_94));
    let p = p.by_plus(r, Four::splat(1.0));
    (p * shifted.power_of_two()).unless_below(x, -126.0)
}

/// 2^n for n from -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// How far a number is off, in units of its last place.
    fn ulps(got: f32, want: f64) -> f64 {
        let ulp = f64::from(f32::from_bits((want as f32).to_bits() + 1)) - f64::from(want as f32);
        (f64::from(got) - want).abs() / ulp
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for i in -8_700_000..8_870_000 {
            let x = i as f32 * 1e-5;
            let want = f64::from(x).exp();
            let off = ulps(exp(x), want);
            assert!(off <= 1.5, "exp({x}) is off by {off} ulp");
        }
    }

    #[test]
    fn exp_of_what_is_not_above_zero() {
        for i in -8_700_000..=0 {
            let x = i as f32 * 1e-5;
            let want = f64::from(x).exp();
            let got = exp_of_negative(Four::new([x, 0.0, f32::NAN, f32::NEG_INFINITY])).get();
            let off = ulps(got[0], want);
            assert!(off <= 2.0, "exp({x}) is off by {off} ulp");
            assert!(got[1] == 1.0 && got[2].is_nan() && got[3] == 0.0);
        }
    }

    #[test]
    fn exp2_of_what_is_not_above_zero() {
        for i in -12_600_000..=0 {
            let x = i as f32 * 1e-5;
            let want = f64::from(x).exp2();
            let got = exp2_of_negative(Four::new([x, 0.0, f32::from_bits(0x7fc0_0001), f32::NEG_INFINITY])).get();
            let off = ulps(got[0], want);
            assert!(off <= 3.0, "2^{x} is off by {off} ulp");
            assert!(got[1] == 1.0 && got[2].is_nan() && got[3] == 0.0);
        }
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(100.0), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(-110.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert!((exp(88.6) / 88.6f64.exp() as f32 - 1.0).abs() < 1e-5);
        // Below the normal numbers.
        assert!((f64::from(exp(-100.0)) - (-100f64).exp()).abs() < 1.5e-45);
    }
}
