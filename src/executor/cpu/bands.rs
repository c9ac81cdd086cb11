//! Large pictures a band of lines at a time. Where each of several nodes after one another sees only the lines around its own, they are
//! played in turns, from the top of the picture to its bottom: what lies between two of them is never whole in memory, only the lines that
//! are still to be seen. Every line is made once, by what makes it otherwise, and is the same to the bit.

use crate::graph::{Node, Op, Plan, Shape, Slot, Value};
use std::ops::Range;

/// Bytes that tuning may change.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Values of fewer are whole.
    pub(super) large: usize,
    /// Those of the largest value's lines that are made at once.
    pub(super) band: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            large: 8 << 20,
            band: 4 << 20,
        }
    }
}

/// Lines that bands begin at multiples of: squares of convolutions lie as they do in the whole.
const ALIGNED: usize = 4;

/// Where a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Whole, in one of [`Layout::slots`].
    Slot(usize),
    /// Some lines at a time, in a buffer of its own, of [`Layout::bands`].
    Band(usize),
}

/// How a plan is played: where its values live, and its nodes, or parts of them, in order.
pub(super) struct Layout {
    pub(super) homes: Vec<Home>,
    pub(super) slots: Vec<Slot>,
    /// Elements of each buffer for bands.
    pub(super) bands: Vec<usize>,
    pub(super) steps: Vec<Step>,
}

/// A node to be played, or a part of it.
pub(super) struct Step {
    /// Its number in the plan.
    pub(super) node: usize,
    pub(super) part: Option<Box<Part>>,
}

/// Some lines of a node.
pub(super) struct Part {
    /// The node as if they were all of it.
    pub(super) node: Node,
    /// Of each operand what is seen: elements of where it lives, and their shape. All of it, where nothing is said.
    pub(super) inputs: Vec<Option<(Range<usize>, Shape)>>,
    /// Elements of where the node's value lives.
    pub(super) to: Range<usize>,
    /// Lines at the top of a scaled operand that are not seen.
    pub(super) skipped: usize,
    /// Elements of the node's own buffer that are still to be seen: they are moved to its front before.
    pub(super) kept: Range<usize>,
}

impl Layout {
    pub(super) fn new(plan: &Plan, sizes: Sizes) -> Self {
        let count = plan.nodes.len();
        let (mut times, mut elsewhere): (Vec<usize>, Vec<bool>) = ((0..count).collect(), vec![false; count]);
        let chains = chains(plan, sizes);
        for chain in &chains {
            times[chain.nodes.clone()].fill(chain.nodes.start);
            chain.inner(plan).for_each(|i| elsewhere[i] = true);
        }
        let (of, slots) = plan.slots_where(&times, &elsewhere);
        let mut homes: Vec<Home> = of.into_iter().map(|slot| Home::Slot(slot.unwrap_or(0))).collect();
        let (mut bands, mut steps, mut next) = (Vec::new(), Vec::new(), 0);
        let whole = |node| Step { node, part: None };
        for chain in chains {
            steps.extend((next..chain.nodes.start).map(whole));
            next = chain.nodes.end;
            chain.play(plan, sizes, &mut homes, &mut bands, &mut steps);
        }
        steps.extend((next..count).map(whole));
        Self {
            homes,
            slots,
            bands,
            steps,
        }
    }

    /// Bytes of it all, for this many contexts.
    pub(super) fn bytes(&self, contexts: usize) -> u64 {
        let times = |slot: &Slot| if slot.persistent { contexts as u64 } else { 1 };
        let slots = self.slots.iter().map(|s| s.len as u64 * 4 * times(s));
        slots.chain(self.bands.iter().map(|len| *len as u64 * 4)).sum()
    }
}

/// Nodes that are played in turns.
struct Chain {
    nodes: Range<usize>,
}

/// The chains of a plan, in order: as long as they can be, where something large need not be whole.
fn chains(plan: &Plan, sizes: Sizes) -> Vec<Chain> {
    let is_large = |shape: &Shape| shape.len().saturating_mul(4) >= sizes.large;
    let takes_part = |node: &Node| {
        let seen = || (0..node.inputs.len()).filter(|&i| lines_of(node, i).is_some());
        let large = || is_large(&node.shape) || seen().any(|i| is_large(&plan.values[node.inputs[i].0].shape));
        is_near(plan, node) && large()
    };
    let mut found = Vec::new();
    let mut first = 0;
    while first < plan.nodes.len() {
        let rate = plan.nodes[first].rate;
        let more = plan.nodes[first..]
            .iter()
            .take_while(|n| n.rate == rate && takes_part(n));
        let chain = Chain {
            nodes: first..first + more.count(),
        };
        first = chain.nodes.end.max(first + 1);
        if chain.inner(plan).any(|i| is_large(&plan.values[i].shape)) {
            found.push(chain);
        }
    }
    found
}

