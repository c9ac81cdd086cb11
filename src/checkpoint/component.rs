//! One model of a pipeline: its class, its configuration, and its weights in one file or several.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use serde_json::Value;

use crate::cancel::CancelToken;
use crate::checkpoint::expected::ExpectedFile;
use crate::checkpoint::progress::ProgressSink;
use crate::checkpoint::reader::OpenFile;
use crate::checkpoint::safetensors::{Header, TensorInfo};
use crate::checkpoint::source::Source;
use crate::{Error, Result};

/// A model of a pipeline.
#[derive(Debug)]
pub struct Component {
    /// What the pipeline calls it: `"unet"`.
    pub name: &'static str,
    /// The class of diffusers or transformers: `"UNet2DConditionModel"`.
    pub class: String,
    /// Its `config.json`, an object.
    pub config: Value,
    /// Its weights; several files if they are sharded.
    pub weights: Vec<WeightsFile>,
    source: Source,
    place: Place,
    /// The file, if it has other components too.
    shared: Option<Rc<SharedFile>>,
}

/// Where a component is, for messages.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// A folder, or a part of a file.
    pub(super) weights: String,
    pub(super) config: String,
}

impl Place {
    /// A folder, whose path ends with a slash or is empty.
    pub(super) fn folder(source: &Source, folder: &str) -> Self {
        Self {
            weights: match source.locate(folder.trim_end_matches('/')) {
                // Of files that were picked, which have no folder around them.
                nowhere if nowhere.is_empty() => source.label(),
                place => place,
            },
            config: source.locate(&format!("{folder}config.json")),
        }
    }

    /// No configuration is there.
    pub(super) fn file(place: String) -> Self {
        Self {
            config: place.clone(),
            weights: place,
        }
    }
}

/// One file that has the weights of several components.
#[derive(Debug)]
pub struct SharedFile {
    path: String,
    header: Rc<Header>,
    expected: ExpectedFile,
    /// Kept from reading the header until the weights are read.
    open: RefCell<Option<OpenFile>>,
}

/// One file of weights.
#[derive(Debug)]
pub struct WeightsFile {
    /// The path in the checkpoint's folder.
    pub path: String,
    /// How many bytes of it are the component's.
    pub bytes: u64,
    /// Its tensors.
    pub header: Rc<Header>,
    /// The file's own header, where that one has other names, or a part of its tensors alone.
    whole: Option<Rc<Header>>,
    expected: ExpectedFile,
    /// Kept from reading the header until the weights are read, so that nothing is fetched twice. Not for shards: browsers
    /// have six connections to a host, and the shards' would leave none.
    open: Option<OpenFile>,
}

impl WeightsFile {
    pub(super) fn new(path: String, file: OpenFile) -> Self {
        Self {
            path,
            bytes: file.file_bytes(),
            header: Rc::clone(file.header()),
            whole: None,
            expected: file.expected().clone(),
            open: Some(file.unhashed()),
        }
    }

    /// A file of which these tensors count, named so.
    pub(super) fn part(path: String, file: OpenFile, tensors: Vec<TensorInfo>) -> Result<Self> {
        let (whole, header) = (Rc::clone(file.header()), Rc::new(file.header().part(tensors)?));
        let file = Self::new(path, file.renamed(Rc::clone(&header)));
        Ok(Self {
            bytes: header.tensors().iter().map(TensorInfo::bytes).sum(),
            header,
            whole: Some(whole),
            ..file
        })
    }

    /// Ends the download that began with the header; it begins anew when the weights are read.
    pub(super) fn close(mut self) -> Self {
        self.open = None;
        self
    }
}

impl SharedFile {
    pub(super) fn new(path: String, file: OpenFile) -> Self {
        Self {
            path,
            header: Rc::clone(file.header()),
            expected: file.expected().clone(),
            open: RefCell::new(Some(file.unhashed())),
        }
    }

