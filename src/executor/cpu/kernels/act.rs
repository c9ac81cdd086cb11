//! Activation functions by torch's formulas, so that they round, overflow and pass NaN as torch does.

use super::exp;
use super::exp::exp_of_negative;
use super::four::Four;
use crate::graph::Activation;

/// Applies an activation to each element.
pub(in super::super) fn activate(act: Activation, x: &mut [f32]) {
    fn each(x: &mut [f32], f: impl Fn(f32) -> f32) {
        x.iter_mut().for_each(|v| *v = f(*v));
    }
    fn fours(x: &mut [f32], f: impl Fn(Four) -> Four) {
        let (fours, rest) = x.as_chunks_mut();
        fours.iter_mut().for_each(|v| *v = f(Four::new(*v)).get());
        let done = f(padded(rest)).get();
        rest.iter_mut().zip(done).for_each(|(v, done)| *v = done);
    }
    match act {
        Activation::Silu => fours(x, |v| v * sigmoid(v)),
        Activation::Gelu => fours(x, gelu),
        Activation::GeluTanh => each(x, |v| {
            let inner = (2.0 * std::f32::consts::FRAC_1_PI).sqrt() * (v + 0.044_715 * (v * v * v));
            0.5 * v * (1.0 + tanh(inner))
        }),
        Activation::QuickGelu => fours(x, |v| v * sigmoid(v * 1.702)),
        // Not `f32::max`: NaN stays NaN.
        Activation::Relu => each(x, |v| if v < 0.0 { 0.0 } else { v }),
        Activation::Tanh => each(x, tanh),
    }
}

/// `dst = x · gelu(gate)`.
pub(in super::super) fn geglu(dst: &mut [f32], x: &[f32], gate: &[f32]) {
    let ((dst, dst_rest), (x, x_rest), (gate, gate_rest)) = (dst.as_chunks_mut(), x.as_chunks(), gate.as_chunks());
    for ((d, x), g) in dst.iter_mut().zip(x).zip(gate) {
        *d = (Four::new(*x) * gelu(Four::new(*g))).get();
    }
    let done = (padded(x_rest) * gelu(padded(gate_rest))).get();
    dst_rest.iter_mut().zip(done).for_each(|(d, done)| *d = done);
}

/// Up to four numbers, and zeros.
fn padded(x: &[f32]) -> Four {
    let mut four = [0.0; 4];
    four.iter_mut().zip(x).for_each(|(to, x)| *to = *x);
    Four::new(four)
}

/// `1 / (1 + e^-v)`, by a power that can't overflow.
#[inline(always)]
fn sigmoid(v: Four) -> Four {
    let (one, power) = (Four::splat(1.0), exp_of_negative(Four::splat(0.0) - v.abs()));
    power.where_below(v, 0.0, one) / (one + power)
}

