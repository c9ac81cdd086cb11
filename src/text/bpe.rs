//! Byte-pair encoding of one word (Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>), over bytes as GPT-2 does it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Which pairs of tokens are merged: the rank (the lowest goes first) and the token that they become.
pub(super) type Merges = HashMap<(u32, u32), (u32, u32)>;

/// The character that stands for a byte in a vocabulary: itself if it can be seen, else one from 256 on.
pub(super) fn byte_char(byte: u8) -> char {
    let visible = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match visible(byte) {
        true => char::from(byte),
        false => {
            let before = (0..byte).filter(|&byte| !visible(byte)).count() as u32;
            char::from_u32(256 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    }
}

/// A token of a word under work, and its neighbours.
struct Symbol {
    id: u32,
    previous: Option<usize>,
    next: Option<usize>,
    merged: bool,
}

/// Merges the pairs of `ids`, lowest rank first and from the left, until no pair of neighbours is in `merges`.
pub(super) fn merge(ids: impl IntoIterator<Item = u32>, merges: &Merges) -> Vec<u32> {
    let mut symbols: Vec<Symbol> = Vec::new();
    for (index, id) in ids.into_iter().enumerate() {
        let previous = index.checked_sub(1);
        if let Some(previous) = previous {
            symbols[previous].next = Some(index);
        }
        symbols.push(Symbol {
            id,
            previous,
            next: None,
            merged: false,
        });
    }
    let candidate = |symbols: &[Symbol], left: usize| {
        let right = symbols[left].next?;
        let pair = (symbols[left].id, symbols[right].id);
        merges.get(&pair).map(|&(rank, id)| Reverse((rank, left, pair, id)))
    };
    let mut queue: BinaryHeap<_> = (0..symbols.len())
        .filter_map(|left| candidate(&symbols, left))
        .collect();
    while let Some(Reverse((_, left, pair, id))) = queue.pop() {
        let Some(right) = symbols[left].next else { continue };
        // One of the two may have gone into another merge since.
        if symbols[left].merged || pair != (symbols[left].id, symbols[right].id) {
            continue;
        }
        symbols[right].merged = true;
        let next = symbols[right].next;
        symbols[left].id = id;
        symbols[left].next = next;
        if let Some(next) = next {
            symbols[next].previous = Some(left);
        }
        queue.extend(candidate(&symbols, left));
        queue.extend(
            symbols[left]
                .previous
                .and_then(|previous| candidate(&symbols, previous)),
        );
    }
    symbols
        .into_iter()
        .filter(|symbol| !symbol.merged)
        .map(|symbol| symbol.id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_characters_of_gpt_2() {
        assert_eq!(
            [b'a', b' ', b'\n', 0, 0x7F, 0xAD, 0xFF].map(byte_char),
            ['a', 'Ġ', 'Ċ', 'Ā', 'ġ', 'Ń', 'ÿ']
        );
    }

    #[test]
    fn the_lowest_rank_goes_first_and_the_left_one_of_equals() {
        let merges = Merges::from([((1, 1), (1, 2)), ((2, 2), (2, 3)), ((1, 4), (0, 5))]);
        assert_eq!(merge([1, 1, 1], &merges), [2, 1]);
        assert_eq!(merge([1, 1, 1, 1, 1], &merges), [3, 1]);
        assert_eq!(merge([1, 1, 4], &merges), [1, 5]);
        assert_eq!(merge([], &merges), [0; 0]);
    }

    #[test]
    fn a_long_word_takes_no_square_of_its_length() {
        let merges = (0..20).map(|level| ((level, level), (level, level + 1))).collect();
        assert_eq!(merge(std::iter::repeat_n(0, 1 << 20), &merges), [20]);
    }
}
