//! An autoencoder from elsewhere, in place of a checkpoint's own: diffusers' folder of one, a checkpoint's folder, or a file: a whole
//! checkpoint, an autoencoder alone in the names of diffusers or of the original code, TAESD's decoder with or without its encoder.

use std::collections::BTreeMap;

use crate::Result;
use crate::cancel::CancelToken;
use crate::checkpoint::component::{Component, Place, WeightsFile};
use crate::checkpoint::diffusers::{Folder, INDEX, VAE};
use crate::checkpoint::expected::ExpectedFile;
use crate::checkpoint::open::OpenOptions;
use crate::checkpoint::progress::ProgressSink;
use crate::checkpoint::recognise::recognise;
use crate::checkpoint::safetensors::{Header, TensorInfo, of_no_use};
use crate::checkpoint::shapes::{self, Shapes};
use crate::checkpoint::source::Source;
use crate::checkpoint::{ldm, names};
use crate::error::Error;

/// Where an autoencoder is.
#[derive(Clone, Debug)]
pub struct VaeSource {
    /// Where its files are.
    pub source: Source,
    /// The path of the one file that has it; none if it is a folder.
    pub file: Option<String>,
    /// The name it goes by; the file's or the folder's, if none is given.
    pub name: Option<String>,
    /// What is known of the files, as [`OpenOptions::files`] has it.
    pub files: BTreeMap<String, ExpectedFile>,
}

impl VaeSource {
    /// The same for one load: see [`Source::begin`].
    #[must_use]
    pub fn begin(&self) -> Self {
        Self {
            source: self.source.begin(),
            ..self.clone()
        }
    }

    /// How that load ended: with its name and the bytes that were loaded of it, or with an error.
    ///
    /// # Errors
    /// Those of the keeper.
    pub async fn end(&self, loaded: Result<(&str, u64), &Error>) -> Result<()> {
        self.source.end_part(&self.source.label(), loaded).await
    }
}

/// What a whole checkpoint's file puts before the names of its autoencoder.
pub(super) const PREFIXES: [&str; 2] = ["first_stage_model.", "vae."];

/// What published files of TAESD are called.
const TINY: [&str; 2] = ["taesd", "taesdxl"];

/// An autoencoder whose header was read.
pub struct Opened {
    /// It.
    pub component: Component,
    /// What pictures call it: a file by its name with the extension, as AUTOMATIC1111 does.
    pub name: String,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Opens it and reads its header; what shapes do not tell is as for SDXL (`xl`) or for its elders.
///
/// # Errors
/// Those of the files; [`Error::Unsupported`] for what is none, or none that is read.
pub async fn open(
    from: &VaeSource,
    variant: Option<&String>,
    xl: bool,
    cancel: &CancelToken,
    progress: &ProgressSink<'_>,
) -> Result<Opened> {
    let options = OpenOptions {
        variant: variant.cloned(),
        files: from.files.clone(),
        ..OpenOptions::default()
    };
    let folder = Folder {
        source: from.source.clone(),
        options: &options,
        cancel,
        progress,
    };
    let mut opened = match &from.file {
        Some(path) => in_files(&folder, std::slice::from_ref(path), xl).await?,
        None => in_folder(&folder, xl).await?,
    };
    if let (None, Some(name)) = (&from.file, &from.name) {
        opened.name.clone_from(name);
    }
    Ok(opened)
}

/// Whether a folder is an autoencoder's and nothing else: its `config.json` says so, or there is no configuration, but published files.
///
/// # Errors
/// Those of the files, but for ones that are not there or are something else's.
pub async fn is_folder(from: &VaeSource, cancel: &CancelToken) -> Result<bool> {
    let options = OpenOptions {
        files: from.files.clone(),
        ..OpenOptions::default()
    };
    let folder = Folder {
        source: from.source.clone(),
        options: &options,
        cancel,
        progress: &ProgressSink::none(),
    };
    let other = |error| match error {
        Error::NotFound(_) | Error::Corrupt(_) | Error::Unsupported(_) => Ok(false),
        error => Err(error),
    };
    let look = async {
        match folder.config_if_any("config.json").await? {
            Some(config) => Ok(is_one(&config)),
            None if folder.config_if_any(INDEX).await?.is_some() => Ok(false),
            None if folder.config_if_any("vae/config.json").await?.is_some() => Ok(false),
            None => lone_files(&folder).await.map(|_| true),
        }
    };
    look.await.or_else(other)
}

fn is_one(config: &serde_json::Value) -> bool {
    let class = config["_class_name"].as_str();
    class.is_some_and(|class| VAE.classes.contains(&class))
}

fn last(path: &str) -> String {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().into()
}

async fn in_folder(folder: &Folder<'_, '_>, xl: bool) -> Result<Opened> {
    let here = folder.config_if_any("config.json").await?;
    let below = match &here {
        Some(config) if is_one(config) => None,
        _ => folder.config_if_any("vae/config.json").await?,
    };
    let (path, config) = match (below, here) {
        (Some(config), _) => ("vae/", config),
        // If it is none, its class is refused by name.
        (None, Some(config)) => ("", config),
        (None, None) => return in_files(folder, &lone_files(folder).await?, xl).await,
    };
    let (component, warning) = folder.configured(&VAE, path, config).await?;
    Ok(Opened {
        component,
        name: last(&folder.source.label()),
        warnings: warning.into_iter().collect(),
    })
}

/// The files that have an autoencoder in a folder without configurations.
async fn lone_files(folder: &Folder<'_, '_>) -> Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    match folder.paths() {
        Some(paths) => {
            let files = paths
                .into_iter()
                .filter(|path| !path.contains('/') && is_safetensors(path));
            found.extend(files.map(str::to_owned));
        }
        None => {
            for path in TINY.map(|name| format!("{name}_decoder.safetensors")) {
                match folder.open_file(&path, "").await {
                    Err(Error::NotFound(_)) => {}
                    opened => {
                        drop(opened?);
                        found.push(path);
                        break;
                    }
                }
            }
        }
    }
    if !(1..=2).contains(&found.len()) {
        let label = folder.source.label();
        let what = match found.len() {
            0 => "neither".into(),
            n => format!("{n} such files"),
        };
        return Err(Error::NotFound(format!(
            "{label}: expected an autoencoder's config.json or safetensors file, found {what}"
        )));
    }
    Ok(found)
}

