//! Which variants of a kernel there are, and which of them are legal for a shape.

mod product;

use super::policy;
use super::preprocess::{SOURCES, preprocess};
use crate::error::{Error, Result};
use crate::executor::WeightDtype;
use crate::graph::Element;
use sha2::{Digest, Sha256};
use std::fmt;

pub use product::{Choice, Product, Rows, Tile};
pub(super) use product::{DEPTH, Load};

/// A shader under a set of macros: what a pipeline is found by. It holds no sizes, so a new resolution compiles nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The file's name.
    pub shader: &'static str,
    /// The macros, in a fixed order.
    pub macros: Vec<(&'static str, String)>,
}

impl Variant {
    pub(super) fn new(shader: &'static str) -> Self {
        Self {
            shader,
            macros: Vec::new(),
        }
    }

    /// Defines a macro if `on`.
    #[must_use]
    pub(super) fn flag(mut self, name: &'static str, on: bool) -> Self {
        if on {
            self.macros.push((name, String::new()));
        }
        self
    }

    /// Defines a macro with a value.
    #[must_use]
    pub(super) fn value(mut self, name: &'static str, value: impl ToString) -> Self {
        self.macros.push((name, value.to_string()));
        self
    }

    /// Says how the plan's values are kept that it reads and writes.
    #[must_use]
    pub(super) fn kept_in(self, element: Element) -> Self {
        self.flag("F16", element == Element::F16)
    }

    /// Says how the `index`-th weight is kept.
    #[must_use]
    pub(super) fn weight(self, index: usize, dtype: WeightDtype) -> Self {
        let name = match dtype {
            WeightDtype::F32 => "f32",
            WeightDtype::F16 => "f16",
            WeightDtype::Bf16 => "bf16",
            WeightDtype::E4m3 => "e4m3",
            WeightDtype::E5m2 => "e5m2",
        };
        self.value(if index == 0 { "W0" } else { "W1" }, name)
    }

    /// The WGSL text.
    ///
    /// # Errors
    /// [`Error::Internal`] for a fault in a shader's directives.
    pub fn source(&self) -> Result<String> {
        preprocess(self.shader, &self.macros)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shader)?;
        for (i, (name, value)) in self.macros.iter().enumerate() {
            let (open, equals) = (if i == 0 { "[" } else { " " }, if value.is_empty() { "" } else { "=" });
            write!(f, "{open}{name}{equals}{value}")?;
        }
        if self.macros.is_empty() { Ok(()) } else { write!(f, "]") }
    }
}

/// What a plan's values may be kept in.
const ELEMENTS: [Element; 2] = [Element::F32, Element::F16];

/// A variant of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attention {
    /// Fours of channels that a thread holds.
    pub width: usize,
    /// Threads that share a query.
    pub team: usize,
    /// Keys of a tile.
    pub keys: usize,
    /// Queries of a thread.
    pub per: usize,
    pub scalar: bool,
    pub registers: bool,
}

/// Fours of a head's channels up to which a shape is used, fours a thread, and threads a query.
const HEADS: [(usize, usize, usize); 13] = [
    (1, 1, 1),
    (2, 2, 1),
    (4, 4, 1),
    (8, 8, 1),
    (10, 10, 1),
    (12, 12, 1),
    (16, 16, 1),
    (20, 20, 1),
    (24, 12, 2),
    (32, 16, 2),
    (40, 20, 2),
    (64, 16, 4),
    (128, 16, 8),
];

/// Workgroup memory that every adapter has.
const TILES: usize = 16 << 10;

/// Keys of a tile: a power of two, no more than 32, whose keys, values and scores of a team fit into [`TILES`].
fn keys(width: usize, team: usize, element: Element) -> usize {
    let scores = if team > 1 { 64 * 4 } else { 0 };
    let each = 2 * width * team * 4 * element.size() + scores;
    1 << (TILES / each).clamp(1, 32).ilog2()
}

/// Fours of a head's channels up to which a thread of a processor holds a query by itself: with more than a kilobyte of its own,
/// Mesa's software adapter computes something else.
const LOOPED: usize = 32;

/// Keys that it scores at once: what is written out for each takes a processor long to compile.
const LOOPED_KEYS: usize = 2;

/// Keys that are scored at once.
const GROUP: usize = 8;

/// Fours of a head's channels up to which a thread has room for two queries.
const PAIRED: usize = 10;

impl Attention {
    /// The variant for heads of `head_dim` channels.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for heads that are wider than any variant.
    pub(super) fn select(head_dim: usize, scalar: bool, registers: bool, element: Element) -> Result<Self> {
        let fours = head_dim.div_ceil(4);
        let shape = HEADS.iter().find(|h| fours <= h.0);
        let Some(&(all, width, team)) = shape else {
            return Err(Error::Unsupported(format!(
                "attention heads of {head_dim} channels; at most 512 are"
            )));
        };
        let registers = registers && all <= LOOPED;
        let (width, team, keys) = match registers {
            true => (all, 1, LOOPED_KEYS),
            false => (width, team, keys(width, team, element)),
        };
        Ok(Self {
            width,
            team,
            keys,
            per: 1,
            scalar,
            registers,
        })
    }

