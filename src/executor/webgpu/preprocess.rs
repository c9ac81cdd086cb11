//! A small preprocessor, so that shaders are plain `.wgsl` files: `#import file` (once), `#define NAME`, `#ifdef NAME`,
//! `#ifndef NAME`, `#else`, `#endif`, and `$NAME` for a macro's value.

use crate::error::{Error, Result};
use std::collections::HashMap;

/// The text of `file` under these macros, with what it imports.
pub(super) fn preprocess(file: &str, macros: &[(&'static str, String)]) -> Result<String> {
    let defined = macros.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    let mut state = State {
        defined: defined.collect(),
        imported: Vec::new(),
        out: String::new(),
    };
    state.file(file)?;
    Ok(state.out)
}

struct State {
    defined: HashMap<String, String>,
    imported: Vec<String>,
    out: String,
}

impl State {
    fn file(&mut self, name: &str) -> Result<()> {
        if self.imported.iter().any(|i| i == name) {
            return Ok(());
        }
        self.imported.push(name.to_owned());
        let text = source(name).ok_or_else(|| Error::Internal(format!("there is no shader {name}")))?;
        // Whether each of the conditions that we are inside of holds.
        let mut conditions: Vec<bool> = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (directive, operand) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let unbalanced = || Error::Internal(format!("shader {name}: {directive} without #ifdef"));
            let on = conditions.iter().all(|&c| c);
            match directive {
                "#ifdef" => conditions.push(self.defined.contains_key(operand)),
                "#ifndef" => conditions.push(!self.defined.contains_key(operand)),
                "#else" => {
                    let last = conditions.last_mut().ok_or_else(unbalanced)?;
                    *last = !*last;
                }
                "#endif" => drop(conditions.pop().ok_or_else(unbalanced)?),
                "#import" if on => self.file(operand)?,
                "#define" if on => drop(self.defined.insert(operand.to_owned(), String::new())),
                "#import" | "#define" => {}
                other if other.starts_with('#') => {
                    return Err(Error::Internal(format!("shader {name}: unknown directive {other}")));
                }
                _ if on => self.line(name, line)?,
                _ => {}
            }
        }
        if conditions.is_empty() {
            Ok(())
        } else {
            Err(Error::Internal(format!("shader {name}: #ifdef without #endif")))
        }
    }

    fn line(&mut self, name: &str, line: &str) -> Result<()> {
        let mut pieces = line.split('$');
        self.out.push_str(pieces.next().unwrap_or(""));
        for piece in pieces {
            // A macro's name is in capitals and digits; what follows may be a suffix such as `u`.
            let end = piece.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
            let (macro_name, rest) = piece.split_at(end.unwrap_or(piece.len()));
            let value = self.defined.get(macro_name);
            let value = value.ok_or_else(|| Error::Internal(format!("shader {name}: ${macro_name} has no value")))?;
            self.out.push_str(value);
            self.out.push_str(rest);
        }
        self.out.push('\n');
        Ok(())
    }
}

macro_rules! sources {
    ($($name:literal)*) => {
        fn source(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(include_str!(concat!("shaders/", $name, ".wgsl"))),)*
                _ => None,
            }
        }
    };
}

sources! {
    "activation" "add" "attention" "combine" "common" "concat" "embedding" "geglu" "gemm" "gemm_args" "gemm_epilogue"
    "gemm_rows" "group_apply" "group_finish" "group_norm" "lanes" "layer_norm" "reduce" "threads" "timestep" "unary"
    "upsample"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_values() {
        let mut state = State {
            defined: HashMap::new(),
            imported: Vec::new(),
            out: String::new(),
        };
        state.defined.insert("N".into(), "4".into());
        state.line("test", "a: array<f32, $Nu>;").unwrap();
        assert_eq!(state.out, "a: array<f32, 4u>;\n");
        assert!(
            state.line("test", "$MISSING").is_err(),
            "a macro without value is an error"
        );
    }

    #[test]
    fn unknown_file() {
        assert!(preprocess("nothing", &[]).is_err(), "there is no such file");
    }
}