    /// How many bytes the file has.
    pub fn bytes(&self) -> u64 {
        self.expected.size.unwrap_or_default()
    }

    /// What [`Component::for_each_piece`] does, for several components that are in this file, which is read once. `wanted` and
    /// `sink` are told the component's number among them.
    pub async fn for_each_piece(
        &self,
        components: &[&Component],
        cancel: &CancelToken,
        progress: &ProgressSink<'_>,
        wanted: impl Fn(usize, &str) -> bool,
        sink: impl FnMut(usize, &TensorInfo, u64, &[u8]) -> Result<()>,
    ) -> Result<Option<[u8; 32]>> {
        let tensors = components
            .iter()
            .enumerate()
            .flat_map(|(i, c)| c.tensors().map(move |t| (i, t)));
        let mut tensors: Vec<_> = tensors.filter(|(i, tensor)| wanted(*i, &tensor.name)).collect();
        tensors.sort_by_key(|(_, tensor)| (tensor.start, tensor.end));
        let open = match (self.open.take(), components.first()) {
            (Some(open), _) => open,
            (None, None) => return Err(Error::Internal(format!("{}: read for nobody", self.path))),
            (None, Some(component)) => {
                let (source, expected) = (&component.source, self.expected.clone());
                let open = OpenFile::open(source, &self.path, "", expected, cancel).await?;
                if open.header().tensors() != self.header.tensors() {
                    return Err(changed(source, &self.path));
                }
                open.unhashed()
            }
        };
        let arrived = |bytes| progress.loaded(&self.path, bytes);
        open.read(cancel, &tensors, arrived, sink).await
    }
}

fn changed(source: &Source, path: &str) -> Error {
    let place = source.locate(path);
    Error::Corrupt(format!("{place}: the file has changed since it was opened"))
}

impl Component {
    pub(super) fn new(
        (name, class, config): (&'static str, String, Value),
        weights: Vec<WeightsFile>,
        source: Source,
        place: Place,
    ) -> Result<Self> {
        let component = Self {
            name,
            class,
            config,
            weights,
            source,
            place,
            shared: None,
        };
        let mut seen = HashSet::new();
        if let Some(tensor) = component.tensors().find(|tensor| !seen.insert(tensor.name.as_str())) {
            let twice = &tensor.name;
            return Err(Error::Corrupt(format!(
                "{name}: expected each tensor in one file, found {twice:?} in two"
            )));
        }
        Ok(component)
    }

    /// A component whose tensors are these of a file that has others too.
    pub(super) fn in_file(
        (name, class, config): (&'static str, &str, Value),
        tensors: Vec<TensorInfo>,
        file: &Rc<SharedFile>,
        source: Source,
    ) -> Result<Self> {
        let header = Rc::new(file.header.part(tensors)?);
        let weights = WeightsFile {
            path: file.path.clone(),
            bytes: header.tensors().iter().map(TensorInfo::bytes).sum(),
            header,
            whole: None,
            expected: file.expected.clone(),
            open: None,
        };
        let place = Place::file(format!("{}: {name}", source.locate(&file.path)));
        let component = Self::new((name, class.into(), config), vec![weights], source, place)?;
        Ok(Self {
            shared: Some(Rc::clone(file)),
            ..component
        })
    }

    /// The file that has the weights of other components too, if there is one.
    pub fn shared_file(&self) -> Option<&Rc<SharedFile>> {
        self.shared.as_ref()
    }

    /// Where it is, for messages: a folder, or a part of a file.
    pub fn place(&self) -> &str {
        &self.place.weights
    }

    /// Where its configuration is, for messages.
    pub fn config_place(&self) -> &str {
        &self.place.config
    }

    /// All tensors, in the order in which [`for_each_piece`](Self::for_each_piece) hands them over.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.weights.iter().flat_map(|file| file.header.tensors())
    }

    /// The tensor of this name, as current diffusers and transformers have it.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.weights.iter().find_map(|file| file.header.get(name))
    }

