//! Token ids against transformers, from files in each of the forms that they have in the wild.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{open, tokens_of};
use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use tintype::Result;
use tintype::checkpoint::TokenizerFiles;
use tintype::checkpoint::open::Vocabulary;
use tintype::text::Tokenizer;

fn shipped(file: &str) -> Vec<u8> {
    fs::read(Path::new("www/checkpoints/soft/tokenizer").join(file)).unwrap()
}

fn files(form: &str, config: Value, special_tokens_map: Value) -> TokenizerFiles {
    let vocabulary = match form {
        "json" => Vocabulary::Json(shipped("tokenizer.json")),
        "pair" => Vocabulary::Pair {
            vocab: shipped("vocab.json"),
            merges: shipped("merges.txt"),
        },
        form => panic!("{form}"),
    };
    TokenizerFiles {
        place: "tokenizer".into(),
        vocabulary,
        config,
        special_tokens_map,
    }
}

#[test]
fn ids_are_those_of_transformers() {
    let golden = open("tokenizer.json");
    let length = golden["length"].as_u64().unwrap() as usize;
    let vocab_size = vocab_size();
    let prompts = golden["prompts"].as_array().unwrap();
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let files = files(
            case["form"].as_str().unwrap(),
            case["config"].clone(),
            case["special"].clone(),
        );
        let tokenizer = Tokenizer::new(&files, length, vocab_size).unwrap();
        assert_eq!(tokenizer.length(), length);
        for (prompt, expected) in prompts.iter().zip(case["results"].as_array().unwrap()) {
            let found = tokenizer.encode(prompt.as_str().unwrap());
            assert_eq!(json!(found.ids), expected["ids"], "{}: {prompt}", case["name"]);
            assert_eq!(json!(found.dropped), expected["dropped"], "{}: {prompt}", case["name"]);
            compared += 1;
        }
    }
    assert!(compared > 150);
}

/// How many tokens the shipped vocabulary has.
fn vocab_size() -> usize {
    open("tokenizer.json")["vocab_size"].as_u64().unwrap() as usize
}

#[test]
fn the_text_encoder_bounds_length_and_ids() {
    let size = vocab_size();
    let of = |config: Value, positions, vocab_size| -> Result<Tokenizer> {
        Tokenizer::new(&files("pair", config, Value::Null), positions, vocab_size)
    };
    assert_eq!(of(json!({"model_max_length": 16}), 8, size).unwrap().length(), 8);
    assert_eq!(of(json!({"model_max_length": 12}), 16, size).unwrap().length(), 12);
    assert_eq!(
        of(json!({"model_max_length": "Infinity"}), 16, size).unwrap().length(),
        16
    );
    assert_eq!(of(json!({}), 16, size).unwrap().length(), 16);
    let short = of(json!({"model_max_length": 2}), 16, size).unwrap().encode("red fox");
    assert_eq!((short.ids, short.dropped.as_deref()), (tokens_of(""), Some("red fox")));

    let [fewer, all] = [size - 1, size].map(|number| format!("found {number}"));
    for (config, vocab_size, found) in [
        (json!({}), size - 1, fewer.as_str()),
        (json!({"model_max_length": 1}), size, "found 1"),
        (json!({"model_max_length": -1}), size, "found -1"),
        (json!({"model_max_length": "many"}), size, "many"),
        (json!({"pad_token": 7}), size, "pad_token"),
        (json!({"pad_token": ""}), size, "empty"),
        (json!({"pad_token": "<|pad|>"}), size, "<|pad|>"),
        (
            json!({"added_tokens_decoder": {"x": {"content": "a"}}}),
            size,
            "added_tokens_decoder",
        ),
        (
            json!({"added_tokens_decoder": {size.to_string(): {"content": "<new>"}}}),
            size,
            all.as_str(),
        ),
        (json!({"added_tokens_decoder": []}), size, "added_tokens_decoder"),
    ] {
        let error = of(config, 16, vocab_size).unwrap_err();
        assert_eq!(error.code(), "corrupt", "{error}");
        assert!(
            error.message().starts_with("tokenizer") && error.message().contains(found),
            "{error}"
        );
    }
}

