//! One file, read from its start to its end in pieces.

use std::collections::BTreeMap;
#[cfg(not(target_arch = "wasm32"))]
use std::io::Read;
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;
use std::rc::Rc;

use crate::Result;
#[cfg(target_arch = "wasm32")]
use crate::checkpoint::web::{BlobReader, KeptFile};

#[cfg(not(target_arch = "wasm32"))]
use crate::Error;

/// Bytes that a file of the file system hands over at once.
#[cfg(not(target_arch = "wasm32"))]
const FILE_CHUNK: usize = 1 << 20;

/// A file that is being read.
#[derive(Debug)]
pub struct ByteStream {
    /// How many bytes the file has, where that is sure: a web server's `Content-Length` is not always.
    pub len: Option<u64>,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Memory {
        files: Rc<BTreeMap<String, Vec<u8>>>,
        path: String,
        position: usize,
        chunk: usize,
    },
    #[cfg(not(target_arch = "wasm32"))]
    File { file: std::fs::File, place: String },
    #[cfg(target_arch = "wasm32")]
    Blob(BlobReader),
    #[cfg(target_arch = "wasm32")]
    Kept(KeptFile),
}

impl ByteStream {
    /// The next bytes, never none of them; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        match &mut self.inner {
            Inner::Memory {
                files,
                path,
                position,
                chunk,
            } => {
                let rest = files
                    .get(path)
                    .and_then(|bytes| bytes.get(*position..))
                    .unwrap_or_default();
                let piece = &rest[..rest.len().min((*chunk).max(1))];
                *position += piece.len();
                Ok((!piece.is_empty()).then(|| piece.to_vec()))
            }
            #[cfg(not(target_arch = "wasm32"))]
            Inner::File { file, place } => {
                let mut piece = Vec::with_capacity(FILE_CHUNK);
                let read = file.take(FILE_CHUNK as u64).read_to_end(&mut piece);
                read.map_err(|error| unreadable(place, &error))?;
                Ok((!piece.is_empty()).then_some(piece))
            }
            #[cfg(target_arch = "wasm32")]
            Inner::Blob(blob) => blob.next().await,
            #[cfg(target_arch = "wasm32")]
            Inner::Kept(file) => file.next().await,
        }
    }

    /// The file's sha256, where whoever reads it knows it and answers for it: beforehand, or when it was read to its end.
    pub fn sha256(&self) -> Option<String> {
        match &self.inner {
            #[cfg(target_arch = "wasm32")]
            Inner::Kept(file) => file.sha256(),
            _ => None,
        }
    }

    /// Whether whoever reads it checks its hash; if not, its reader has to.
    pub fn is_checked(&self) -> bool {
        match &self.inner {
            #[cfg(target_arch = "wasm32")]
            Inner::Kept(_) => true,
            _ => false,
        }
    }

    /// Says that its content is here already, and that it will not be read.
    pub fn skip(self) {
        match &self.inner {
            #[cfg(target_arch = "wasm32")]
            Inner::Kept(file) => file.skip(),
            _ => {}
        }
    }

    pub(super) fn memory(files: Rc<BTreeMap<String, Vec<u8>>>, path: &str, chunk: usize, sized: bool) -> Self {
        let len = files.get(path).filter(|_| sized).map(|bytes| bytes.len() as u64);
        Self {
            len,
            inner: Inner::Memory {
                files,
                path: path.into(),
                position: 0,
                chunk,
            },
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn file(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let file = std::fs::File::open(path).map_err(|error| unreadable(&place, &error))?;
        let len = file.metadata().map_err(|error| unreadable(&place, &error))?.len();
        Ok(Self {
            len: Some(len),
            inner: Inner::File { file, place },
        })
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn unreadable(place: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            Error::NotFound(format!("{place}: no such file"))
        }
        _ => Error::Network(format!("{place}: reading failed: {error}")),
    }
}

#[cfg(target_arch = "wasm32")]
impl From<BlobReader> for ByteStream {
    fn from(blob: BlobReader) -> Self {
        Self {
            len: Some(blob.len()),
            inner: Inner::Blob(blob),
        }
    }
}

#[cfg(target_arch = "wasm32")]
impl From<KeptFile> for ByteStream {
    fn from(file: KeptFile) -> Self {
        Self {
            len: file.len(),
            inner: Inner::Kept(file),
        }
    }
}
