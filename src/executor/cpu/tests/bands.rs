//! A band of lines at a time, and whole: the same to the bit.

use super::*;
use crate::executor::cpu::bands::{Layout, Sizes};
use crate::graph::{Activation, Unary};
use crate::models::autoencoder_kl::AutoencoderKlConfig;
use crate::models::autoencoder_tiny::AutoencoderTinyConfig;
use crate::nn;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const WHOLE: Sizes = Sizes {
    large: usize::MAX,
    band: 1,
};

fn run(graph: Graph, sizes: Sizes, threads: usize) -> Vec<f32> {
    pollster::block_on(async {
        let mut cpu = Cpu::with(threads, 1e9);
        cpu.sizes = sizes;
        let (executor, plan) = (Executor::Cpu(cpu), Rc::new(Plan::new(graph)));
        let params: Vec<Param> = (plan.params.iter().enumerate())
            .map(|(i, spec)| {
                let shapes: Vec<&[usize]> = spec.parts.iter().map(|part| &part.shape[..]).collect();
                param(spec.pack, &shapes, i as u64)
            })
            .collect();
        let weights = upload(&executor, &plan, &params).await;
        let instance = executor.prepare(plan.clone(), 1).await.unwrap();
        let input = plan.input_names().next().unwrap().to_owned();
        let len = plan.values[plan.input(&input).unwrap().0].shape.len();
        let output = plan.output_names().next().unwrap().to_owned();
        let view = executor.view(&instance, plan.output(&output).unwrap(), 0).unwrap();
        // Twice: nothing of the first time may be left.
        for seed in [1, 2] {
            let values = numbers(len, seed);
            executor.write(&instance, &input, 0, Data::F32(&values)).unwrap();
            let cancel = CancelToken::default();
            let run = executor.run(&instance, &weights, Rate::Step, 0, 0, &cancel);
            run.await.unwrap();
        }
        executor.read(&view).await.unwrap()
    })
}

fn check(what: &str, graph: impl Fn() -> Graph) {
    let whole = run(graph(), WHOLE, 1);
    assert!(
        whole.iter().all(|x| x.is_finite()) && whole.iter().any(|x| *x != whole[0]),
        "{what}"
    );
    let plan = Plan::new(graph());
    for (threads, sizes) in [[1, 1], [1, 3000], [8000, 9000], [20_000, 1 << 20]]
        .into_iter()
        .enumerate()
    {
        let sizes = Sizes {
            large: sizes[0],
            band: sizes[1],
        };
        assert!(
            sizes.large > 1 || !Layout::new(&plan, sizes).bands.is_empty(),
            "{what}: nothing is in bands"
        );
        let got = run(graph(), sizes, threads + 1);
        let same = got
            .iter()
            .zip(&whole)
            .filter(|(a, b)| a.to_bits() == b.to_bits())
            .count();
        assert_eq!(
            same,
            whole.len(),
            "{what}, large from {}, bands of {}",
            sizes.large,
            sizes.band
        );
    }
}

fn tiny() -> AutoencoderTinyConfig {
    AutoencoderTinyConfig::from_json(&serde_json::json!({
        "decoder_block_out_channels": [16, 20, 16, 16],
        "encoder_block_out_channels": [16, 16, 20, 16],
        "num_decoder_blocks": [1, 2, 1, 1],
        "num_encoder_blocks": [1, 1, 1, 1],
    }))
    .unwrap()
}

#[test]
fn tiny_autoencoders() {
    for [h, w] in [[1, 1], [5, 3], [8, 7]] {
        check("decoder", || tiny().decoder([1, h, w]).unwrap());
        check("encoder", || tiny().encoder([1, 8 * h, 8 * w]).unwrap());
    }
}

#[test]
fn autoencoders_with_norms() {
    let config = AutoencoderKlConfig::from_json(&serde_json::json!({
        "block_out_channels": [16, 32],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }))
    .unwrap();
    check("decoder", || config.decoder([1, 7, 5]).unwrap());
}

#[test]
fn what_is_beside_one_another() {
    // Values that several read, near and far, scaled by three, and one that is read when all is done.
    let graph = || {
        let mut graph = Graph::new();
        let g = &mut graph;
        let p = Path::root();
        let x = g.input("x", [1, 11, 6, 16], Element::F32, Rate::Step);
        let a = nn::conv2d(g, &p.pp("a"), x, 17, 3).unwrap();
        let b = nn::conv2d(g, &p.pp("b"), a, 17, 5).unwrap();
        let sum = nn::add(g, &p, a, b).unwrap();
        let both = g.op(&p, Op::Concat, &[sum, x], &[]).unwrap();
        let c = nn::conv2d_padded(g, &p.pp("c"), both, 3, 3, 1, [0, 1, 2, 1], true).unwrap();
        let c = nn::activation(g, &p, c, Activation::Silu).unwrap();
        let big = g.op(&p, Op::Upsample { size: [33, 18] }, &[c], &[]).unwrap();
        let d = nn::conv2d(g, &p.pp("d"), big, 20, 3).unwrap();
        let e = nn::conv2d_padded(g, &p.pp("e"), d, 16, 3, 2, [1; 4], true).unwrap();
        let e = nn::unary(g, &p, e, Unary::Clamp { min: -0.5, max: 0.5 }).unwrap();
        let f = nn::conv2d(g, &p.pp("f"), e, 4, 1).unwrap();
        let norm = nn::group_norm(g, &p.pp("norm"), d, 4, 1e-5).unwrap();
        let last = nn::conv2d_padded(g, &p.pp("g"), norm, 4, 3, 2, [1; 4], true).unwrap();
        let out = nn::add(g, &p, f, last).unwrap();
        g.output("y", out);
        graph
    };
    check("several", graph);
}

#[test]
fn large_pictures_take_little_memory() {
    let taesd = AutoencoderTinyConfig::from_json(&serde_json::json!({"num_decoder_blocks": [3, 3, 3, 1]})).unwrap();
    let bytes = |side, sizes| Layout::new(&Plan::new(taesd.decoder([1, side, side]).unwrap()), sizes).bytes(1);
    let whole = bytes(64, WHOLE);
    assert!(whole > 190 << 20);
    assert!(
        bytes(64, Sizes::default()) < 80 << 20,
        "{} of {whole}",
        bytes(64, Sizes::default())
    );
    // What is small is whole.
    assert_eq!(bytes(16, Sizes::default()), bytes(16, WHOLE));
}
