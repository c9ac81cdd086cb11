//! Matrices cut for several threads: each writes some columns, or some rows, and nobody else's.

use std::ops::Range;

/// Cuts rows of `stride` elements: for each range of columns, which rise and do not overlap, its part of every row.
pub(in super::super) fn strips<T>(
    to: &mut [T],
    stride: usize,
    columns: impl Iterator<Item = Range<usize>> + Clone,
) -> Vec<Vec<&mut [T]>> {
    let rows = to.len() / stride.max(1);
    let mut strips: Vec<Vec<&mut [T]>> = columns.clone().map(|_| Vec::with_capacity(rows)).collect();
    for mut row in to.chunks_exact_mut(stride.max(1)) {
        let mut passed = 0;
        for (strip, columns) in strips.iter_mut().zip(columns.clone()) {
            let (part, rest) = row.split_at_mut(columns.end - passed);
            strip.push(&mut part[columns.start - passed..]);
            (row, passed) = (rest, columns.end);
        }
    }
    strips
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_element_is_in_one_strip() {
        let mut all: Vec<usize> = (0..35).collect();
        let columns = [0..3, 3..4, 5..7];
        for (strip, columns) in strips(&mut all, 7, columns.iter().cloned()).iter().zip(&columns) {
            for (row, part) in strip.iter().enumerate() {
                let want: Vec<usize> = columns.clone().map(|column| row * 7 + column).collect();
                assert_eq!(part.to_vec(), want);
            }
            assert_eq!(strip.len(), 5);
        }
    }
}