/// Were each token tried at each letter and compared with each other one, this would take more than a minute, not one second.
#[test]
fn many_added_tokens_take_no_longer_than_few() {
    const COUNT: usize = 100_000;
    const FREE: usize = 10_000;
    let mut json: Value = serde_json::from_slice(&shipped("tokenizer.json")).unwrap();
    let content = |i: usize| format!("<Many{i:05}>");
    let tokens = json["added_tokens"].as_array_mut().unwrap();
    tokens.extend((0..COUNT).map(|i| json!({"id": FREE + i, "content": content(i)})));
    // Again with another id; half of them are looked for in the text as it is, and half in the normalised text.
    let again = |i| json!({"id": FREE + COUNT - 1 - i, "content": content(i), "normalized": i % 2 == 1});
    tokens.extend((0..COUNT).map(again));
    let files = TokenizerFiles {
        place: "tokenizer".into(),
        vocabulary: Vocabulary::Json(json.to_string().into_bytes()),
        config: json!({}),
        special_tokens_map: Value::Null,
    };
    let tokenizer = Tokenizer::new(&files, 16, FREE + COUNT).unwrap();
    let prompt = format!("<Many00007><Many12346> fox{}", "<Many1234".repeat(COUNT / 9));
    let tokens = tokenizer.encode(&prompt);
    // What is listed last holds.
    let id = |i: u32| FREE as u32 + COUNT as u32 - 1 - i;
    let fox = tokens_of("fox");
    let (start, word) = (fox[0], &fox[1..fox.len() - 1]);
    assert_eq!(
        tokens.ids[..3 + word.len()],
        [&[start, id(7), id(12346)], word].concat()
    );
    assert!(tokens.dropped.unwrap().len() > COUNT);
}

#[test]
fn vocabularies_that_are_none_are_refused() {
    let json = |text: &str| Vocabulary::Json(text.into());
    let pair = |vocab: &str, merges: &str| Vocabulary::Pair {
        vocab: vocab.into(),
        merges: merges.into(),
    };
    let model = |fields: &str| json(&format!(r#"{{"model": {{{fields}}}}}"#));
    let bpe = r#""type": "BPE", "end_of_word_suffix": "</w>""#;
    for (vocabulary, code, found) in [
        (json("<html>"), "corrupt", "tokenizer.json: expected JSON, found HTML"),
        (json("{}"), "corrupt", "model"),
        (
            model(r#""type": "WordPiece", "vocab": {}, "merges": []"#),
            "unsupported",
            "WordPiece",
        ),
        (
            model(r#""type": "BPE", "vocab": {}, "merges": []"#),
            "unsupported",
            "end_of_word_suffix",
        ),
        (
            model(&format!(r#"{bpe}, "vocab": {{"a": -1}}, "merges": []"#)),
            "corrupt",
            "-1",
        ),
        (
            model(&format!(r#"{bpe}, "vocab": {{"a": 1}}, "merges": ["ab"]"#)),
            "corrupt",
            "merge 0",
        ),
        (
            model(&format!(r#"{bpe}, "vocab": {{"a": 1}}, "merges": [["a", "b"]]"#)),
            "corrupt",
            "\"b\"",
        ),
        (
            model(&format!(r#"{bpe}, "vocab": {{"a": 1}}, "merges": [["a", "a"]]"#)),
            "corrupt",
            "\"aa\"",
        ),
        (
            model(&format!(r#"{bpe}, "vocab": {{"a": 1}}, "merges": []"#)),
            "corrupt",
            "<|startoftext|>",
        ),
        (pair("[]", ""), "corrupt", "vocab.json"),
        (pair("{}", "#version: 0.2\n\na b c"), "corrupt", "merges.txt: merge 0"),
        (pair("{}", "x"), "corrupt", "merges.txt: merge 0"),
    ] {
        let files = TokenizerFiles {
            place: "tokenizer".into(),
            vocabulary,
            config: Value::Null,
            special_tokens_map: Value::Null,
        };
        let error = Tokenizer::new(&files, 16, 2247).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(
            error.message().starts_with("tokenizer") && error.message().contains(found),
            "{error}"
        );
    }
}

/// The vocabulary that single files leave out: its tokens follow from its merges.
#[test]
fn the_standard_vocabulary_gives_the_ids_of_transformers() {
    let packed = fs::File::open("www/tintype/assets/clip-merges.txt.gz").unwrap();
    let mut merges = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut merges).unwrap();
    let golden: Value = serde_json::from_slice(&fs::read("tests/golden/vocabulary.json").unwrap()).unwrap();
    for case in golden.as_array().unwrap() {
        let files = TokenizerFiles {
            place: "tokenizer".into(),
            vocabulary: Vocabulary::Merges(merges.clone()),
            config: json!({"model_max_length": 77, "pad_token": case["pad"]}),
            special_tokens_map: Value::Null,
        };
        let tokenizer = Tokenizer::new(&files, 77, 49408).unwrap();
        let prompts = case["prompts"].as_array().unwrap();
        assert!(prompts.len() > 25);
        for (prompt, ids) in prompts.iter().zip(case["ids"].as_array().unwrap()) {
            let found = tokenizer.encode(prompt.as_str().unwrap());
            assert_eq!(json!(found.ids), *ids, "{prompt}");
        }
    }
}
