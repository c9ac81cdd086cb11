//! A small preprocessor, so that shaders are plain `.wgsl` files: `#import file` (once), `#define NAME`, `#ifdef NAME`,
//! `#ifndef NAME`, `#else`, `#endif`, `#repeat NAME count` to `#end` (NAME counts from 0), and `$NAME` for a macro's value. `#loop NAME
//! count end` is a `#repeat`, or where `LOOP` is defined a loop of WGSL up to `end`; `some$AT_NAME` is `some3`, or `some[name]`.

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

/// The lines up to the `#end` of what was just begun.
fn body<'a, 'b>(lines: &'a [&'b str]) -> Option<&'a [&'b str]> {
    let mut depth = 1;
    for (i, line) in lines.iter().enumerate() {
        match line.split_whitespace().next() {
            Some("#repeat" | "#loop") => depth += 1,
            Some("#end") => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&lines[..i]);
        }
    }
    None
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
        self.lines(name, &text.lines().collect::<Vec<_>>())
    }

    fn lines(&mut self, name: &str, lines: &[&str]) -> Result<()> {
        // Whether each of the conditions that we are inside of holds.
        let mut conditions: Vec<bool> = Vec::new();
        let mut next = 0;
        while let Some(line) = lines.get(next) {
            next += 1;
            let mut words = line.split_whitespace();
            let (directive, operand) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let unbalanced = || Error::Internal(format!("shader {name}: {directive} without its other half"));
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
                "#repeat" | "#loop" => {
                    let body = body(&lines[next..]).ok_or_else(unbalanced)?;
                    next += body.len() + 1;
                    let (count, end) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                    if on && directive == "#loop" && self.defined.contains_key("LOOP") {
                        self.looped(name, operand, end, body)?;
                    } else if on {
                        self.repeat(name, operand, count, body)?;
                    }
                }
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

    /// `body` once for each number below `count`, a number or a macro's value.
    fn repeat(&mut self, name: &str, variable: &str, count: &str, body: &[&str]) -> Result<()> {
        let number = self.defined.get(count).map_or(count, String::as_str).parse();
        let number: usize = number.map_err(|_| Error::Internal(format!("shader {name}: {count} is no number")))?;
        for i in 0..number {
            self.with(name, variable, [i.to_string(), i.to_string()], body)?;
        }
        Ok(())
    }

    /// `body` in a loop that counts up to `end`.
    fn looped(&mut self, name: &str, variable: &str, end: &str, body: &[&str]) -> Result<()> {
        let i = variable.to_lowercase();
        self.out
            .push_str(&format!("for (var {i} = 0u; {i} < {end}; {i}++) {{\n"));
        self.with(name, variable, [i.clone(), format!("[{i}]")], body)?;
        self.out.push_str("}\n");
        Ok(())
    }

    /// `body`, where `variable` and what is at it are these.
    fn with(&mut self, name: &str, variable: &str, [value, at]: [String; 2], body: &[&str]) -> Result<()> {
        let at_variable = format!("AT_{variable}");
        self.defined.insert(variable.to_owned(), value);
        self.defined.insert(at_variable.clone(), at);
        self.lines(name, body)?;
        self.defined.remove(variable);
        self.defined.remove(&at_variable);
        Ok(())
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
        /// Every file: its name and its text.
        pub(super) const SOURCES: &[(&str, &str)] = &[$(($name, include_str!(concat!("shaders/", $name, ".wgsl"))),)*];
    };
}

fn source(name: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

sources! {
    "activation" "add" "apply" "attention" "combine" "common" "compare" "convert" "embedding" "geglu" "gemm" "gemm_args" "gemm_epilogue"
    "gemm_finish" "gemm_rows" "gemm_weights" "group_finish" "group_statistics" "lanes" "layer_norm" "reduce" "source"
    "threads" "timestep" "unary" "upsample"
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
    fn repeated_lines() {
        let mut state = State {
            defined: HashMap::from([("N".to_owned(), "2".to_owned())]),
            imported: Vec::new(),
            out: String::new(),
        };
        let lines = ["#repeat R N", "a$R", "#repeat C 3", "s$Rx$C", "#end", "#end", "b"];
        state.lines("test", &lines).unwrap();
        assert_eq!(state.out, "a0\ns0x0\ns0x1\ns0x2\na1\ns1x0\ns1x1\ns1x2\nb\n");
        state.out.clear();
        let lines = ["#loop I N many", "a$AT_I = $I;", "#end"];
        state.lines("test", &lines).unwrap();
        assert_eq!(state.out, "a0 = 0;\na1 = 1;\n");
        state.out.clear();
        state.defined.insert("LOOP".into(), String::new());
        state.lines("test", &lines).unwrap();
        assert_eq!(state.out, "for (var i = 0u; i < many; i++) {\na[i] = i;\n}\n");
        assert!(state.lines("test", &["#repeat R 2", "a"]).is_err());
        assert!(state.lines("test", &["#repeat R M", "#end"]).is_err());
    }

    #[test]
    fn unknown_file() {
        assert!(preprocess("nothing", &[]).is_err(), "there is no such file");
    }
}
