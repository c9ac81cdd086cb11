//! What was distilled to few steps and does not show it in its tensors: LoRAs and merged checkpoints. Their names give them away,
//! those of their files, those in their remarks, and those of the folders that files of no name of their own are in.

use std::fmt;

use serde_json::{Value, json};

use crate::checkpoint::recognise::Family;
use crate::checkpoint::safetensors::Header;

/// What a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A LoRA.
    Lora,
    /// A whole checkpoint.
    Checkpoint,
}

/// A way of distilling, and what its like draws well with (figures of the published models' cards).
#[derive(Debug)]
pub struct Distilled {
    /// What it is called over SD 1.x, SD 2.x and SDXL; nothing where there is none.
    names: [&'static str; 3],
    /// Both, if nothing is said.
    only: Option<Kind>,
    /// What a name must have in it: all entries of one list. An entry is words that follow one another; `^` stands for the name's
    /// beginning, `#` for a number.
    words: &'static [&'static [&'static str]],
    /// Number of steps, if the name has none.
    steps: usize,
    /// Weight of the prompt.
    pub guidance_scale: f32,
    /// diffusers' class of the scheduler.
    scheduler: &'static str,
    settings: Settings,
    /// What its steps are taken with.
    pub eta: f64,
    /// Latents' side, where it is another than that of what it was distilled from.
    pub sample_size: Option<usize>,
}

type Settings = &'static [(&'static str, Setting)];

#[derive(Clone, Copy, Debug)]
enum Setting {
    Text(&'static str),
    Count(u64),
}

const TRAILING: (&str, Setting) = ("timestep_spacing", Setting::Text("trailing"));
const EULER: &str = "EulerDiscreteScheduler";
const ANCESTRAL: &str = "EulerAncestralDiscreteScheduler";

const PLAIN: Distilled = Distilled {
    names: [""; 3],
    only: None,
    words: &[],
    steps: 4,
    guidance_scale: 0.0,
    scheduler: EULER,
    settings: &[TRAILING],
    eta: 0.0,
    sample_size: None,
};

/// From the special to the general: the first that fits is taken.
static ALL: [Distilled; 13] = [
    Distilled {
        names: ["Hyper-SD", "", "Hyper-SDXL"],
        words: &[&["hyper sd", "cfg"], &["hyper sdxl", "cfg"]],
        steps: 8,
        guidance_scale: 5.0,
        scheduler: "DDIMScheduler",
        ..PLAIN
    },
    Distilled {
        names: ["Hyper-SD", "", "Hyper-SDXL"],
        words: &[&["hyper sd", "1 step"], &["hyper sdxl", "1 step"]],
        steps: 1,
        scheduler: "TCDScheduler",
        settings: &[],
        eta: 1.0,
        ..PLAIN
    },
    Distilled {
        names: ["Hyper-SD", "", "Hyper-SDXL"],
        words: &[&["hyper sd"], &["hyper sdxl"], &["hyper vae"], &["hyper", "# step"]],
        steps: 8,
        scheduler: "DDIMScheduler",
        ..PLAIN
    },
    // The one that predicts the picture.
    Distilled {
        names: ["", "", "SDXL Lightning"],
        only: Some(Kind::Checkpoint),
        words: &[&["lightning", "1 step"]],
        steps: 1,
        settings: &[TRAILING, ("prediction_type", Setting::Text("sample"))],
        ..PLAIN
    },
    Distilled {
        names: ["", "", "SDXL Lightning"],
        words: &[&["lightning", "# step"], &["sdxl lightning"]],
        ..PLAIN
    },
    // A LoRA of that name may draw lightning.
    Distilled {
        names: ["", "", "SDXL Lightning"],
        only: Some(Kind::Checkpoint),
        words: &[&["lightning"]],
        ..PLAIN
    },
    Distilled {
        names: ["TCD", "TCD", "SDXL TCD"],
        words: &[&["tcd"]],
        scheduler: "TCDScheduler",
        settings: &[],
        eta: 0.3,
        ..PLAIN
    },
    // It was trained at 999, 749, 499 and 249; by default the scheduler takes others.
    Distilled {
        names: ["", "", "SDXL DMD2"],
        words: &[&["dmd 2"]],
        scheduler: "LCMScheduler",
        settings: &[("original_inference_steps", Setting::Count(1000))],
        ..PLAIN
    },
    Distilled {
        names: ["LCM", "LCM", "SDXL LCM"],
        words: &[&["lcm"], &["latent consistency"]],
        guidance_scale: 1.0,
        scheduler: "LCMScheduler",
        settings: &[],
        ..PLAIN
    },
    Distilled {
        names: ["", "", "SDXL Turbo"],
        only: Some(Kind::Checkpoint),
        words: &[&["^ sd xl turbo"], &["^ sdxl turbo"]],
        steps: 1,
        scheduler: ANCESTRAL,
        sample_size: Some(64),
        ..PLAIN
    },
    Distilled {
        names: ["", "SD Turbo", ""],
        only: Some(Kind::Checkpoint),
        words: &[&["sd turbo"]],
        steps: 1,
        settings: &[TRAILING, ("prediction_type", Setting::Text("epsilon"))],
        sample_size: Some(64),
        ..PLAIN
    },
    Distilled {
        names: ["", "", "SDXL Turbo"],
        only: Some(Kind::Lora),
        words: &[&["turbo lora"], &["sd xl turbo"], &["sdxl turbo"]],
        scheduler: ANCESTRAL,
        ..PLAIN
    },
    // What was merged with it draws larger pictures, in more steps.
    Distilled {
        names: ["", "", "SDXL Turbo"],
        only: Some(Kind::Checkpoint),
        words: &[&["turbo"]],
        steps: 6,
        guidance_scale: 2.0,
        scheduler: ANCESTRAL,
        ..PLAIN
    },
];

/// One that was recognised.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// What it is.
    pub of: &'static Distilled,
    /// What it is called.
    pub name: &'static str,
    /// Number of steps.
    pub steps: usize,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, steps, s) = (self.name, self.steps, if self.steps == 1 { "" } else { "s" });
        let Distilled {
            guidance_scale,
            scheduler,
            ..
        } = self.of;
        write!(
            f,
            "{name}: {steps} step{s}, guidance scale {guidance_scale}, {scheduler}"
        )
    }
}

