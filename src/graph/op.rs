//! The list of operations, each with its shape rule. A new operation is one variant here and one file in each executor; the
//! compiler lists what is missing.

use super::shape::product;
use super::{Element, Shape, Value};
use crate::error::{Error, Result};

/// The most elements of a value or a parameter.
const MAX_ELEMENTS: usize = 1 << 31;

/// How often a value changes. A node's rate is the highest of its inputs', so what depends on the prompt alone runs once a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rate {
    /// Once a load: depends on weights alone.
    Load,
    /// Once a prompt.
    Prompt,
    /// Once a schedule: a row for each step.
    Schedule,
    /// Each step.
    Step,
}

/// Activation functions, as torch computes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)`, with the error function.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `tanh(x)`.
    Tanh,
}

/// An operation on each element by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// An activation function.
    Act(Activation),
    /// `x · mul + add`.
    Affine {
        /// Factor.
        mul: f32,
        /// Summand.
        add: f32,
    },
    /// `min(max(x, min), max)`; NaN stays NaN.
    Clamp {
        /// Lower bound.
        min: f32,
        /// Upper bound.
        max: f32,
    },
}

/// How a linear layer or convolution reads its input `x`: `act((x - mean) · scale + shift)`. Zeros around an image stay zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Prologue {
    /// Two inputs stand for `x`: the channels of the one, then those of the other.
    pub joined: bool,
    /// An input `[b, 3 c]` follows `x`, of an [`Op::GroupStatistics`].
    pub norm: bool,
    /// Activation of what was scaled and shifted.
    pub act: Option<Activation>,
}

impl Prologue {
    /// Inputs that it takes, `x` included.
    pub fn inputs(&self) -> usize {
        1 + usize::from(self.joined) + usize::from(self.norm)
    }
}

/// What a linear layer or convolution does to a sum before it is written: `post(act(sum + bias + row_bias) + residual)`.
/// The bias is the node's second parameter, if it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue {
    /// An input `[rows, at least channels]` follows `x`: the row of the current step (the only one, if there is one) is added, from
    /// this channel of it on.
    pub row_bias: Option<usize>,
    /// The weights are a [`Pack::Gated`] of twice the output's channels: the first half's sum times gelu of the second half's.
    /// Of a linear layer alone, and with nothing else but a bias.
    pub gate: bool,
    /// Activation of the sum.
    pub act: Option<Activation>,
    /// An input of the output's shape comes last; it is added.
    pub residual: bool,
    /// What is done after the residual.
    pub post: Option<Unary>,
}

