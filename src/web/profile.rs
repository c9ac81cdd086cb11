//! A profile for JavaScript.

use super::values::{object, to_js};
use crate::pipeline::Profile;
use js_sys::{Float32Array, Reflect};
use wasm_bindgen::prelude::*;

/// As it is, with the tensors as `Float32Array`s; a timestep is a number.
pub(super) fn profile(p: &Profile) -> Result<JsValue, JsValue> {
    let value = to_js(p)?;
    for (name, part) in [("unet", &p.unet), ("vae", &p.vae), ("text", &p.text)] {
        let Some(tensors) = part.as_ref().and_then(|part| part.tensors.as_ref()) else {
            continue;
        };
        let floats = |values: &[f32]| Float32Array::from(values).into();
        let given = object([("output", floats(&tensors.output))])?;
        for (name, values) in &tensors.inputs {
            let values = match values.as_slice() {
                [one] => JsValue::from(*one),
                several => floats(several),
            };
            Reflect::set(&given, &(*name).into(), &values)?;
        }
        Reflect::set(&Reflect::get(&value, &name.into())?, &"tensors".into(), &given)?;
    }
    Ok(value)
}
