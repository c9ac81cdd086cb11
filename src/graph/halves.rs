//! Which values of a plan are kept in 16-bit floats. A kernel reads and writes all of its operands in one type, but for what is of
//! 32 bits always: ids, times and what is made of them for a schedule, and the statistics of group norms.

use super::{Element, Node, Op};

/// Classes of values that are of one type, as trees of their numbers, and whether something keeps a class in 32 bits.
struct Classes {
    parent: Vec<usize>,
    wide: Vec<bool>,
}

impl Classes {
    fn root(&mut self, mut value: usize) -> usize {
        while self.parent[value] != value {
            self.parent[value] = self.parent[self.parent[value]];
            value = self.parent[value];
        }
        value
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[b] = a;
        self.wide[a] |= self.wide[b];
    }

    fn widen(&mut self, value: usize) {
        let root = self.root(value);
        self.wide[root] = true;
    }
}

/// Makes values 16-bit floats where nothing that reads or makes them wants more.
pub(super) fn narrow(nodes: &mut [Node]) {
    let mut classes = Classes {
        parent: (0..nodes.len()).collect(),
        wide: vec![false; nodes.len()],
    };
    for (i, node) in nodes.iter().enumerate() {
        let row = match node.op {
            Op::AddRow => node.inputs.get(1).copied(),
            _ => node.row_bias(),
        };
        let mut read = node.inputs.clone();
        for always in [row, node.statistics()].into_iter().flatten() {
            classes.widen(always.0);
            read.iter().rposition(|&v| v == always).map(|at| read.remove(at));
        }
        match node.op {
            Op::Input { .. } | Op::Embedding => {}
            Op::TimestepEmbedding { .. } => {
                classes.widen(i);
                node.inputs.iter().for_each(|v| classes.widen(v.0));
            }
            // Its own are read as statistics alone, but two that it reads are of one type.
            Op::GroupStatistics { .. } => {
                classes.widen(i);
                node.inputs
                    .windows(2)
                    .for_each(|pair| classes.join(pair[0].0, pair[1].0));
            }
            _ => read.iter().for_each(|v| classes.join(i, v.0)),
        }
    }
    for (i, node) in nodes.iter_mut().enumerate() {
        let root = classes.root(i);
        if node.element == Element::F32 && !classes.wide[root] {
            node.element = Element::F16;
        }
    }
}