impl Taken {
    /// What the first of these names that says something says of a LoRA or a checkpoint of this family; with that name.
    pub fn of(kind: Kind, family: Family, names: &[String]) -> Option<(Self, &str)> {
        let side = match family {
            Family::Sd1 => 0,
            Family::Sd2 => 1,
            Family::Sdxl => 2,
        };
        let fits = |of: &&Distilled| !of.names[side].is_empty() && of.only.is_none_or(|only| only == kind);
        names.iter().find_map(|name| {
            let words = words(name);
            let says = |list: &&[&str]| list.iter().all(|sequence| position(&words, sequence).is_some());
            let of = ALL.iter().filter(fits).find(|of| of.words.iter().any(says))?;
            let taken = Self {
                of,
                name: of.names[side],
                steps: steps(&words).unwrap_or(of.steps),
            };
            Some((taken, name.as_str()))
        })
    }

    /// What it changes in a `scheduler_config.json`.
    pub fn scheduler(&self) -> Value {
        let mut changes = json!({ "_class_name": self.of.scheduler });
        for (key, setting) in self.of.settings {
            changes[*key] = match *setting {
                Setting::Text(text) => text.into(),
                Setting::Count(count) => count.into(),
            };
        }
        changes
    }
}

/// Names that say nothing: those that libraries give all files.
const NO_NAMES: [&str; 6] = [
    "pytorch_lora_weights",
    "adapter_model",
    "diffusion_pytorch_model",
    "model",
    "lora",
    "checkpoint",
];

