//! CLIP's normaliser, and its rule for where a text is cut into words before pairs are merged.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// Words that the rule takes whole, and what the rule of the byte level, which comes after it, cuts them into.
const MARKS: [(&str, [&str; 3]); 2] = [
    ("<|startoftext|>", ["<|", "startoftext", "|>"]),
    ("<|endoftext|>", ["<|", "endoftext", "|>"]),
];
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Number,
    Other,
}

fn class(c: char) -> Class {
    match c.general_category_group() {
        _ if c.is_whitespace() => Class::Space,
        GeneralCategoryGroup::Letter => Class::Letter,
        GeneralCategoryGroup::Number => Class::Number,
        _ => Class::Other,
    }
}

/// Composed (NFC), with each run of white space as one space, in lower case.
pub(super) fn normalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut after_space = false;
    for c in text.nfc() {
        let space = c.is_whitespace();
        match space {
            true if after_space => {}
            true => out.push(' '),
            // Letter by letter: the rule for a sigma at the end of a word is not applied.
            false => out.extend(c.to_lowercase()),
        }
        after_space = space;
    }
    out
}

/// Cuts a normalised text into words: runs of letters, single digits, runs of other signs, and what an apostrophe
/// shortens. Spaces are left out.
pub(super) fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((mark, parts)) = MARKS.iter().find(|(mark, _)| rest.starts_with(mark)) {
            words.extend(parts);
            rest = &rest[mark.len()..];
            continue;
        }
        let class_of_first = class(first);
        let len = match CONTRACTIONS.iter().find(|word| rest.starts_with(**word)) {
            Some(word) => word.len(),
            None if class_of_first == Class::Number => first.len_utf8(),
            None => rest.find(|c| class(c) != class_of_first).unwrap_or(rest.len()),
        };
        let (word, tail) = rest.split_at(len);
        if class_of_first != Class::Space {
            words.push(word);
        }
        rest = tail;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_clip_cuts_them() {
        for (text, expected) in [
            ("a fox's den, 42!", &["a", "fox", "'s", "den", ",", "4", "2", "!"][..]),
            ("don't we'll ''re", &["don", "'t", "we", "'ll", "''", "re"]),
            ("<|endoftext|>> x", &["<|", "endoftext", "|>", ">", "x"]),
            ("!<|endoftext|>>", &["!<|", "endoftext", "|>>"]),
            ("日本語🎂½x\u{301}y", &["日本語", "🎂", "½", "x", "\u{301}", "y"]),
            ("  ", &[]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_is_composed_and_in_lower_case() {
        assert_eq!(normalize("E\u{301}A \t\u{3000}\nΣΑΣ İ"), "éa σασ i\u{307}");
    }
}