    /// The same with two queries a thread, which halves what is loaded for each; of heads that are narrow enough, where all queries
    /// see all keys.
    pub(super) fn paired(self) -> Option<Self> {
        let fits = self.width <= PAIRED && self.team == 1 && !self.registers;
        fits.then_some(Self { per: 2, ..self })
    }

    pub(super) fn variant(self) -> Variant {
        Variant::new("attention")
            .value("WIDTH", self.width)
            .value("TEAM", self.team)
            .value("KEYS", self.keys)
            .value("PER", self.per)
            .value("GROUP", self.keys.min(GROUP))
            .flag("TEAMED", self.team > 1)
            .flag("SCALAR", self.scalar)
            .flag("REGISTERS", self.registers)
    }

    fn all() -> Vec<Variant> {
        let mut all = Vec::new();
        for (fours, ..) in HEADS {
            for bits in 0..8 {
                let bit = |i: u32| bits >> i & 1 == 1;
                let element = ELEMENTS[usize::from(bit(2))];
                let one = Self::select(fours * 4, bit(0), bit(1), element).ok();
                // Wide heads have one kernel for either adapter.
                let one = one.filter(|kernel| kernel.registers == bit(1));
                let both = one.into_iter().chain(one.and_then(Self::paired));
                all.extend(both.map(|kernel| kernel.variant().kept_in(element)));
            }
        }
        all
    }
}

/// The variant for rows of channels; `scalar` where their number is no multiple of four.
pub(super) fn layer_norm(scalar: bool) -> Variant {
    let variant = Variant::new("layer_norm").flag("SCALAR", scalar);
    variant.value("THREADS", policy::LAYER_NORM_THREADS)
}

/// The variant that makes the statistics of a group, or of a chunk of one.
pub(super) fn group_statistics(whole: bool, joined: bool) -> Variant {
    let variant = Variant::new("group_statistics")
        .flag("WHOLE", whole)
        .flag("JOINED", joined);
    variant.value("THREADS", policy::GROUP_NORM_THREADS)
}

/// The variant that writes out what a layer would read.
pub(super) fn apply(scalar: bool, joined: bool, norm: bool) -> Variant {
    Variant::new("apply")
        .flag("SCALAR", scalar)
        .flag("SCALAR_IN", scalar)
        .flag("JOINED", joined)
        .flag("NORM", norm)
}

/// The variant that converts four values: to those of a plan in 16-bit floats, or from them.
pub(super) fn convert(narrow: bool) -> Variant {
    let [from, to] = if narrow { ["f32", "f16"] } else { ["f16", "f32"] };
    let variant = Variant::new("convert").value("FROM", from).value("TO", to);
    variant.kept_in(Element::F16)
}

/// What tells the kernels of this build from another's, in sixteen letters: the texts of all shaders, and what variants there are.
pub fn fingerprint() -> String {
    let texts = SOURCES
        .iter()
        .flat_map(|&(name, text)| [name.to_owned(), text.to_owned()]);
    of_texts(texts.chain(variants().iter().map(ToString::to_string)))
}

fn of_texts(texts: impl Iterator<Item = String>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every variant that can be selected, for tests that compile them all.
pub fn variants() -> Vec<Variant> {
    let mut all = Vec::from([false, true].map(layer_norm));
    for bits in 0..8 {
        let bit = |i: u32| bits >> i & 1 == 1;
        if !bit(2) {
            all.push(group_statistics(bit(0), bit(1)));
        }
        // What is neither joined nor scaled is read as it is.
        if bit(1) || bit(2) {
            all.push(apply(bit(0), bit(1), bit(2)));
        }
    }
    for scalar in [false, true] {
        all.extend(["geglu", "upsample"].map(|shader| Variant::new(shader).flag("SCALAR", scalar)));
        all.push(Variant::new("add").flag("SCALAR", scalar).flag("ROWS", true));
    }
    all.extend(["add", "unary"].map(Variant::new));
    let kept = |variant: Variant| ELEMENTS.map(|element| variant.clone().kept_in(element));
    let mut all: Vec<_> = all.into_iter().flat_map(kept).collect();
    for table in WeightDtype::ALL {
        let embedding = kept(Variant::new("embedding")).map(|kind| kind.weight(0, table));
        all.extend(
            embedding
                .iter()
                .flat_map(|kind| WeightDtype::ALL.map(|d| kind.clone().weight(1, d))),
        );
    }
    all.extend(["group_finish", "timestep", "combine", "compare"].map(Variant::new));
    all.extend([false, true].map(convert));
    all.extend(product::variants());
    all.extend(Attention::all());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_text_is_another_build() {
        let of = |texts: &[&str]| of_texts(texts.iter().map(ToString::to_string));
        let own = of(&["gemm", "let a = 1;", "gemm[ROWS=4]"]);
        assert_eq!(own, of(&["gemm", "let a = 1;", "gemm[ROWS=4]"]));
        for other in [
            &["gemm", "let a = 2;", "gemm[ROWS=4]"][..],
            &["gemm", "let a = 1;", "gemm[ROWS=8]"],
            &["gemm", "let a = 1;"],
            &["gemmlet a = 1;", "", "gemm[ROWS=4]"],
        ] {
            assert_ne!(own, of(other), "{other:?}");
        }
        assert_eq!((fingerprint().len(), fingerprint()), (16, fingerprint()));
    }
}
