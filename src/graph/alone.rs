//! A node of a plan by itself, to be timed or raced.

use super::{Element, Graph, ParamSpec, Path, Plan, Rate};
use crate::error::Result;
use std::collections::HashMap;

impl Plan {
    /// A node as a graph of its own: it reads `x0`, `x1` and so on, one that is read twice once, and makes `y`. Its parameters have
    /// their names, and it stands 16-bit floats if it reads or makes them here.
    ///
    /// # Errors
    /// None that the plan's own graph did not have.
    pub(crate) fn alone(&self, node: usize) -> Result<Graph> {
        let node = &self.nodes[node];
        let mut graph = Graph::new();
        // Statistics are f32 always, of whatever values.
        let read = node.inputs.iter().map(|v| self.values[v.0].element);
        if read.chain([node.element]).any(|element| element == Element::F16) {
            graph.stand_half();
        }
        let mut inputs = HashMap::new();
        let operands = node.inputs.iter().enumerate().map(|(i, v)| {
            *inputs.entry(v.0).or_insert_with(|| {
                let value = &self.values[v.0];
                let element = match value.element {
                    // What comes from outside is.
                    Element::F16 => Element::F32,
                    other => other,
                };
                graph.input(&format!("x{i}"), value.shape.dims(), element, Rate::Step)
            })
        });
        let operands: Vec<_> = operands.collect();
        let params = node.params.iter().map(|&p| {
            let ParamSpec { pack, parts } = &self.params[p];
            graph.param(*pack, parts.iter().map(|part| (part.name.clone(), part.shape.clone())))
        });
        let params: Vec<_> = params.collect();
        let y = graph.op(&Path::root().pp(&node.label), node.op.clone(), &operands, &params)?;
        graph.output("y", y);
        Ok(graph)
    }
}
