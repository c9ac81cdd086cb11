//! What models call: a list of nodes that grows, with shapes and rates found as it does.

use super::{Element, Node, Op, Pack, ParamPart, ParamSpec, Rate, Shape};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;

/// A value of a graph: the number of the node that produces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub usize);

/// A place in a model, such as `down_blocks.0.resnets.1`; weights below it are named by it.
#[derive(Clone, Debug, Default)]
pub struct Path(String);

impl Path {
    /// The model itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A place below this one.
    #[must_use]
    pub fn pp(&self, name: impl Display) -> Self {
        if self.0.is_empty() {
            Self(name.to_string())
        } else {
            Self(format!("{}.{name}", self.0))
        }
    }

    /// The name of this place.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// A model at one resolution: nodes in an order in which they can run.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) params: Vec<ParamSpec>,
    pub(super) outputs: BTreeMap<String, Value>,
    pub(super) stands_half: bool,
    index: HashMap<ParamSpec, usize>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value from outside.
    pub fn input(&mut self, name: &str, shape: impl Into<Vec<usize>>, element: Element, rate: Rate) -> Value {
        self.nodes.push(Node {
            op: Op::Input { name: name.into() },
            inputs: Vec::new(),
            params: Vec::new(),
            label: name.into(),
            shape: Shape::new(shape),
            element,
            rate,
        });
        Value(self.nodes.len() - 1)
    }

    /// Says that the model stands 16-bit floats: none of its values come near their limits.
    pub fn stand_half(&mut self) {
        self.stands_half = true;
    }

    /// Names a value that the caller reads.
    pub fn output(&mut self, name: &str, value: Value) {
        self.outputs.insert(name.into(), value);
    }

    /// A parameter made of one tensor or of several joined ones; the same one is held once.
    pub fn param<N: Into<String>>(&mut self, pack: Pack, parts: impl IntoIterator<Item = (N, Vec<usize>)>) -> usize {
        let parts = parts
            .into_iter()
            .map(|(name, shape)| ParamPart {
                name: name.into(),
                shape,
            })
            .collect();
        let spec = ParamSpec { parts, pack };
        let next = self.params.len();
        *self.index.entry(spec).or_insert_with_key(|spec| {
            self.params.push(spec.clone());
            next
        })
    }

    /// Adds a node.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the module, where operands do not fit together.
    pub fn op(&mut self, path: &Path, op: Op, inputs: &[Value], params: &[usize]) -> Result<Value> {
        let shapes: Vec<&Shape> = inputs.iter().map(|v| &self.nodes[v.0].shape).collect();
        let specs: Vec<&ParamSpec> = params.iter().map(|&p| &self.params[p]).collect();
        let shape = op.shape(&shapes, &specs).map_err(|e: Error| e.at(path.name()))?;
        let rate = inputs.iter().map(|v| self.nodes[v.0].rate).max().unwrap_or(Rate::Load);
        self.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            params: params.to_vec(),
            label: path.name().into(),
            shape,
            element: Element::F32,
            rate,
        });
        Ok(Value(self.nodes.len() - 1))
    }

    /// The shape of a value.
    pub fn shape(&self, value: Value) -> &Shape {
        &self.nodes[value.0].shape
    }

    /// All parameters, in the order in which they were first named.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// All nodes, in an order in which they can run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}
