//! What nodes compute and move, counted from their shapes: of a plan, and of the graph as a model wrote it, where each operation
//! reads and writes by itself.

use super::{Element, Graph, Node, Op, Pack, ParamSpec, Plan, Rate};

/// Work of the nodes of one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Multiplications and additions.
    pub flops: u64,
    /// Bytes of values that are read and written, each once by each node that reads it.
    pub activations: u64,
    /// Bytes of weights that are read.
    pub weights: u64,
}

impl Traffic {
    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.activations + self.weights
    }

    /// Both together.
    fn and(self, other: Self) -> Self {
        Self {
            flops: self.flops + other.flops,
            activations: self.activations + other.activations,
            weights: self.weights + other.weights,
        }
    }
}

impl Plan {
    /// What the nodes of a rate compute and move, with weights of `weight_size` bytes an element (vectors have 4).
    pub fn traffic(&self, rate: Rate, weight_size: usize) -> Traffic {
        let all = self.phase(rate).map(|node| self.node_traffic(node, weight_size));
        all.fold(Traffic::default(), Traffic::and)
    }

    /// That of one node, and of converting it where it comes from outside or goes there.
    fn node_traffic(&self, node: usize, weight_size: usize) -> Traffic {
        let mut one = traffic(&self.nodes, &self.params, node, weight_size);
        one.activations += self.converted(node);
        one
    }

    /// Bytes that converting it moves, where it comes from outside or goes there.
    pub(crate) fn converted(&self, node: usize) -> u64 {
        let value = &self.values[node];
        let len = value.shape.len();
        (value.edge).map_or(0, |_| Element::F32.bytes(len) + value.element.bytes(len))
    }

    /// Multiplications and additions of one node, of those that do most of the work.
    pub fn flops(&self, node: usize) -> u64 {
        flops(&self.nodes, &self.params, node)
    }

    /// Bytes of values that one node reads and writes, each once.
    pub fn moved(&self, node: usize) -> u64 {
        self.node_traffic(node, 0).activations
    }

    /// Seconds that the nodes of a rate take at least on a device of `flops` operations and `bytes` bytes a second, where a dispatch
    /// costs nothing and no two nodes overlap: each takes the longer of its arithmetic and its traffic.
    pub fn roofline(&self, rate: Rate, weight_size: usize, flops: f64, bytes: f64) -> f64 {
        let of = |node: usize| {
            let one = self.node_traffic(node, weight_size);
            (one.flops as f64 / flops).max(one.bytes() as f64 / bytes)
        };
        self.phase(rate).map(of).sum()
    }
}

impl Graph {
    /// [`Plan::traffic`] of the graph as it was written.
    pub fn traffic(&self, rate: Rate, weight_size: usize) -> Traffic {
        let of_rate = (0..self.nodes.len()).filter(|&i| self.nodes[i].rate == rate);
        let all = of_rate.map(|i| traffic(&self.nodes, &self.params, i, weight_size));
        all.fold(Traffic::default(), Traffic::and)
    }
}

fn traffic(nodes: &[Node], params: &[ParamSpec], i: usize, weight_size: usize) -> Traffic {
    let node = &nodes[i];
    if matches!(node.op, Op::Input { .. }) {
        return Traffic::default();
    }
    let mut inputs = node.inputs.clone();
    inputs.sort_unstable();
    inputs.dedup();
    let row = match node.op {
        Op::AddRow => node.inputs.get(1).copied(),
        _ => node.row_bias(),
    };
    let read = inputs.iter().map(|&v| match row {
        // Of rows of steps, the part of one.
        Some(row) if row == v => nodes[v.0].element.bytes(node.shape.channels()),
        _ => nodes[v.0].element.bytes(nodes[v.0].shape.len()),
    });
    let weights = node.params.iter().map(|&p| {
        let spec = &params[p];
        let elements = match (&node.op, spec.packed()) {
            // A row of each table for each token.
            (Op::Embedding, _) => node.shape.len(),
            (_, [rows, columns]) => rows.saturating_mul(columns),
        };
        elements as u64
            * if spec.pack == Pack::Vector {
                4
            } else {
                weight_size as u64
            }
    });
    Traffic {
        flops: flops(nodes, params, i),
        activations: read.sum::<u64>() + node.element.bytes(node.shape.len()),
        weights: weights.sum(),
    }
}

fn flops(nodes: &[Node], params: &[ParamSpec], i: usize) -> u64 {
    let n = &nodes[i];
    let out = n.shape.len() as u64;
    match &n.op {
        Op::Linear { .. } | Op::Conv2d { .. } => {
            let [depth, columns] = params[n.params[0]].packed();
            2 * n.shape.rows() as u64 * depth as u64 * columns as u64
        }
        Op::Attention { .. } => 4 * out * nodes[n.inputs[1].0].shape.tokens() as u64,
        Op::GroupNorm { .. } | Op::LayerNorm { .. } => 8 * out,
        // Of one or two values that stand for its input.
        Op::GroupStatistics { .. } => {
            let read = n.inputs.iter().map(|v| nodes[v.0].shape.len() as u64);
            6 * read.sum::<u64>()
        }
        Op::Input { .. } => 0,
        Op::Embedding | Op::TimestepEmbedding { .. } | Op::Unary(_) | Op::Geglu => out,
        Op::Add | Op::AddRow | Op::Concat | Op::Upsample { .. } => out,
    }
}
