//! Sums over a slice, in lanes: one running value would be a chain that no processor can overlap, and less exact.

const LANES: usize = 16;

#[inline(always)]
fn lanes(x: &[f32], f: impl Fn(f32, f32) -> f32) -> ([f32; LANES], &[f32]) {
    let mut acc = [0.0; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for block in whole {
        for (a, &v) in acc.iter_mut().zip(block) {
            *a = f(*a, v);
        }
    }
    (acc, rest)
}

/// The sum of all elements.
pub(in super::super) fn sum(x: &[f32]) -> f32 {
    let (acc, rest) = lanes(x, |a, v| a + v);
    acc.iter().chain(rest).sum()
}

/// The sum of `(x - mean)²`.
pub(in super::super) fn sum_of_squares(x: &[f32], mean: f32) -> f32 {
    let (acc, rest) = lanes(x, |a, v| a + (v - mean) * (v - mean));
    acc.iter().sum::<f32>() + rest.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_of_any_length() {
        for len in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..len).map(|i| ((i * 37) % 23) as f32 - 11.0).collect();
            assert_eq!(sum(&x), x.iter().sum::<f32>());
            assert_eq!(
                sum_of_squares(&x, 1.0),
                x.iter().map(|v| (v - 1.0) * (v - 1.0)).sum::<f32>()
            );
        }
    }
}
