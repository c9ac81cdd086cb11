//! Weights that nobody trained.

use super::{Golden, Tensor};
use safetensors::Dtype;
use std::collections::BTreeMap;
use tintype::graph::Graph;
use tintype::sampler::noise::Generator;

/// Random weights for what our graph names, norms and biases included.
pub fn random_weights(graph: &Graph) -> Golden {
    let mut generator = Generator::new(1);
    let mut tensors = BTreeMap::new();
    for part in graph.params().iter().flat_map(|spec| &spec.parts) {
        let (shape, name) = (part.shape.clone(), part.name.as_str());
        let fan_in: usize = shape.iter().skip(1).product();
        let (scale, shift) = match (shape.len(), name.ends_with("weight")) {
            (1, true) => (0.25, 1.0),
            (1, false) => (0.2, 0.0),
            _ => ((fan_in as f32).sqrt().recip(), 0.0),
        };
        let values = generator.randn(shape.iter().product());
        let values: Vec<f32> = values.iter().map(|x| x * scale + shift).collect();
        let bytes = bytemuck::cast_slice(&values).to_vec();
        let dtype = Dtype::F32;
        tensors.insert(name.to_owned(), Tensor { dtype, shape, bytes });
    }
    Golden {
        tensors,
        metadata: BTreeMap::new(),
    }
}
