//! What each operation dispatches: which variant, how many workgroups, and the sizes in its uniforms. No GPU objects here.

mod attention;
mod gemm;
mod norm;
mod pointwise;
mod source;

use super::policy;
use super::select::{Choice, Product, Variant};
use crate::error::{Error, Result};
use crate::graph::{Activation, Element, Node, Op, Pack, Plan, Shape};
use std::rc::Rc;

/// Picks one of the legal ways to run a product, if it knows better than the policy.
pub type Chooser = Rc<dyn Fn(&Product, &[Choice]) -> Option<Choice>>;

/// What kernels are chosen for.
#[derive(Clone)]
pub(super) struct Target {
    /// The adapter is a processor: kernels without workgroup memory are faster.
    pub registers: bool,
    /// Workgroups in one dimension of a grid.
    pub max_workgroups: u32,
    /// Operations of a dispatch.
    pub most: u64,
    /// Asked before the policy.
    pub chooser: Option<Chooser>,
}

impl Target {
    /// The way to run a product.
    fn choice(&self, product: &Product) -> Result<Choice> {
        let choices = product.choices(self.registers);
        let known = self.chooser.as_ref().and_then(|chooser| chooser(product, &choices));
        known
            .filter(|c| choices.contains(c))
            .or_else(|| policy::product(product, &choices))
            .ok_or_else(|| Error::Internal(format!("there is no way to run {product:?}")))
    }
}

/// Something that a dispatch reads or writes.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// A value of the plan.
    Value(usize),
    /// The f32 of one that is an input or output in 16-bit floats.
    Edge(usize),
    /// The first or second room, of so many words, for this node alone.
    Scratch(usize, usize),
    /// Constants.
    Table(Rc<[f32]>),
}

/// One dispatch of a node.
#[derive(Clone, Debug)]
pub(super) struct Dispatch {
    /// The shader and its macros, but for how weights are kept.
    pub variant: Variant,
    /// The words of its `Args`.
    pub args: Vec<u32>,
    /// What it writes: binding 2 of group 0.
    pub dst: Operand,
    /// What it reads: bindings from 3 of group 0.
    pub reads: Vec<(u32, Operand)>,
    /// The plan's parameters that it reads: bindings from 0 of group 1.
    pub weights: Vec<usize>,
    /// The grid.
    pub workgroups: [u32; 2],
    /// An estimate of its work, in operations.
    pub cost: u64,
}

impl Dispatch {
    /// Whether it converts an input or an output, and computes nothing.
    pub(super) fn converts(&self) -> bool {
        let mut operands = self.reads.iter().map(|r| &r.1).chain([&self.dst]);
        operands.any(|o| matches!(o, Operand::Edge(_)))
    }

    /// Whether it is the same kernel over the same sizes, of a node that is the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.workgroups == other.workgroups
            && self.args == other.args
            && self.weights == other.weights
            && self.variant == other.variant
    }

    /// The variant with how its weights are kept. Vectors are f32 always, and no macro says so.
    pub(super) fn variant_with(
        &self,
        plan: &Plan,
        dtype: impl Fn(usize) -> Result<crate::executor::WeightDtype>,
    ) -> Result<Variant> {
        let mut variant = self.variant.clone();
        for (i, &p) in self.weights.iter().enumerate() {
            if plan.params[p].pack != Pack::Vector {
                variant = variant.weight(i, dtype(p)?);
            }
        }
        Ok(variant)
    }
}

/// A node with what is needed to look at its operands.
#[derive(Clone, Copy)]
struct At<'a> {
    plan: &'a Plan,
    index: usize,
    node: &'a Node,
    target: &'a Target,
}

impl At<'_> {
    /// The shape of an input.
    fn input(&self, i: usize) -> &Shape {
        &self.plan.values[self.node.inputs[i].0].shape
    }

    fn read(&self, i: usize) -> Operand {
        Operand::Value(self.node.inputs[i].0)
    }

    fn out(&self) -> &Shape {
        &self.node.shape
    }

    /// What the values are kept in that it reads and writes, but for those that are f32 always.
    fn element(&self) -> Element {
        let read = self.node.inputs.iter().map(|v| self.plan.values[v.0].element);
        match read.chain([self.node.element]).any(|e| e == Element::F16) {
            true => Element::F16,
            false => Element::F32,
        }
    }

    /// A grid of so many workgroups, folded where one dimension would be too long.
    fn grid(&self, workgroups: usize) -> Result<[u32; 2]> {
        let most = self.target.max_workgroups as usize;
        let y = workgroups.div_ceil(most).max(1);
        let x = workgroups.div_ceil(y);
        match (u32::try_from(x), u32::try_from(y)) {
            (Ok(x), Ok(y)) if y as usize <= most => Ok([x, y]),
            _ => Err(
                Error::Unsupported(format!("{workgroups} workgroups; at most {most} x {most} are"))
                    .at(&self.node.label),
            ),
        }
    }

    /// A dispatch of `workgroups` that writes this node's value. `args` are what comes after the number of its first workgroup.
    fn dispatch(&self, variant: Variant, args: Vec<u32>, workgroups: usize) -> Result<Dispatch> {
        self.dispatch_wide(variant.kept_in(self.element()), args, workgroups)
    }

    /// The same of what is f32 always.
    fn dispatch_wide(&self, variant: Variant, args: Vec<u32>, workgroups: usize) -> Result<Dispatch> {
        Ok(Dispatch {
            variant,
            args: [vec![0], args].concat(),
            dst: Operand::Value(self.index),
            reads: Vec::new(),
            weights: Vec::new(),
            workgroups: self.grid(workgroups)?,
            cost: policy::DISPATCH_COST + self.plan.flops(self.index),
        })
    }
}

