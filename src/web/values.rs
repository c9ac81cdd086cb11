//! Values from JavaScript and to it.

use crate::checkpoint::source::BaseUrl;
use crate::checkpoint::{Assets, ExpectedFile, LoraSource, OpenOptions, Progress, Source, VaeSource};
use crate::engine::{Generated, Recipe};
use crate::error::Error;
use crate::executor::BackendInfo;
use crate::executor::webgpu::{Tuning, gpu_bytes};
use crate::image::Rgba;
use crate::library::{Counts, Defaults, DefaultsHint, Inspection, LoadOptions, Memory, Resident};
use crate::pipeline::StepReport;
use js_sys::{Array, Function, Object, Reflect, Uint8Array};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wasm_bindgen::prelude::*;

/// Options of `create`, with what the worker found out about the GPU.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CreateOptions {
    pub(super) backend: Option<String>,
    /// Why it is asked for, where that is not the page's choice.
    pub(super) reason: Option<String>,
    /// Those that were started.
    pub(super) threads: Option<usize>,
    pub(super) memory_budget: Option<f64>,
    /// GiB, rounded, where the browser tells.
    pub(super) device_memory: Option<f64>,
    pub(super) adapter_info: Option<AdapterInfo>,
    /// `f32` or `f16`: what products may be multiplied in.
    pub(super) arithmetic: Option<String>,
    /// What was found out about the adapter before.
    pub(super) tuning: Option<Tuning>,
    /// Nothing more is to be found out.
    pub(super) tuned: bool,
}

/// `navigator.gpu`'s adapter, which wasm can't see whole.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AdapterInfo {
    pub(super) available: bool,
    pub(super) reason: Option<String>,
    pub(super) vendor: Option<String>,
    pub(super) architecture: Option<String>,
    pub(super) device: Option<String>,
    pub(super) description: Option<String>,
    pub(super) software: bool,
    pub(super) features: Vec<String>,
}

/// Options of `load`, with the hints of a catalogue's entry.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LoadValues {
    id: Option<String>,
    taken: Vec<String>,
    name: Option<String>,
    variant: Option<String>,
    prediction_type: Option<String>,
    defaults: DefaultsHint,
    #[serde(skip)]
    files: BTreeMap<String, ExpectedFile>,
}

impl From<LoadValues> for LoadOptions {
    fn from(values: LoadValues) -> Self {
        let LoadValues {
            id,
            taken,
            name,
            variant,
            prediction_type,
            defaults,
            files,
        } = values;
        Self {
            open: OpenOptions {
                name,
                variant,
                files,
                ..OpenOptions::default()
            },
            id,
            taken,
            prediction_type,
            defaults,
            ..Self::default()
        }
    }
}

/// Reads an object; what is missing has its default. The page's end has checked each value, and named the wrong one: serde
/// can't, and what it refuses all the same is a fault between the two.
pub(super) fn read<T: DeserializeOwned + Default>(value: JsValue, call: &str) -> Result<T, JsValue> {
    if value.is_undefined() || value.is_null() {
        return Ok(T::default());
    }
    serde_wasm_bindgen::from_value(value).map_err(|e| error(Error::Internal(format!("{call}: {e}"))))
}

/// How a checkpoint is loaded, in the worker's words.
pub(super) fn recipe(value: &JsValue) -> Result<Recipe, JsValue> {
    let mut options: LoadValues = read(Reflect::get(value, &"options".into())?, "load")?;
    let given = Reflect::get(value, &"source".into())?;
    let source = source(&given, &mut options.files)?;
    let mut options = LoadOptions::from(options);
    options.open.file = Reflect::get(&given, &"path".into())?.as_string();
    if options.open.file.is_some() {
        options.open.assets = Assets::js(Reflect::get(&given, &"vocabulary".into())?.unchecked_into());
    }
    options.open.vae = vae(&Reflect::get(value, &"vae".into())?)?;
    options.loras = loras(&Reflect::get(value, &"loras".into())?)?;
    Ok(Recipe { source, options })
}

