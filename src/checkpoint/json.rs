//! JSON as Python's `json` writes it: `NaN`, `Infinity` and `-Infinity` may stand for numbers.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result};

/// What Python writes for the numbers that JSON has no words for. The longest that match come first.
const NON_FINITE: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Reads a JSON file. Non-finite numbers become the strings `"Infinity"`, `"-Infinity"` and `"NaN"`.
///
/// `file` is for the message of [`Error::Corrupt`].
pub fn parse(file: &str, bytes: &[u8]) -> Result<Value> {
    parse_as(file, bytes)
}

/// [`parse`] into a type of the caller's.
pub(crate) fn parse_as<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T> {
    if bytes.is_empty() {
        return Err(Error::Corrupt(format!("{file}: expected JSON, found an empty file")));
    }
    if looks_like_html(bytes) {
        return Err(Error::Corrupt(format!("{file}: expected JSON, found HTML")));
    }
    serde_json::from_slice(&quote_non_finite(bytes))
        .map_err(|error| Error::Corrupt(format!("{file}: expected JSON, found something else: {error}")))
}

/// Whether this is the start of a web page: hosts answer so, with status 200, for files that they have not.
pub(crate) fn looks_like_html(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes).trim_ascii_start();
    text.first() == Some(&b'<')
        && text
            .get(1)
            .is_some_and(|&next| matches!(next, b'!' | b'?') || next.is_ascii_alphabetic())
}

fn quote_non_finite(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    let mut rest = bytes;
    let mut in_string = false;
    while let Some((&byte, tail)) = rest.split_first() {
        if in_string && byte == b'\\' {
            let (escape, tail) = rest.split_at(rest.len().min(2));
            out.extend_from_slice(escape);
            rest = tail;
            continue;
        }
        if byte == b'"' {
            in_string = !in_string;
        }
        match NON_FINITE
            .iter()
            .find(|word| !in_string && rest.starts_with(word.as_bytes()))
        {
            Some(word) => {
                out.extend_from_slice(format!("\"{word}\"").as_bytes());
                rest = &rest[word.len()..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn non_finite_numbers_become_strings() {
        let text = br#"{"a": -Infinity, "b": [Infinity, NaN], "c": "-Infinity \" NaN \\", "NaN": 1.5}"#;
        let expected = json!({"a": "-Infinity", "b": ["Infinity", "NaN"], "c": "-Infinity \" NaN \\", "NaN": 1.5});
        assert_eq!(parse("x.json", text), Ok(expected));
    }

    #[test]
    fn what_is_not_json_is_corrupt() {
        for (text, found) in [
            (&b""[..], "an empty file"),
            (b"  <!doctype html>", "HTML"),
            (b"\xEF\xBB\xBF<html>", "HTML"),
            (b"{\"a\": Infinit}", "column"),
            (b"{\"a\": \"\\", "column"),
            (b"{\"a\": 1} {", "trailing"),
            (b"\"\xff\"", "column"),
        ] {
            let error = parse("unet/config.json", text).unwrap_err();
            assert_eq!(error.code(), "corrupt");
            assert!(
                error.message().starts_with("unet/config.json: expected JSON"),
                "{error}"
            );
            assert!(error.message().contains(found), "{error}");
        }
    }
}
