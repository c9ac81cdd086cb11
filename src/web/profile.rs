//! A profile for JavaScript.

use super::values::{object, to_js};
use crate::pipeline::Profile;
use js_sys::{Float32Array, Reflect};
use wasm_bindgen::prelude::*;

/// As it is, with the tensors as `Float32Array`s.
pub(super) fn profile(p: &Profile) -> Result<JsValue, JsValue> {
    let value = to_js(p)?;
    if let Some(tensors) = p.unet.as_ref().and_then(|unet| unet.tensors.as_ref()) {
        let floats = |values: &[f32]| Float32Array::from(values).into();
        let tensors = object([
            ("timestep", tensors.timestep.into()),
            ("sample", floats(&tensors.sample)),
            ("encoderHiddenStates", floats(&tensors.encoder_hidden_states)),
            ("output", floats(&tensors.output)),
        ])?;
        Reflect::set(&Reflect::get(&value, &"unet".into())?, &"tensors".into(), &tensors)?;
    }
    Ok(value)
}