/// What may tell what the file `path` is: its remarks, its name, and if that is one that all files have, the folders that it is in, the
/// nearest first. `place` is where it is: an address may have another end than the name that its host gives the file.
pub fn names(path: &str, place: &str, header: &Header) -> Vec<String> {
    let remarks = ["modelspec.title", "ss_output_name", "name"];
    let remarks = remarks.iter().filter_map(|key| header.metadata(key));
    let file = path.rsplit('/').next().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let plain = stem.to_lowercase();
    let is_none = NO_NAMES.iter().any(|name| {
        let rest = plain.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    // A host's name says nothing.
    let address = place
        .split_once("://")
        .map(|(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let folders = address.unwrap_or(place).rsplit('/').skip(1);
    let folders = folders.take(if is_none { 4 } else { 0 });
    remarks.chain([stem]).chain(folders).map(str::to_owned).collect()
}

/// The words of a name, in lower case: letters and digits, and in "v51HyperVAE" too, are words of their own.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec!["^".into()];
    let chars: Vec<char> = name.chars().collect();
    let mut begins = true;
    for (i, &c) in chars.iter().enumerate() {
        if !c.is_alphanumeric() {
            begins = true;
            continue;
        }
        let before = i.checked_sub(1).map(|i| chars[i]);
        let after = chars.get(i + 1);
        let next = before.is_some_and(|before| {
            before.is_numeric() != c.is_numeric()
                || (before.is_lowercase() && c.is_uppercase())
                || (before.is_uppercase() && c.is_uppercase() && after.is_some_and(|c| c.is_lowercase()))
        });
        if begins || next {
            words.push(String::new());
        }
        begins = false;
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    for word in &mut words {
        if word == "steps" {
            word.pop();
        }
    }
    words
}

/// Where these words follow one another.
fn position(words: &[String], sequence: &str) -> Option<usize> {
    let wanted: Vec<&str> = sequence.split(' ').collect();
    let fits = |(word, wanted): (&String, &&str)| match *wanted {
        "#" => word.parse::<usize>().is_ok(),
        wanted => word == wanted,
    };
    words
        .windows(wanted.len())
        .position(|window| window.iter().zip(&wanted).all(fits))
}

/// The number of steps that a name tells.
fn steps(words: &[String]) -> Option<usize> {
    let at = position(words, "# step")?;
    words.get(at)?.parse().ok().filter(|steps| (1..=64).contains(steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(remarks: &str) -> Header {
        Header::parse("x", format!("{{\"__metadata__\": {remarks}}}").as_bytes()).unwrap()
    }

    /// Name, steps, guidance, scheduler.
    fn taken(kind: Kind, family: Family, place: &str) -> Option<(&'static str, usize, f32, &'static str)> {
        let names = names(place, place, &header("{}"));
        let (taken, _) = Taken::of(kind, family, &names)?;
        Some((taken.name, taken.steps, taken.of.guidance_scale, taken.of.scheduler))
    }

    #[test]
    fn names_are_taken_apart() {
        for (name, expected) in [
            ("sdxl_lightning_4step_lora", "^ sdxl lightning 4 step lora"),
            ("Hyper-SD15-8steps-CFG-lora", "^ hyper sd 15 8 step cfg lora"),
            (
                "realisticVisionV60B1_v51HyperVAE",
                "^ realistic vision v 60 b 1 v 51 hyper vae",
            ),
            ("dreamshaper_8LCM", "^ dreamshaper 8 lcm"),
            ("DreamShaperXL_Turbo_v2_1", "^ dream shaper xl turbo v 2 1"),
            ("dmd2_sdxl_4step_lora_fp16", "^ dmd 2 sdxl 4 step lora fp 16"),
        ] {
            assert_eq!(words(name).join(" "), expected);
        }
    }

    #[test]
    fn published_loras_are_known_by_their_files_and_repositories() {
        use Family::{Sd1, Sd2, Sdxl};
        let hub = |repository: &str, file: &str| format!("https://turbo.example/{repository}/resolve/main/{file}");
        let weights = "pytorch_lora_weights.safetensors";
        for (family, place, expected) in [
            (
                Sd1,
                hub("latent-consistency/lcm-lora-sdv1-5", weights),
                ("LCM", 4, 1.0, "LCMScheduler"),
            ),
            (
                Sdxl,
                hub("latent-consistency/lcm-lora-sdxl", weights),
                ("SDXL LCM", 4, 1.0, "LCMScheduler"),
            ),
            (
                Sdxl,
                hub("latent-consistency/lcm-lora-ssd-1b", weights),
                ("SDXL LCM", 4, 1.0, "LCMScheduler"),
            ),
            (
                Sdxl,
                "sdxl_lightning_2step_lora.safetensors".into(),
                ("SDXL Lightning", 2, 0.0, EULER),
            ),
            (
                Sdxl,
                "a/sdxl_lightning_8step_lora.safetensors".into(),
                ("SDXL Lightning", 8, 0.0, EULER),
            ),
            (
                Sd1,
                "Hyper-SD15-8steps-lora.safetensors".into(),
                ("Hyper-SD", 8, 0.0, "DDIMScheduler"),
            ),
            (
                Sdxl,
                "Hyper-SDXL-2steps-lora.safetensors".into(),
                ("Hyper-SDXL", 2, 0.0, "DDIMScheduler"),
            ),
            (
                Sdxl,
                "Hyper-SDXL-12steps-CFG-lora.safetensors".into(),
                ("Hyper-SDXL", 12, 5.0, "DDIMScheduler"),
            ),
            (
                Sdxl,
                "Hyper-SDXL-1step-lora.safetensors".into(),
                ("Hyper-SDXL", 1, 0.0, "TCDScheduler"),
            ),
            (
                Sd2,
                hub("h1t/TCD-SD21-base-LoRA", weights),
                ("TCD", 4, 0.0, "TCDScheduler"),
            ),
            (
                Sdxl,
                "dmd2_sdxl_4step_lora_fp16.safetensors".into(),
                ("SDXL DMD2", 4, 0.0, "LCMScheduler"),
            ),
            (
                Sdxl,
                "sd_xl_turbo_lora_v1.safetensors".into(),
                ("SDXL Turbo", 4, 0.0, ANCESTRAL),
            ),
        ] {
            assert_eq!(taken(Kind::Lora, family, &place), Some(expected), "{place}");
        }
    }

    #[test]
    fn names_of_other_things_say_nothing() {
        use Family::{Sd1, Sdxl};
        for place in [
            "lightning_bolts.safetensors",
            "turbo_car.safetensors",
            "hyperrealistic-details.safetensors",
            "HyperDetail.safetensors",
            "https://lcm.example/loras/watercolour.safetensors",
            "https://host/lcm-lora-sdxl/watercolour.safetensors",
            "welcome.safetensors",
        ] {
            assert_eq!(taken(Kind::Lora, Sdxl, place), None, "{place}");
        }
        assert_eq!(taken(Kind::Lora, Sd1, "sdxl_lightning_4step_lora.safetensors"), None);
        assert_eq!(
            taken(Kind::Checkpoint, Sdxl, "epicrealism_hyperDetail.safetensors"),
            None
        );
    }

    #[test]
    fn merged_checkpoints_are_known_by_their_names() {
        use Family::{Sd1, Sd2, Sdxl};
        for (family, place, expected) in [
            (
                Sdxl,
                "sd_xl_turbo_1.0_fp16.safetensors",
                ("SDXL Turbo", 1, 0.0, ANCESTRAL),
            ),
            (
                Sdxl,
                "DreamShaperXL_Turbo_v2_1.safetensors",
                ("SDXL Turbo", 6, 2.0, ANCESTRAL),
            ),
            (
                Sdxl,
                "sdxl_lightning_4step.safetensors",
                ("SDXL Lightning", 4, 0.0, EULER),
            ),
            (
                Sdxl,
                "sdxl_lightning_1step_x0.safetensors",
                ("SDXL Lightning", 1, 0.0, EULER),
            ),
            (
                Sdxl,
                "juggernautXL_v9Rdphoto2Lightning.safetensors",
                ("SDXL Lightning", 4, 0.0, EULER),
            ),
            (Sd2, "sd_turbo.safetensors", ("SD Turbo", 1, 0.0, EULER)),
            (Sd1, "dreamshaper_8LCM.safetensors", ("LCM", 4, 1.0, "LCMScheduler")),
            (
                Sd1,
                "realisticVisionV60B1_v51HyperVAE.safetensors",
                ("Hyper-SD", 8, 0.0, "DDIMScheduler"),
            ),
            (
                Sdxl,
                "lustifySDXL_ggwpV7DMD2.safetensors",
                ("SDXL DMD2", 4, 0.0, "LCMScheduler"),
            ),
        ] {
            assert_eq!(taken(Kind::Checkpoint, family, place), Some(expected), "{place}");
        }
    }

    #[test]
    fn remarks_go_before_names() {
        let header = header(r#"{"modelspec.title": "Hyper-SDXL 4 steps", "ss_output_name": 7}"#);
        let names = names("my_lcm.safetensors", "https://host/lightning/7", &header);
        assert_eq!(names, ["Hyper-SDXL 4 steps", "my_lcm"]);
        let (taken, name) = Taken::of(Kind::Lora, Family::Sdxl, &names).unwrap();
        assert_eq!((taken.name, taken.steps, name), ("Hyper-SDXL", 4, "Hyper-SDXL 4 steps"));
        let nothing = Taken::of(Kind::Lora, Family::Sd2, &names[..1]);
        assert!(nothing.is_none());
    }
}
