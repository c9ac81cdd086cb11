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

/// Of rows of `channels`, the mean of each column from `first` on, and the sum of its squared deviations from that.
pub(in super::super) fn deviations(rows: &[f32], channels: usize, first: usize, mean: &mut [f32], squares: &mut [f32]) {
    let one = 1.0 / (rows.len() / channels) as f32;
    let ((means, mean), (all, squares)) = (mean.as_chunks_mut::<LANES>(), squares.as_chunks_mut());
    let mut at = first;
    // Some columns at a time, whose sums stay in registers.
    for (mean, squares) in means.iter_mut().zip(all) {
        let each = || rows[at..].chunks(channels).filter_map(|row| row.first_chunk::<LANES>());
        let mut sums = [0.0; LANES];
        for row in each() {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        *mean = sums.map(|sum| sum * one);
        let mut sums = [0.0; LANES];
        for row in each() {
            for ((sum, x), mean) in sums.iter_mut().zip(row).zip(&*mean) {
                *sum += (x - mean) * (x - mean);
            }
        }
        *squares = sums;
        at += LANES;
    }
    for (i, (mean, squares)) in mean.iter_mut().zip(squares).enumerate() {
        let each = || rows[at + i..].iter().step_by(channels);
        *mean = each().fold(0.0, |sum, x| sum + x) * one;
        *squares = each().fold(0.0, |sum, x| sum + (x - *mean) * (x - *mean));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn deviations_of_any_columns() {
        for (rows, channels, first, count) in [(1, 1, 0, 1), (5, 16, 0, 16), (7, 40, 3, 35), (3, 33, 16, 17)] {
            let x: Vec<f32> = (0..rows * channels).map(|i| ((i * 37) % 23) as f32 - 11.0).collect();
            let (mut mean, mut squares) = (vec![f32::NAN; count], vec![f32::NAN; count]);
            deviations(&x, channels, first, &mut mean, &mut squares);
            for i in 0..count {
                let column = || (0..rows).map(|row| f64::from(x[row * channels + first + i]));
                let want = column().sum::<f64>() / rows as f64;
                assert!((f64::from(mean[i]) - want).abs() < 1e-5);
                let want = column().map(|x| (x - want) * (x - want)).sum::<f64>();
                assert!((f64::from(squares[i]) - want).abs() < 1e-5 * (1.0 + want));
            }
        }
    }

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
