//! Pictures that calls were given. They are held until the call ends, and calls wait for one another: together they are bounded.

use crate::error::Error;
use crate::image::Rgba;
use js_sys::{Reflect, Uint8Array};
use std::cell::Cell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;

/// As much as one call may bring: an image and its mask, each of 8192 pixels a side.
const MOST: usize = 512 << 20;

/// Bytes of the pictures of all calls under way.
#[derive(Clone, Default)]
pub(super) struct Held(Rc<Cell<usize>>);

/// Those of one call.
pub(super) struct Given {
    pub(super) image: Option<Rc<Rgba>>,
    pub(super) mask: Option<Rc<Rgba>>,
    held: Held,
    bytes: usize,
}

impl Held {
    /// Takes `image` and `mask` of a request, each `{ width, height, rgba }` if it is given.
    pub(super) fn take(&self, request: &JsValue) -> Result<Given, JsValue> {
        let mut given = Given {
            image: None,
            mask: None,
            held: self.clone(),
            bytes: 0,
        };
        given.image = given.read(request, "image")?;
        given.mask = given.read(request, "mask")?;
        Ok(given)
    }
}

impl Given {
    fn read(&mut self, request: &JsValue, option: &str) -> Result<Option<Rc<Rgba>>, JsValue> {
        let picture = Reflect::get(request, &option.into())?;
        if picture.is_undefined() {
            return Ok(None);
        }
        let get = |key: &str| Reflect::get(&picture, &key.into());
        let [width, height] = [get("width")?, get("height")?].map(|side| side.as_f64().unwrap_or(0.0) as usize);
        // Checked by the page: not copied for it to be counted.
        let pixels: Uint8Array = get("rgba")?.unchecked_into();
        let length = pixels.length() as usize;
        let Held(all) = &self.held;
        if all.get().saturating_add(length) > MOST {
            return Err(super::values::error(Error::OutOfMemory(format!(
                "{option}: {width} x {height} pixels are {length} bytes; calls that wait hold {} of the {MOST} that there are for images: \
                 wait for some of them",
                all.get()
            ))));
        }
        let mut data = Vec::new();
        data.try_reserve_exact(length).map_err(|_| {
            super::values::error(Error::OutOfMemory(format!(
                "{option}: there is no room for the {length} bytes of {width} x {height} pixels"
            )))
        })?;
        data.resize(length, 0);
        pixels.copy_to(&mut data);
        all.set(all.get() + length);
        self.bytes += length;
        Ok(Some(Rc::new(Rgba { width, height, data })))
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let Held(all) = &self.held;
        all.set(all.get() - self.bytes);
    }
}