/// An autoencoder from elsewhere: `{ source, name? }`.
fn vae(value: &JsValue) -> Result<Option<VaeSource>, JsValue> {
    if value.is_undefined() {
        return Ok(None);
    }
    let given = Reflect::get(value, &"source".into())?;
    let mut files = BTreeMap::new();
    Ok(Some(VaeSource {
        source: source(&given, &mut files)?,
        file: Reflect::get(&given, &"path".into())?.as_string(),
        name: Reflect::get(value, &"name".into())?.as_string(),
        files,
    }))
}

/// What `ask` knows of how a checkpoint is loaded. A recipe was good once already: what is wrong now is a fault of ours.
pub(super) fn known_recipe(ask: &Function) -> Result<Option<Recipe>, Error> {
    let known = ask.call0(&JsValue::NULL);
    let read = known.and_then(|known| (!known.is_undefined()).then(|| recipe(&known)).transpose());
    read.map_err(|e| Error::Internal(format!("the checkpoint's recipe: {e:?}")))
}

/// LoRAs: `[{ source, path, scale }]`.
fn loras(value: &JsValue) -> Result<Vec<LoraSource>, JsValue> {
    if value.is_undefined() {
        return Ok(Vec::new());
    }
    let get = |object: &JsValue, key: &str| Reflect::get(object, &key.into());
    let lora = |value: JsValue| {
        let path = get(&value, "path")?.as_string();
        let scale = get(&value, "scale")?.as_f64();
        let (Some(path), Some(scale)) = (path, scale) else {
            return Err(error(Error::Internal("loras: expected a path and a scale".into())));
        };
        let mut known = BTreeMap::new();
        Ok(LoraSource {
            source: source(&get(&value, "source")?, &mut known)?,
            expected: known.remove(&path).unwrap_or_default(),
            path,
            scale: scale as f32,
        })
    };
    Array::from(value).iter().map(lora).collect()
}

/// Where the files are, and what is known of them.
fn source(value: &JsValue, known: &mut BTreeMap<String, ExpectedFile>) -> Result<Source, JsValue> {
    let wrong = |what: &str| error(Error::InvalidArgument(format!("source: {what}")));
    let get = |object: &JsValue, key: &str| Reflect::get(object, &key.into());
    let files = get(value, "files")?;
    if let Some(url) = get(value, "url")?.as_string() {
        *known = read(files, "source: files")?;
        let url = match get(value, "path")?.as_string() {
            Some(path) => BaseUrl::file(&url, path),
            None => BaseUrl::folder(&url),
        };
        let url = url.called(get(value, "place")?.as_string(), get(value, "label")?.as_string());
        return Ok(Source::http(url, get(value, "keeper")?.unchecked_into()));
    }
    if !Array::is_array(&files) {
        return Err(wrong("expected a url or files"));
    }
    let file = |item: JsValue| -> Result<(String, web_sys::File), JsValue> {
        let path = get(&item, "path")?
            .as_string()
            .ok_or_else(|| wrong("a file without a path"))?;
        let file = get(&item, "file")?;
        // A Blob will do: nothing that only a File has is used.
        if !file.is_instance_of::<web_sys::Blob>() {
            return Err(wrong(&format!("{path} is no file")));
        }
        Ok((path, file.unchecked_into()))
    };
    let files: Result<Vec<_>, _> = Array::from(&files).iter().map(file).collect();
    Ok(Source::files(files?))
}

/// An `Error` with a `code`.
pub(super) fn error(error: Error) -> JsValue {
    let value = js_sys::Error::new(error.message());
    value.set_name("TintypeError");
    // A fresh object takes any property.
    let _ = Reflect::set(&value, &"code".into(), &error.code().into());
    value.into()
}

/// Any value that serde knows, as plain objects and arrays.
pub(super) fn to_js<T: Serialize + ?Sized>(value: &T) -> Result<JsValue, JsValue> {
    let serializer = serde_wasm_bindgen::Serializer::json_compatible();
    value
        .serialize(&serializer)
        .map_err(|e| error(Error::Internal(e.to_string())))
}

