//! What one node of a plan reads and writes, as tensors.

use super::pool::Pool;
use super::weights::Param;
use crate::error::{Error, Result};
use crate::graph::{Node, Shape};
use candle_core::Tensor;
use std::rc::Rc;

/// A value: the tensor that holds it, from its start, and its shape.
#[derive(Clone)]
pub(super) struct Operand {
    pub(super) tensor: Tensor,
    pub(super) shape: Shape,
}

/// A node's operands. Tensors are handles: keeping one is cheap.
pub(super) struct Operands<'a> {
    pub(super) node: &'a Node,
    pub(super) inputs: Vec<Operand>,
    pub(super) params: Vec<Rc<Param>>,
    pub(super) dst: Tensor,
    /// Lines of the whole picture that the node makes, if it is one: here it may be a part of them.
    pub(super) height: usize,
    /// Lines at the top of a scaled operand that are not seen.
    pub(super) skipped: usize,
    /// Which row of a schedule is in use.
    pub(super) step: usize,
    /// Who does the work.
    pub(super) pool: Pool,
}

impl Operands<'_> {
    pub(super) fn input(&self, i: usize) -> Result<&Operand> {
        self.inputs
            .get(i)
            .ok_or_else(|| Error::Internal(format!("operand {i} is missing")))
    }

    pub(super) fn param(&self, i: usize) -> Result<&Rc<Param>> {
        self.params
            .get(i)
            .ok_or_else(|| Error::Internal(format!("parameter {i} is missing")))
    }

    /// The row of the current step, or the only one.
    pub(super) fn row(&self, rows: &Operand) -> Result<Tensor> {
        let count = rows.shape.rows();
        let row = if count == 1 { 0 } else { self.step };
        if row >= count {
            return Err(Error::Internal(format!("step {row} of a schedule of {count}")));
        }
        super::memory::matrix(&rows.tensor, row..row + 1, rows.shape.channels())
    }
}
