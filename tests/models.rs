//! Whole models against diffusers and transformers (tools/golden/models.py), on each executor.
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{Golden, Tensor, distance, open, play};
use safetensors::Dtype;
use std::fmt::Write;
use tintype::checkpoint::names::canonical;
use tintype::executor::{Data, Executor};
use tintype::graph::{Graph, Value};
use tintype::models::autoencoder_kl::AutoencoderKlConfig;
use tintype::models::autoencoder_tiny::AutoencoderTinyConfig;
use tintype::models::clip::{ClipTextConfig, Hidden};
use tintype::models::unet::{UnetConfig, guidance_embedding};

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
        let mut weights = Golden::read(&format!("{folder}/{weights}.safetensors"));
        // With a projection transformers nests the text model, in files as in code.
        let class = "CLIPTextModelWithProjection";
        let named = |(name, tensor): (String, Tensor)| (canonical(class, &name).into_owned(), tensor);
        weights.tensors = std::mem::take(&mut weights.tensors).into_iter().map(named).collect();
        Self {
            case,
            config: open(&format!("{folder}/config.json")),
            weights,
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
            ("hidden_states", "output"),
        );
    }
}

fn clip_text_encoders_of_sdxl(executor: Executor) {
    for case in ["clip-penultimate", "clip-projection", "clip-projection-end"] {
        let model = Model::read(case, "model");
        let ids = model.io.get("input_ids");
        let (batch, tokens, ids) = (ids.shape[0], ids.shape[1], ids.u32());
        let mut config = ClipTextConfig::from_json(&model.config).unwrap();
        config.hidden = Hidden::Penultimate;
        let graph = config.graph(batch, tokens).unwrap();
        let input = ("input_ids", "input_ids");
        model.check(&executor, graph.clone(), &[input], ("hidden_states", "output"));
        let names: Vec<&str> = graph
            .params()
            .iter()
            .flat_map(|p| &p.parts)
            .map(|p| p.name.as_str())
            .collect();
        let last = format!("encoder.layers.{}.", config.num_hidden_layers - 1);
        let Some(channels) = config.projection_dim else {
            assert!(
                !names
                    .iter()
                    .any(|name| name.starts_with(&last) || name.starts_with("final"))
            );
            continue;
        };
        assert!(names.iter().any(|name| name.starts_with(&last)));
        // The graph gives a vector for each token; a text has the one that transformers takes.
        let expected = model.io.get("text_embeds").f32();
        let outputs = play(&executor, graph, &model.weights, &[("input_ids", Data::U32(&ids))], 0);
        for (i, (ids, expected)) in ids.chunks(tokens).zip(expected.chunks(channels)).enumerate() {
            let at = (i * tokens + config.pooled_token(ids)) * channels;
            let far = distance(&outputs["text_embeds"][at..at + channels], expected);
            println!("{case} text {i}: off by {far:.1e}");
            assert!(far <= TOLERANCE, "{case} text {i} is off by {far:.1e}");
        }
    }
}

/// Parts a tensor's channels, as two text encoders bring them.
fn part_channels(io: &mut Golden, name: &str, widths: [usize; 2]) {
    let tensor = io.tensors.remove(name).unwrap();
    for (i, range) in [0..widths[0], widths[0]..widths[0] + widths[1]].into_iter().enumerate() {
        let values = tensor.f32();
        let rows = values.chunks(widths[0] + widths[1]);
        let part: Vec<f32> = rows.flat_map(|row| row[range.clone()].to_vec()).collect();
        let part = Tensor {
            dtype: Dtype::F32,
            shape: [&tensor.shape[..2], &[range.len()]].concat(),
            bytes: bytemuck::cast_slice(&part).to_vec(),
        };
        io.tensors.insert(UnetConfig::text_input(i), part);
    }
}

fn unet_with_conditions(executor: Executor) {
    for (case, more) in [
        ("unet-xl", &["text_embeds", "time_ids"][..]),
        ("unet-ssd", &["text_embeds", "time_ids", "timestep_cond"]),
        ("unet-lcm", &["timestep_cond"]),
    ] {
        let mut model = Model::diffusers(case);
        let shape = model.io.get("sample").shape.clone();
        let tokens = model.io.get("encoder_hidden_states").shape[1];
        let mut config = UnetConfig::from_json(&model.config).unwrap();
        if case == "unet-xl" {
            config.texts = vec![10, 12];
            part_channels(&mut model.io, "encoder_hidden_states", [10, 12]);
        }
        let graph = config.graph([shape[0], shape[1], shape[2]], tokens, 1).unwrap();
        let texts: Vec<String> = (0..config.texts.len()).map(UnetConfig::text_input).collect();
        let mut inputs = vec![("sample", "sample"), ("timesteps", "timestep")];
        inputs.extend(
            texts
                .iter()
                .map(String::as_str)
                .chain(more.iter().copied())
                .map(|name| (name, name)),
        );
        model.check(&executor, graph, &inputs, ("sample", "output"));
    }
}

/// The same as rows of a schedule, of which a step takes its own.
fn conditions_hold_for_every_row_of_a_schedule(executor: Executor) {
    let model = Model::diffusers("unet-lcm");
    let shape = model.io.get("sample").shape.clone();
    let tokens = model.io.get("encoder_hidden_states").shape[1];
    let config = UnetConfig::from_json(&model.config).unwrap();
    let graph = config.graph([shape[0], shape[1], shape[2]], tokens, 4).unwrap();
    let of = |name: &str| model.io.get(name).f32();
    let (sample, text, condition) = (of("sample"), of("encoder_hidden_states"), of("timestep_cond"));
    // The scale as diffusers embeds it. It is multiplied by a thousand, so the last bit of torch's exponentials shows.
    let ours = guidance_embedding(7.5, condition.len());
    let far = distance(&ours, &condition);
    assert!(far <= 5e-5, "the guidance scale is off by {far:.1e}");
    let data = [
        ("sample", Data::F32(&sample)),
        ("encoder_hidden_states", Data::F32(&text)),
        ("timestep_cond", Data::F32(&ours)),
        ("timesteps", Data::F32(&[999.0, 7.0, of("timestep")[0], 3.0])),
    ];
    let outputs = play(&executor, graph, &model.weights, &data, 2);
    let far = distance(&outputs["sample"], &of("output"));
    assert!(far <= TOLERANCE, "off by {far:.1e}");
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

fn autoencoder_kl(executor: Executor) {
    // What lies between is beyond f16 in the last one, as in SDXL's autoencoder (`force_upcast`): arithmetic is f32 here, so it
    // needs nothing.
    for case in ["vae-kl", "vae-kl-deep", "vae-kl-loud"] {
        let model = Model::diffusers(case);
        let config = AutoencoderKlConfig::from_json(&model.config).unwrap();
        let size = |name: &str| -> [usize; 3] { model.io.get(name).shape[..3].try_into().unwrap() };
        let decoder = config.decoder(size("latents")).unwrap();
        model.check(&executor, decoder, &[("latents", "latents")], ("sample", "output"));
        let encoder = config.encoder(size("image")).unwrap();
        model.check(&executor, encoder, &[("sample", "image")], ("moments", "moments"));
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

on_each_executor!(
    clip_text_encoder,
    clip_text_encoders_of_sdxl,
    unet,
    unet_with_conditions,
    conditions_hold_for_every_row_of_a_schedule,
    autoencoder_kl,
    autoencoder_tiny,
);
