//! What is left of a convolution of 3 x 3 once each pixel was multiplied with the weights of all nine taps, which lie side by side:
//! sums of the products that belong to one pixel.

use super::four::Four;
use super::tile::COLUMNS;

/// Taps, each way.
pub(in super::super) const SIDE: usize = 3;
/// The most channels that are summed at once.
pub(in super::super) const MOST: usize = 16;

/// Columns of the product for so many channels: four of a tap's are read at once, the last ones too.
pub(in super::super) fn columns(channels: usize) -> usize {
    ((SIDE * SIDE - 1) * channels + channels.next_multiple_of(4)).next_multiple_of(COLUMNS)
}

/// Writes a line of pixels of `channels` each. `lines` are the products of the three lines that it sees, with `width` pixels each; `left` is
/// the number of zeros before them.
pub(in super::super) fn sum(
    lines: [Option<&[f32]>; SIDE],
    [width, left, channels]: [usize; 3],
    addend: Option<&[f32]>,
    to: &mut [f32],
) {
    // A number of channels that the compiler knows is added up in one register.
    match channels {
        1 => line::<1, 1>(lines, [width, left, 1], addend, to),
        2 => line::<2, 1>(lines, [width, left, 2], addend, to),
        3 => line::<3, 1>(lines, [width, left, 3], addend, to),
        4 => line::<4, 1>(lines, [width, left, 4], addend, to),
        5..=8 => line::<0, 2>(lines, [width, left, channels], addend, to),
        9..=12 => line::<0, 3>(lines, [width, left, channels], addend, to),
        _ => line::<0, 4>(lines, [width, left, channels], addend, to),
    }
}

/// `KNOWN` is the number of channels, or 0.
#[inline(always)]
fn line<const KNOWN: usize, const FOURS: usize>(
    lines: [Option<&[f32]>; SIDE],
    [width, left, channels]: [usize; 3],
    addend: Option<&[f32]>,
    to: &mut [f32],
) {
    let channels = if KNOWN > 0 { KNOWN } else { channels };
    let stride = columns(channels);
    let mut first = [[0.0; 4]; FOURS];
    if let Some(addend) = addend {
        first.as_flattened_mut()[..channels].copy_from_slice(addend);
    }
    let first = first.map(Four::new);
    let add = |sums: &mut [Four; FOURS], row: usize, tap: usize, pixel: &[f32]| {
        let at = (row * SIDE + tap) * channels;
        let (fours, _) = pixel[at..at + 4 * FOURS].as_chunks::<4>();
        for (sum, four) in sums.iter_mut().zip(fours) {
            *sum = *sum + Four::new(*four);
        }
    };
    for (x, to) in to.chunks_exact_mut(channels).enumerate() {
        let mut sums = first;
        // Taps that lie in the picture.
        let begin = left.saturating_sub(x);
        let end = (width + left).saturating_sub(x).min(SIDE);
        for (row, products) in lines.iter().enumerate() {
            let Some(products) = products else { continue };
            if end - begin.min(end) == SIDE {
                let pixels = &products[(x - left) * stride..][..SIDE * stride];
                for tap in 0..SIDE {
                    add(&mut sums, row, tap, &pixels[tap * stride..][..stride]);
                }
            } else {
                for tap in begin..end {
                    add(&mut sums, row, tap, &products[(x + tap - left) * stride..][..stride]);
                }
            }
        }
        let sums = sums.map(Four::get);
        let sums = &sums.as_flattened()[..channels];
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = *sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_tap_is_added_where_it_belongs() {
        for channels in [1, 3, 4, 5, 12, 13, MOST - 1] {
            for (width, left) in [(1, 1), (2, 1), (7, 0), (5, 2)] {
                let stride = columns(channels);
                // What is beside the taps' columns is looked at by nobody.
                let product = |row: usize, x: usize, column: usize| match column < 9 * channels {
                    true => ((row * 31 + x * 7 + column) % 64) as f32,
                    false => f32::NAN,
                };
                let made: Vec<Vec<f32>> = (0..SIDE)
                    .map(|row| {
                        (0..width * stride)
                            .map(|i| product(row, i / stride, i % stride))
                            .collect()
                    })
                    .collect();
                let lines = [Some(&made[0][..]), None, Some(&made[2][..])];
                let addend: Vec<f32> = (0..channels).map(|c| c as f32).collect();
                let out = width + 1;
                let mut got = vec![f32::NAN; out * channels];
                sum(lines, [width, left, channels], Some(&addend), &mut got);
                for (i, got) in got.iter().enumerate() {
                    let (x, c) = (i / channels, i % channels);
                    let mut want = c as f32;
                    for row in [0, 2] {
                        for tap in 0..SIDE {
                            if let Some(from) = (x + tap).checked_sub(left).filter(|from| *from < width) {
                                want += product(row, from, (row * SIDE + tap) * channels + c);
                            }
                        }
                    }
                    assert_eq!(
                        *got, want,
                        "{channels} channels, width {width}, left {left}, element {i}"
                    );
                }
            }
        }
    }
}