/// An operation. `inputs` and `params` below are those of its [`Node`], in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A value from outside.
    Input {
        /// Its name, as in diffusers' `forward`.
        name: String,
    },
    /// inputs `[ids: u32 [batch, tokens]]`, params `[table [vocabulary, c], positions [at least tokens, c]]` → `[batch, tokens, c]`:
    /// `table[id] + positions[token]`. Ids are below the vocabulary's size; the caller checks that.
    Embedding,
    /// inputs `[timesteps [n]]` → `[n, dim]`: diffusers' `get_timestep_embedding` (`max_period` 10000, `scale` 1). Of several
    /// numbers a row, `[n, k]`, the embeddings lie side by side: `[n, k · dim]`.
    TimestepEmbedding {
        /// Channels of the output.
        dim: usize,
        /// Cosines first.
        flip_sin_to_cos: bool,
        /// Subtracted from the half dimension in the exponent's denominator.
        freq_shift: f32,
    },
    /// inputs `[x [.., k], row_bias?, residual?]`, params `[Matrix [k, n], Vector bias [n]?]` → `[.., n]`.
    Linear {
        /// How x is read.
        prologue: Prologue,
        /// What is done to each sum.
        epilogue: Epilogue,
    },
    /// inputs `[x [b, h, w, ci], row_bias?, residual?]`, params `[Conv [kh · kw · ci, co], Vector bias [co]?]` → `[b, ho, wo, co]`.
    Conv2d {
        /// Height and width of the kernel.
        kernel: [usize; 2],
        /// Stride, both ways.
        stride: usize,
        /// Zeros around the image: top, left, bottom, right.
        padding: [usize; 4],
        /// Height and width to which `x` is first scaled (nearest).
        upsample: Option<[usize; 2]>,
        /// How x is read.
        prologue: Prologue,
        /// What is done to each sum.
        epilogue: Epilogue,
    },
    /// inputs `[x [b, .., c]]`, params `[Vector gamma, beta [2 c]]`: statistics over each group of channels of one picture,
    /// in biased variance, then `act`.
    GroupNorm {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        eps: f32,
        /// Activation after scale and shift.
        act: Option<Activation>,
    },
    /// inputs `[x]` as in [`Op::GroupNorm`], or two values side by side that stand for it → `[b, 3 c]`: for each channel of a picture
    /// the mean of its group, then for each the scale that brings a group norm about, then for each the shift.
    GroupStatistics {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        eps: f32,
    },
    /// inputs `[x [.., c]]`, params `[Vector gamma, beta [2 c]]`: statistics over the channels of one row.
    LayerNorm {
        /// Added to the variance.
        eps: f32,
    },
    /// inputs `[q [b, .., cq], k [b, .., ck], v [b, .., cv]]` → q's shape with `heads · head_dim` channels: softmax(q kᵀ / √head_dim) v
    /// for each head. The three may be one joined value: `offsets` are the channels at which each starts.
    /// k and v have the batch of q, or a batch of 1 that all share.
    Attention {
        /// Number of heads.
        heads: usize,
        /// Channels of a head.
        head_dim: usize,
        /// A token sees itself and those before it only.
        causal: bool,
        /// First channel of q, k and v in their values.
        offsets: [usize; 3],
    },
    /// inputs `[x]`: each element by itself.
    Unary(Unary),
    /// inputs `[x [.., 2 n]]` → `[.., n]`: `x[..n] · gelu(x[n..])` (diffusers' `GEGLU`).
    Geglu,
    /// inputs `[a, b]` of one shape: their sum.
    Add,
    /// inputs `[x [.., c], rows [n, c]]`: the current step's row (the only one, if n is 1) is added to every row of x.
    AddRow,
    /// inputs `[a, b]`, equal but for their channels: a's channels, then b's.
    Concat,
    /// inputs `[x [b, h, w, c]]` → `[b, size[0], size[1], c]`: nearest neighbour, `floor(i · from / to)`.
    Upsample {
        /// Height and width of the output.
        size: [usize; 2],
    },
}

/// How a parameter's tensors are laid out for the kernels. Rows are contiguous; executors may pad them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pack {
    /// Tensors `[n_i, k]` (or `[n_i, k, 1, 1]`), joined along n → `[k, Σ n_i]`.
    Matrix,
    /// A tensor `[2 n, k]` → `[k, 2 n]`; an executor may put each column of the second half next to its own of the first.
    Gated,
    /// A tensor `[co, ci, kh, kw]` → `[kh · kw · ci, co]`.
    Conv,
    /// Tensors of one dimension, one after the other; always f32.
    Vector,
    /// A tensor `[rows, c]` as it is.
    Table,
}

/// One tensor of the file that a parameter is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParamPart {
    /// Its name in diffusers' (or transformers') state dict.
    pub name: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
}

/// A parameter of a graph: which tensors, and how they are packed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParamSpec {
    /// The tensors, in the order in which they are joined.
    pub parts: Vec<ParamPart>,
    /// The recipe.
    pub pack: Pack,
}

impl ParamSpec {
    /// What packed weights are found by: the names of the parts.
    pub fn key(&self) -> String {
        let names: Vec<&str> = self.parts.iter().map(|p| p.name.as_str()).collect();
        names.join("+")
    }

