//! One model of a pipeline: its class, its configuration, and its weights in one file or several.

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
    /// The variant that they are of.
    pub variant: Option<String>,
    source: Source,
}

/// One file of weights.
#[derive(Debug)]
pub struct WeightsFile {
    /// The path in the checkpoint's folder.
    pub path: String,
    /// How many bytes the file has.
    pub bytes: u64,
    /// Its tensors.
    pub header: Rc<Header>,
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
            expected: file.expected().clone(),
            open: Some(file),
        }
    }

    /// Ends the download that began with the header; it begins anew when the weights are read.
    pub(super) fn close(mut self) -> Self {
        self.open = None;
        self
    }
}

impl Component {
    pub(super) fn new(
        name: &'static str,
        class: String,
        config: Value,
        (weights, variant): (Vec<WeightsFile>, Option<String>),
        source: Source,
    ) -> Result<Self> {
        let component = Self {
            name,
            class,
            config,
            weights,
            variant,
            source,
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

    /// All tensors, in the order in which [`for_each_piece`](Self::for_each_piece) hands them over.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.weights.iter().flat_map(|file| file.header.tensors())
    }

    /// The tensor of this name, as current diffusers and transformers have it.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.weights.iter().find_map(|file| file.header.get(name))
    }

    /// How many bytes the weights' files have.
    pub fn bytes(&self) -> u64 {
        self.weights.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Says that the weights are in memory already, and ends their downloads.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub async fn skip(self, cancel: &CancelToken) -> Result<()> {
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

    /// The sha256 of each file, if all are known before they were read.
    pub fn known_hashes(&self) -> Option<Vec<[u8; 32]>> {
        self.weights.iter().map(|file| file.expected.hash()).collect()
    }

    /// Reads the weights, and hands the tensors that are `wanted` (by their names) to `sink`, each in pieces that come one after
    /// the other (the tensor, the piece's first byte in it, the piece), with its elements as the file has them. Gives the sha256
    /// of each file.
    ///
    /// Files that are not what their header or the catalogue says are [`Error::Corrupt`]; tensors may have gone to
    /// `sink` by then. Called again, it reads the files again.
    pub async fn for_each_piece(
        &mut self,
        cancel: &CancelToken,
        progress: &ProgressSink<'_>,
        wanted: impl Fn(&str) -> bool,
        mut sink: impl FnMut(&TensorInfo, u64, &[u8]) -> Result<()>,
    ) -> Result<Vec<[u8; 32]>> {
        let mut hashes = Vec::with_capacity(self.weights.len());
        for file in &mut self.weights {
            let open = match file.open.take() {
                Some(open) => open,
                None => {
                    let expected = file.expected.clone();
                    let open = OpenFile::open(&self.source, &file.path, &self.class, expected, cancel).await?;
                    if open.header().tensors() != file.header.tensors() {
                        let place = self.source.locate(&file.path);
                        return Err(Error::Corrupt(format!(
                            "{place}: the file has changed since it was opened"
                        )));
                    }
                    open
                }
            };
            let arrived = |bytes| progress.loaded(&file.path, bytes);
            hashes.push(open.for_each_piece(cancel, &wanted, arrived, &mut sink).await?);
        }
        Ok(hashes)
    }
}