/// Whether a line of what a node makes depends on a few lines of what it reads.
fn is_near(plan: &Plan, node: &Node) -> bool {
    let is_one_picture = |shape: &Shape| matches!(shape.image(), Some([1, ..])) && shape.len() > 0;
    let pictures = |node: &Node| {
        let mut seen = (0..node.inputs.len()).filter(|&i| lines_of(node, i).is_some());
        is_one_picture(&node.shape) && seen.all(|i| is_one_picture(&plan.values[node.inputs[i].0].shape))
    };
    let is_simple = match &node.op {
        Op::Unary(_) | Op::Add | Op::Concat => true,
        Op::Conv2d {
            kernel,
            padding,
            upsample,
            ..
        } => {
            let from = plan.values[node.inputs[0].0].shape.image();
            let evenly = |to: [usize; 2]| from.is_some_and(|[_, h, ..]| to[0].is_multiple_of(h));
            padding[0].max(padding[2]) < kernel[0] && upsample.is_none_or(evenly)
        }
        _ => false,
    };
    is_simple && pictures(node)
}

/// Which lines of an operand a node sees.
#[derive(Clone, Copy)]
enum Seen {
    /// Those that it makes.
    Same,
    /// Those around them.
    Around,
}

/// Of an operand by its number; `None` of one that is no picture.
fn lines_of(node: &Node, operand: usize) -> Option<Seen> {
    let (prologue, epilogue) = (node.op.prologue().copied(), node.op.epilogue().copied());
    let Some(prologue) = prologue.filter(|_| matches!(node.op, Op::Conv2d { .. })) else {
        return Some(Seen::Same);
    };
    let is_last = operand + 1 == node.inputs.len();
    if operand <= usize::from(prologue.joined) {
        Some(Seen::Around)
    } else if is_last && epilogue.is_some_and(|e| e.residual) {
        Some(Seen::Same)
    } else {
        None
    }
}

fn height(shape: &Shape) -> usize {
    shape.image().map_or(1, |[_, h, ..]| h)
}

/// Elements of a line.
fn line(shape: &Shape) -> usize {
    shape.len() / height(shape).max(1)
}

/// The lines that are read, and how many of the first ones, scaled, lie above what is seen.
fn around(node: &Node, from: &Shape, made: &Range<usize>) -> (Range<usize>, usize) {
    let Op::Conv2d {
        kernel,
        stride,
        padding,
        upsample,
        ..
    } = &node.op
    else {
        return (made.clone(), 0);
    };
    let h = height(from);
    let scale = upsample.map_or(1, |to| to[0] / h.max(1)).max(1);
    let (first, end) = (made.start * stride, (made.end.max(1) - 1) * stride + kernel[0]);
    let (first, end) = (first.saturating_sub(padding[0]), end.saturating_sub(padding[0]));
    let lines = (first / scale).min(h - 1)..end.clamp(1, h * scale).div_ceil(scale);
    (lines.clone(), first - (lines.start * scale).min(first))
}

fn seen(node: &Node, kind: Seen, from: &Shape, made: &Range<usize>) -> Range<usize> {
    match kind {
        Seen::Same => made.clone(),
        Seen::Around => around(node, from, made).0,
    }
}

