//! Reading `config.json` by name, with errors that name the key, what was expected and what was found.

use crate::error::{Error, Result};
use crate::graph::Activation;
use serde_json::Value;

/// A config's keys. A key that is absent or null has its default.
pub(super) struct Config<'a>(&'a Value);

impl<'a> Config<'a> {
    pub(super) fn new(value: &'a Value) -> Result<Self> {
        if value.is_object() {
            Ok(Self(value))
        } else {
            Err(Error::Corrupt(format!("expected an object, found {value}")))
        }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn wrong<T>(key: &str, expected: &str, found: &Value) -> Result<T> {
        Err(Error::Corrupt(format!("{key}: expected {expected}, found {found}")))
    }

    fn read<T>(&self, key: &str, expected: &str, default: T, read: impl Fn(&Value) -> Option<T>) -> Result<T> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => read(v).map_or_else(|| Self::wrong(key, expected, v), Ok),
        }
    }

    /// A size: small enough that products of a few do not overflow.
    pub(super) fn size(&self, key: &str, default: usize) -> Result<usize> {
        self.read(key, "a number from 1 to 1000000", default, size)
    }

    /// A size that a model cannot do without.
    pub(super) fn required(&self, key: &str) -> Result<usize> {
        self.get(key)
            .ok_or_else(|| Error::Corrupt(format!("{key} is missing")))?;
        self.size(key, 0)
    }

    /// Height and width, or one number for both; may be null.
    pub(super) fn optional_area(&self, key: &str) -> Result<Option<[usize; 2]>> {
        self.read(key, "a number from 1 to 1000000 or two of them", None, |v| match v {
            Value::Array(sizes) => match sizes.as_slice() {
                [height, width] => Some(Some([size(height)?, size(width)?])),
                _ => None,
            },
            _ => size(v).map(|side| Some([side; 2])),
        })
    }

    /// A size whose null means something that is not implemented.
    pub(super) fn size_not_null(&self, key: &str, default: usize) -> Result<usize> {
        match self.0.get(key) {
            Some(Value::Null) => Err(Error::Unsupported(format!("{key} null is not implemented"))),
            _ => self.size(key, default),
        }
    }

    /// Height and width of a kernel that leaves an image as large as it is: odd.
    pub(super) fn odd_kernel(&self, key: &str, default: usize) -> Result<usize> {
        match self.size(key, default)? {
            kernel if kernel % 2 == 1 => Ok(kernel),
            kernel => Err(Error::Unsupported(format!(
                "{key}: expected an odd number, found {kernel}: latents would change their size"
            ))),
        }
    }

    /// A small number that may be 0.
    pub(super) fn number(&self, key: &str, default: usize) -> Result<usize> {
        self.read(key, "a number from 0 to 64", default, |v| {
            v.as_u64().filter(|n| *n <= 64).map(|n| n as usize)
        })
    }

    /// A token's id.
    pub(super) fn token(&self, key: &str, default: u32) -> Result<u32> {
        self.read(key, "a token's id", default, |v| {
            v.as_u64().and_then(|id| u32::try_from(id).ok())
        })
    }

    /// A name; null is not the default but none.
    pub(super) fn nullable_name(&self, key: &str, default: &str) -> Result<Option<String>> {
        match self.0.get(key) {
            None => Ok(Some(default.into())),
            Some(Value::Null) => Ok(None),
            Some(Value::String(name)) => Ok(Some(name.clone())),
            Some(other) => Self::wrong(key, "a name or null", other),
        }
    }

    pub(super) fn float(&self, key: &str, default: f32) -> Result<f32> {
        self.read(key, "a finite number", default, |v| {
            v.as_f64().map(|x| x as f32).filter(|x| x.is_finite())
        })
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.read(key, "true or false", default, Value::as_bool)
    }

    pub(super) fn names(&self, key: &str, default: &[&str]) -> Result<Vec<String>> {
        self.read(
            key,
            "a list of names",
            default.iter().map(|s| (*s).into()).collect(),
            |v| v.as_array()?.iter().map(|s| s.as_str().map(Into::into)).collect(),
        )
    }

    pub(super) fn sizes(&self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        let sizes: Vec<usize> = self.read(key, "a list of sizes", default.into(), |v| {
            v.as_array()?.iter().map(size).collect()
        })?;
        if sizes.is_empty() || sizes.len() > 16 {
            return Err(Error::Corrupt(format!(
                "{key}: expected 1 to 16 sizes, found {}",
                sizes.len()
            )));
        }
        Ok(sizes)
    }

    /// One size for all blocks, or one a block.
    pub(super) fn size_each(&self, key: &str, default: usize, blocks: usize) -> Result<Vec<usize>> {
        let sizes = match self.get(key) {
            Some(Value::Array(_)) => self.sizes(key, &[])?,
            _ => vec![self.size(key, default)?; blocks],
        };
        if sizes.len() != blocks {
            return Err(Error::Corrupt(format!(
                "{key}: expected {blocks} sizes, found {}",
                sizes.len()
            )));
        }
        Ok(sizes)
    }

    /// One number for all layers of all blocks, or one a block, or one a layer: for each block, which has so many layers, those of
    /// its layers. May be 0.
    pub(super) fn number_each_layer(
        &self,
        key: &str,
        default: &[Vec<usize>],
        layers: &[usize],
    ) -> Result<Vec<Vec<usize>>> {
        let number = |v: &Value| v.as_u64().filter(|n| *n <= 64).map(|n| n as usize);
        let block = |v: &Value, layers: usize| match v {
            Value::Array(each) => each.iter().map(number).collect::<Option<Vec<_>>>(),
            _ => Some(vec![number(v)?; layers]),
        };
        let expected = "numbers from 0 to 64, for all blocks, for each or for each layer";
        let read = self.read(key, expected, default.to_vec(), |v| match v {
            Value::Array(blocks) if blocks.len() != layers.len() => None,
            Value::Array(blocks) => blocks.iter().zip(layers).map(|(v, &n)| block(v, n)).collect(),
            _ => layers.iter().map(|&n| block(v, n)).collect(),
        })?;
        match read.iter().zip(layers).find(|(given, layers)| given.len() < **layers) {
            Some((given, layers)) => Err(Error::Corrupt(format!(
                "{key}: expected a number for each of {layers} layers, found {given:?}"
            ))),
            None => Ok(read),
        }
    }

    /// A size, if the key is there.
    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        self.get(key).map(|_| self.size(key, 0)).transpose()
    }

    /// Finite numbers, so many, if the key is there.
    pub(super) fn optional_floats(&self, key: &str, count: usize) -> Result<Option<Vec<f32>>> {
        self.read(key, &format!("{count} finite numbers"), None, |v| {
            let number = |v: &Value| v.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
            let numbers: Vec<f32> = v.as_array()?.iter().map(number).collect::<Option<_>>()?;
            (numbers.len() == count).then_some(Some(numbers))
        })
    }

    pub(super) fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.read(key, "a name", default.to_owned(), |v| v.as_str().map(Into::into))?;
        Ok(match name.as_str() {
            "silu" | "swish" => Activation::Silu,
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            _ => {
                return Err(Error::Unsupported(format!(
                    "{key} {name:?}; there are silu, gelu, gelu_new, quick_gelu and relu"
                )));
            }
        })
    }

    /// Refuses a key whose value is none of those that the code stands for.
    pub(super) fn only(&self, key: &str, values: &[Value]) -> Result<()> {
        match self.get(key) {
            Some(v)
                if !values
                    .iter()
                    .any(|known| known == v || known.as_f64().is_some_and(|k| v.as_f64() == Some(k))) =>
            {
                Err(Error::Unsupported(format!("{key} {v} is not implemented")))
            }
            _ => Ok(()),
        }
    }
}

fn size(v: &Value) -> Option<usize> {
    v.as_u64().filter(|n| (1..=1_000_000).contains(n)).map(|n| n as usize)
}