/// By its extension, in either form.
fn is_safetensors(path: &str) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_lowercase());
    matches!(extension.as_deref(), Some("safetensors" | "sft"))
}

/// A file with what is an autoencoder's in it.
struct Found {
    class: &'static str,
    tensors: Vec<TensorInfo>,
    unknown: Vec<String>,
}

async fn in_files(folder: &Folder<'_, '_>, paths: &[String], xl: bool) -> Result<Opened> {
    let (mut class, mut all, mut weights, mut warnings) = (None, Vec::new(), Vec::new(), Vec::new());
    let mut name = None;
    for path in paths {
        let file = folder.open_file(path, "").await?;
        let place = folder.source.locate(path);
        let found = find(file.header()).map_err(|e| {
            if e.message().starts_with(&place) {
                e
            } else {
                e.at(&place)
            }
        })?;
        if *class.get_or_insert(found.class) != found.class {
            return Err(Error::Unsupported(format!(
                "{place}: expected one autoencoder, found parts of two"
            )));
        }
        warnings.extend(of_no_use(&found.unknown).map(|what| format!("{place}: {what}")));
        if found.tensors.iter().any(|tensor| tensor.name.starts_with("decoder.")) {
            name = Some(last(path));
        }
        all.extend(found.tensors.iter().cloned());
        weights.push(WeightsFile::part(path.clone(), file, found.tensors)?);
    }
    let place = paths.first().map(|path| folder.source.locate(path)).unwrap_or_default();
    let Some(name) = name else {
        return Err(Error::Unsupported(format!(
            "{place}: expected an autoencoder, found an encoder alone: pictures are made by its decoder"
        )));
    };
    let shapes = Shapes::new(&all);
    let class = class.unwrap_or_default();
    let config = match class {
        "AutoencoderTiny" => shapes::tiny_autoencoder(&shapes),
        _ => shapes::autoencoder(&shapes, xl),
    };
    let config = config.map_err(|e| e.at(&place))?;
    let component = Component::new(
        (VAE.name, class.into(), config),
        weights,
        folder.source.clone(),
        Place::file(place),
    )?;
    Ok(Opened {
        component,
        name,
        warnings,
    })
}

