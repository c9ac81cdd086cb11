//! Products: linear layers and convolutions. A [`Product`] is what is known of one before it runs; a [`Choice`] is one of the legal
//! ways to run it.

use super::{ELEMENTS, Variant};
use crate::executor::WeightDtype;
use crate::graph::{Activation, Element};

/// How a product finds its left operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// A row of a matrix.
    Matrix,
    /// A window of a picture.
    Window,
    /// A window of a picture that is scaled up first.
    ScaledWindow,
}

/// How four neighbours of a row are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Load {
    /// At once, and never beyond an edge.
    Fit,
    /// At once.
    Fours,
    /// One by one.
    Ones,
}

/// What a workgroup makes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tile {
    /// 64 x 64, each thread 8 x 8: the fewest loads, where there is enough work for every core.
    Big,
    /// 32 x 32, each thread 4 x 4.
    Small,
    /// 8 x 64, each thread 1 x 8: for few rows.
    Flat,
    /// 128 x 4, each thread 2 x 4: for few columns.
    Tall,
    /// No workgroup memory, each thread 8 x 8: for a processor that plays a GPU.
    Registers,
}

impl Tile {
    /// Rows of the whole, and columns.
    pub(in super::super) fn size(self) -> [usize; 2] {
        let ([rows, fours], across) = (self.thread(), self.across());
        [64 / across * rows, across * fours * 4]
    }

    /// Rows of a thread, and fours of columns.
    fn thread(self) -> [usize; 2] {
        match self {
            Self::Big | Self::Registers => [8, 2],
            Self::Small => [4, 1],
            Self::Flat => [1, 2],
            Self::Tall => [2, 1],
        }
    }

    /// Whether arithmetic is what it waits for. What is made of few rows or columns gains nothing by 16-bit floats, and such a layer,
    /// a UNet's last for one, would lose digits for it.
    fn is_deep(self) -> bool {
        matches!(self, Self::Big | Self::Small)
    }

    /// Of the 64 threads those that are side by side.
    fn across(self) -> usize {
        match self {
            Self::Big | Self::Small | Self::Flat => 8,
            Self::Tall => 1,
            // Tiles are of one thread.
            Self::Registers => 64,
        }
    }
}

/// A way to run a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// What a workgroup makes.
    pub tile: Tile,
    /// The depth is summed in so many slices, which are then added in their order; 1: in one.
    pub slices: usize,
    /// Products are of 16-bit floats.
    pub half: bool,
    /// What is read is joined, scaled and activated by a dispatch of its own before.
    pub apart: bool,
}

/// A product: what decides which choices are legal and which is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// How rows of the left operand are found.
    pub rows: Rows,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the weights.
    pub n: usize,
    /// The depth.
    pub k: usize,
    /// Channels of the first value that is read, and of the last.
    pub channels: [usize; 2],
    /// Two values are read, side by side.
    pub joined: bool,
    /// What is read is scaled and shifted.
    pub norm: bool,
    /// What is read is activated.
    pub act: Option<Activation>,
    /// What is read and written is kept in 16-bit floats, and may be multiplied so.
    pub half: bool,
    /// A bias is added,
    pub bias: bool,
    /// a row of the schedule,
    pub row_bias: bool,
    /// and a value of the result's shape.
    pub residual: bool,
    /// Values are multiplied with their gates.
    pub gate: bool,
}

/// The tile's depth. The shader has the same number.
pub(in super::super) const DEPTH: usize = 16;

/// Slices at most.
const MOST_SLICES: usize = 16;

impl Product {
    fn is_plain(&self) -> bool {
        !self.joined && !self.norm && self.act.is_none()
    }

    /// Whether the loader of a tile can do what is to be done to what is read.
    fn loads(&self) -> bool {
        let is_known = match self.act {
            None => true,
            Some(act) => self.norm && act == Activation::Silu,
        };
        self.is_plain() || (self.has_fours() && is_known && self.rows != Rows::ScaledWindow)
    }

    fn has_fours(&self) -> bool {
        self.channels.iter().all(|c| c.is_multiple_of(4))
    }

    /// Whether columns are written four at a time.
    fn writes_fours(&self) -> bool {
        self.n.is_multiple_of(4)
    }

    pub(in super::super) fn load(&self, tile: Tile) -> Load {
        let [rows, columns] = tile.size();
        let fits = match tile {
            Tile::Registers => self.k.is_multiple_of(4),
            _ => self.k.is_multiple_of(DEPTH) && self.m.is_multiple_of(rows) && self.n.is_multiple_of(columns),
        };
        match (self.has_fours(), fits) {
            (true, true) => Load::Fit,
            (true, false) => Load::Fours,
            (false, _) => Load::Ones,
        }
    }

    /// Workgroups of one slice.
    pub(in super::super) fn tiles(&self, tile: Tile) -> usize {
        let [rows, columns] = tile.size();
        self.m.div_ceil(rows) * self.n.div_ceil(columns)
    }