    /// Rows and columns of the packed parameter. A `Vector` is one row. Saturates rather than overflows.
    pub fn packed(&self) -> [usize; 2] {
        let first = self.parts.first().map_or(&[][..], |p| &p.shape);
        let rows = self.parts.iter().map(|p| p.shape.first().copied().unwrap_or(0));
        let joined = || rows.fold(0, usize::saturating_add);
        match self.pack {
            Pack::Matrix | Pack::Gated => [first.get(1).copied().unwrap_or(1), joined()],
            Pack::Conv => [product(first.get(1..).unwrap_or_default()), joined()],
            Pack::Vector => [1, joined()],
            Pack::Table => [first.first().copied().unwrap_or(0), first.get(1).copied().unwrap_or(1)],
        }
    }
}

/// An operation with its operands; it produces the value of the same number.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is done.
    pub op: Op,
    /// The values that it reads.
    pub inputs: Vec<Value>,
    /// Its parameters, as indices into the graph's list.
    pub params: Vec<usize>,
    /// The module that it comes from, such as `down_blocks.0.resnets.1.conv1`.
    pub label: String,
    /// The shape of what it produces.
    pub shape: Shape,
    /// The type of what it produces.
    pub element: Element,
    /// How often it runs.
    pub rate: Rate,
}

fn wrong<T>(what: String) -> Result<T> {
    Err(Error::Corrupt(what))
}

impl Op {
    /// The epilogue of a linear layer or convolution.
    pub fn epilogue(&self) -> Option<&Epilogue> {
        match self {
            Self::Linear { epilogue, .. } | Self::Conv2d { epilogue, .. } => Some(epilogue),
            _ => None,
        }
    }

    /// [`Op::epilogue`], to change it.
    pub fn epilogue_mut(&mut self) -> Option<&mut Epilogue> {
        match self {
            Self::Linear { epilogue, .. } | Self::Conv2d { epilogue, .. } => Some(epilogue),
            _ => None,
        }
    }

    /// How a linear layer or convolution reads its input.
    pub fn prologue(&self) -> Option<&Prologue> {
        match self {
            Self::Linear { prologue, .. } | Self::Conv2d { prologue, .. } => Some(prologue),
            _ => None,
        }
    }

    /// [`Op::prologue`], to change it.
    pub fn prologue_mut(&mut self) -> Option<&mut Prologue> {
        match self {
            Self::Linear { prologue, .. } | Self::Conv2d { prologue, .. } => Some(prologue),
            _ => None,
        }
    }

