//! The tensors that change one parameter, checked against each other and against it.

use super::names::{Factor, Piece, Role, Scaling};
use crate::checkpoint::safetensors::TensorInfo;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// What changes one parameter. A parameter is `[out, in]` or `[out, in, kh, kw]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// The number of the component.
    pub component: usize,
    /// The parameter's name there.
    pub parameter: String,
    /// Its shape as `[out, in, taps]`; a vector is `[out, 1, 1]`.
    pub shape: [usize; 3],
    /// What is added to it.
    pub delta: Delta,
    /// By how much.
    pub scale: Scale,
    /// What rows or columns of the sum are brought to, if they are.
    pub dora: Option<Dora>,
}

/// What is added to a parameter. Tensors are by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// As it is.
    Plain(String),
    /// One product.
    Low(Low),
    /// LoHa: two products, multiplied element by element.
    Hadamard(Low, Low),
    /// LoKr: the Kronecker product of a matrix `[out, in]` and what has the kernel too.
    Kronecker([Matrix; 2]),
}

/// A product `a [out, rank] · b [rank, in · taps]`; with `mid [rank_a, rank_b, taps]` between them, `b` is `[rank_b, in]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Low {
    /// The left factor.
    pub a: String,
    /// It is stored as `[rank, out]`.
    pub a_transposed: bool,
    /// The right factor.
    pub b: String,
    /// What lies between.
    pub mid: Option<String>,
    /// Columns of `a`, rows of `b`.
    pub ranks: [usize; 2],
}

/// A factor of a Kronecker product, `[out, in, taps]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Its shape.
    pub shape: [usize; 3],
    /// What it is made of.
    pub of: MatrixOf,
}

/// What a factor is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum MatrixOf {
    /// A tensor.
    Whole(String),
    /// A product.
    Product(Low),
}

/// The factor of what is added: alpha over the rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// The tensor, or the number that metadata gives; the rank if there is neither.
    pub alpha: Alpha,
    /// What it is divided by.
    pub by: f32,
}

/// See [`Scale`].
#[derive(Clone, Debug, PartialEq)]
pub enum Alpha {
    /// A tensor.
    Tensor(String),
    /// A number.
    Known(f32),
}

/// DoRA: the lengths that the merged rows have, or the columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Dora {
    /// The tensor of lengths.
    pub lengths: String,
    /// They are of inputs, not of outputs.
    pub by_input: bool,
}

/// Tensors of one parameter, taken out one by one.
struct Group {
    parameter: String,
    tensors: BTreeMap<Role, TensorInfo>,
}

/// A shape without the last dimensions of 1 x 1.
fn trimmed(shape: &[usize]) -> &[usize] {
    match shape {
        [a @ .., 1, 1] if a.len() == 2 => a,
        all => all,
    }
}

/// A hostile file may name any sizes beside a 0.
fn product(sizes: &[usize]) -> usize {
    sizes.iter().fold(1, |n, &size| n.saturating_mul(size))
}

impl Group {
    fn take(&mut self, role: Role) -> Option<TensorInfo> {
        self.tensors.remove(&role)
    }

    /// A tensor without which `other` makes no sense.
    fn need(&mut self, role: Role, what: &str, other: &TensorInfo) -> Result<TensorInfo> {
        let parameter = &self.parameter;
        self.tensors
            .remove(&role)
            .ok_or_else(|| Error::Corrupt(format!("{parameter}: {:?} is there, its {what} is missing", other.name)))
    }

    /// Rows and columns of what may be a convolution of 1 x 1.
    fn matrix(&self, tensor: &TensorInfo) -> Result<[usize; 2]> {
        match *trimmed(&tensor.shape) {
            [rows, columns] => Ok([rows, columns]),
            _ => Err(self.wrong(tensor, "two dimensions")),
        }
    }

    fn wrong(&self, tensor: &TensorInfo, expected: &str) -> Error {
        Error::Corrupt(format!(
            "{}: tensor {:?}: expected {expected}, found shape {:?}",
            self.parameter, tensor.name, tensor.shape
        ))
    }

    fn other_family(&self, tensor: &TensorInfo, expected: &str) -> Error {
        Error::Unsupported(format!(
            "{}: tensor {:?}: expected {expected} as the checkpoint has it, found shape {:?}: it is for another family",
            self.parameter, tensor.name, tensor.shape
        ))
    }

    fn ranks(&self, a: (&TensorInfo, usize), b: (&TensorInfo, usize)) -> Result<()> {
        if a.1 == b.1 && a.1 > 0 {
            return Ok(());
        }
        Err(Error::Corrupt(format!(
            "{}: expected {:?} and {:?} to be of one rank, found {} and {}",
            self.parameter, a.0.name, b.0.name, a.1, b.1
        )))
    }

