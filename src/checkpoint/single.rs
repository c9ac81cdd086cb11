//! The layout of a single file, with all components in it and no configuration: it is opened as if it were a folder.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::cancel::CancelToken;
use crate::checkpoint::component::{Component, SharedFile};
use crate::checkpoint::distilled::{self, Kind, Taken};
use crate::checkpoint::ldm;
use crate::checkpoint::open::{Checkpoint, OpenOptions, TokenizerFiles, Vocabulary};
use crate::checkpoint::progress::ProgressSink;
use crate::checkpoint::reader::OpenFile;
use crate::checkpoint::recognise::{Family, Recognised, recognise};
use crate::checkpoint::safetensors::{Header, TensorInfo, of_no_use};
use crate::checkpoint::shapes::{self, Shapes};
use crate::checkpoint::source::Source;
use crate::{Error, Result};

/// ViT-H's layers. SD 2.x reads what goes into the last one; diffusers has an encoder without it.
const VIT_H_LAYERS: u64 = 24;

/// A component of a single file.
#[derive(Debug)]
pub struct Part {
    /// As a folder calls it.
    pub name: &'static str,
    /// The class of diffusers or transformers.
    pub class: String,
    /// What its `config.json` would be.
    pub config: Value,
    /// Its tensors, named as in a folder.
    pub tensors: Vec<TensorInfo>,
}

/// A single file whose header was understood.
#[derive(Debug)]
pub struct Layout {
    /// What it is.
    pub known: Recognised,
    /// Its components, in the order in which they are used.
    pub parts: Vec<Part>,
    /// What its `scheduler_config.json` would be.
    pub scheduler: Value,
    /// diffusers' class of the pipeline.
    pub pipeline_class: &'static str,
    /// What it was distilled to, if its name says so.
    pub distilled: Option<Taken>,
    /// What a person should know and is no error.
    pub warnings: Vec<String>,
}

impl Layout {
    /// Understands a header.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming what the file is, if it is no checkpoint that is read; [`Error::Corrupt`] for one that
    /// lacks something.
    pub fn of(header: &Header) -> Result<Self> {
        Self::new(header, header.file(), true)
    }

    /// Understands the header of the file that is called `path`. The autoencoder is left out where another one takes its place.
    fn new(header: &Header, path: &str, with_vae: bool) -> Result<Self> {
        let place = header.file();
        let no_vae =
            "a checkpoint without an autoencoder: it draws with one from elsewhere, which the option vae names";
        let known = match recognise(header) {
            Ok(known) if with_vae && !known.has_vae => Err(no_vae.into()),
            known => known,
        };
        let known = known.map_err(|what| {
            Error::Unsupported(format!(
                "{place}: expected a checkpoint of SD 1.x, SD 2.x or SDXL, found {what}"
            ))
        })?;
        Self::parts(header, path, known, with_vae)
            .map_err(|e| if e.message().starts_with(place) { e } else { e.at(place) })
    }

