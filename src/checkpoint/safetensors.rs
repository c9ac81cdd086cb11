//! The header of a safetensors file, checked whole before a byte of data is trusted.
//!
//! A file is the length of the header (8 bytes, little-endian), the header (JSON: a dtype, a shape and offsets for each
//! name), and the tensors' bytes without gaps. The format is Hugging Face's; the dtypes are those of its own crate.

use std::collections::HashMap;
use std::fmt;

pub use safetensors::Dtype as DType;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::checkpoint::json;
use crate::{Error, Result};

/// More dimensions than any tensor of a model has.
const MAX_DIMS: usize = 8;

/// Bytes of remarks that are kept, names included. PEFT's configuration, which is one of them, names every layer it touches.
const MAX_REMARKS: usize = 4 << 20;
/// What a remark costs beside its bytes, about.
const ENTRY: usize = 64;

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
    metadata: HashMap<String, String>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl Header {
    /// Checks the JSON of a header. `file` is for messages.
    ///
    /// Every byte of the data must belong to exactly one tensor, and each tensor must have the bytes that its dtype and
    /// shape need. What breaks this is [`Error::Corrupt`]; a dtype without a known size is [`Error::Unsupported`].
    pub fn parse(file: &str, header: &[u8]) -> Result<Self> {
        let Entries(entries, metadata) = json::parse_as(file, header)?;
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
            metadata,
            tensors,
            by_name: HashMap::new(),
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
            metadata: HashMap::new(),
        };
        part.index()?;
        Ok(part)
    }

    /// The file's path.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// What whoever wrote the file says of it: texts by name. Nothing of it is checked.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
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

/// The header as JSON has it: names (perhaps twice the same) and entries, and metadata as far as it is text.
struct Entries(Vec<(String, Entry)>, HashMap<String, String>);

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
                let (mut entries, mut metadata) = (Vec::new(), HashMap::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        Remarks(metadata) = map.next_value()?;
                        continue;
                    }
                    let entry = map.next_value();
                    let entry = entry.map_err(|error| A::Error::custom(format!("tensor {name:?}: {error}")))?;
                    entries.push((name, entry));
                }
                Ok(Entries(entries, metadata))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// Metadata as far as it is texts, and these no longer than is of use: whoever means harm may write anything.
#[derive(Default)]
struct Remarks(HashMap<String, String>);

impl<'de> Deserialize<'de> for Remarks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Remarks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Remarks, A::Error> {
                let (mut remarks, mut room) = (HashMap::new(), MAX_REMARKS);
                while let Some(Remark(name)) = map.next_key()? {
                    let Remark(text) = map.next_value()?;
                    let (Some(name), Some(text)) = (name, text) else {
                        continue;
                    };
                    if let Some(left) = room.checked_sub(name.len() + text.len() + ENTRY) {
                        room = left;
                        remarks.insert(name, text);
                    }
                }
                Ok(Remarks(remarks))
            }

            fn visit_unit<E>(self) -> Result<Remarks, E> {
                Ok(Remarks::default())
            }
        }
        deserializer.deserialize_any(Map)
    }
}

/// A text; nothing for a longer one than is ever kept, and for what is no text.
struct Remark(Option<String>);

impl<'de> Deserialize<'de> for Remark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Remark;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_str<E>(self, text: &str) -> Result<Remark, E> {
                Ok(Remark((text.len() <= MAX_REMARKS).then(|| text.into())))
            }

            fn visit_unit<E>(self) -> Result<Remark, E> {
                Ok(Remark(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Remark, E> {
                Ok(Remark(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Remark, E> {
                Ok(Remark(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Remark, E> {
                Ok(Remark(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Remark, E> {
                Ok(Remark(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Remark, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Remark(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Remark, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Remark(None))
            }
        }
        deserializer.deserialize_any(Any)
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

/// Names tensors that nothing is made of: how many there are, and the first of them.
pub(crate) fn of_no_use(names: &[impl AsRef<str>]) -> Option<String> {
    const NAMED: usize = 3;
    let first: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    let others = if names.len() > NAMED { ", …" } else { "" };
    (!names.is_empty()).then(|| format!("tensors of no use: {} ({}{others})", names.len(), first.join(", ")))
}

/// The shape of a convolution of 1 x 1 as that of a linear layer: they are one thing, and older files have the one where newer ones
/// have the other.
pub(crate) fn as_matrix(shape: &[usize]) -> &[usize] {
    match shape {
        [matrix @ .., 1, 1] if matrix.len() == 2 => matrix,
        all => all,
    }
}
