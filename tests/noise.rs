//! The normal numbers against torch's own (tools/golden/noise.py).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::HashMap;

use safetensors::SafeTensors;
use tintype::sampler::noise::Generator;

/// How many representable numbers lie between `a` and `b`.
fn ulps(a: f32, b: f32) -> u32 {
    let ordered = |x: f32| {
        let bits = x.to_bits() as i32;
        i64::from(if bits < 0 { i32::MIN - bits } else { bits })
    };
    (ordered(a) - ordered(b)).unsigned_abs().try_into().unwrap_or(u32::MAX)
}

fn compare(what: &str, ours: &[f32], torch: &[f32]) {
    assert_eq!(ours.len(), torch.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(torch).enumerate() {
        assert!(
            ulps(*a, *b) <= 2,
            "{what}, number {i}: ours {a:e}, torch {b:e}, {} ulp apart",
            ulps(*a, *b)
        );
    }
    let exact = ours.iter().zip(torch).filter(|(a, b)| a == b).count();
    assert!(
        exact * 100 >= ours.len() * 99,
        "{what}: only {exact} of {} are torch's to the bit",
        ours.len()
    );
}

struct Golden {
    seeds: Vec<u64>,
    sizes: Vec<usize>,
    sequence: Vec<usize>,
    tensors: HashMap<String, Vec<f32>>,
}

fn golden() -> Golden {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/noise.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let drawn: serde_json::Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["drawn"]).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |bytes: &[u8]| {
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    Golden {
        seeds: serde_json::from_value(drawn["seeds"].clone()).unwrap(),
        sizes: serde_json::from_value(drawn["sizes"].clone()).unwrap(),
        sequence: serde_json::from_value(drawn["sequence"].clone()).unwrap(),
        tensors: tensors
            .iter()
            .map(|(name, view)| (name.to_string(), floats(view.data())))
            .collect(),
    }
}

#[test]
fn draws_what_torch_draws() {
    let golden = golden();
    assert!(golden.seeds.len() >= 4 && golden.sizes == [1, 15, 16, 17, 1000, 16384]);
    for &seed in &golden.seeds {
        for &size in &golden.sizes {
            let mut ours = Generator::new(seed).randn(size);
            assert_eq!(ours.len(), size);
            if size > 1000 {
                let stride = ours.iter().step_by(97);
                ours = ours[..64]
                    .iter()
                    .chain(&ours[size - 64..])
                    .chain(stride)
                    .copied()
                    .collect();
            }
            compare(
                &format!("seed {seed}, size {size}"),
                &ours,
                &golden.tensors[&format!("{seed}.{size}")],
            );
        }
    }
}

#[test]
fn goes_on_from_call_to_call() {
    let golden = golden();
    for seed in golden.seeds {
        let mut generator = Generator::new(seed);
        let ours: Vec<f32> = golden.sequence.iter().flat_map(|&size| generator.randn(size)).collect();
        compare(
            &format!("seed {seed}"),
            &ours,
            &golden.tensors[&format!("sequence.{seed}")],
        );
    }
}

#[test]
fn only_the_low_32_bits_of_a_seed_count() {
    assert_eq!(Generator::new(5).randn(20), Generator::new((1 << 32) + 5).randn(20));
    assert_ne!(Generator::new(5).randn(20), Generator::new(6).randn(20));
}

#[test]
fn is_normal() {
    let numbers = Generator::new(7).randn(100_000);
    let mean = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / numbers.len() as f64;
    let variance = numbers.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / numbers.len() as f64;
    assert!(
        mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02,
        "mean {mean}, variance {variance}"
    );
    assert!(numbers.iter().all(|x| x.is_finite()));
    assert!(Generator::new(7).randn(0).is_empty());
}