impl Chain {
    /// Nodes whose values nobody else reads.
    fn inner<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = usize> + 'a {
        let outside = |i: usize| {
            let later = plan.nodes[self.nodes.end..].iter();
            plan.is_output(Value(i)) || later.flat_map(|n| &n.inputs).any(|v| v.0 == i)
        };
        let is_read = |i: usize| {
            plan.nodes[self.nodes.clone()]
                .iter()
                .any(|n| n.inputs.contains(&Value(i)))
        };
        self.nodes.clone().filter(move |&i| is_read(i) && !outside(i))
    }

    /// Readers of a value in the chain: which node, and what it sees of it.
    fn readers<'a>(&'a self, plan: &'a Plan, value: usize) -> impl Iterator<Item = (usize, Seen)> + 'a {
        self.nodes.clone().flat_map(move |i| {
            let node = &plan.nodes[i];
            let operands = node.inputs.iter().enumerate().filter(move |(_, v)| v.0 == value);
            operands.filter_map(move |(operand, _)| Some((i, lines_of(node, operand)?)))
        })
    }

    /// How many lines of each node are there after each band.
    fn made(&self, plan: &Plan, sizes: Sizes) -> Vec<Vec<usize>> {
        let shape = |i: usize| &plan.values[i].shape;
        let largest = self.inner(plan).map(|i| shape(i).len().saturating_mul(4));
        let largest = largest.max().unwrap_or(0);
        let bands = largest.div_ceil(sizes.band.max(1)).max(1);
        let first = self.nodes.start;
        let mut made = vec![vec![0; self.nodes.len()]; bands];
        for (band, made) in made.iter_mut().enumerate() {
            for i in self.nodes.clone().rev() {
                let all = height(shape(i));
                let needed = self.readers(plan, i).map(|(reader, kind)| {
                    let end = made[reader - first];
                    if end == 0 {
                        return 0;
                    }
                    seen(&plan.nodes[reader], kind, shape(i), &(0..end)).end
                });
                let wanted = needed.max().unwrap_or_else(|| ((band + 1) * all).div_ceil(bands));
                let last = band + 1 == bands;
                made[i - first] = if last {
                    all
                } else {
                    wanted.next_multiple_of(ALIGNED).min(all)
                };
            }
        }
        made
    }

    /// Adds what is played, and where it lives meanwhile.
    fn play(&self, plan: &Plan, sizes: Sizes, homes: &mut [Home], bands: &mut Vec<usize>, steps: &mut Vec<Step>) {
        let first = self.nodes.start;
        for i in self.inner(plan) {
            homes[i] = Home::Band(bands.len());
            bands.push(0);
        }
        let made = self.made(plan, sizes);
        // The first line that is there of each value.
        let mut tops = vec![0; self.nodes.len()];
        let mut before = vec![0; self.nodes.len()];
        for made in made {
            for i in self.nodes.clone() {
                let lines = before[i - first]..made[i - first];
                if lines.is_empty() {
                    continue;
                }
                let mut kept = 0..0;
                if let Home::Band(band) = homes[i] {
                    let (shape, top) = (&plan.values[i].shape, tops[i - first]);
                    let wanted = self.readers(plan, i).map(|(reader, kind)| {
                        let next = before[reader - first];
                        seen(&plan.nodes[reader], kind, shape, &(next..next + 1)).start
                    });
                    let from = wanted.min().unwrap_or(lines.start).clamp(top, lines.start);
                    tops[i - first] = from;
                    kept = (from - top) * line(shape)..(lines.start - top) * line(shape);
                    bands[band] = bands[band].max((lines.end - from) * line(shape));
                }
                let part = self.part(plan, i, lines, kept, homes, &tops);
                steps.push(Step {
                    node: i,
                    part: Some(Box::new(part)),
                });
            }
            before = made;
        }
    }

    /// A node as if these lines were all of it.
    fn part(
        &self,
        plan: &Plan,
        i: usize,
        lines: Range<usize>,
        kept: Range<usize>,
        homes: &[Home],
        tops: &[usize],
    ) -> Part {
        let mut node = plan.nodes[i].clone();
        let elements = |value: usize, lines: &Range<usize>| {
            let top = match homes[value] {
                Home::Slot(_) => 0,
                Home::Band(_) => tops[value - self.nodes.start],
            };
            let line = line(&plan.values[value].shape);
            (lines.start - top) * line..(lines.end - top) * line
        };
        let of_lines = |shape: &Shape, count: usize| {
            let mut dims = shape.dims().to_vec();
            dims[1] = count;
            Shape::new(dims)
        };
        let (mut inputs, mut skipped) = (Vec::new(), 0);
        for (operand, value) in plan.nodes[i].inputs.iter().enumerate() {
            let shape = &plan.values[value.0].shape;
            inputs.push(lines_of(&plan.nodes[i], operand).map(|kind| {
                let seen = seen(&plan.nodes[i], kind, shape, &lines);
                (elements(value.0, &seen), of_lines(shape, seen.len()))
            }));
        }
        let from = &plan.values[plan.nodes[i].inputs[0].0].shape;
        if let Op::Conv2d {
            kernel,
            stride,
            padding,
            upsample,
            ..
        } = &mut node.op
        {
            let (seen, above) = around(&plan.nodes[i], from, &lines);
            let scale = upsample.map_or(1, |to| to[0] / height(from).max(1)).max(1);
            let end = (lines.end - 1) * *stride + kernel[0];
            let below = end.saturating_sub(padding[0] + height(from) * scale);
            skipped = above;
            padding[0] = padding[0].saturating_sub(lines.start * *stride);
            padding[2] = below;
            if let Some(to) = upsample {
                to[0] = seen.len() * scale;
            }
        }
        node.shape = of_lines(&node.shape, lines.len());
        Part {
            node,
            inputs,
            to: elements(i, &lines),
            skipped,
            kept,
        }
    }
}
