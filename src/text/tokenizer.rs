//! CLIP's tokenizer as transformers' `CLIPTokenizer` has it: composed and lower-case text, tokens by byte pairs, a token
//! at the start and one at the end, and padding.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_json::Value;

use crate::checkpoint::TokenizerFiles;
use crate::text::bpe::{self, byte_char};
use crate::text::finder::{Finder, Piece};
use crate::text::split;
use crate::text::vocabulary::{self, Added, END_OF_WORD, Words};
use crate::{Error, Result};

/// Turns prompts into ids.
pub struct Tokenizer {
    words: Words,
    added: Vec<Added>,
    /// The added tokens that are looked for in the text as it is, and in the normalised text.
    raw: Finder,
    normalized: Finder,
    /// The id of each byte inside of a word, and of each byte that ends one.
    inner: [u32; 256],
    last: [u32; 256],
    bos: u32,
    eos: u32,
    pad: u32,
    length: usize,
}

/// A prompt as the text encoder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Exactly [`Tokenizer::length`] ids: start, prompt, end, padding.
    pub ids: Vec<u32>,
    /// The end of the prompt that did not fit, as the tokens have it: what diffusers warns of.
    pub dropped: Option<String>,
}

impl Tokenizer {
    /// Reads the tokenizer's files. `max_position_embeddings` and `vocab_size` are those of the text encoder; its
    /// embeddings have room for no more.
    pub fn new(files: &TokenizerFiles, max_position_embeddings: usize, vocab_size: usize) -> Result<Self> {
        let place = &files.place;
        let vocabulary::Read {
            words,
            added,
            special: [bos, eos, unk, pad],
        } = vocabulary::read(files)?;
        let ids = words.ids.iter().map(|(token, id)| (token, *id));
        let mut ids = ids.chain(added.iter().map(|token| (&token.content, token.id)));
        if let Some((token, id)) = ids.find(|(_, id)| *id as usize >= vocab_size) {
            return Err(Error::Corrupt(format!(
                "{place}: expected ids below {vocab_size}, the vocab_size of the text encoder, found {id} for {token:?}"
            )));
        }
        let length = match max_length(place, &files.config)? {
            Some(length) => length.min(max_position_embeddings),
            None => max_position_embeddings,
        };
        if length < 2 {
            return Err(Error::Corrupt(format!(
                "{place}: expected room for two tokens or more, found {length}"
            )));
        }
        let byte_id = |suffix: &str, byte: u8| {
            let token = format!("{}{suffix}", byte_char(byte));
            words.ids.get(&token).copied().unwrap_or(unk)
        };
        let inner = std::array::from_fn(|byte| byte_id("", byte as u8));
        let last = std::array::from_fn(|byte| byte_id(END_OF_WORD, byte as u8));
        let (normalized, raw): (Vec<&Added>, _) = added.iter().partition(|token| token.normalized);
        let raw = Finder::new(raw.iter().map(|token| (token.content.clone(), token.id)));
        let normalized = normalized
            .iter()
            .map(|token| (split::normalize(&token.content), token.id));
        let normalized = Finder::new(normalized);
        Ok(Self {
            words,
            added,
            raw,
            normalized,
            inner,
            last,
            bos,
            eos,
            pad,
            length,
        })
    }

    /// How many ids every prompt gives.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The ids of a prompt, cut to what fits.
    pub fn encode(&self, prompt: &str) -> Tokens {
        let mut body = self.body(prompt);
        let room = self.length - 2;
        let dropped = (body.len() > room).then(|| self.decode(&body.split_off(room)));
        let mut ids = Vec::with_capacity(self.length);
        ids.push(self.bos);
        ids.append(&mut body);
        ids.push(self.eos);
        ids.resize(self.length, self.pad);
        Tokens { ids, dropped }
    }

    fn body(&self, prompt: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in self.raw.pieces(prompt) {
            let text = match piece {
                Piece::Token(id) => {
                    ids.push(id);
                    continue;
                }
                Piece::Text(text) => split::normalize(text),
            };
            for piece in self.normalized.pieces(&text) {
                match piece {
                    Piece::Token(id) => ids.push(id),
                    Piece::Text(text) => ids.extend(split::words(text).into_iter().flat_map(|word| self.word(word))),
                }
            }
        }
        ids
    }

    fn word(&self, word: &str) -> Vec<u32> {
        let ends = word.len().saturating_sub(1);
        let id = |(index, byte): (usize, u8)| match index == ends {
            true => self.last[usize::from(byte)],
            false => self.inner[usize::from(byte)],
        };
        bpe::merge(word.bytes().enumerate().map(id), &self.words.merges)
    }

    /// The text of tokens, with a space after each word.
    fn decode(&self, ids: &[u32]) -> String {
        let wanted: HashSet<u32> = ids.iter().copied().collect();
        let words = self.words.ids.iter().filter(|(_, id)| wanted.contains(id));
        let mut texts: HashMap<u32, &str> = words.map(|(text, id)| (*id, text.as_str())).collect();
        texts.extend(self.added.iter().map(|token| (token.id, token.content.as_str())));
        let bytes: HashMap<char, u8> = (0..=255).map(|byte| (byte_char(byte), byte)).collect();
        let mut decoded = Vec::new();
        for text in ids.iter().filter_map(|id| texts.get(id)) {
            let token: Option<Vec<u8>> = text.chars().map(|c| bytes.get(&c).copied()).collect();
            decoded.extend(token.unwrap_or_else(|| text.as_bytes().to_vec()));
        }
        String::from_utf8_lossy(&decoded)
            .replace(END_OF_WORD, " ")
            .trim()
            .into()
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({} tokens, length {})", self.words.ids.len(), self.length)
    }
}

/// `model_max_length`, which transformers writes as a huge number where there is none.
fn max_length(place: &str, config: &Value) -> Result<Option<usize>> {
    match config.get("model_max_length") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(length) if length >= 0.0 => Ok(Some(length as usize)),
            None if value == "Infinity" => Ok(None),
            _ => Err(Error::Corrupt(format!(
                "{place}/tokenizer_config.json: model_max_length: expected a length, found {value}"
            ))),
        },
    }
}
