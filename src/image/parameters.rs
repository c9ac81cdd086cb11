//! The generation parameters of a picture as AUTOMATIC1111's web UI writes them ("infotext"), and back:
//!
//! ```text
//! a fox in the snow
//! Negative prompt: blurry
//! Steps: 20, Sampler: DPM++ 2M, CFG scale: 3, Seed: 1, Size: 128x128, Model: soft, Version: tintype 0.1.0
//! ```

use std::fmt;

const NEGATIVE: &str = "Negative prompt:";

/// What a picture was made with. What a text doesn't say is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// The prompt; it may have several lines. A line that starts with "Negative prompt:" can't be told from one.
    pub prompt: String,
    /// The negative prompt.
    pub negative_prompt: String,
    /// How many steps the sampler took.
    pub steps: Option<u32>,
    /// The sampler's name.
    pub sampler: Option<String>,
    /// The scale of classifier-free guidance.
    pub guidance_scale: Option<f32>,
    /// The seed of the noise.
    pub seed: Option<u64>,
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// The checkpoint's name.
    pub model: Option<String>,
    /// The checkpoint's hash.
    pub model_hash: Option<String>,
    /// How much of an image that it was drawn over was drawn anew.
    pub strength: Option<f64>,
    /// The part of the image that a mask left to be drawn over, from 0 to 1.
    pub masked: Option<f32>,
    /// The program that made the picture.
    pub version: Option<String>,
    /// Further entries, in order: what other programs write, and what only some pictures have.
    pub others: Vec<(String, String)>,
}

impl Parameters {
    /// This program, as [`Parameters::version`] names it.
    pub const VERSION: &'static str = concat!("tintype ", env!("CARGO_PKG_VERSION"));

    /// Reads the text. Any text is one: the last line holds entries if at least three are found there, as AUTOMATIC1111
    /// has it, and everything before it is the prompt and the negative prompt.
    pub fn parse(text: &str) -> Self {
        let text = text.trim_end();
        let (body, last) = text.rsplit_once('\n').unwrap_or(("", text));
        let entries = entries(last);
        let (body, entries) = if entries.len() >= 3 {
            (body, entries)
        } else {
            (text, Vec::new())
        };
        let lines: Vec<&str> = body.lines().collect();
        let at = lines
            .iter()
            .position(|line| after_negative(line).is_some())
            .unwrap_or(lines.len());
        let mut parameters = Self {
            prompt: lines[..at].join("\n"),
            ..Self::default()
        };
        if let Some((first, more)) = lines[at..].split_first() {
            let first = after_negative(first).unwrap_or(first);
            parameters.negative_prompt = [&[first], more].concat().join("\n");
        }
        for (key, value) in entries {
            parameters.set(key, value);
        }
        parameters
    }

    /// The value of a further entry.
    pub fn other(&self, key: &str) -> Option<&str> {
        let found = self.others.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Takes one entry; one that is known but makes no sense goes to the others.
    fn set(&mut self, key: &str, value: String) {
        fn number<T: std::str::FromStr>(slot: &mut Option<T>, value: &str) -> bool {
            *slot = value.parse().ok();
            slot.is_some()
        }
        let taken = match key {
            "Steps" => number(&mut self.steps, &value),
            "CFG scale" => number(&mut self.guidance_scale, &value),
            "Seed" => number(&mut self.seed, &value),
            "Size" => {
                let size = value.split_once('x');
                self.size = size.and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
                self.size.is_some()
            }
            "Sampler" => self.sampler.replace(value.clone()).is_none(),
            // Since 1.9 the web UI writes "DPM++ 2M Karras" as two entries.
            "Schedule type" if value == "Karras" && self.sampler.is_some() => {
                self.sampler.iter_mut().for_each(|sampler| sampler.push_str(" Karras"));
                true
            }
            "Denoising strength" => number(&mut self.strength, &value),
            "Masked area" => number(&mut self.masked, &value),
            "Model" => self.model.replace(value.clone()).is_none(),
            "Model hash" => self.model_hash.replace(value.clone()).is_none(),
            "Version" => self.version.replace(value.clone()).is_none(),
            _ => false,
        };
        if !taken {
            self.others.push((key.into(), value));
        }
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.as_deref().map(quote);
        let number = |value: Option<&dyn fmt::Display>| value.map(ToString::to_string);
        let known = [
            ("Steps", number(self.steps.as_ref().map(|v| v as _))),
            ("Sampler", text(&self.sampler)),
            ("CFG scale", number(self.guidance_scale.as_ref().map(|v| v as _))),
            ("Seed", number(self.seed.as_ref().map(|v| v as _))),
            ("Size", self.size.map(|(width, height)| format!("{width}x{height}"))),
            ("Model hash", text(&self.model_hash)),
            ("Model", text(&self.model)),
            ("Denoising strength", number(self.strength.as_ref().map(|v| v as _))),
            // The web UI writes nothing of the kind.
            ("Masked area", number(self.masked.as_ref().map(|v| v as _))),
        ];
        let others = self
            .others
            .iter()
            .map(|(key, value)| (key.as_str(), Some(quote(value))));
        let all = known
            .into_iter()
            .chain(others)
            .chain([("Version", text(&self.version))]);
        let entries: Vec<String> = all
            .filter_map(|(key, value)| Some(format!("{key}: {}", value?)))
            .collect();
        let negative = Some(&self.negative_prompt).filter(|text| !text.is_empty());
        let parts = [
            Some(self.prompt.clone()).filter(|text| !text.is_empty()),
            negative.map(|text| format!("{NEGATIVE} {text}")),
            Some(entries.join(", ")).filter(|text| !text.is_empty()),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("\n"))
    }
}

/// What follows "Negative prompt:" in a line that starts with it.
fn after_negative(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix(NEGATIVE)?;
    Some(rest.strip_prefix(' ').unwrap_or(rest))
}

/// A value that would be taken apart is written as a JSON string.
fn quote(value: &str) -> String {
    let plain = !value.contains([',', '\n', ':', '"', '\r']) && value.trim() == value && !value.is_empty();
    if plain {
        value.into()
    } else {
        serde_json::Value::from(value).to_string()
    }
}

/// The entries `key: value` of a line, separated by commas; values may be JSON strings. Empty where the line has
/// anything else in it.
fn entries(line: &str) -> Vec<(&str, String)> {
    let mut entries = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once(':') else {
            return Vec::new();
        };
        let (key, after) = (key.trim(), after.trim_start());
        let starts = key.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
        if !starts || !key.chars().all(|c| c.is_alphanumeric() || "_ -/".contains(c)) {
            return Vec::new();
        }
        let mut strings = serde_json::Deserializer::from_str(after).into_iter::<String>();
        let quoted = if after.starts_with('"') {
            strings.next().and_then(Result::ok)
        } else {
            None
        };
        let (value, end) = match quoted {
            Some(value) => (value, strings.byte_offset()),
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().into(), end)
            }
        };
        entries.push((key, value));
        let after = after[end..].trim_start();
        let Some(next) = after.strip_prefix(',').or(after.is_empty().then_some("")) else {
            return Vec::new();
        };
        rest = next.trim_start();
    }
    entries
}