    fn parts(header: &Header, path: &str, known: Recognised, with_vae: bool) -> Result<Self> {
        let mut mapped = ldm::map(header)?;
        let names: &[&'static str] = match known.family {
            Family::Sdxl => &["text_encoder", "text_encoder_2", "unet", "vae"],
            Family::Sd1 | Family::Sd2 => &["text_encoder", "unet", "vae"],
        };
        let mut parts: Vec<Part> = Vec::new();
        for name in names.iter().filter(|name| with_vae || **name != "vae") {
            let mut tensors = mapped.components.remove(name).unwrap_or_default();
            let shapes = Shapes::new(&tensors);
            let open_clip = is_open_clip(known.family, name);
            let mut config = match *name {
                "unet" => {
                    let text_embeds = |part: &Part| part.config["projection_dim"].as_u64();
                    shapes::unet(&shapes, known, parts.iter().find_map(text_embeds))
                }
                "vae" => shapes::autoencoder(&shapes, known.family == Family::Sdxl),
                _ => shapes::text_encoder(&shapes, open_clip),
            }
            .map_err(|e| e.at(name))?;
            if known.family == Family::Sd2 && open_clip && config["num_hidden_layers"] == VIT_H_LAYERS {
                config["num_hidden_layers"] = (VIT_H_LAYERS - 1).into();
                let last = format!("encoder.layers.{}.", VIT_H_LAYERS - 1);
                tensors.retain(|tensor| !tensor.name.starts_with(&last));
            }
            let class = config["architectures"][0].as_str().or(config["_class_name"].as_str());
            parts.push(Part {
                name,
                class: class.unwrap_or_default().to_owned(),
                config,
                tensors,
            });
        }
        let unet = parts.iter().find(|part| part.name == "unet").map(|part| &part.config);
        let is = |test: fn(&Value) -> bool| unet.is_some_and(test);
        let inpaints = is(|unet| unet["in_channels"] != unet["out_channels"]);
        let is_told_guidance = is(|unet| !unet["time_cond_proj_dim"].is_null());
        let mut warnings = Vec::from_iter(of_no_use(&mapped.unknown));
        let mut scheduler = shapes::scheduler(known, is_told_guidance);
        let names = distilled::names(path, header.file(), header);
        let distilled = Taken::of(Kind::Checkpoint, known.family, &names).filter(|_| !is_told_guidance);
        if let Some((taken, name)) = distilled {
            let changes = taken.scheduler();
            for (key, value) in changes.as_object().into_iter().flatten() {
                // What the file says is not for a name to change.
                if key != "prediction_type" || known.prediction_type.is_none() {
                    scheduler[key] = value.clone();
                }
            }
            let unet = parts.iter_mut().find(|part| part.name == "unet");
            if let (Some(unet), Some(side)) = (unet, taken.of.sample_size) {
                unet.config["sample_size"] = side.into();
            }
            warnings.push(format!(
                "nothing in the file says what it was distilled to; by the name {name:?} it is taken for {taken}"
            ));
        }
        let guessed = distilled.is_some_and(|(taken, _)| taken.scheduler().get("prediction_type").is_some());
        if known.family == Family::Sd2 && known.prediction_type.is_none() && !guessed {
            warnings.push(
                "the file does not say what its UNet predicts: v_prediction is taken, as SD 2.x of 768 pixels has it; \
                 predictionType says otherwise"
                    .into(),
            );
        }
        Ok(Self {
            known,
            parts,
            scheduler,
            distilled: distilled.map(|(taken, _)| taken),
            pipeline_class: match (known.family, inpaints) {
                (Family::Sdxl, true) => "StableDiffusionXLInpaintPipeline",
                (Family::Sdxl, false) => "StableDiffusionXLPipeline",
                (_, true) => "StableDiffusionInpaintPipeline",
                (_, false) if is_told_guidance => "LatentConsistencyModelPipeline",
                (_, false) => "StableDiffusionPipeline",
            },
            warnings,
        })
    }
}

fn is_open_clip(family: Family, component: &str) -> bool {
    family == Family::Sd2 || component == "text_encoder_2"
}

/// Opens the file and reads its header; its download goes on when its weights are read.
pub(super) async fn open(
    source: Source,
    path: &str,
    options: &OpenOptions,
    cancel: &CancelToken,
    progress: &ProgressSink<'_>,
) -> Result<Checkpoint> {
    progress.opening(path);
    let expected = options.files.get(path).cloned().unwrap_or_default();
    let file = OpenFile::open(&source, path, "", expected, cancel).await?;
    let layout = Layout::new(file.header(), path, options.vae.is_none())?;
    let merges = options.assets.merges().await?;
    let file = Rc::new(SharedFile::new(path.into(), file));
    let family = layout.known.family;
    let tokenizer = |part: &Part| TokenizerFiles {
        place: "CLIP's standard vocabulary".into(),
        vocabulary: Vocabulary::Merges(merges.clone()),
        config: shapes::tokenizer(is_open_clip(family, part.name)),
        special_tokens_map: Value::Null,
    };
    let texts = layout.parts.iter().filter(|part| part.name.starts_with("text_encoder"));
    let tokenizers = texts.map(tokenizer).collect();
    let in_file = |part: Part| {
        let Part {
            name,
            class,
            config,
            tensors,
        } = part;
        Component::in_file((name, &class, config), tensors, &file, source.clone())
    };
    let components = layout.parts.into_iter().map(in_file).collect::<Result<_>>()?;
    let stem = path.rsplit_once('.').map_or(path, |(stem, _)| stem);
    Ok(Checkpoint {
        name: options.name.clone().unwrap_or_else(|| stem.into()),
        source,
        file: Some(path.into()),
        pipeline_class: layout.pipeline_class.into(),
        index: json!({ "_class_name": layout.pipeline_class, "force_zeros_for_empty_prompt": true }),
        components,
        tokenizers,
        scheduler: layout.scheduler,
        distilled: layout.distilled,
        vae: None,
        warnings: layout.warnings,
    })
}