#[inline(always)]
fn gelu(v: Four) -> Four {
    v * 0.5 * (Four::splat(1.0) + erf(v * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function within 2 ulp: a polynomial near zero, else `1 - e^p(|x|)`, both minimax (N. Juffa).
#[inline(always)]
fn erf(x: Four) -> Four {
    let (t, s) = (x.abs(), x * x);
    let far = t.times_plus(-1.728_534_7e-5, Four::splat(3.831_972_6e-4));
    let far = far.by_plus(s, t.times_plus(-3.883_964_4e-3, Four::splat(2.425_462_2e-2)));
    let far = far.by_plus(t, Four::splat(-0.106_777_88));
    let far = far.by_plus(t, Four::splat(-0.634_846_7));
    let far = far.by_plus(t, Four::splat(-0.128_717_51));
    let far = far.by_plus(t, Four::splat(0.0) - t);
    let far = (Four::splat(1.0) - exp_of_negative(far)).copysign(x);
    let near = s.times_plus(-5.967_617e-4, Four::splat(4.991_194_2e-3));
    let near = near.by_plus(s, Four::splat(-2.676_813_5e-2));
    let near = near.by_plus(s, Four::splat(0.112_819_925));
    let near = near.by_plus(s, Four::splat(-0.376_125_34));
    let near = near.by_plus(s, Four::splat(0.128_379_17));
    let near = near.by_plus(x, x);
    // A number that is none is in both.
    near.where_below(t, 0.927_734_4, far)
}

/// The hyperbolic tangent within 2 ulp: Cephes' polynomial near zero, else by e^2x.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let (t, s) = (x.abs(), x * x);
    let far = (1.0 - 2.0 / (exp(2.0 * t) + 1.0)).copysign(x);
    let mut near = -5.704_988_7e-3;
    near = near * s + 2.063_909e-2;
    near = near * s - 5.373_971_6e-2;
    near = near * s + 0.133_314_42;
    near = near * s - 0.333_332_8;
    let near = near * s * x + x;
    if t >= 0.625 { far } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The error function in f64 by its Taylor series near zero and its continued fraction beyond.
    fn erf64(x: f64) -> f64 {
        if x.abs() < 3.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..100 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * std::f64::consts::FRAC_2_SQRT_PI
        } else {
            let t = x.abs();
            let fraction = (1..60).rev().fold(t, |f, n| t + f64::from(n) / 2.0 / f);
            (1.0 - (-t * t).exp() / fraction / std::f64::consts::PI.sqrt()).copysign(x)
        }
    }

    fn check(name: &str, got: impl Fn(f32) -> f32, want: impl Fn(f64) -> f64, ulps: f64) {
        for i in -600_000..600_000 {
            let x = i as f32 * 2e-5;
            let want = want(f64::from(x));
            let size = (want.abs() as f32).max(f32::MIN_POSITIVE);
            let ulp = f64::from(f32::from_bits(size.to_bits() + 1)) - f64::from(size);
            let off = (f64::from(got(x)) - want).abs() / ulp;
            assert!(off <= ulps, "{name}({x}) = {} is off by {off} ulp", got(x));
        }
    }

    #[test]
    fn erf_and_tanh_are_within_ulps() {
        check("erf", |x| erf(Four::splat(x)).get()[0], erf64, 2.5);
        check("tanh", tanh, f64::tanh, 2.5);
    }

    fn one(act: Activation, v: f32) -> f32 {
        let mut x = [v];
        activate(act, &mut x);
        x[0]
    }

    #[test]
    fn ends_as_torch_has_them() {
        use Activation::{Gelu, GeluTanh, QuickGelu, Relu, Silu, Tanh};
        for act in [Silu, Gelu, GeluTanh, QuickGelu, Relu] {
            assert_eq!(one(act, 100.0), 100.0, "{act:?}");
            assert_eq!(one(act, -100.0), 0.0, "{act:?}");
            assert_eq!(one(act, f32::INFINITY), f32::INFINITY, "{act:?}");
        }
        for act in [Silu, Gelu, GeluTanh, QuickGelu, Relu, Tanh] {
            assert!(one(act, f32::NAN).is_nan(), "{act:?}");
            assert_eq!(one(act, 0.0), 0.0, "{act:?}");
        }
        // Infinity times zero.
        for act in [Silu, Gelu, GeluTanh, QuickGelu] {
            assert!(one(act, f32::NEG_INFINITY).is_nan(), "{act:?}");
        }
        assert_eq!(one(Relu, f32::NEG_INFINITY), 0.0);
        assert_eq!([one(Tanh, 100.0), one(Tanh, -100.0)], [1.0, -1.0]);
        assert_eq!([one(Tanh, f32::INFINITY), one(Tanh, f32::NEG_INFINITY)], [1.0, -1.0]);
    }

    #[test]
    fn activations_by_their_definitions() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let phi = |x: f64| 0.5 * (1.0 + erf64(x / std::f64::consts::SQRT_2));
        for i in -1500..1500 {
            let (x, x64) = (i as f32 * 0.01, f64::from(i as f32 * 0.01));
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x64 + 0.044715 * x64.powi(3));
            for (act, want) in [
                (Activation::Silu, x64 * sigmoid(x64)),
                (Activation::Gelu, x64 * phi(x64)),
                (Activation::GeluTanh, 0.5 * x64 * (1.0 + inner.tanh())),
                (Activation::QuickGelu, x64 * sigmoid(1.702 * x64)),
                (Activation::Relu, x64.max(0.0)),
            ] {
                let off = (f64::from(one(act, x)) - want).abs();
                assert!(
                    off <= 2e-6 * want.abs() + 3e-7,
                    "{act:?}({x}) = {} for {want}",
                    one(act, x)
                );
            }
        }
        let (x, gate) = ([3.0, -2.0], [1.5, -0.5]);
        let mut out = [0.0; 2];
        geglu(&mut out, &x, &gate);
        for i in 0..2 {
            let want = f64::from(x[i]) * f64::from(gate[i]) * phi(f64::from(gate[i]));
            assert!((f64::from(out[i]) - want).abs() < 1e-6);
        }
    }
}
