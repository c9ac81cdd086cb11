//! Files of LoRA and its kin: what is in one, and what of a model each part of it changes.
//!
//! [`names`]: what keys mean, and which parameter of a model they are of. [`adapter`]: the tensors that change one parameter,
//! checked against each other and against it. Here: reading a file. No arithmetic.

pub mod adapter;
pub mod names;

use crate::cancel::CancelToken;
use crate::checkpoint::distilled;
use crate::checkpoint::expected::ExpectedFile;
use crate::checkpoint::progress::ProgressSink;
use crate::checkpoint::reader::OpenFile;
use crate::checkpoint::safetensors::{DType, TensorInfo};
use crate::checkpoint::source::Source;
use crate::{Error, Result};
use adapter::Adapter;
use names::{Modules, Role};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A LoRA that is to lie over a checkpoint.
#[derive(Clone, Debug)]
pub struct LoraSource {
    /// Where its file is.
    pub source: Source,
    /// The file's path there.
    pub path: String,
    /// What is known of the file beforehand.
    pub expected: ExpectedFile,
    /// How much of it: 1 as it was trained, less than 0 for its opposite.
    pub scale: f32,
}

impl LoraSource {
    /// The file's name without its extension, as AUTOMATIC1111 writes it in prompts.
    pub fn name(&self) -> &str {
        let file = self.path.rsplit('/').next().unwrap_or_default();
        file.rsplit_once('.').map_or(file, |(stem, _)| stem)
    }
}

/// A LoRA that was read.
#[derive(Debug)]
pub struct Lora {
    /// The file, for messages.
    pub place: String,
    /// How much of it.
    pub scale: f32,
    /// What it does, parameter by parameter.
    pub adapters: Vec<Adapter>,
    /// The file's name without its extension.
    pub name: String,
    /// What may tell what it was distilled to.
    pub names: Vec<String>,
    /// Bytes of the file.
    pub bytes: u64,
    /// The file's hash.
    pub sha256: [u8; 32],
    /// What a person should know.
    pub warnings: Vec<String>,
    tensors: HashMap<String, Stored>,
}

/// A tensor as the file has it.
#[derive(Debug)]
struct Stored {
    dtype: DType,
    bytes: Vec<u8>,
}

impl Lora {
    /// Reads a LoRA, all that is of use over these `modules`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where nothing in it is for these models, or it is of another kind or size; [`Error::Corrupt`] where its
    /// tensors do not belong together; those of reading.
    pub async fn read(
        from: &LoraSource,
        modules: &Modules,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Self> {
        if !from.scale.is_finite() {
            return Err(Error::InvalidArgument(format!(
                "{}: scale: expected a finite number, found {}",
                from.path, from.scale
            )));
        }
        let source = from.source.begin();
        let read = cancel.guard(read(&source, from, modules, progress, cancel)).await;
        let said = read.as_ref().map(|lora| (from.path.as_str(), lora.bytes));
        // What could not be kept is no reason not to draw; the keeper says so by itself.
        drop(source.end_part(&source.label(), said).await);
        let mut lora = read?;
        lora.warnings.extend(source.warnings());
        Ok(lora)
    }

    /// The elements of a tensor, widened to f32.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Internal`] for one that no adapter names.
    pub fn elements(&self, name: &str) -> Result<Vec<f32>> {
        let stored = self.tensors.get(name);
        let Stored { dtype, bytes } = stored.ok_or_else(|| Error::Internal(format!("{name} was not read")))?;
        let mut elements = Vec::new();
        let room = elements.try_reserve_exact(bytes.len() / dtype_size(*dtype).unwrap_or(4));
        room.map_err(|_| Error::OutOfMemory(format!("{}: {name}: {} bytes", self.place, bytes.len())))?;
        let (halves, words, doubles) = (bytes.as_chunks::<2>(), bytes.as_chunks::<4>(), bytes.as_chunks::<8>());
        match dtype {
            DType::F32 => elements.extend(words.0.iter().map(|b| f32::from_le_bytes(*b))),
            DType::F16 => elements.extend(halves.0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32())),
            DType::BF16 => elements.extend(halves.0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32())),
            DType::F64 => elements.extend(doubles.0.iter().map(|b| f64::from_le_bytes(*b) as f32)),
            DType::I64 => elements.extend(doubles.0.iter().map(|b| i64::from_le_bytes(*b) as f32)),
            DType::I32 => elements.extend(words.0.iter().map(|b| i32::from_le_bytes(*b) as f32)),
            _ => return Err(Error::Internal(format!("{name} is {dtype}"))),
        }
        Ok(elements)
    }
}