    /// `up · down`, or `up · mid · down`. Gives the rows, and `in · taps`, or `in` where there is a `mid`.
    fn low(
        &mut self,
        [a, b]: [TensorInfo; 2],
        mid: Option<TensorInfo>,
        a_transposed: bool,
        taps: usize,
    ) -> Result<(Low, [usize; 2])> {
        let [mut out, mut rank_a] = self.matrix(&a)?;
        if a_transposed {
            (out, rank_a) = (rank_a, out);
        }
        let (rank_b, columns) = match b.shape.split_first() {
            Some((&rank, rest)) if !rest.is_empty() => (rank, product(rest)),
            _ => return Err(self.wrong(&b, "two dimensions or more")),
        };
        match &mid {
            None => self.ranks((&a, rank_a), (&b, rank_b))?,
            Some(mid) => {
                let (&[ma, mb, ref kernel @ ..], [_, _]) = (mid.shape.as_slice(), self.matrix(&b)?) else {
                    return Err(self.wrong(mid, "four dimensions"));
                };
                self.ranks((&a, rank_a), (mid, ma))?;
                self.ranks((mid, mb), (&b, rank_b))?;
                if product(kernel) != taps {
                    return Err(self.other_family(mid, &format!("a kernel of {taps}")));
                }
            }
        }
        let low = Low {
            a: a.name,
            a_transposed,
            b: b.name,
            mid: mid.map(|mid| mid.name),
            ranks: [rank_a, rank_b],
        };
        Ok((low, [out, columns]))
    }

    /// A product that must have the parameter's shape.
    fn whole(
        &mut self,
        [a, b]: [TensorInfo; 2],
        mid: Option<TensorInfo>,
        a_transposed: bool,
        [out, inner, taps]: [usize; 3],
    ) -> Result<Low> {
        let tensors = [a.clone(), b.clone()];
        let columns = if mid.is_some() {
            inner
        } else {
            inner.saturating_mul(taps)
        };
        let (low, found) = self.low([a, b], mid, a_transposed, taps)?;
        if found[0] != out {
            return Err(self.other_family(&tensors[0], &format!("{out} outputs")));
        }
        if found[1] != columns {
            return Err(self.other_family(&tensors[1], &format!("{columns} inputs")));
        }
        Ok(low)
    }

    fn hadamard(&mut self, factor: Factor, any: &TensorInfo, shape: [usize; 3]) -> Result<Low> {
        let a = self.need(Role::Hada(factor, Piece::A), "left factor (_a)", any)?;
        let b = self.need(Role::Hada(factor, Piece::B), "right factor (_b)", any)?;
        let mid = self.take(Role::Hada(factor, Piece::T));
        let transposed = mid.is_some();
        self.whole([a, b], mid, transposed, shape)
    }

    /// A factor of a Kronecker product, and the rank where it is a product itself.
    fn kronecker(&mut self, factor: Factor, any: &TensorInfo, taps: usize) -> Result<(Matrix, Option<usize>)> {
        if let Some(whole) = self.take(Role::Kron(factor, Piece::Whole)) {
            let shape = match *whole.shape.as_slice() {
                [out, inner] => [out, inner, 1],
                [out, inner, h, w] => [out, inner, h.saturating_mul(w)],
                _ => return Err(self.wrong(&whole, "two or four dimensions")),
            };
            let of = MatrixOf::Whole(whole.name);
            return Ok((Matrix { shape, of }, None));
        }
        let a = self.need(Role::Kron(factor, Piece::A), "other factor (_a, or all of it)", any)?;
        let b = self.need(Role::Kron(factor, Piece::B), "other factor (_b)", any)?;
        let mid = self.take(Role::Kron(factor, Piece::T));
        let (tucker, name) = (mid.is_some(), b.clone());
        let (low, [out, columns]) = self.low([a, b], mid, tucker, taps)?;
        let shape = match (factor, tucker) {
            (Factor::One, _) => [out, columns, 1],
            (Factor::Two, true) => [out, columns, taps],
            (Factor::Two, false) if columns.is_multiple_of(taps) => [out, columns / taps, taps],
            (Factor::Two, false) => return Err(self.other_family(&name, &format!("a kernel of {taps}"))),
        };
        let rank = low.ranks[1];
        let of = MatrixOf::Product(low);
        Ok((Matrix { shape, of }, Some(rank)))
    }

