//! A node of a plan by itself, on operands that are made up and the weights that are there.

use crate::error::Result;
use crate::executor::webgpu::{Instance, Webgpu};
use crate::graph::{Element, Graph, Node, Path, Plan, Rate};
use std::rc::Rc;

/// Made-up numbers: a prime, so that no two rows are the same ones.
const NUMBERS: usize = 65_537;

/// Numbers from -1 to 1, the same each time, which halves hold too.
pub(super) fn made_up(len: usize) -> Vec<f32> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 20) as f32 / (1 << 11) as f32 - 1.0
    };
    (0..len).map(next).collect()
}

/// A node as a plan of its own. Its parameters have their names, and are found among the weights by them.
pub(super) fn alone(plan: &Plan, node: &Node) -> Result<Rc<Plan>> {
    let mut graph = Graph::new();
    if node.element == Element::F16 {
        graph.stand_half();
    }
    let inputs: Vec<_> = (node.inputs.iter().enumerate())
        .map(|(i, v)| {
            let shape = plan.values[v.0].shape.dims();
            graph.input(&format!("x{i}"), shape, Element::F32, Rate::Step)
        })
        .collect();
    let params: Vec<_> = (node.params.iter())
        .map(|&p| {
            let spec = &plan.params[p];
            let parts = spec.parts.iter().map(|part| (part.name.clone(), part.shape.clone()));
            graph.param(spec.pack, parts)
        })
        .collect();
    let y = graph.op(&Path::root(), node.op.clone(), &inputs, &params)?;
    graph.output("y", y);
    Ok(Rc::new(Plan::in_halves(graph)))
}

impl Webgpu {
    /// Fills the inputs of an instance with made-up numbers, on the GPU: they are made once, and copied as often as it takes.
    pub(super) async fn make_up(&self, instance: &Instance) -> Result<()> {
        let known = self.tuner.made_up.borrow().clone();
        let numbers = match known {
            Some(numbers) => numbers,
            None => {
                let made = self.buffer(NUMBERS).await?;
                made.write(&self.device, 0, bytemuck::cast_slice(&made_up(NUMBERS)))?;
                self.tuner.made_up.replace(Some(made.clone()));
                made
            }
        };
        let mut encoder = self.device.device.create_command_encoder(&Default::default());
        for name in instance.plan.input_names() {
            let value = instance.plan.input(name)?.0;
            let to = instance.value(value, 0)?;
            let len = instance.plan.values[value].shape.len();
            for start in (0..len).step_by(NUMBERS) {
                let bytes = NUMBERS.min(len - start) as u64 * 4;
                encoder.copy_buffer_to_buffer(numbers.raw(), 0, to.raw(), start as u64 * 4, bytes);
            }
        }
        self.device.queue.submit([encoder.finish()]);
        Ok(())
    }
}
