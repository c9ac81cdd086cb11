//! Reading the keys of a `scheduler_config.json`, with diffusers' defaults and errors that name the key.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Keys that some scheduler of diffusers has. One that the scheduler at hand doesn't read has no effect on it, there as
/// here: diffusers hands configurations from class to class with the keys of all of them.
const KNOWN: &[&str] = &[
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "num_train_timesteps",
    "original_inference_steps",
    "predict_x0",
    "prediction_type",
    "rescale_betas_zero_snr",
    "rho",
    "sample_max_value",
    "set_alpha_to_one",
    "shift_terminal",
    "sigma_data",
    "sigma_max",
    "sigma_min",
    "sigma_schedule",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "thresholding",
    "time_shift_type",
    "timestep_scaling",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// The keys of one configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys<'a>(pub(super) &'a Map<String, Value>);

impl Keys<'_> {
    /// A key that no scheduler of diffusers knows asks for something unknown; those starting with `_` are diffusers'
    /// own notes, and null or false asks for nothing.
    pub(super) fn check_known(&self) -> Result<()> {
        let strange = |(key, value): &(&String, &Value)| {
            !key.starts_with('_')
                && !KNOWN.contains(&key.as_str())
                && !matches!(value, Value::Null | Value::Bool(false))
        };
        match self.0.iter().find(strange) {
            Some((key, value)) => Err(Error::Unsupported(format!(
                "scheduler key {key:?} ({value}) is not implemented"
            ))),
            None => Ok(()),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// A truth value; null counts as false, as in Python.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(wrong(key, "true or false", other)),
        }
    }

    /// Refuses a switch that is on and has no implementation.
    pub(super) fn off(&self, key: &str) -> Result<()> {
        if self.flag(key, false)? {
            return Err(Error::Unsupported(format!(
                "scheduler key {key:?}: true is not implemented; expected false"
            )));
        }
        Ok(())
    }

    /// Refuses a key that has a value: diffusers' default is none, and another has no implementation.
    pub(super) fn absent(&self, key: &str) -> Result<()> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(value) => Err(Error::Unsupported(format!(
                "scheduler key {key:?}: {value} is not implemented; expected null"
            ))),
        }
    }

    /// A whole number from 0 up.
    pub(super) fn count(&self, key: &str, default: usize) -> Result<usize> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => {
                let count = value.as_u64().and_then(|n| usize::try_from(n).ok());
                count.ok_or_else(|| wrong(key, "a whole number from 0 up", value))
            }
        }
    }

    /// A number; infinities and NaN may be written as strings.
    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    /// A number, or `None` where the key is absent or null.
    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = match value {
            Value::Null => return Ok(None),
            Value::String(text) => match text.as_str() {
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            },
            other => other.as_f64(),
        };
        number.map(Some).ok_or_else(|| wrong(key, "a number", value))
    }

    /// A list of finite numbers, or `None` where the key is absent or null.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let list = value
                    .as_array()
                    .and_then(|list| list.iter().map(Value::as_f64).collect());
                list.map(Some).ok_or_else(|| wrong(key, "a list of numbers", value))
            }
        }
    }

    /// Whether the key is there with nothing in it.
    pub(super) fn is_null(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Value::Null))
    }

    /// One of the names that `table` has; another name is unsupported.
    pub(super) fn choice<T: Copy>(&self, key: &str, default: T, table: &[(&str, T)]) -> Result<T> {
        let names = || table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        match self.get(key) {
            None => Ok(default),
            Some(Value::String(name)) => {
                let entry = table.iter().find(|(known, _)| known == name);
                entry.map(|(_, choice)| *choice).ok_or_else(|| {
                    let names = names();
                    Error::Unsupported(format!(
                        "scheduler key {key:?}: {name:?} is not implemented; expected one of {names}"
                    ))
                })
            }
            Some(other) => Err(wrong(key, &format!("one of {}", names()), other)),
        }
    }
}

fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    let mut found = found.to_string();
    if found.chars().count() > 60 {
        found = found.chars().take(60).chain("…".chars()).collect();
    }
    Error::Corrupt(format!("scheduler key {key:?}: expected {expected}, found {found}"))
}
