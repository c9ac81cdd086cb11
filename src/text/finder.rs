//! Finds many texts in one: the first, and of those that start there the longest.

/// Texts that are looked for, each with an id.
#[derive(Debug)]
pub(super) struct Finder {
    /// Sorted; none is there twice.
    texts: Vec<Text>,
}

#[derive(Debug)]
struct Text {
    content: String,
    id: u32,
    /// The longest of the others that this one starts with.
    prefix: Option<usize>,
}

/// A part of a text in which texts were looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// The id of a text that was found.
    Token(u32),
    /// What lies between; may be empty.
    Text(&'a str),
}

impl Finder {
    /// Of equal texts the first is taken; empty ones are never found.
    pub(super) fn new(texts: impl IntoIterator<Item = (String, u32)>) -> Self {
        let mut given: Vec<_> = texts.into_iter().filter(|(content, _)| !content.is_empty()).collect();
        // Stable, so that the first of equals stays the first.
        given.sort_by(|(a, _), (b, _)| a.cmp(b));
        given.dedup_by(|(later, _), (earlier, _)| later == earlier);
        let mut texts: Vec<Text> = Vec::with_capacity(given.len());
        for (content, id) in given {
            let mut prefix = texts.len().checked_sub(1);
            while let Some(shorter) = prefix.filter(|&i| !content.starts_with(&texts[i].content)) {
                prefix = texts[shorter].prefix;
            }
            texts.push(Text { content, id, prefix });
        }
        Self { texts }
    }

    /// Cuts `text` at all that is found.
    pub(super) fn pieces<'a>(&self, text: &'a str) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let (mut start, mut at) = (0, 0);
        while let Some(next) = text[at..].chars().next() {
            match self.longest(&text[at..]) {
                Some(found) => {
                    pieces.extend([Piece::Text(&text[start..at]), Piece::Token(found.id)]);
                    at += found.content.len();
                    start = at;
                }
                None => at += next.len_utf8(),
            }
        }
        pieces.push(Piece::Text(&text[start..]));
        pieces
    }

    /// The longest that `text` starts with. All that sorts between it and `text` starts with it too, so it is the last
    /// one up to `text`, or one that this starts with.
    fn longest(&self, text: &str) -> Option<&Text> {
        let after = self.texts.partition_point(|other| other.content.as_str() <= text);
        let mut at = after.checked_sub(1)?;
        let pairs = self.texts[at].content.bytes().zip(text.bytes());
        let common = pairs.take_while(|(a, b)| a == b).count();
        while self.texts[at].content.len() > common {
            at = self.texts[at].prefix?;
        }
        Some(&self.texts[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`Finder::pieces`] gives, by trying every text at every place.
    fn naive<'a>(texts: &[(String, u32)], text: &'a str) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let here = texts.iter().filter(|(t, _)| !t.is_empty() && text[at..].starts_with(t));
            // `rev`, as the last of equals would be the highest.
            match here.rev().max_by_key(|(t, _)| t.len()) {
                Some((found, id)) => {
                    pieces.extend([Piece::Text(&text[start..at]), Piece::Token(*id)]);
                    at += found.len();
                    start = at;
                }
                None => at += text[at..].chars().next().unwrap().len_utf8(),
            }
        }
        pieces.push(Piece::Text(&text[start..]));
        pieces
    }

    #[test]
    fn what_is_found_is_what_trying_all_finds() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        let mut found = 0;
        for _ in 0..3000 {
            let letters = &['a', 'b', 'é', '日', 'ê'][..2 + random(4) as usize];
            let mut text = |longest: u64| -> String {
                let len = random(longest + 1);
                (0..len)
                    .map(|_| letters[random(letters.len() as u64) as usize])
                    .collect()
            };
            let texts: Vec<_> = (0..12).map(|id| (text(5), id)).collect();
            let finder = Finder::new(texts.clone());
            let text = text(40);
            let pieces = naive(&texts, &text);
            assert_eq!(finder.pieces(&text), pieces, "{texts:?} in {text:?}");
            found += pieces.len() / 2;
        }
        assert!(found > 3000, "{found}");
        assert_eq!(Finder::new([]).pieces("ab"), [Piece::Text("ab")]);
    }
}