/// What in a file is an autoencoder's, by the names.
fn find(header: &Header) -> Result<Found> {
    let has = |test: &dyn Fn(&str) -> bool| header.tensors().iter().any(|tensor| test(&tensor.name));
    let named = |name: &str| header.get(name).is_some();
    let (kl, tiny) = ("AutoencoderKL", "AutoencoderTiny");
    let found = |class, tensors, unknown| {
        Ok(Found {
            class,
            tensors,
            unknown,
        })
    };
    let renamed = |tensor: &TensorInfo, name: &str| TensorInfo {
        name: names::canonical(kl, name).into_owned(),
        ..tensor.clone()
    };
    if let Some(prefix) = PREFIXES
        .into_iter()
        .find(|prefix| has(&|name| name.starts_with(prefix)))
    {
        // Some tools put it before diffusers' names.
        if has(&|name| {
            name.strip_prefix(prefix)
                .is_some_and(|name| name.starts_with("decoder.up_blocks."))
        }) {
            let tensors = header.tensors().iter();
            let tensors = tensors.filter_map(|tensor| Some(renamed(tensor, tensor.name.strip_prefix(prefix)?)));
            return found(kl, tensors.collect(), Vec::new());
        }
        let tensors = ldm::map(header)?.components.remove(VAE.name);
        return match tensors {
            Some(tensors) => found(kl, tensors, Vec::new()),
            None => Err(none("an autoencoder of another kind")),
        };
    }
    if named("quantize.embedding.weight") {
        return Err(none("one that quantises (VQModel)"));
    }
    if named("decoder.conv_in.weight") || named("encoder.conv_in.weight") {
        if has(&|name| name.contains(".mid.block_1.")) {
            let (tensors, unknown) = ldm::map_autoencoder(header)?;
            return found(kl, tensors, unknown);
        }
        let tensors = header.tensors().iter();
        return found(
            kl,
            tensors.map(|tensor| renamed(tensor, &tensor.name)).collect(),
            Vec::new(),
        );
    }
    if named("decoder.layers.0.weight") || named("encoder.layers.0.weight") {
        return found(tiny, header.tensors().to_vec(), Vec::new());
    }
    let (tensors, unknown) = taesd(header);
    let is_first = |name: &str| name == "encoder.layers.0.weight" || name == "decoder.layers.0.weight";
    match tensors.iter().any(|tensor| is_first(&tensor.name)) {
        true => found(tiny, tensors, unknown),
        false => Err(none(match recognise(header) {
            Ok(_) => "a checkpoint without one".into(),
            Err(what) if what == "an autoencoder alone" => "one of another kind".into(),
            Err(what) => what,
        })),
    }
}

fn none(found: impl AsRef<str>) -> Error {
    Error::Unsupported(format!(
        "expected an autoencoder (AutoencoderKL or TAESD), found {}",
        found.as_ref()
    ))
}

/// The tensors of TAESD's own files, named as diffusers names them. They number all layers; the decoder's first one clamps, which
/// diffusers does outside of it.
fn taesd(header: &Header) -> (Vec<TensorInfo>, Vec<String>) {
    let named = |name: &str| header.get(name).is_some();
    let bare = match (named("0.weight"), named("1.conv.0.weight"), named("1.weight")) {
        (true, true, _) => Some("encoder"),
        (false, _, true) if named("3.conv.0.weight") => Some("decoder"),
        _ => None,
    };
    let side = |name: &str| -> Option<String> {
        let sides = [
            ("taesd_encoder.", "encoder"),
            ("taesd_decoder.", "decoder"),
            ("encoder.", "encoder"),
            ("decoder.", "decoder"),
        ];
        let prefixed = sides
            .iter()
            .find_map(|&(prefix, side)| Some((side, name.strip_prefix(prefix)?)));
        let (side, rest) = prefixed.or(bare.map(|side| (side, name)))?;
        let (layer, rest) = rest.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        let layer = if side == "decoder" {
            layer.checked_sub(1)?
        } else {
            layer
        };
        Some(format!("{side}.layers.{layer}.{rest}"))
    };
    let (mut tensors, mut unknown) = (Vec::new(), Vec::new());
    for tensor in header.tensors() {
        match side(&tensor.name) {
            Some(name) => tensors.push(TensorInfo { name, ..tensor.clone() }),
            None => unknown.push(tensor.name.clone()),
        }
    }
    (tensors, unknown)
}