    /// The shape of the result.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where operands do not fit together, which a wrong config brings about.
    pub fn shape(&self, inputs: &[&Shape], params: &[&ParamSpec]) -> Result<Shape> {
        let x = |i: usize| -> Result<&Shape> {
            inputs
                .get(i)
                .copied()
                .ok_or_else(|| Error::Internal(format!("{self:?}: operand {i} is missing")))
        };
        let param = |i: usize| -> Result<[usize; 2]> {
            let spec = params
                .get(i)
                .ok_or_else(|| Error::Internal(format!("{self:?}: parameter {i} is missing")))?;
            let packed = spec.packed();
            if product(&packed) > MAX_ELEMENTS {
                return Err(Error::OutOfMemory(format!(
                    "weights of {} x {} cannot be held",
                    packed[0], packed[1]
                )));
            }
            Ok(packed)
        };
        let vector = |i: usize, len: usize| match params.get(i).map(|p| p.packed()[1]) {
            Some(n) if n != len => wrong(format!("{} values where {len} are needed", n)),
            _ => Ok(()),
        };
        let side_by_side = |a: &Shape, b: &Shape| {
            if a.with_channels(0) != b.with_channels(0) {
                return wrong(format!("{a} and {b} are joined"));
            }
            Ok(a.with_channels(a.channels().saturating_add(b.channels())))
        };
        // What a linear layer or convolution reads.
        let source = |prologue: &Prologue| -> Result<Shape> {
            let shape = if prologue.joined {
                side_by_side(x(0)?, x(1)?)?
            } else {
                x(0)?.clone()
            };
            if prologue.norm {
                let statistics = x(prologue.inputs() - 1)?;
                if statistics.dims() != [shape.batch(), shape.channels().saturating_mul(3)] {
                    return wrong(format!("{shape} is scaled and shifted by {statistics}"));
                }
            }
            Ok(shape)
        };
        let out = match self {
            Self::Input { name } => {
                return Err(Error::Internal(format!("input {name} has no shape rule")));
            }
            Self::Embedding => {
                let ([_, c], [positions, cp]) = (param(0)?, param(1)?);
                let ids = x(0)?;
                if c != cp || ids.channels() > positions {
                    return wrong(format!(
                        "{ids} tokens of {c} channels, but positions are [{positions}, {cp}]"
                    ));
                }
                Shape::new([ids.dims(), &[c]].concat())
            }
            Self::TimestepEmbedding { dim, .. } => {
                if *dim < 4 || dim % 2 != 0 {
                    return wrong(format!("a time embedding of {dim} channels"));
                }
                match x(0)?.dims() {
                    [n, k] => Shape::new([*n, k.saturating_mul(*dim)]),
                    _ => Shape::new([x(0)?.len(), *dim]),
                }
            }
            Self::Linear { prologue, epilogue } => {
                let ([k, n], x) = (param(0)?, source(prologue)?);
                if x.channels() != k {
                    return wrong(format!("{} channels go into a layer of {k}", x.channels()));
                }
                vector(1, n)?;
                if epilogue.gate && n % 2 != 0 {
                    return wrong(format!("half of {n} channels are gates"));
                }
                x.with_channels(if epilogue.gate { n / 2 } else { n })
            }
            Self::Conv2d {
                kernel: [kh, kw],
                stride,
                padding: [t, l, b, r],
                upsample,
                prologue,
                ..
            } => {
                let ([k, co], x) = (param(0)?, source(prologue)?);
                let Some([n, h, w, ci]) = x.image() else {
                    return wrong(format!("no image: {x}"));
                };
                let [h, w] = upsample.unwrap_or([h, w]);
                if product(&[ci, *kh, *kw]) != k {
                    let expected = k / product(&[*kh, *kw]).max(1);
                    return wrong(format!("{ci} channels go into a convolution of {expected}"));
                }
                let padded =
                    |size: usize, before: usize, after: usize| size.saturating_add(before).saturating_add(after);
                let last = |size: usize, kernel: usize| size.checked_sub(kernel)?.checked_div(*stride);
                let (Some(last_row), Some(last_column)) = (last(padded(h, *t, *b), *kh), last(padded(w, *l, *r), *kw))
                else {
                    return wrong(format!(
                        "an image of {h} x {w} is too small for a kernel of {kh} x {kw}"
                    ));
                };
                vector(1, co)?;
                Shape::new([n, last_row.saturating_add(1), last_column.saturating_add(1), co])
            }
            Self::GroupNorm { groups, .. } => {
                let c = x(0)?.channels();
                if *groups == 0 || c % groups != 0 {
                    return wrong(format!("{c} channels cannot be parted in {groups} groups"));
                }
                vector(0, c.saturating_mul(2))?;
                x(0)?.clone()
            }
            Self::GroupStatistics { groups, .. } => {
                let shape = match inputs {
                    [a, b] => side_by_side(a, b)?,
                    _ => x(0)?.clone(),
                };
                let c = shape.channels();
                if *groups == 0 || c % groups != 0 {
                    return wrong(format!("{c} channels cannot be parted in {groups} groups"));
                }
                vector(0, c.saturating_mul(2))?;
                Shape::new([shape.batch(), c.saturating_mul(3)])
            }
            Self::LayerNorm { .. } => {
                vector(0, x(0)?.channels().saturating_mul(2))?;
                x(0)?.clone()
            }
            Self::Attention {
                heads,
                head_dim,
                offsets,
                ..
            } => {
                let (q, k, v, width) = (x(0)?, x(1)?, x(2)?, heads.saturating_mul(*head_dim));
                for (name, value, offset) in [("q", q, offsets[0]), ("k", k, offsets[1]), ("v", v, offsets[2])] {
                    if width == 0 || value.channels() < offset.saturating_add(width) {
                        return wrong(format!(
                            "{name} of {} channels for {heads} heads of {head_dim}",
                            value.channels()
                        ));
                    }
                }
                if k.tokens() != v.tokens() || k.batch() != v.batch() || (k.batch() != q.batch() && k.batch() != 1) {
                    return wrong(format!("attention of {q} over {k} and {v}"));
                }
                q.with_channels(width)
            }
            Self::Unary(_) => x(0)?.clone(),
            Self::Geglu => {
                if x(0)?.channels() % 2 != 0 {
                    return wrong(format!("GEGLU of {} channels", x(0)?.channels()));
                }
                x(0)?.with_channels(x(0)?.channels() / 2)
            }
            Self::Add => {
                if x(0)? != x(1)? {
                    return wrong(format!("{} and {} are added", x(0)?, x(1)?));
                }
                x(0)?.clone()
            }
            Self::AddRow => {
                if x(0)?.channels() != x(1)?.channels() {
                    return wrong(format!("rows of {} are added to {}", x(1)?, x(0)?));
                }
                x(0)?.clone()
            }
            Self::Concat => side_by_side(x(0)?, x(1)?)?,
            Self::Upsample { size: [h, w] } => {
                let Some([n, _, _, c]) = x(0)?.image() else {
                    return wrong(format!("no image: {}", x(0)?));
                };
                Shape::new([n, *h, *w, c])
            }
        };
        if let Some(e) = self.epilogue() {
            let mut next = self.prologue().map_or(1, Prologue::inputs);
            if let Some(first) = e.row_bias {
                if x(next)?.channels() < first.saturating_add(out.channels()) {
                    return wrong(format!("rows of {} are added to {out}", x(next)?));
                }
                next += 1;
            }
            if e.residual && x(next)? != &out {
                return wrong(format!("{} is added to {out}", x(next)?));
            }
        }
        if out.len() == 0 || out.len() > MAX_ELEMENTS {
            return Err(Error::OutOfMemory(format!("a value of shape {out} cannot be held")));
        }
        Ok(out)
    }
}

impl Node {
    /// The values that stand for what a linear layer or convolution reads: one, or two side by side.
    pub fn sources(&self) -> &[Value] {
        let count = if self.op.prologue().is_some_and(|p| p.joined) || self.is_of_two() {
            2
        } else {
            1
        };
        self.inputs.get(..count).unwrap_or_default()
    }

    fn is_of_two(&self) -> bool {
        matches!(self.op, Op::GroupStatistics { .. }) && self.inputs.len() == 2
    }

    /// The operand with scales and shifts of a fused node.
    pub fn statistics(&self) -> Option<Value> {
        let prologue = self.op.prologue().filter(|p| p.norm)?;
        self.inputs.get(prologue.inputs() - 1).copied()
    }

    /// The row-bias operand of a fused node.
    pub fn row_bias(&self) -> Option<Value> {
        let (prologue, _) = self.op.prologue().zip(self.op.epilogue().and_then(|e| e.row_bias))?;
        self.inputs.get(prologue.inputs()).copied()
    }

    /// The residual operand of a fused node.
    pub fn residual(&self) -> Option<Value> {
        self.op
            .epilogue()
            .filter(|e| e.residual)
            .and_then(|_| self.inputs.last().copied())
    }
}