pub(super) fn object(fields: impl IntoIterator<Item = (&'static str, JsValue)>) -> Result<JsValue, JsValue> {
    let object = Object::new();
    for (key, value) in fields {
        Reflect::set(&object, &key.into(), &value)?;
    }
    Ok(object.into())
}

pub(super) fn backend(info: &BackendInfo, reason: &str) -> Result<JsValue, JsValue> {
    object([
        ("kind", info.kind.into()),
        ("name", info.name.as_str().into()),
        ("software", info.software.into()),
        ("features", to_js(&info.features)?),
        ("threads", (info.threads as f64).into()),
        ("reason", reason.into()),
    ])
}

pub(super) fn progress(p: &Progress) -> Result<JsValue, JsValue> {
    object([
        ("phase", p.phase.into()),
        ("file", p.file.as_str().into()),
        ("loadedBytes", (p.loaded_bytes as f64).into()),
        ("totalBytes", (p.total_bytes as f64).into()),
        ("fraction", p.fraction.into()),
    ])
}

pub(super) fn checkpoint(r: &Resident) -> Result<JsValue, JsValue> {
    let components = Array::new();
    for c in &r.components {
        components.push(&object([
            ("name", c.name.into()),
            ("class", c.class.as_str().into()),
            ("dtypes", to_js(&c.dtypes)?),
            ("bytes", (c.bytes as f64).into()),
            ("id", c.id.as_str().into()),
        ])?);
    }
    object([
        ("id", r.id.as_str().into()),
        ("name", r.name.as_str().into()),
        ("family", r.family.into()),
        ("components", components.into()),
        ("defaults", own_defaults(r)?),
        ("bytes", (r.bytes as f64).into()),
        ("warnings", to_js(&r.all_warnings())?),
    ])
}

/// What it draws with when nothing is said.
fn own_defaults(r: &Resident) -> Result<JsValue, JsValue> {
    defaults(&r.defaults, Some(r.models.scheduler.sampler_name()), r.factor)
}

/// The same with the sampler that is taken if it has none.
fn defaults(d: &Defaults, sampler: Option<&str>, factor: usize) -> Result<JsValue, JsValue> {
    object([
        ("width", (d.width as f64).into()),
        ("height", (d.height as f64).into()),
        ("steps", (d.steps as f64).into()),
        ("guidanceScale", decimal(d.guidance_scale).into()),
        ("sampler", d.sampler.as_deref().or(sampler).into()),
        ("factor", (factor as f64).into()),
    ])
}

/// What a change of LoRAs brought.
pub(super) fn set_loras(r: &Resident) -> Result<JsValue, JsValue> {
    object([("warnings", to_js(&r.loras.warnings)?), ("defaults", own_defaults(r)?)])
}

pub(super) fn inspection(i: &Inspection) -> Result<JsValue, JsValue> {
    let or_null = |value: Option<JsValue>| value.unwrap_or(JsValue::NULL);
    let components = Array::new();
    for c in &i.components {
        components.push(&object([
            ("name", c.name.into()),
            ("class", c.class.as_str().into()),
            ("dtypes", to_js(&c.dtypes)?),
            ("bytes", (c.bytes as f64).into()),
        ])?);
    }
    let defaults = i.defaults.as_ref().map(|(d, factor)| defaults(d, i.sampler, *factor));
    let memory = i.memory.map(|needs| {
        object([
            ("weights", (needs.weights as f64).into()),
            ("working", (needs.working as f64).into()),
            ("peak", (needs.peak() as f64).into()),
            (
                "withImage",
                or_null(needs.with_image.map(|bytes| (bytes as f64).into())),
            ),
            ("budget", i.budget.map_or(JsValue::NULL, |b| (b as f64).into())),
        ])
    });
    object([
        ("kind", or_null(i.kind.map(Into::into))),
        ("layout", i.layout.into()),
        ("name", i.name.as_str().into()),
        ("family", or_null(i.family.map(Into::into))),
        ("components", components.into()),
        ("bytes", (i.bytes as f64).into()),
        ("predictionType", or_null(i.prediction_type.as_deref().map(Into::into))),
        ("defaults", or_null(defaults.transpose()?)),
        ("memory", or_null(memory.transpose()?)),
        ("unsupported", to_js(&i.unsupported)?),
        ("warnings", to_js(&i.warnings)?),
    ])
}

pub(super) fn memory(m: &Memory) -> Result<JsValue, JsValue> {
    // Pages of 64 KiB.
    let wasm = core::arch::wasm32::memory_size(0) as f64 * 65536.0;
    object([
        ("budget", m.budget.map_or(JsValue::UNDEFINED, |b| (b as f64).into())),
        ("weights", (m.weights as f64).into()),
        ("working", (m.working as f64).into()),
        ("gpu", (gpu_bytes() as f64).into()),
        ("wasm", wasm.into()),
    ])
}

pub(super) fn counts(c: &Counts) -> Result<JsValue, JsValue> {
    object([
        ("plans", (c.plans as f64).into()),
        ("pipelines", (c.pipelines as f64).into()),
        ("uploaded", (c.uploaded as f64).into()),
        ("unraced", (c.unraced as f64).into()),
    ])
}

fn pixels(rgba: &Rgba) -> [(&'static str, JsValue); 3] {
    [
        ("width", (rgba.width as f64).into()),
        ("height", (rgba.height as f64).into()),
        ("rgba", Uint8Array::from(rgba.data.as_slice()).into()),
    ]
}

pub(super) fn step(s: &StepReport) -> Result<JsValue, JsValue> {
    let preview = s.preview.as_ref().map(|p| object(pixels(p))).transpose()?;
    object([
        ("step", (s.step as f64).into()),
        ("steps", (s.steps as f64).into()),
        ("preview", preview.unwrap_or(JsValue::UNDEFINED)),
    ])
}

pub(super) fn generated(g: &Generated) -> Result<JsValue, JsValue> {
    let images = Array::new();
    for picture in &g.pictures {
        let p = &picture.parameters;
        let (width, height) = (picture.pixels.width, picture.pixels.height);
        let parameters = object([
            ("prompt", p.prompt.as_str().into()),
            ("negativePrompt", p.negative_prompt.as_str().into()),
            ("steps", p.steps.into()),
            ("sampler", p.sampler.as_deref().into()),
            ("guidanceScale", p.guidance_scale.map(decimal).into()),
            ("seed", p.seed.map(|s| s.to_string()).into()),
            ("width", (width as f64).into()),
            ("height", (height as f64).into()),
            ("checkpoint", p.model.as_deref().into()),
            ("strength", p.strength.into()),
            ("masked", p.masked.map(decimal).into()),
            ("vae", p.other("VAE").into()),
        ])?;
        let text = ("text", p.to_string().into());
        let fields = pixels(&picture.pixels)
            .into_iter()
            .chain([("parameters", parameters), text]);
        images.push(&object(fields)?);
    }
    let sum = |part: fn(&crate::pipeline::Timings) -> f64| g.timings.iter().map(part).sum::<f64>();
    let (prompt, decode) = (sum(|t| t.prompt), sum(|t| t.decode));
    let (steps, encode) = (sum(|t| t.steps.iter().sum()), sum(|t| t.encode));
    let timings = object([
        ("start", sum(|t| t.start).into()),
        ("encode", encode.into()),
        ("prompt", prompt.into()),
        ("steps", steps.into()),
        ("decode", decode.into()),
        ("total", (encode + prompt + steps + decode).into()),
    ])?;
    object([
        ("images", images.into()),
        ("seed", g.seed.to_string().into()),
        ("timings", timings),
        ("warnings", to_js(&g.warnings)?),
    ])
}

/// The f64 with the same shortest decimal: 7.3 and not 7.300000190734863.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}
