//! Whole models against diffusers and transformers (tools/golden/models.py), on each executor.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{Golden, distance, open, play};
use safetensors::Dtype;
use std::fmt::Write;
use tintype::executor::{Data, Executor};
use tintype::graph::{Graph, Value};
use tintype::models::autoencoder_kl::AutoencoderKlConfig;
use tintype::models::autoencoder_tiny::AutoencoderTinyConfig;
use tintype::models::clip::ClipTextConfig;
use tintype::models::unet::UnetConfig;

/// Of the largest number of the output; a model is a few dozen operations after one another.
const TOLERANCE: f32 = 1e-4;

/// A model's folder: its config, weights and what went in and came out.
struct Model {
    case: &'static str,
    config: serde_json::Value,
    weights: Golden,
    io: Golden,
}

impl Model {
    fn read(case: &'static str, weights: &str) -> Self {
        let folder = format!("models/{case}");
        Self {
            case,
            config: open(&format!("{folder}/config.json")),
            weights: Golden::read(&format!("{folder}/{weights}.safetensors")),
            io: Golden::read(&format!("{folder}/io.safetensors")),
        }
    }

    fn diffusers(case: &'static str) -> Self {
        Self::read(case, "diffusion_pytorch_model")
    }

    /// Plays the graph; `inputs` and `output` are (name in the graph, name in the golden).
    fn check(&self, executor: &Executor, graph: Graph, inputs: &[(&str, &str)], output: (&str, &str)) {
        let mut floats = Vec::new();
        let mut ids = Vec::new();
        for (ours, theirs) in inputs {
            let tensor = self.io.get(theirs);
            match tensor.dtype {
                Dtype::U32 => ids.push((*ours, tensor.u32())),
                _ => floats.push((*ours, tensor.f32())),
            }
        }
        let data: Vec<(&str, Data<'_>)> = (floats.iter().map(|(n, v)| (*n, Data::F32(v))))
            .chain(ids.iter().map(|(n, v)| (*n, Data::U32(v))))
            .collect();
        let outputs = play(executor, graph.clone(), &self.weights, &data, 0);
        let far = distance(&outputs[output.0], &self.io.get(output.1).f32());
        println!("{} {}: off by {far:.1e}", self.case, output.1);
        assert!(
            far <= TOLERANCE,
            "{} is off by {far:.1e}\n{}",
            self.case,
            self.explain(executor, graph, &data)
        );
    }

    /// Where the model leaves diffusers: it is played again with what was watched there as further outputs.
    fn explain(&self, executor: &Executor, mut graph: Graph, data: &[(&str, Data<'_>)]) -> String {
        let mut text = String::from("on the way:\n");
        let watched: Vec<&str> = self
            .io
            .tensors
            .keys()
            .filter_map(|name| name.strip_prefix("at."))
            .collect();
        for name in &watched {
            let below = |label: &str| {
                label
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            if let Some(last) = graph.nodes().iter().rposition(|node| below(&node.label)) {
                graph.output(&format!("at.{name}"), Value(last));
            }
        }
        for (name, ours) in play(executor, graph, &self.weights, data, 0) {
            if let Some(theirs) = self.io.tensors.get(&name).filter(|_| name.starts_with("at.")) {
                // A schedule's row is computed once, not for each picture.
                let far = distance(&ours, &theirs.f32()[..ours.len()]);
                writeln!(text, "{name}: off by {far:.1e}").unwrap();
            }
        }
        text
    }
}

fn clip_text_encoder(executor: Executor) {
    for case in ["clip-quick-gelu", "clip-gelu"] {
        let model = Model::read(case, "model");
        let shape = &model.io.get("input_ids").shape;
        let graph = ClipTextConfig::from_json(&model.config)
            .unwrap()
            .graph(shape[0], shape[1])
            .unwrap();
        model.check(
            &executor,
            graph,
            &[("input_ids", "input_ids")],
            ("last_hidden_state", "output"),
        );
    }
}

fn unet(executor: Executor) {
    for case in ["unet-sd1", "unet-sd2", "unet-no-mid", "unet-deep"] {
        let model = Model::diffusers(case);
        let shape = &model.io.get("sample").shape;
        let tokens = model.io.get("encoder_hidden_states").shape[1];
        let config = UnetConfig::from_json(&model.config).unwrap();
        let graph = config.graph([shape[0], shape[1], shape[2]], tokens, 1).unwrap();
        let inputs = [
            ("sample", "sample"),
            ("timesteps", "timestep"),
            ("encoder_hidden_states", "encoder_hidden_states"),
        ];
        model.check(&executor, graph, &inputs, ("sample", "output"));
    }
}

fn autoencoder_kl_decoder(executor: Executor) {
    for case in ["vae-kl", "vae-kl-deep"] {
        let model = Model::diffusers(case);
        let shape = &model.io.get("latents").shape;
        let config = AutoencoderKlConfig::from_json(&model.config).unwrap();
        let graph = config.decoder([shape[0], shape[1], shape[2]]).unwrap();
        model.check(&executor, graph, &[("latents", "latents")], ("sample", "output"));
    }
}

fn autoencoder_tiny(executor: Executor) {
    for case in ["vae-tiny", "vae-tiny-deep"] {
        let model = Model::diffusers(case);
        let config = AutoencoderTinyConfig::from_json(&model.config).unwrap();
        let size = |name: &str| -> [usize; 3] { model.io.get(name).shape[..3].try_into().unwrap() };
        let decoder = config.decoder(size("latents")).unwrap();
        model.check(&executor, decoder, &[("latents", "latents")], ("sample", "output"));
        let encoder = config.encoder(size("image")).unwrap();
        model.check(&executor, encoder, &[("sample", "image")], ("latents", "encoded"));
    }
}

on_each_executor!(clip_text_encoder, unet, autoencoder_kl_decoder, autoencoder_tiny);