    /// What is added, and its rank.
    fn delta(&mut self, shape: [usize; 3]) -> Result<(Delta, Option<usize>)> {
        let kind = |role: &Role| !matches!(role, Role::Alpha | Role::DoraScale | Role::Magnitude);
        let Some((&role, any)) = self.tensors.iter().find(|(role, _)| kind(role)) else {
            let names: Vec<&str> = self.tensors.values().map(|t| t.name.as_str()).collect();
            return Err(Error::Corrupt(format!(
                "{}: {} is there, what it belongs to is missing",
                self.parameter,
                names.join(", ")
            )));
        };
        let any = any.clone();
        match role {
            Role::Down | Role::Up | Role::Mid => {
                let down = self.need(Role::Down, "lora_down (lora_A)", &any)?;
                let up = self.need(Role::Up, "lora_up (lora_B)", &any)?;
                let mid = self.take(Role::Mid);
                let low = self.whole([up, down], mid, false, shape)?;
                let rank = low.ranks[1];
                Ok((Delta::Low(low), Some(rank)))
            }
            Role::Hada(..) => {
                let one = self.hadamard(Factor::One, &any, shape)?;
                let two = self.hadamard(Factor::Two, &any, shape)?;
                let rank = one.ranks[1];
                Ok((Delta::Hadamard(one, two), Some(rank)))
            }
            Role::Kron(..) => {
                let [out, inner, taps] = shape;
                let (one, rank1) = self.kronecker(Factor::One, &any, taps)?;
                let (two, rank2) = self.kronecker(Factor::Two, &any, taps)?;
                let found = [
                    one.shape[0].saturating_mul(two.shape[0]),
                    one.shape[1].saturating_mul(two.shape[1]),
                    two.shape[2],
                ];
                if found != [out, inner, taps] || one.shape[2] != 1 {
                    return Err(
                        self.other_family(&any, &format!("factors of [{out}, {inner}] with a kernel of {taps}"))
                    );
                }
                Ok((Delta::Kronecker([one, two]), rank2.or(rank1)))
            }
            Role::Diff | Role::DiffBias | Role::Alpha | Role::DoraScale | Role::Magnitude => {
                let diff = self.need(role, "difference", &any)?;
                if product(&diff.shape) != product(&shape) || diff.shape.first() != Some(&shape[0]) {
                    return Err(self.other_family(&diff, &format!("{shape:?}")));
                }
                Ok((Delta::Plain(diff.name), None))
            }
        }
    }

    fn dora(&mut self, [out, inner, _]: [usize; 3]) -> Result<Option<Dora>> {
        let lengths = |t: &TensorInfo| product(&t.shape);
        if let Some(t) = self.take(Role::Magnitude) {
            if lengths(&t) != out {
                return Err(self.other_family(&t, &format!("{out} lengths")));
            }
            return Ok(Some(Dora {
                lengths: t.name,
                by_input: false,
            }));
        }
        let Some(t) = self.take(Role::DoraScale) else {
            return Ok(None);
        };
        let by_output = lengths(&t) == out && t.shape.first() == Some(&out);
        let by_input = lengths(&t) == inner && t.shape.first() == Some(&1);
        if !by_output && !by_input {
            return Err(self.other_family(&t, &format!("[{out}, 1] or [1, {inner}]")));
        }
        Ok(Some(Dora {
            lengths: t.name,
            by_input: !by_output,
        }))
    }
}

impl Adapter {
    /// Checks the tensors that change a parameter of this shape.
    pub(super) fn new(
        component: usize,
        parameter: String,
        tensors: BTreeMap<Role, TensorInfo>,
        scaling: Scaling,
        shape: &[usize],
    ) -> Result<Self> {
        let shape = match *shape {
            [n] => [n, 1, 1],
            [out, inner] => [out, inner, 1],
            [out, inner, ref kernel @ ..] => [out, inner, product(kernel)],
            [] => return Err(Error::Internal(format!("{parameter} has no shape"))),
        };
        let mut group = Group { parameter, tensors };
        let (delta, rank) = group.delta(shape)?;
        let dora = group.dora(shape)?;
        let alpha = match (group.take(Role::Alpha), rank) {
            (Some(t), Some(_)) if product(&t.shape) == 1 => Some(Alpha::Tensor(t.name)),
            (Some(t), Some(_)) => return Err(group.wrong(&t, "one number")),
            // Without a rank there is nothing that it could be divided by.
            (Some(_), None) => None,
            (None, _) => scaling.alpha.map(Alpha::Known),
        };
        if let Some((_, t)) = group.tensors.iter().next() {
            return Err(Error::Corrupt(format!(
                "{}: tensor {:?} does not belong to the others of this parameter",
                group.parameter, t.name
            )));
        }
        let scale = match (alpha, rank) {
            (Some(alpha), Some(rank)) => Scale {
                alpha,
                by: if scaling.by_root {
                    (rank as f32).sqrt()
                } else {
                    rank as f32
                },
            },
            _ => Scale {
                alpha: Alpha::Known(1.0),
                by: 1.0,
            },
        };
        Ok(Self {
            component,
            parameter: group.parameter,
            shape,
            delta,
            scale,
            dora,
        })
    }

    /// The names of its tensors.
    pub fn names<'a>(&'a self) -> impl Iterator<Item = &'a str> {
        fn low(low: &Low) -> Vec<&str> {
            [&low.a, &low.b]
                .into_iter()
                .chain(&low.mid)
                .map(String::as_str)
                .collect()
        }
        let mut names = match &self.delta {
            Delta::Plain(name) => vec![name.as_str()],
            Delta::Low(of) => low(of),
            Delta::Hadamard(one, two) => [low(one), low(two)].concat(),
            Delta::Kronecker(factors) => {
                let names = |m: &'a MatrixOf| match m {
                    MatrixOf::Whole(name) => vec![name.as_str()],
                    MatrixOf::Product(of) => low(of),
                };
                factors.iter().flat_map(|m| names(&m.of)).collect()
            }
        };
        if let Alpha::Tensor(name) = &self.scale.alpha {
            names.push(name);
        }
        names.extend(self.dora.iter().map(|dora| dora.lengths.as_str()));
        names.into_iter()
    }
}