/// A dispatch in parts of which none runs for long: a page draws between them, and cancelling is heard.
fn parts(dispatch: Dispatch, most: u64, max_workgroups: u32) -> Vec<Dispatch> {
    let [x, y] = dispatch.workgroups;
    let all = u64::from(x) * u64::from(y);
    let count = dispatch.cost.div_ceil(most).min(all).max(1);
    // A part is one row of a grid.
    let each = all.div_ceil(count).min(u64::from(max_workgroups));
    if count == 1 {
        return vec![dispatch];
    }
    let part = |first: u64| {
        let mut part = dispatch.clone();
        let workgroups = each.min(all - first);
        if let Some(number) = part.args.first_mut() {
            *number = first as u32;
        }
        part.workgroups = [workgroups as u32, 1];
        part.cost = dispatch.cost * workgroups / all;
        part
    };
    (0..all.div_ceil(each)).map(|i| part(i * each)).collect()
}

/// The dispatches of a node, in order.
///
/// # Errors
/// [`Error::Unsupported`] where a size is beyond what kernels can do.
pub(super) fn dispatches(plan: &Plan, index: usize, target: &Target) -> Result<Vec<Dispatch>> {
    let node = &plan.nodes[index];
    let at = At {
        plan,
        index,
        node,
        target,
    };
    let converted = plan.values[index].edge.map(|_| pointwise::convert(at)).transpose()?;
    Ok(whole_dispatches(at)?
        .into_iter()
        .chain(converted)
        .flat_map(|d| parts(d, target.most, target.max_workgroups))
        .collect())
}

fn whole_dispatches(at: At<'_>) -> Result<Vec<Dispatch>> {
    match &at.node.op {
        Op::Input { .. } => Ok(Vec::new()),
        Op::Embedding => pointwise::embedding(at),
        Op::TimestepEmbedding {
            dim,
            flip_sin_to_cos,
            freq_shift,
        } => pointwise::timestep(at, *dim, *flip_sin_to_cos, *freq_shift),
        Op::Linear { epilogue, .. } => gemm::linear(at, epilogue),
        Op::Conv2d {
            kernel,
            stride,
            padding,
            upsample,
            epilogue,
            ..
        } => gemm::conv(
            at,
            gemm::Window {
                kernel: *kernel,
                stride: *stride,
                padding: *padding,
                upsample: *upsample,
            },
            epilogue,
        ),
        Op::GroupNorm { groups, eps, act } => norm::group(at, *groups, *eps, *act),
        Op::GroupStatistics { groups, eps } => norm::statistics(at, *groups, *eps),
        Op::LayerNorm { eps } => norm::layer(at, *eps),
        Op::Attention {
            heads,
            head_dim,
            causal,
            offsets,
        } => attention::attention(at, *heads, *head_dim, *causal, *offsets),
        Op::Unary(unary) => pointwise::unary(at, *unary),
        Op::Geglu => pointwise::geglu(at),
        Op::Add => pointwise::add(at),
        Op::AddRow => pointwise::add_row(at),
        Op::Concat => source::concat(at),
        Op::Upsample { size } => pointwise::upsample(at, *size),
    }
}

/// An activation's number in the shaders.
fn act(act: Option<Activation>) -> u32 {
    match act {
        None => 0,
        Some(Activation::Silu) => 1,
        Some(Activation::Gelu) => 2,
        Some(Activation::GeluTanh) => 3,
        Some(Activation::QuickGelu) => 4,
        Some(Activation::Relu) => 5,
        Some(Activation::Tanh) => 6,
    }
}

/// A size as a word. Values have at most 2^31 elements, so sizes fit.
fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Sizes as words.
fn words<const N: usize>(sizes: [usize; N]) -> Vec<u32> {
    sizes.map(word).to_vec()
}

/// From one step's row to the next in a value of rows of `c`; 0 where all steps share one.
fn row_stride(rows: &Shape, c: usize) -> usize {
    if rows.rows() > 1 { c } else { 0 }
}
