//! Files as a browser gives them: answers of a web server, and picked files.

use js_sys::{ArrayBuffer, Function, Promise, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, File, ReadableStreamDefaultReader, RequestInit, Response};

use crate::{Error, Result};

/// Bytes of a picked file that are read at once.
const BLOB_CHUNK: u64 = 4 << 20;

/// Asks a web server for a file. `place` is the file's URL as it may be shown.
pub(super) async fn fetch(url: &str, place: String) -> Result<WebStream> {
    let failed = |error: JsValue| Error::Network(format!("{place}: the request failed: {}", message(&error)));
    let abort = AbortOnDrop(AbortController::new().map_err(failed)?);
    let init = RequestInit::new();
    init.set_signal(Some(&abort.0.signal()));
    let response: Response = JsFuture::from(call_fetch(url, &init).map_err(failed)?)
        .await
        .map_err(failed)?
        .dyn_into()
        .map_err(failed)?;
    match response.status() {
        404 | 410 => {
            return Err(Error::NotFound(format!(
                "{place}: the host has no such file (status 404)"
            )));
        }
        status if !response.ok() => {
            let text = response.status_text();
            return Err(Error::Network(format!(
                "{place}: expected status 200, found {status} {text}"
            )));
        }
        _ => {}
    }
    let len = sure_length(&response);
    let reader = match response.body() {
        Some(body) => Some(ReadableStreamDefaultReader::new(&body).map_err(failed)?),
        None => None,
    };
    Ok(WebStream {
        reader,
        len,
        place,
        _abort: abort,
    })
}

/// `fetch` of the page or of the worker, whichever this runs in.
fn call_fetch(url: &str, init: &RequestInit) -> Result<Promise, JsValue> {
    let global = js_sys::global();
    let fetch: Function = Reflect::get(&global, &"fetch".into())?.dyn_into()?;
    fetch.call2(&global, &url.into(), init)?.dyn_into()
}

/// `Content-Length` counts compressed bytes, and whether they are compressed is hidden from other origins.
fn sure_length(response: &Response) -> Option<u64> {
    let headers = response.headers();
    let plain = response.type_() == web_sys::ResponseType::Basic && headers.get("content-encoding").ok()?.is_none();
    plain.then(|| headers.get("content-length").ok()??.parse().ok())?
}

/// Ends the request when the stream is dropped before its end; does nothing after it.
#[derive(Debug)]
struct AbortOnDrop(AbortController);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of a web server's answer.
#[derive(Debug)]
pub(super) struct WebStream {
    reader: Option<ReadableStreamDefaultReader>,
    len: Option<u64>,
    place: String,
    _abort: AbortOnDrop,
}

impl WebStream {
    pub(super) fn len(&self) -> Option<u64> {
        self.len
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(reader) = &self.reader else { return Ok(None) };
        let broken =
            |error: JsValue| Error::Network(format!("{}: the connection broke off: {}", self.place, message(&error)));
        loop {
            let read = JsFuture::from(reader.read()).await.map_err(broken)?;
            if Reflect::get(&read, &"done".into()).map_err(broken)?.is_truthy() {
                return Ok(None);
            }
            let value: Uint8Array = Reflect::get(&read, &"value".into())
                .map_err(broken)?
                .dyn_into()
                .map_err(broken)?;
            if value.length() > 0 {
                return Ok(Some(value.to_vec()));
            }
        }
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
            Error::NotFound(format!(
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
