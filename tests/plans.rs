//! Plans: what they need of a file, how they fuse, and that no two values share a slot while both live.

#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tintype::graph::{Activation, Element, Graph, Op, Pack, ParamPart, ParamSpec, Path as Module, Plan, Rate};
use tintype::models::clip::ClipTextConfig;
use tintype::models::unet::UnetConfig;
use tintype::models::vae::VaeConfig;
use tintype::nn;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

fn config(folder: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
}

/// Names and shapes in a safetensors header, names as current versions write them.
fn header(file: &Path) -> BTreeMap<String, Vec<usize>> {
    let bytes = std::fs::read(file).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Json = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let entries = json
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__");
    let shape = |e: &Json| {
        e["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d.as_u64().unwrap() as usize)
            .collect()
    };
    entries
        .map(|(name, e)| (name.trim_start_matches("text_model.").to_owned(), shape(e)))
        .collect()
}

fn needed(graphs: &[Graph]) -> BTreeMap<String, Vec<usize>> {
    let parts = graphs.iter().flat_map(Graph::params).flat_map(|p| &p.parts);
    parts.map(|p| (p.name.clone(), p.shape.clone())).collect()
}

fn soft(component: &str) -> PathBuf {
    root().join("www/checkpoints/soft").join(component)
}

fn soft_graphs() -> [Graph; 3] {
    let vae = VaeConfig::from_json("AutoencoderTiny", &config(&soft("vae"))).unwrap();
    [
        ClipTextConfig::from_json(&config(&soft("text_encoder")))
            .unwrap()
            .graph(1, 16)
            .unwrap(),
        UnetConfig::from_json(&config(&soft("unet")))
            .unwrap()
            .graph([2, 16, 16], 16, 20)
            .unwrap(),
        vae.decoder([1, 16, 16]).unwrap(),
    ]
}

#[test]
fn models_name_every_tensor_of_their_files() {
    let [text, unet, decoder] = soft_graphs();
    assert_eq!(needed(&[text]), header(&soft("text_encoder/model.safetensors")));
    assert_eq!(
        needed(&[unet]),
        header(&soft("unet/diffusion_pytorch_model.safetensors"))
    );
    let VaeConfig::Tiny(tiny) = VaeConfig::from_json("AutoencoderTiny", &config(&soft("vae"))).unwrap() else {
        panic!("the shipped autoencoder is tiny")
    };
    let both = needed(&[decoder, tiny.encoder([1, 128, 128]).unwrap()]);
    assert_eq!(both, header(&soft("vae/diffusion_pytorch_model.safetensors")));
}

/// Every operation's result is unharmed until its last reader has run, in every order of phases that a run has.
fn assert_slots_are_sound(plan: &Plan) {
    for (i, node) in plan.nodes.iter().enumerate() {
        let slot = plan.values[i].slot;
        assert!(plan.slots[slot].len >= node.shape.len(), "%{i} is larger than its slot");
        for v in &node.inputs {
            assert!(v.0 < i, "%{i} reads what comes after it");
            assert_ne!(plan.values[v.0].slot, slot, "%{i} reads and writes one slot");
            let overwritten = (v.0 + 1..i).find(|&j| plan.values[j].slot == plan.values[v.0].slot);
            assert_eq!(overwritten, None, "%{} is overwritten before %{i} reads it", v.0);
            if plan.values[v.0].rate < node.rate {
                assert!(
                    plan.slots[plan.values[v.0].slot].persistent,
                    "%{} does not outlast its phase",
                    v.0
                );
            }
        }
    }
    let persistent: Vec<usize> = plan
        .values
        .iter()
        .map(|v| v.slot)
        .filter(|&s| plan.slots[s].persistent)
        .collect();
    assert_eq!(
        persistent.len(),
        persistent.iter().collect::<BTreeSet<_>>().len(),
        "a persistent slot holds two values"
    );
}

#[test]
fn slots_are_sound_and_few() {
    for graph in soft_graphs() {
        let unfused: usize = graph.nodes().iter().map(|n| n.shape.len()).sum();
        let plan = Plan::new(graph);
        assert_slots_are_sound(&plan);
        assert!(
            plan.peak_bytes(1) < unfused as u64 * 4 / 3,
            "slots are hardly shared: {} of {}",
            plan.peak_bytes(1),
            unfused * 4
        );
    }
}

#[test]
fn rates_follow_from_inputs() {
    let [_, unet, _] = soft_graphs();
    let plan = Plan::new(unet);
    let of = |rate| {
        plan.phase(rate)
            .map(|i| plan.nodes[i].label.as_str())
            .collect::<Vec<_>>()
    };
    // Keys and values of the text run once a prompt, and nothing else does.
    let prompt = of(Rate::Prompt);
    assert!(
        prompt
            .iter()
            .all(|l| l.ends_with("attn2") || *l == "encoder_hidden_states"),
        "{prompt:?}"
    );
    // The time embedding, with its projection in each residual block, runs once a schedule.
    let schedule = of(Rate::Schedule);
    assert!(
        schedule
            .iter()
            .all(|l| l.contains("time_emb") || ["time_proj", "timesteps"].contains(l)),
        "{schedule:?}"
    );
    // As one layer.
    assert_eq!(schedule.iter().filter(|l| l.ends_with("time_emb_proj")).count(), 1);
    assert!(of(Rate::Load).is_empty());
}

/// What no other operation can take in.
fn is_necessary(op: &Op) -> bool {
    match op {
        Op::AddRow | Op::Upsample { .. } | Op::Add | Op::Concat | Op::Geglu | Op::GroupNorm { .. } => false,
        Op::Input { .. } | Op::Embedding | Op::TimestepEmbedding { .. } | Op::Linear { .. } | Op::Conv2d { .. } => true,
        Op::GroupStatistics { .. } | Op::LayerNorm { .. } | Op::Attention { .. } => true,
        // Before a decoder's first layer there is none.
        Op::Unary(_) => true,
    }
}

#[test]
fn what_only_passes_through_is_fused() {
    let [_, unet, decoder] = soft_graphs();
    for plan in [Plan::new(unet), Plan::new(decoder)] {
        let left: Vec<String> = (plan.nodes.iter())
            .filter(|n| !is_necessary(&n.op) && n.rate == Rate::Step)
            .map(|n| n.label.clone())
            .collect();
        assert!(left.is_empty(), "not fused: {left:?}");
    }
}

#[test]
fn fusion_never_makes_a_node_run_more_often() {
    // A layer of the prompt alone, added to something of each step: it must stay a matter of the prompt.
    let mut g = Graph::new();
    let p = Module::root();
    let step = g.input("step", [1, 2, 4], Element::F32, Rate::Step);
    let prompt = g.input("prompt", [1, 2, 4], Element::F32, Rate::Prompt);
    let layer = nn::linear(&mut g, &p.pp("layer"), prompt, 4).unwrap();
    let sum = nn::add(&mut g, &p, step, layer).unwrap();
    let out = nn::activation(&mut g, &p, sum, Activation::Silu).unwrap();
    g.output("out", out);
    let plan = Plan::new(g);
    let layer = plan.nodes.iter().find(|n| n.label == "layer").unwrap();
    assert_eq!(layer.rate, Rate::Prompt);
    assert!(!layer.op.epilogue().unwrap().residual);
    assert_slots_are_sound(&plan);
}

#[test]
fn a_value_with_two_readers_is_kept() {
    let mut g = Graph::new();
    let p = Module::root();
    let x = g.input("x", [1, 2, 4], Element::F32, Rate::Step);
    let a = nn::linear(&mut g, &p.pp("a"), x, 4).unwrap();
    let b = nn::activation(&mut g, &p.pp("b"), a, Activation::Relu).unwrap();
    let c = nn::add(&mut g, &p.pp("c"), a, b).unwrap();
    g.output("c", c);
    let plan = Plan::new(g);
    let a = plan.nodes.iter().find(|n| n.label == "a").unwrap();
    assert_eq!(a.op.epilogue().unwrap().act, None);
    assert_eq!(plan.nodes.len(), 4);
}

/// The dump of a plan is what a person reads when a picture is wrong; it also shows in review what a change does to plans.
/// `TINTYPE_UPDATE=1` writes it anew.
#[test]
fn the_dump_is_as_recorded() {
    let plan = Plan::new(
        VaeConfig::from_json("AutoencoderTiny", &config(&soft("vae")))
            .unwrap()
            .decoder([1, 4, 6])
            .unwrap(),
    );
    let file = root().join("tests/golden/plan-tiny-decoder.txt");
    let dump = plan.to_string();
    if std::env::var_os("TINTYPE_UPDATE").is_some() {
        std::fs::write(&file, &dump).unwrap();
    }
    assert_eq!(
        dump,
        std::fs::read_to_string(&file).unwrap(),
        "set TINTYPE_UPDATE=1 if the change is meant"
    );
}

#[test]
fn configs_that_cannot_be_are_refused_by_name() {
    let good = config(&soft("unet"));
    let with = |key: &str, value: Json| {
        let mut json = good.clone();
        json[key] = value;
        UnetConfig::from_json(&json)
            .and_then(|c| c.graph([1, 8, 8], 16, 1))
            .expect_err(key)
    };
    for (key, value, code) in [
        ("attention_head_dim", 7.into(), "corrupt"),
        ("block_out_channels", Json::Array(vec![]), "corrupt"),
        ("block_out_channels", "wide".into(), "corrupt"),
        ("block_out_channels", serde_json::json!([64, 96, -1]), "corrupt"),
        ("norm_num_groups", 7.into(), "corrupt"),
        ("layers_per_block", 1_000_000.into(), "corrupt"),
        ("down_block_types", serde_json::json!(["DownBlock2D"]), "corrupt"),
        (
            "down_block_types",
            serde_json::json!(["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"]),
            "unsupported",
        ),
        ("sample_size", serde_json::json!([16]), "corrupt"),
        ("sample_size", serde_json::json!([16, 0]), "corrupt"),
        ("norm_num_groups", Json::Null, "unsupported"),
        ("conv_in_kernel", 4.into(), "unsupported"),
        ("conv_out_kernel", 2.into(), "unsupported"),
        ("conv_in_kernel", 999_999.into(), "out-of-memory"),
        ("class_embed_type", "timestep".into(), "unsupported"),
        ("time_cond_proj_dim", 0.into(), "corrupt"),
        ("addition_embed_type", "image".into(), "unsupported"),
        ("addition_embed_type", "text_time".into(), "corrupt"),
        ("transformer_layers_per_block", serde_json::json!([1, 65, 1]), "corrupt"),
        ("transformer_layers_per_block", serde_json::json!([1, 1]), "corrupt"),
        (
            "transformer_layers_per_block",
            serde_json::json!([1, [1], 1]),
            "corrupt",
        ),
        (
            "reverse_transformer_layers_per_block",
            serde_json::json!([1, [1], 1]),
            "corrupt",
        ),
        ("act_fn", "mish".into(), "unsupported"),
        ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn".into(), "unsupported"),
    ] {
        let error = with(key, value);
        assert_eq!(error.code(), code, "{key}: {error}");
        if code == "unsupported" {
            assert!(error.message().contains(key), "{error}");
        }
    }
    assert!(
        with("norm_num_groups", 7.into())
            .message()
            .contains("down_blocks.0.resnets.0.norm1")
    );
}

#[test]
fn a_text_encoder_that_masks_padding_is_refused() {
    let mut json = config(&soft("text_encoder"));
    json["use_attention_mask"] = false.into();
    assert!(ClipTextConfig::from_json(&json).is_ok());
    json["use_attention_mask"] = true.into();
    let error = ClipTextConfig::from_json(&json).unwrap_err();
    assert_eq!(error.code(), "unsupported");
    assert!(error.message().contains("use_attention_mask"), "{error}");
}

/// Tests are built with checks for overflow, which would stop them here.
#[test]
fn absurd_sizes_are_refused_and_do_not_overflow() {
    const HUGE: usize = usize::MAX;
    let spec = |pack, shape: &[usize]| {
        let part = |name: &str| ParamPart {
            name: name.into(),
            shape: shape.into(),
        };
        ParamSpec {
            parts: vec![part("a"), part("b")],
            pack,
        }
    };
    assert_eq!(spec(Pack::Conv, &[HUGE, 3, HUGE, 2]).packed(), [HUGE, HUGE]);
    assert_eq!(spec(Pack::Conv, &[2, 3, 5, 7]).packed(), [105, 4]);
    assert_eq!(spec(Pack::Vector, &[HUGE]).packed(), [1, HUGE]);
    assert_eq!(spec(Pack::Vector, &[]).packed(), [1, 0]);

    let conv = |[height, width, channels]: [usize; 3], co, kernel, stride, padding| {
        let mut g = Graph::new();
        let p = Module::root().pp("conv");
        let x = g.input("x", [1, height, width, channels], Element::F32, Rate::Step);
        nn::conv2d_padded(&mut g, &p, x, co, kernel, stride, [padding; 4], false).map(|y| g.shape(y).clone())
    };
    assert_eq!(conv([8, 9, 4], 5, 3, 2, 1).unwrap().dims(), [1, 4, 5, 5]);
    for (size, co, kernel, stride, padding, code) in [
        ([8, 8, HUGE], 4, 3, 1, 1, "out-of-memory"),
        ([8, 8, 4], HUGE, 3, 1, 1, "out-of-memory"),
        ([8, 8, 4], 4, HUGE, 1, 1, "out-of-memory"),
        ([HUGE, HUGE, 4], 4, 3, 1, 1, "out-of-memory"),
        ([8, 8, 4], 4, 3, 1, HUGE, "out-of-memory"),
        ([8, 8, 4], 4, 3, 0, 1, "corrupt"),
        ([8, 8, 4], 4, 11, 1, 1, "corrupt"),
    ] {
        let error = conv(size, co, kernel, stride, padding).expect_err("refused");
        assert_eq!(error.code(), code, "{size:?} {co} {kernel} {stride} {padding}: {error}");
        assert!(error.message().starts_with("conv: "), "{error}");
    }

    let mut g = Graph::new();
    let p = Module::root();
    let x = g.input("x", [HUGE, HUGE, HUGE], Element::F32, Rate::Step);
    assert_eq!((g.shape(x).rows(), g.shape(x).tokens()), (HUGE, HUGE));
    assert!(nn::layer_norm(&mut g, &p, x, 1e-5).is_err());
    assert!(nn::group_norm(&mut g, &p, x, 1, 1e-5).is_err());
    assert!(nn::concat(&mut g, &p, x, x).is_err());
    let attention = Op::Attention {
        heads: HUGE,
        head_dim: 2,
        causal: false,
        offsets: [1; 3],
    };
    assert!(g.op(&p, attention, &[x; 3], &[]).is_err());
}
