//! A node of a plan by itself, with operands that are made up.

use crate::error::Result;
use crate::executor::webgpu::{Instance, Webgpu, Weights};
use crate::executor::{Data, WeightDtype};
use crate::graph::{Element, Graph, Node, Path, Plan, Rate};
use std::rc::Rc;

/// A node as a plan of its own, with made-up operands.
pub(super) struct Alone {
    pub(super) plan: Rc<Plan>,
    pub(super) weights: Weights,
}

/// Numbers from -1 to 1, the same each time.
pub(super) fn made_up(len: usize) -> impl Iterator<Item = f32> {
    let mut state = 1u32;
    (0..len).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

impl Alone {
    pub(super) async fn new(gpu: &Webgpu, plan: &Plan, node: &Node, dtype: WeightDtype) -> Result<Self> {
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
        let plan = Rc::new(Plan::in_halves(graph));
        let wanted: Vec<_> = plan.params.iter().map(|spec| (spec.clone(), dtype)).collect();
        let weights = gpu.allocate(&wanted).await?;
        for (spec, _) in &wanted {
            for (part, tensor) in spec.parts.iter().enumerate() {
                let len = tensor.shape.iter().product();
                let bytes: Vec<u8> = match dtype {
                    WeightDtype::F32 => made_up(len).flat_map(f32::to_le_bytes).collect(),
                    WeightDtype::F16 => made_up(len)
                        .flat_map(|x| half::f16::from_f32(x).to_le_bytes())
                        .collect(),
                    WeightDtype::Bf16 => made_up(len)
                        .flat_map(|x| half::bf16::from_f32(x).to_le_bytes())
                        .collect(),
                };
                gpu.upload(&weights, spec, part, dtype, 0, &bytes)?;
            }
        }
        Ok(Self { plan, weights })
    }

    pub(super) fn write(&self, gpu: &Webgpu, instance: &Instance) -> Result<()> {
        for name in self.plan.input_names() {
            let shape = &self.plan.values[self.plan.input(name)?.0].shape;
            let values: Vec<f32> = made_up(shape.len()).collect();
            gpu.write(instance, name, 0, Data::F32(&values))?;
        }
        Ok(())
    }
}
