//! Files as a browser gives them: answers of a web server, and picked files.

use js_sys::{ArrayBuffer, Function, Promise, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, File, Headers, ReadableStreamDefaultReader, RequestInit, Response, ResponseType};

use crate::{Error, Result};

/// Bytes of a picked file that are read at once.
const BLOB_CHUNK: u64 = 4 << 20;
/// Milliseconds to wait before each attempt to take up a download that broke off. A server may also have given up on a
/// connection because the file's turn came late.
const RESUME_AFTER: [i32; 3] = [0, 1000, 4000];

/// Asks a web server for a file. `place` is the file's URL as it may be shown.
pub(super) async fn fetch(url: String, place: String) -> Result<WebStream> {
    let answer = Answer::get(&url, &place, 0).await?;
    Ok(WebStream {
        url,
        place,
        len: answer.sure_length(),
        received: 0,
        again: 0,
        attempts: 0,
        answer,
    })
}

/// A web server's answer, whose body is being read.
#[derive(Debug)]
struct Answer {
    response: Response,
    reader: Option<ReadableStreamDefaultReader>,
    _abort: AbortOnDrop,
}

/// Ends the request when its answer is dropped before its end; does nothing after it.
#[derive(Debug)]
struct AbortOnDrop(AbortController);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    /// Asks for the bytes from `start` on. The answer may hold all of them even so: then its status is 200.
    async fn get(url: &str, place: &str, start: u64) -> Result<Self> {
        let failed = |error: JsValue| Error::Network(format!("{place}: the request failed: {}", message(&error)));
        let abort = AbortOnDrop(AbortController::new().map_err(failed)?);
        let init = RequestInit::new();
        init.set_signal(Some(&abort.0.signal()));
        if start > 0 {
            let headers = Headers::new().map_err(failed)?;
            headers.set("range", &format!("bytes={start}-")).map_err(failed)?;
            init.set_headers(&headers);
        }
        let response = JsFuture::from(call_fetch(url, &init).map_err(failed)?)
            .await
            .map_err(failed)?;
        let response: Response = response.dyn_into().map_err(failed)?;
        match response.status() {
            status @ (404 | 410) => {
                return Err(Error::NotFound(format!(
                    "{place}: the host has no such file (status {status})"
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
        let reader = match response.body() {
            Some(body) => Some(ReadableStreamDefaultReader::new(&body).map_err(failed)?),
            None => None,
        };
        Ok(Self {
            response,
            reader,
            _abort: abort,
        })
    }

    /// `Content-Length` counts compressed bytes, and whether they are compressed is hidden from other origins.
    fn sure_length(&self) -> Option<u64> {
        let headers = self.response.headers();
        let basic = self.response.type_() == ResponseType::Basic;
        let plain = basic && headers.get("content-encoding").ok()?.is_none();
        plain.then(|| headers.get("content-length").ok()??.parse().ok())?
    }

    async fn next(&self) -> Result<Option<Vec<u8>>, JsValue> {
        let Some(reader) = &self.reader else { return Ok(None) };
        loop {
            let read = JsFuture::from(reader.read()).await?;
            if Reflect::get(&read, &"done".into())?.is_truthy() {
                return Ok(None);
            }
            let value: Uint8Array = Reflect::get(&read, &"value".into())?.dyn_into()?;
            if value.length() > 0 {
                return Ok(Some(value.to_vec()));
            }
        }
    }
}

/// `fetch` of the page or of the worker, whichever this runs in.
fn call_fetch(url: &str, init: &RequestInit) -> Result<Promise, JsValue> {
    let global = js_sys::global();
    let fetch: Function = Reflect::get(&global, &"fetch".into())?.dyn_into()?;
    fetch.call2(&global, &url.into(), init)?.dyn_into()
}

async fn wait(milliseconds: i32) -> Result<(), JsValue> {
    let global = js_sys::global();
    let set_timeout: Function = Reflect::get(&global, &"setTimeout".into())?.dyn_into()?;
    let mut set = Ok(JsValue::UNDEFINED);
    let elapsed = Promise::new(&mut |resolve, _| set = set_timeout.call2(&global, &resolve, &milliseconds.into()));
    set?;
    JsFuture::from(elapsed).await.map(drop)
}

/// A file of a web server. A download that breaks off is taken up where it did.
#[derive(Debug)]
pub(super) struct WebStream {
    url: String,
    place: String,
    len: Option<u64>,
    received: u64,
    /// Bytes that come a second time, as the host knows no ranges.
    again: u64,
    /// Attempts to take the download up since the last bytes came.
    attempts: usize,
    answer: Answer,
}

impl WebStream {
    pub(super) fn len(&self) -> Option<u64> {
        self.len
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let mut piece = match self.answer.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.resume(&error).await?;
                    continue;
                }
            };
            let again = usize::try_from(self.again).map_or(piece.len(), |again| again.min(piece.len()));
            self.again -= again as u64;
            piece.drain(..again);
            if !piece.is_empty() {
                self.received += piece.len() as u64;
                self.attempts = 0;
                return Ok(Some(piece));
            }
        }
    }

    async fn resume(&mut self, error: &JsValue) -> Result<()> {
        let (url, place, received) = (self.url.clone(), self.place.clone(), self.received);
        let broken = || {
            let why = message(error);
            Error::Network(format!(
                "{place}: the connection broke off after {received} bytes: {why}"
            ))
        };
        loop {
            let pause = *RESUME_AFTER.get(self.attempts).ok_or_else(broken)?;
            self.attempts += 1;
            wait(pause).await.map_err(|_| broken())?;
            match Answer::get(&url, &place, received).await {
                Ok(answer) => {
                    self.again = if answer.response.status() == 206 { 0 } else { received };
                    self.answer = answer;
                    return Ok(());
                }
                Err(Error::Network(_)) => {}
                Err(error) => return Err(error),
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