    /// Every choice that is legal. `registers`: the adapter is a processor.
    pub(in super::super) fn choices(&self, registers: bool) -> Vec<Choice> {
        if registers {
            return vec![Choice {
                tile: Tile::Registers,
                slices: 1,
                half: false,
                apart: !self.is_plain(),
            }];
        }
        let mut all = Vec::new();
        for tile in [Tile::Big, Tile::Small, Tile::Flat, Tile::Tall] {
            for apart in [false, true] {
                let plain = Self {
                    joined: false,
                    norm: false,
                    act: None,
                    ..*self
                };
                let read = if apart { &plain } else { self };
                if (apart && self.is_plain()) || !read.loads() || !read.is_for(tile) {
                    continue;
                }
                for slices in (0..)
                    .map(|i| 1 << i)
                    .take_while(|&s| s == 1 || (s <= MOST_SLICES && s * DEPTH <= self.k))
                {
                    let may_half = self.half && tile.is_deep() && self.load(tile) == Load::Fit;
                    for half in [false, true].into_iter().take(1 + usize::from(may_half)) {
                        all.push(Choice {
                            tile,
                            slices,
                            half,
                            apart,
                        });
                    }
                }
            }
        }
        all
    }

    fn is_for(&self, tile: Tile) -> bool {
        match tile {
            Tile::Small => true,
            Tile::Big => self.has_fours() && self.writes_fours(),
            Tile::Flat => {
                self.rows == Rows::Matrix && self.has_fours() && self.writes_fours() && self.is_plain() && !self.gate
            }
            Tile::Tall => self.has_fours() && !self.gate,
            Tile::Registers => false,
        }
    }

    /// The variant but for how weights are kept. Of slices, [`Product::finish`] is the other half.
    pub(in super::super) fn variant(&self, choice: Choice) -> Variant {
        let load = self.load(choice.tile);
        let registers = choice.tile == Tile::Registers;
        let read = if choice.apart {
            (false, false, false)
        } else {
            (self.joined, self.norm, self.act.is_some())
        };
        let [rows, fours] = choice.tile.thread();
        let variant = Variant::new("gemm")
            .flag("CONV", self.rows != Rows::Matrix)
            .flag("UPSAMPLE", self.rows == Rows::ScaledWindow)
            .flag("JOINED", read.0)
            .flag("NORM", read.1)
            .flag("SILU", read.2)
            .flag("FIT", load == Load::Fit && !registers)
            .flag("FIT_K", load == Load::Fit)
            .flag("SCALAR_IN", load == Load::Ones)
            .flag("REGISTERS", registers)
            .flag("HALF", choice.half)
            // Tiles with fewer fours than there are threads.
            .flag("FEW_X", choice.tile == Tile::Flat)
            .flag("FEW_W", choice.tile == Tile::Tall);
        let variant = if registers {
            variant
        } else {
            let [tile_rows, tile_columns] = choice.tile.size();
            variant
                .value("ACROSS", choice.tile.across())
                .value("ROWS", rows)
                .value("FOURS", fours)
                .value("X_LOADS", (tile_rows * DEPTH / 4).div_ceil(64))
                .value("W_LOADS", (tile_columns * DEPTH / 4).div_ceil(64))
        };
        if choice.slices > 1 {
            return variant.flag("SPLIT", true);
        }
        self.epilogue(variant, 1)
    }

    /// The variant that adds slices.
    pub(in super::super) fn finish(&self) -> Variant {
        self.epilogue(Variant::new("gemm_finish"), 0)
    }

    fn epilogue(&self, variant: Variant, bias: usize) -> Variant {
        let variant = variant
            .flag("GATE", self.gate)
            .flag("SCALAR_OUT", !self.writes_fours() && !self.gate)
            .flag("ROW_BIAS", self.row_bias)
            .flag("RESIDUAL", self.residual);
        if self.bias {
            variant.value("BIAS", bias)
        } else {
            variant
        }
    }
}

/// Every variant that some product and some choice lead to: sizes that fit and that don't, of every kind.
pub(super) fn variants() -> Vec<Variant> {
    let mut all = std::collections::BTreeMap::new();
    let mut add = |variant: Variant, weights: bool| {
        let key = variant.to_string();
        all.entry(key).or_insert((variant, weights));
    };
    for_each_kind(|product| {
        for element in ELEMENTS {
            let half = element == Element::F16;
            let product = Product { half, ..product };
            for choice in [false, true]
                .into_iter()
                .flat_map(|registers| product.choices(registers))
            {
                add(product.variant(choice).kept_in(element), true);
                if choice.slices > 1 {
                    add(product.finish().kept_in(element), false);
                }
            }
        }
    });
    all.into_values()
        .flat_map(|(variant, weights)| {
            if weights {
                WeightDtype::ALL.map(|d| variant.clone().weight(0, d)).to_vec()
            } else {
                vec![variant]
            }
        })
        .collect()
}

fn for_each_kind(mut f: impl FnMut(Product)) {
    let sizes = [(128, 64), (33, 68), (33, 67)];
    for rows in [Rows::Matrix, Rows::Window, Rows::ScaledWindow] {
        for ((m, n), c) in sizes.into_iter().flat_map(|size| [16, 20, 5].map(|c| (size, c))) {
            for bits in 0..64u32 {
                let bit = |i: u32| bits >> i & 1 == 1;
                let (joined, norm, act) = (bit(0), bit(1), bit(1) && bit(2));
                let product = Product {
                    rows,
                    m,
                    n,
                    k: 7 * c,
                    channels: [c; 2],
                    joined,
                    norm,
                    act: act.then_some(Activation::Silu),
                    half: false,
                    bias: bit(3),
                    row_bias: bit(4),
                    residual: bit(5),
                    gate: false,
                };
                f(product);
                if rows == Rows::Matrix && bits & !8 == 0 {
                    f(Product {
                        gate: true,
                        n: n / 2 * 2,
                        ..product
                    });
                }
            }
        }
    }
}