/// Types that tensors may have; the whole numbers are for `alpha`.
fn dtype_size(dtype: DType) -> Option<usize> {
    match dtype {
        DType::F16 | DType::BF16 => Some(2),
        DType::F32 | DType::I32 => Some(4),
        DType::F64 | DType::I64 => Some(8),
        _ => None,
    }
}

async fn read(
    source: &Source,
    from: &LoraSource,
    modules: &Modules,
    progress: &ProgressSink<'_>,
    cancel: &CancelToken,
) -> Result<Lora> {
    let place = source.locate(&from.path);
    progress.opening(&from.path);
    let file = OpenFile::open(source, &from.path, "", from.expected.clone(), cancel).await?;
    let header = file.header().clone();
    let bytes = file.file_bytes();
    let at = |e: Error| e.at(&place);

    // Tensors by the parameter that they change.
    let mut groups: BTreeMap<(usize, String), BTreeMap<Role, TensorInfo>> = BTreeMap::new();
    let mut unused = Vec::new();
    let mut keys = 0;
    for tensor in header.tensors() {
        let Some((module, role)) = names::take_apart(&tensor.name).map_err(at)? else {
            unused.push(tensor.name.as_str());
            continue;
        };
        keys += 1;
        let Some((component, parameter)) = modules.find(&module, role) else {
            unused.push(&tensor.name);
            continue;
        };
        if dtype_size(tensor.dtype).is_none() {
            return Err(Error::Unsupported(format!(
                "{place}: tensor {:?}: expected dtype F32, F16 or BF16, found {}",
                tensor.name, tensor.dtype
            )));
        }
        let group = groups.entry((component, parameter.to_owned())).or_default();
        if let Some(other) = group.insert(role, tensor.clone()) {
            return Err(Error::Corrupt(format!(
                "{place}: {:?} and {:?} are the same tensor of {parameter}",
                other.name, tensor.name
            )));
        }
    }
    if keys == 0 {
        let first: Vec<_> = header.tensors().iter().take(3).map(|t| t.name.as_str()).collect();
        let what = match names::looks_like_checkpoint(header.tensors().iter().map(|t| t.name.as_str())) {
            true => "a checkpoint's weights",
            false => "tensors of another kind",
        };
        return Err(Error::Unsupported(format!(
            "{place}: expected a LoRA, found {what} ({})",
            first.join(", ")
        )));
    }
    if groups.is_empty() {
        return Err(Error::Unsupported(format!(
            "{place}: nothing in it is for this checkpoint; it is of another family ({})",
            unused[..unused.len().min(3)].join(", ")
        )));
    }
    let mut adapters = Vec::with_capacity(groups.len());
    for ((component, parameter), tensors) in groups {
        let shape = modules.shape(component, &parameter);
        let scaling = names::Scaling::of(&header, modules.component(component), &parameter);
        let adapter = scaling.and_then(|s| Adapter::new(component, parameter, tensors, s, shape));
        adapters.push(adapter.map_err(at)?);
    }
    progress.add_total(bytes);
    let wanted: HashSet<&str> = adapters.iter().flat_map(Adapter::names).collect();
    let mut tensors: HashMap<String, Stored> = HashMap::new();
    let arrived = |count| progress.loaded(&from.path, count);
    let sink = |tensor: &TensorInfo, _: u64, piece: &[u8]| {
        let stored = tensors.entry(tensor.name.clone()).or_insert(Stored {
            dtype: tensor.dtype,
            bytes: Vec::new(),
        });
        let missing = usize::try_from(tensor.bytes()).unwrap_or(usize::MAX) - stored.bytes.len();
        let room = stored.bytes.try_reserve_exact(missing);
        room.map_err(|_| Error::OutOfMemory(format!("{place}: {}: {} bytes", tensor.name, tensor.bytes())))?;
        stored.bytes.extend_from_slice(piece);
        Ok(())
    };
    let sha256 = file
        .for_each_piece(cancel, |name| wanted.contains(name), arrived, sink)
        .await?;
    let sha256 = sha256.ok_or_else(|| Error::Internal(format!("{place}: no hash")))?;
    let warnings = names::shortened(&unused).map(|keys| format!("{place}: keys of no use here: {keys}"));
    Ok(Lora {
        name: from.name().into(),
        names: distilled::names(&from.path, &place, &header),
        bytes,
        scale: from.scale,
        adapters,
        sha256,
        warnings: warnings.into_iter().collect(),
        tensors,
        place,
    })
}