    /// How many bytes of the weights' files are its own.
    pub fn bytes(&self) -> u64 {
        self.weights.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// How many bytes the weights' files have.
    fn file_bytes(&self) -> u64 {
        let bytes = self.weights.iter().map(|file| file.expected.size.unwrap_or_default());
        bytes.fold(0, u64::saturating_add)
    }

    /// Says that the weights are in memory already, and ends their downloads.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub async fn skip(self, cancel: &CancelToken) -> Result<()> {
        if let Some(file) = self.shared {
            // The first of the components that are in it ends it for all.
            if let Some(open) = file.open.take() {
                open.skip();
            }
            return Ok(());
        }
        for file in self.weights {
            match file.open {
                Some(open) => open.skip(),
                None => match cancel.guard(self.source.open(&file.path, &file.expected)).await {
                    Ok(stream) => stream.skip(),
                    Err(error @ Error::Cancelled(_)) => return Err(error),
                    // It is not needed, and was there when its header was read.
                    Err(_) => {}
                },
            }
        }
        Ok(())
    }

    /// The sha256 of each file, as far as they are known before they are read.
    pub fn known_hashes(&self) -> Vec<Option<[u8; 32]>> {
        self.weights.iter().map(|file| file.expected.hash()).collect()
    }

    /// Reads the weights, and hands the tensors that are `wanted` (by their names) to `sink`, each in pieces that come one after
    /// the other (the tensor, the piece's first byte in it, the piece), with its elements as the file has them. Gives the sha256
    /// of each file, where it is known.
    ///
    /// Files that are not what their header or the catalogue says are [`Error::Corrupt`]; tensors may have gone to
    /// `sink` by then. Called again, it reads the files again.
    pub async fn for_each_piece(
        &mut self,
        cancel: &CancelToken,
        progress: &ProgressSink<'_>,
        wanted: impl Fn(&str) -> bool,
        mut sink: impl FnMut(&TensorInfo, u64, &[u8]) -> Result<()>,
    ) -> Result<Vec<Option<[u8; 32]>>> {
        if let Some(file) = self.shared.clone() {
            let sink = |_, tensor: &TensorInfo, start, piece: &[u8]| sink(tensor, start, piece);
            let wanted = |_, name: &str| wanted(name);
            let hash = file.for_each_piece(&[self], cancel, progress, wanted, sink).await?;
            return Ok(vec![hash]);
        }
        let mut hashes = Vec::with_capacity(self.weights.len());
        for file in &mut self.weights {
            let open = match file.open.take() {
                Some(open) => open,
                None => {
                    let (class, before) = match &file.whole {
                        Some(whole) => ("", whole),
                        None => (self.class.as_str(), &file.header),
                    };
                    let open = OpenFile::open(&self.source, &file.path, class, file.expected.clone(), cancel).await?;
                    if open.header().tensors() != before.tensors() {
                        return Err(changed(&self.source, &file.path));
                    }
                    open.renamed(Rc::clone(&file.header)).unhashed()
                }
            };
            let arrived = |bytes| progress.loaded(&file.path, bytes);
            hashes.push(open.for_each_piece(cancel, &wanted, arrived, &mut sink).await?);
        }
        Ok(hashes)
    }
}

/// How many bytes the files of these components have: one that is of several counts once.
pub fn file_bytes<'a>(components: impl IntoIterator<Item = &'a Component>) -> u64 {
    let mut shared: Vec<&Rc<SharedFile>> = Vec::new();
    let bytes = components.into_iter().map(|component| match &component.shared {
        None => component.file_bytes(),
        Some(file) if shared.iter().any(|other| Rc::ptr_eq(other, file)) => 0,
        Some(file) => {
            shared.push(file);
            file.bytes()
        }
    });
    bytes.fold(0, u64::saturating_add)
}
