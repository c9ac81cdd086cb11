//! A fused graph in the order in which it runs, with a memory slot for each value.

use super::{Element, Graph, Node, Op, ParamSpec, Rate, Shape, Value, fuse};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Where a value lives and what it is.
#[derive(Clone, Debug)]
pub struct ValueInfo {
    /// Its shape.
    pub shape: Shape,
    /// The type of its elements.
    pub element: Element,
    /// How often it changes.
    pub rate: Rate,
    /// The slot that holds it, as an index into [`Plan::slots`].
    pub slot: usize,
}

/// A buffer that values take turns in. No node reads and writes one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Elements, of four bytes each.
    pub len: usize,
    /// Holds one value for as long as the plan is in use, apart for each context (a positive and a negative prompt are two).
    pub persistent: bool,
}

/// What an executor plays. Node `i` produces value `i`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The nodes, those of a lower rate first.
    pub nodes: Vec<Node>,
    /// What node `i` produces.
    pub values: Vec<ValueInfo>,
    /// The buffers needed.
    pub slots: Vec<Slot>,
    /// The parameters needed.
    pub params: Vec<ParamSpec>,
    /// The model stands products of 16-bit floats.
    pub stands_half: bool,
    inputs: BTreeMap<String, Value>,
    outputs: BTreeMap<String, Value>,
}

impl Plan {
    /// Fuses a graph, orders it by rate and gives each value a slot.
    pub fn new(graph: Graph) -> Self {
        let graph = fuse(graph);
        let (nodes, outputs) = by_rate(graph.nodes, graph.outputs);
        let times: Vec<usize> = (0..nodes.len()).collect();
        let (of, slots) = assign(&nodes, &outputs, &times, &vec![false; nodes.len()]);
        let inputs = (nodes.iter().enumerate())
            .filter_map(|(i, n)| match &n.op {
                Op::Input { name } => Some((name.clone(), Value(i))),
                _ => None,
            })
            .collect();
        let values = nodes.iter().zip(of);
        let values = values
            .map(|(n, slot)| ValueInfo {
                shape: n.shape.clone(),
                element: n.element,
                rate: n.rate,
                // Nothing lies elsewhere.
                slot: slot.unwrap_or(0),
            })
            .collect();
        Self {
            nodes,
            values,
            slots,
            params: graph.params,
            stands_half: graph.stands_half,
            inputs,
            outputs,
        }
    }

    /// The value of an input.
    ///
    /// # Errors
    /// [`Error::Internal`] if the plan has none of that name.
    pub fn input(&self, name: &str) -> Result<Value> {
        self.inputs
            .get(name)
            .copied()
            .ok_or_else(|| Error::Internal(format!("the plan has no input {name}")))
    }

    /// The value of an output.
    ///
    /// # Errors
    /// [`Error::Internal`] if the plan has none of that name.
    pub fn output(&self, name: &str) -> Result<Value> {
        self.outputs
            .get(name)
            .copied()
            .ok_or_else(|| Error::Internal(format!("the plan has no output {name}")))
    }

    /// The names of the inputs.
    pub fn input_names(&self) -> impl Iterator<Item = &str> {
        self.inputs.keys().map(String::as_str)
    }

    /// The names of the outputs.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.outputs.keys().map(String::as_str)
    }

    /// The nodes of one rate, as a range of [`Plan::nodes`].
    pub fn phase(&self, rate: Rate) -> std::ops::Range<usize> {
        let start = self.nodes.partition_point(|n| n.rate < rate);
        start..self.nodes.partition_point(|n| n.rate <= rate)
    }

    /// Whether the caller reads a value.
    pub fn is_output(&self, value: Value) -> bool {
        self.outputs.values().any(|v| *v == value)
    }

    /// Slots where nodes that have one number in `times` run in turns, a part of each after the other. Values that are `elsewhere` get none.
    pub(crate) fn slots_where(&self, times: &[usize], elsewhere: &[bool]) -> (Vec<Option<usize>>, Vec<Slot>) {
        assign(&self.nodes, &self.outputs, times, elsewhere)
    }

    /// Bytes of all slots for this many contexts: what activations need at most.
    pub fn peak_bytes(&self, contexts: usize) -> u64 {
        self.slots
            .iter()
            .map(|s| s.len as u64 * 4 * if s.persistent { contexts as u64 } else { 1 })
            .sum()
    }
}

/// Sorts by rate. A node's rate is no lower than its inputs', so a stable sort keeps them before it.
fn by_rate(nodes: Vec<Node>, outputs: BTreeMap<String, Value>) -> (Vec<Node>, BTreeMap<String, Value>) {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|&i| nodes[i].rate);
    let mut number = vec![Value(0); nodes.len()];
    order
        .iter()
        .enumerate()
        .for_each(|(new, &old)| number[old] = Value(new));
    let sorted = order.iter().map(|&old| {
        let mut node = nodes[old].clone();
        node.inputs.iter_mut().for_each(|v| *v = number[v.0]);
        node
    });
    (
        sorted.collect(),
        outputs.into_iter().map(|(name, v)| (name, number[v.0])).collect(),
    )
}

/// Gives each value a slot: the largest first, each into the first slot that is free while it lives. `times` says when nodes run.
fn assign(
    nodes: &[Node],
    outputs: &BTreeMap<String, Value>,
    times: &[usize],
    elsewhere: &[bool],
) -> (Vec<Option<usize>>, Vec<Slot>) {
    let mut last_use = times.to_vec();
    let mut persistent: Vec<bool> = nodes.iter().map(|n| matches!(n.op, Op::Input { .. })).collect();
    for (node, time) in nodes.iter().zip(times) {
        for v in &node.inputs {
            last_use[v.0] = last_use[v.0].max(*time);
            // Read again in each run of a later phase, so nothing may come in between.
            persistent[v.0] |= nodes[v.0].rate < node.rate;
        }
    }
    outputs.values().for_each(|v| persistent[v.0] = true);

    let mut of = vec![None; nodes.len()];
    let mut slots: Vec<Slot> = Vec::new();
    let mut taken: Vec<Vec<(usize, usize)>> = Vec::new();
    let mut by_size: Vec<usize> = (0..nodes.len()).filter(|&i| !elsewhere[i]).collect();
    by_size.sort_by_key(|&i| (std::cmp::Reverse(nodes[i].shape.len()), i));
    for i in by_size {
        let life = (times[i], last_use[i]);
        // A value that dies where another is born is read while that one is written: they may not share.
        let free = |t: &Vec<(usize, usize)>| t.iter().all(|&(from, to)| to < life.0 || life.1 < from);
        let found = if persistent[i] {
            None
        } else {
            (0..slots.len()).find(|&s| !slots[s].persistent && free(&taken[s]))
        };
        let slot = found.unwrap_or_else(|| {
            slots.push(Slot {
                len: nodes[i].shape.len(),
                persistent: persistent[i],
            });
            taken.push(Vec::new());
            slots.len() - 1
        });
        of[i] = Some(slot);
        taken[slot].push(life);
    }
    (of, slots)
}
