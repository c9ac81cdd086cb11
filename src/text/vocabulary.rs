//! What a tokenizer reads from its files: the tokens, the merges, and tokens that are taken out of a text whole.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::checkpoint::TokenizerFiles;
use crate::checkpoint::json;
use crate::checkpoint::open::Vocabulary;
use crate::text::bpe::{Merges, byte_char};
use crate::{Error, Result};

/// What CLIP marks the last token of a word with.
pub(super) const END_OF_WORD: &str = "</w>";

/// The tokens of `vocab.json` and what they merge to.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) ids: HashMap<String, u32>,
    pub(super) merges: Merges,
}

/// A token that is taken out of a text before it is cut into words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) content: String,
    pub(super) id: u32,
    /// Whether it is looked for in the normalised text, or in the text as it is.
    pub(super) normalized: bool,
}

/// An added token as the files have it. Spaces beside it (`lstrip`, `rstrip`) change no token.
#[derive(Clone, Debug, Deserialize)]
struct RawAdded {
    id: Option<u32>,
    content: String,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    single_word: bool,
}

#[derive(Deserialize)]
struct TokenizerJson {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<RawAdded>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    end_of_word_suffix: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// A merge as newer and as older files have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair([String; 2]),
    Line(String),
}

/// What a named special token is, in `tokenizer_config.json` and in `special_tokens_map.json`.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Token(RawAdded),
}

impl Special {
    fn into_added(self) -> RawAdded {
        match self {
            Self::Text(content) => RawAdded {
                id: None,
                content,
                normalized: false,
                single_word: false,
            },
            Self::Token(token) => token,
        }
    }
}

/// The special tokens of CLIP with the texts that they have if no file says otherwise, in transformers' order.
const SPECIAL: [(&str, &str); 4] = [
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
];

/// Everything that the files of a CLIP tokenizer say.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) words: Words,
    pub(super) added: Vec<Added>,
    /// Ids of the tokens at the start, at the end, for what has no token, and for padding.
    pub(super) special: [u32; 4],
}

/// Reads the files.
pub(super) fn read(files: &TokenizerFiles) -> Result<Read> {
    let place = &files.place;
    let (words, listed) = match &files.vocabulary {
        Vocabulary::Json(bytes) => read_json(&format!("{place}/tokenizer.json"), bytes)?,
        Vocabulary::Pair { vocab, merges } => (read_pair(place, vocab, merges)?, Vec::new()),
        Vocabulary::Merges(merges) => (read_merges(place, merges)?, Vec::new()),
    };
    let config = format!("{place}/tokenizer_config.json");
    let listed = match files.config.get("added_tokens_decoder") {
        Some(decoder) => decoded(&config, decoder)?,
        None => listed,
    };
    // As transformers has it: where tokens are listed, the map is void.
    let map = match files.config.get("added_tokens_decoder") {
        Some(_) => &Value::Null,
        None => &files.special_tokens_map,
    };
    let mut named = Vec::new();
    for (key, default) in SPECIAL {
        let map_file = format!("{place}/special_tokens_map.json");
        let given = |value: &Value| !value.is_null();
        named.push(match (map.get(key).filter(|v| given(v)), files.config.get(key)) {
            (Some(value), _) => special(&map_file, key, value)?,
            (None, Some(value)) if given(value) => special(&config, key, value)?,
            (None, _) => Special::Text(default.into()),
        });
    }

    let mut added: Vec<Option<Added>> = Vec::new();
    // Where each is among them; what comes again goes to the end.
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut seen = HashSet::new();
    let listed_count = listed.len();
    let contents: HashSet<_> = listed.iter().map(|token| token.content.clone()).collect();
    let all = listed.into_iter().map(Special::Token).chain(named.iter().cloned());
    for (index, token) in all.enumerate() {
        // What is listed holds over what is named. Of tokens named twice, transformers keeps the first text and the
        // first object, and of those the later one.
        let is_named = index >= listed_count;
        let is_text = matches!(token, Special::Text(_));
        let token = token.into_added();
        let content = token.content.as_str();
        if content.is_empty() || is_named && (contents.contains(content) || !seen.insert((content.to_owned(), is_text)))
        {
            continue;
        }
        if token.single_word {
            return Err(Error::Unsupported(format!(
                "{place}: the added token {content:?} with single_word set"
            )));
        }
        let id = words.ids.get(content).copied().or(token.id).ok_or_else(|| {
            Error::Corrupt(format!(
                "{place}: expected {content:?} among the tokens, found no such token"
            ))
        })?;
        if let Some(before) = places.insert(content.to_owned(), added.len()) {
            added[before] = None;
        }
        added.push(Some(Added {
            content: token.content,
            id,
            normalized: token.normalized,
        }));
    }
    let mut special = [0; 4];
    for (id, name) in special.iter_mut().zip(named) {
        let content = name.into_added().content;
        let token = places.get(&content).and_then(|&at| added[at].as_ref());
        *id = token
            .ok_or_else(|| Error::Corrupt(format!("{place}: a special token is empty")))?
            .id;
    }
    let added = added.into_iter().flatten().collect();
    Ok(Read { words, added, special })
}

