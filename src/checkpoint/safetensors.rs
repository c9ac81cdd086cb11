//! The header of a safetensors file, checked whole before a byte of data is trusted.
//!
//! A file is the length of the header (8 bytes, little-endian), the header (JSON: a dtype, a shape and offsets for each
//! name), and the tensors' bytes without gaps. The format is Hugging Face's; the dtypes are those of its own crate.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

pub use safetensors::Dtype as DType;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::checkpoint::json;
use crate::{Error, Result};

/// More dimensions than any tensor of a model has.
const MAX_DIMS: usize = 8;
/// The longest text of a header's `__metadata__` that is kept: some hold whole pictures.
const MAX_REMARK: usize = 256;

/// What the header says of one tensor. Elements are little-endian, the last dimension is the innermost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, as current diffusers and transformers have it.
    pub name: String,
    /// The type of the elements.
    pub dtype: DType,
    /// The dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Where its bytes start, counted from the end of the header.
    pub start: u64,
    /// Where its bytes end.
    pub end: u64,
    /// The file has it with its two dimensions the other way round; whoever reads it gets it as `shape` says.
    pub transposed: bool,
}

impl TensorInfo {
    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// The checked header of one file.
#[derive(Clone, Debug)]
pub struct Header {
    file: String,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    remarks: BTreeMap<String, String>,
}

impl Header {
    /// Checks the JSON of a header. `file` is for messages.
    ///
    /// Every byte of the data must belong to exactly one tensor, and each tensor must have the bytes that its dtype and
    /// shape need. What breaks this is [`Error::Corrupt`]; a dtype without a known size is [`Error::Unsupported`].
    pub fn parse(file: &str, header: &[u8]) -> Result<Self> {
        let Entries(entries, remarks) = json::parse_as(file, header)?;
        let mut tensors = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            tensors.push(entry.check(file, name)?);
        }
        tensors.sort_by_key(|tensor| (tensor.start, tensor.end));
        let mut end = 0;
        for tensor in &tensors {
            if tensor.start != end {
                let what = if tensor.start < end {
                    "overlaps the one before it"
                } else {
                    "leaves a gap before it"
                };
                return Err(Error::Corrupt(format!(
                    "{file}: tensor {:?} {what}: expected its bytes from {end}, found from {}",
                    tensor.name, tensor.start
                )));
            }
            end = tensor.end;
        }
        let mut header = Self {
            file: file.into(),
            tensors,
            by_name: HashMap::new(),
            remarks,
        };
        header.index()?;
        Ok(header)
    }

    /// What a file's header says of a part of its tensors, by other names; they may be parts of the file's own.
    pub(super) fn part(&self, mut tensors: Vec<TensorInfo>) -> Result<Self> {
        tensors.sort_by_key(|tensor| (tensor.start, tensor.end));
        let mut part = Self {
            file: self.file.clone(),
            tensors,
            by_name: HashMap::new(),
            remarks: BTreeMap::new(),
        };
        part.index()?;
        Ok(part)
    }

    /// A short text of the file's `__metadata__`.
    pub fn remark(&self, key: &str) -> Option<&str> {
        self.remarks.get(key).map(String::as_str)
    }

    /// The file's path.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// All tensors, in the order of their bytes.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.by_name.get(name)?)
    }

    /// How many bytes all tensors have.
    pub fn data_bytes(&self) -> u64 {
        self.tensors.last().map_or(0, |tensor| tensor.end)
    }

    /// Gives each tensor the name that `rename` makes of its own.
    pub(super) fn rename(&mut self, rename: impl Fn(&str) -> String) -> Result<()> {
        for tensor in &mut self.tensors {
            tensor.name = rename(&tensor.name);
        }
        self.index()
    }

    fn index(&mut self) -> Result<()> {
        self.by_name.clear();
        for (index, tensor) in self.tensors.iter().enumerate() {
            if self.by_name.insert(tensor.name.clone(), index).is_some() {
                let (file, name) = (&self.file, &tensor.name);
                return Err(Error::Corrupt(format!(
                    "{file}: expected each tensor once, found {name:?} twice"
                )));
            }
        }
        Ok(())
    }
}

/// The header as JSON has it: names (perhaps twice the same) and entries.
struct Entries(Vec<(String, Entry)>, BTreeMap<String, String>);

#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

impl Entry {
    fn check(self, file: &str, name: String) -> Result<TensorInfo> {
        let named: StrDeserializer<'_, ValueError> = self.dtype.as_str().into_deserializer();
        let dtype = DType::deserialize(named)
            .map_err(|error| Error::Unsupported(format!("{file}: the dtype of tensor {name:?}: {error}")))?;
        let Self {
            shape: Shape(shape),
            data_offsets: (start, end),
            ..
        } = self;
        let too_large = || {
            Error::Corrupt(format!(
                "{file}: tensor {name:?} of shape {shape:?} is too large to be one"
            ))
        };
        let bits = shape
            .iter()
            .try_fold(dtype.bitsize() as u64, |bits, &dim| bits.checked_mul(dim));
        let bits = bits.ok_or_else(too_large)?;
        let dims = shape
            .iter()
            .map(|&dim| usize::try_from(dim))
            .collect::<Result<Vec<_>, _>>();
        let dims = dims.map_err(|_| too_large())?;
        let found = end.checked_sub(start).ok_or_else(|| {
            Error::Corrupt(format!(
                "{file}: tensor {name:?}: expected its end after its start, found {start}..{end}"
            ))
        })?;
        if bits % 8 != 0 || bits / 8 != found {
            return Err(Error::Corrupt(format!(
                "{file}: tensor {name:?}: expected {} bytes for {dtype} of shape {shape:?}, found {found}",
                bits.div_ceil(8)
            )));
        }
        Ok(TensorInfo {
            name,
            dtype,
            shape: dims,
            start,
            end,
            transposed: false,
        })
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                let mut remarks = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if let Remarks::Texts(texts) = map.next_value()? {
                            remarks.extend(texts.into_iter().filter_map(|(key, Remark(text))| Some((key, text?))));
                        }
                        continue;
                    }
                    let entry = map.next_value();
                    let entry = entry.map_err(|error| A::Error::custom(format!("tensor {name:?}: {error}")))?;
                    entries.push((name, entry));
                }
                Ok(Entries(entries, remarks))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// `__metadata__`, which is of no account if it is not what it should be.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Remarks {
    Texts(HashMap<String, Remark>),
    Other(IgnoredAny),
}

/// A text, unless it is long.
struct Remark(Option<String>);

impl<'de> Deserialize<'de> for Remark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self((text.len() <= MAX_REMARK).then_some(text)))
    }
}

/// Dimensions; bounded, so that a header can't fill the memory with one shape.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seq;
        impl<'de> Visitor<'de> for Seq {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_DIMS} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dim) = seq.next_element()? {
                    if shape.len() == MAX_DIMS {
                        return Err(A::Error::invalid_length(MAX_DIMS + 1, &self));
                    }
                    shape.push(dim);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Seq)
    }
}
