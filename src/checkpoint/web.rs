//! Files as a browser gives them: through the keeper, which fetches, checks and stores them in a worker of its own, and picked
//! ones.

use js_sys::{ArrayBuffer, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::File;

use crate::checkpoint::expected::ExpectedFile;
use crate::{Error, Result};

/// Bytes of a picked file that are read at once.
const BLOB_CHUNK: u64 = 4 << 20;

#[wasm_bindgen]
extern "C" {
    /// The keeper's client: `Files` of `www/tintype/files.js`.
    #[derive(Clone, Debug)]
    pub type Keeper;
    #[wasm_bindgen(method)]
    fn begin(this: &Keeper, label: &str) -> KeeperSession;

    /// One load of the keeper's.
    #[derive(Clone, Debug)]
    pub type KeeperSession;
    #[wasm_bindgen(method)]
    fn open(this: &KeeperSession, url: &str, place: &str, expected: &JsValue) -> Promise;
    #[wasm_bindgen(method)]
    fn commit(this: &KeeperSession, checkpoint: &JsValue) -> Promise;
    #[wasm_bindgen(method)]
    fn abort(this: &KeeperSession, code: &str) -> Promise;
    #[wasm_bindgen(method, getter)]
    fn warnings(this: &KeeperSession) -> Vec<String>;

    /// A file of the keeper's.
    #[derive(Debug)]
    type KeeperStream;
    #[wasm_bindgen(method)]
    fn read(this: &KeeperStream) -> Promise;
    #[wasm_bindgen(method)]
    fn cancel(this: &KeeperStream);
    #[wasm_bindgen(method)]
    fn skip(this: &KeeperStream);
    #[wasm_bindgen(method)]
    fn recycle(this: &KeeperStream, bytes: &Uint8Array);
    #[wasm_bindgen(method, getter)]
    fn size(this: &KeeperStream) -> Option<f64>;
    #[wasm_bindgen(method, getter)]
    fn sha256(this: &KeeperStream) -> Option<String>;
}

/// A load by way of the keeper. Given up, unless it was said how it ended.
#[derive(Debug)]
pub struct Session(KeeperSession, std::cell::Cell<bool>);

impl Session {
    pub(super) fn begin(keeper: &Keeper, label: &str) -> Self {
        Self(keeper.begin(label), false.into())
    }

    /// What a person should know, such as that something could not be stored.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.0.warnings()
    }

    /// All that was asked for was read, and is this checkpoint.
    pub(super) async fn commit(&self, id: &str, name: &str, url: &str, bytes: u64) -> Result<()> {
        self.end([id, name, url], bytes, false).await
    }

    /// All that was asked for was read, and is a part of checkpoints, or of one that is kept under the same address.
    pub(super) async fn commit_part(&self, name: &str, url: &str, bytes: u64) -> Result<()> {
        self.end([url, name, url], bytes, true).await
    }

    async fn end(&self, [id, name, url]: [&str; 3], bytes: u64, part: bool) -> Result<()> {
        self.1.set(true);
        let checkpoint = object(&[
            ("id", id.into()),
            ("name", name.into()),
            ("url", url.into()),
            ("bytes", (bytes as f64).into()),
            ("part", part.into()),
        ]);
        JsFuture::from(self.0.commit(&checkpoint))
            .await
            .map(drop)
            .map_err(failed)
    }

    /// It failed so.
    pub(super) async fn abort(&self, code: &str) {
        self.1.set(true);
        // The load's own error is what counts.
        let _ = JsFuture::from(self.0.abort(code)).await;
    }

    pub(super) async fn open(&self, url: &str, place: &str, expected: &ExpectedFile) -> Result<KeptFile> {
        let size = expected.size.map_or(JsValue::UNDEFINED, |size| (size as f64).into());
        let sha256 = expected.sha256.as_deref().map_or(JsValue::UNDEFINED, Into::into);
        let expected = object(&[("size", size), ("sha256", sha256)]);
        let stream = JsFuture::from(self.0.open(url, place, &expected))
            .await
            .map_err(failed)?;
        Ok(KeptFile(stream.unchecked_into()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.1.get() {
            // Nobody is left to hear what becomes of it.
            let _ = self.0.abort("cancelled");
        }
    }
}

fn object(fields: &[(&str, JsValue)]) -> JsValue {
    let object = Object::new();
    for (key, value) in fields {
        // A fresh object takes any property.
        let _ = Reflect::set(&object, &(*key).into(), value);
    }
    object.into()
}

/// The bytes that a function gives a promise of.
pub(super) async fn bytes_of(function: js_sys::Function) -> Result<Vec<u8>> {
    let promise = function.call0(&JsValue::NULL).map_err(failed)?;
    let bytes = JsFuture::from(Promise::from(promise)).await.map_err(failed)?;
    Ok(Uint8Array::new(&bytes).to_vec())
}

/// What the keeper's client throws: an error of ours, by its `code`.
fn failed(error: JsValue) -> Error {
    let code = Reflect::get(&error, &"code".into())
        .ok()
        .and_then(|code| code.as_string());
    Error::from_code(code.as_deref().unwrap_or("internal"), message(&error))
}

/// A file that the keeper reads, from its host or from the store; it has checked length and hash when the last byte is read.
#[derive(Debug)]
pub(super) struct KeptFile(KeeperStream);

impl Drop for KeptFile {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl KeptFile {
    pub(super) fn len(&self) -> Option<u64> {
        self.0.size().map(|size| size as u64)
    }

    /// The file's hash, where it is known: at the end always.
    pub(super) fn sha256(&self) -> Option<String> {
        self.0.sha256()
    }

    /// Says that its content is here already: it belongs to the checkpoint without being read.
    pub(super) fn skip(&self) {
        self.0.skip();
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let read = JsFuture::from(self.0.read()).await.map_err(failed)?;
        if read.is_null() {
            return Ok(None);
        }
        let bytes: Uint8Array = read.unchecked_into();
        let piece = bytes.to_vec();
        self.0.recycle(&bytes);
        Ok(Some(piece))
    }
}

/// A picked file, read slice by slice.
#[derive(Debug)]
pub(super) struct BlobReader {
    file: File,
    path: String,
    position: u64,
}

impl BlobReader {
    pub(super) fn new(file: File, path: &str) -> Self {
        Self {
            file,
            path: path.into(),
            position: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.file.size() as u64
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let end = self.len().min(self.position + BLOB_CHUNK);
        if self.position >= end {
            return Ok(None);
        }
        let unreadable = |error: JsValue| {
            Error::Network(format!(
                "{}: the picked file can't be read any more: {}",
                self.path,
                message(&error)
            ))
        };
        let slice = self
            .file
            .slice_with_f64_and_f64(self.position as f64, end as f64)
            .map_err(unreadable)?;
        let buffer: ArrayBuffer = JsFuture::from(slice.array_buffer())
            .await
            .map_err(unreadable)?
            .dyn_into()
            .map_err(unreadable)?;
        self.position = end;
        Ok(Some(Uint8Array::new(&buffer).to_vec()))
    }
}

/// What a JavaScript exception says.
fn message(error: &JsValue) -> String {
    match error.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => format!("{error:?}"),
    }
}