fn read_json(file: &str, bytes: &[u8]) -> Result<(Words, Vec<RawAdded>)> {
    let TokenizerJson { model, added_tokens } = json::parse_as(file, bytes)?;
    let suffix = model.end_of_word_suffix.as_deref();
    if model.kind.as_deref().is_some_and(|kind| kind != "BPE") || suffix != Some(END_OF_WORD) {
        let found = format!(
            "{} with end_of_word_suffix {suffix:?}",
            model.kind.as_deref().unwrap_or("no type")
        );
        return Err(Error::Unsupported(format!(
            "{file}: expected BPE with end_of_word_suffix </w>, found {found}"
        )));
    }
    let pairs = model.merges.iter().map(|merge| match merge {
        Merge::Pair([left, right]) => Some((left.as_str(), right.as_str())),
        Merge::Line(line) => line.split_once(' '),
    });
    Ok((Words::new(file, model.vocab, pairs)?, added_tokens))
}

fn read_pair(place: &str, vocab: &[u8], merges: &[u8]) -> Result<Words> {
    let ids = json::parse_as(&format!("{place}/vocab.json"), vocab)?;
    let file = format!("{place}/merges.txt");
    let pairs: Vec<_> = pairs(&file, merges)?.collect();
    Words::new(&file, ids, pairs.into_iter())
}

/// The tokens follow from the merges; bytes that can be seen come before the others.
fn read_merges(place: &str, merges: &[u8]) -> Result<Words> {
    let file = format!("{place}/merges.txt");
    let pairs: Vec<_> = pairs(&file, merges)?.collect();
    let mut bytes: Vec<char> = (0..=255).map(byte_char).collect();
    bytes.sort_unstable();
    let inner = bytes.iter().map(char::to_string);
    let last = bytes.iter().map(|byte| format!("{byte}{END_OF_WORD}"));
    let merged = pairs.iter().flatten().map(|(left, right)| format!("{left}{right}"));
    let marks = SPECIAL[..2].iter().map(|(_, mark)| (*mark).to_owned());
    let tokens = inner.chain(last).chain(merged).chain(marks);
    Words::new(&file, tokens.zip(0..).collect(), pairs.into_iter())
}

/// The lines of a `merges.txt`; a line that is no pair is none.
fn pairs<'a>(file: &str, merges: &'a [u8]) -> Result<impl Iterator<Item = Option<(&'a str, &'a str)>>> {
    let text = str::from_utf8(merges)
        .map_err(|error| Error::Corrupt(format!("{file}: expected text in UTF-8, found something else: {error}")))?;
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("#version"));
    Ok(lines.map(|line| line.split_once(' ')))
}

fn decoded(file: &str, decoder: &Value) -> Result<Vec<RawAdded>> {
    let wrong = |what: &str| Error::Corrupt(format!("{file}: added_tokens_decoder: expected {what}"));
    let decoder: &Map<_, _> = decoder.as_object().ok_or_else(|| wrong("an object"))?;
    let mut tokens = Vec::new();
    for (id, token) in decoder {
        let mut token = RawAdded::deserialize(token).map_err(|error| wrong(&format!("tokens, found: {error}")))?;
        token.id = Some(id.parse().map_err(|_| wrong("ids as keys"))?);
        tokens.push(token);
    }
    Ok(tokens)
}

fn special(file: &str, key: &str, value: &Value) -> Result<Special> {
    let found = |_| Error::Corrupt(format!("{file}: {key}: expected a text or a token, found {value}"));
    Special::deserialize(value).map_err(found)
}

impl Words {
    fn new<'a>(
        file: &str,
        ids: HashMap<String, u32>,
        pairs: impl Iterator<Item = Option<(&'a str, &'a str)>>,
    ) -> Result<Self> {
        let mut merges = Merges::new();
        for (pair, rank) in pairs.zip(0u32..) {
            let wrong = |what: String| Error::Corrupt(format!("{file}: merge {rank}: {what}"));
            let (left, right) = pair.ok_or_else(|| wrong("expected two tokens and a space between them".into()))?;
            let id = |token: &str| {
                let id = ids.get(token).copied();
                id.ok_or_else(|| wrong(format!("expected tokens of the vocabulary, found {token:?}")))
            };
            merges.insert((id(left)?, id(right)?), (rank, id(&format!("{left}{right}"))?));
        }
        Ok(Self { ids, merges })
    }
}
