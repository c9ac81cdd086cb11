//! Which variants of a kernel there are, and which of them are legal for a shape.

mod product;

use super::policy;
use super::preprocess::preprocess;
use crate::error::{Error, Result};
use crate::executor::WeightDtype;
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

    /// Says how the `index`-th weight is kept.
    #[must_use]
    pub(super) fn weight(self, index: usize, dtype: WeightDtype) -> Self {
        let name = match dtype {
            WeightDtype::F32 => "f32",
            WeightDtype::F16 => "f16",
            WeightDtype::Bf16 => "bf16",
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

/// The kinds of weights that a kernel has a variant for.
const DTYPES: [WeightDtype; 3] = [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16];

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

/// Fours of a head's channels up to which a shape is used, fours a thread, threads a query, and keys a tile: what fits into the
/// 16 KiB of workgroup memory that every adapter has.
const HEADS: [(usize, usize, usize, usize); 13] = [
    (1, 1, 1, 32),
    (2, 2, 1, 32),
    (4, 4, 1, 32),
    (8, 8, 1, 32),
    (10, 10, 1, 32),
    (12, 12, 1, 32),
    (16, 16, 1, 32),
    (20, 20, 1, 16),
    (24, 12, 2, 16),
    (32, 16, 2, 8),
    (40, 20, 2, 8),
    (64, 16, 4, 4),
    (128, 16, 8, 2),
];

/// Keys that are scored at once.
const GROUP: usize = 8;

/// Fours of a head's channels up to which a thread has room for two queries.
const PAIRED: usize = 10;

impl Attention {
    /// The variant for heads of `head_dim` channels.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for heads that are wider than any variant.
    pub(super) fn select(head_dim: usize, scalar: bool, registers: bool) -> Result<Self> {
        let fours = head_dim.div_ceil(4);
        let shape = HEADS.iter().find(|h| fours <= h.0);
        let Some(&(all, width, team, keys)) = shape else {
            return Err(Error::Unsupported(format!(
                "attention heads of {head_dim} channels; at most 512 are"
            )));
        };
        Ok(if registers {
            Self {
                width: all,
                team: 1,
                keys: GROUP,
                per: 1,
                scalar,
                registers,
            }
        } else {
            Self {
                width,
                team,
                keys,
                per: 1,
                scalar,
                registers,
            }
        })
    }

    /// The same with two queries a thread, which halves what is loaded for each; of heads that are narrow enough, where all queries
    /// see all keys.
    pub(super) fn paired(self) -> Option<Self> {
        let fits = self.width <= PAIRED && self.team == 1 && !self.registers;
        fits.then_some(Self { per: 2, ..self })
    }

    pub(super) fn variant(self) -> Variant {
        let variant = Variant::new("attention")
            .value("WIDTH", self.width)
            .value("TEAM", self.team)
            .value("KEYS", self.keys)
            .flag("TEAMED", self.team > 1)
            .flag("SCALAR", self.scalar)
            .flag("REGISTERS", self.registers);
        if self.registers {
            variant
        } else {
            variant.value("PER", self.per).value("GROUP", self.keys.min(GROUP))
        }
    }

    fn all() -> Vec<Variant> {
        let mut all = Vec::new();
        for (fours, ..) in HEADS {
            for (scalar, registers) in [(false, false), (false, true), (true, false), (true, true)] {
                let one = Self::select(fours * 4, scalar, registers).ok();
                let both = one.into_iter().chain(one.and_then(Self::paired));
                all.extend(both.map(Self::variant));
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

/// Every variant that can be selected, for tests that compile them all.
pub fn variants() -> Vec<Variant> {
    let mut all = product::variants();
    all.extend(Attention::all());
    all.extend([false, true].map(layer_norm));
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
    for shader in ["geglu", "add", "upsample"] {
        all.extend([false, true].map(|scalar| Variant::new(shader).flag("SCALAR", scalar)));
    }
    all.extend([false, true].map(|scalar| Variant::new("add").flag("SCALAR", scalar).flag("ROWS", true)));
    all.extend(["group_finish", "unary", "timestep", "combine", "compare"].map(Variant::new));
    for table in DTYPES {
        all.extend(DTYPES.map(|d| Variant::new("embedding").weight(0, table).weight(1, d)));
    }
    all
}
