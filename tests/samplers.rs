//! Whole trajectories against diffusers' own (tools/golden/samplers.py), and what bad configurations get.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::HashMap;

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tintype::Error;
use tintype::sampler::noise::Generator;
use tintype::sampler::{Combine, SamplerKind, Schedule, SchedulerConfig, Slot};

/// Plays a schedule on the host: what an executor does on a device.
struct Player {
    slots: HashMap<Slot, Vec<f32>>,
}

impl Player {
    fn combine(&mut self, combine: &Combine) {
        assert!((1..=Combine::MAX_TERMS).contains(&combine.terms.len()), "{combine:?}");
        let size = self.slots[&Slot::Sample].len();
        let sum = |i: usize| {
            combine
                .terms
                .iter()
                .map(|(slot, k)| k * self.slots[slot][i])
                .sum::<f32>()
        };
        let bound = combine.clamp.unwrap_or(f32::INFINITY);
        let result = (0..size).map(|i| sum(i).clamp(-bound, bound)).collect();
        self.slots.insert(combine.dst, result);
    }

    /// The sample after each step. `image` says whether it begins with an image, and whether a part of that stays.
    fn play(
        schedule: &Schedule,
        image: Option<bool>,
        generator: &mut Generator,
        model: impl Fn(&[f32], f32) -> Vec<f32>,
    ) -> Vec<Vec<f32>> {
        let size = 64;
        let mut player = Self { slots: HashMap::new() };
        if image.is_some() {
            let original = generator.randn(size);
            let noise = generator.randn(size);
            player.slots = HashMap::from([
                (Slot::Sample, Vec::from([0.0; 64])),
                (Slot::Original, original),
                (Slot::FirstNoise, noise),
            ]);
            player.combine(&schedule.steps[0].noisy);
        } else {
            let first = generator.randn(size).into_iter();
            let first = first.map(|x| x * schedule.init_noise_sigma).collect();
            player.slots.insert(Slot::Sample, first);
        }
        let mut samples = Vec::new();
        for (i, step) in schedule.steps.iter().enumerate() {
            assert_eq!(step.model_input.dst, Slot::ModelInput);
            player.combine(&step.model_input);
            let output = model(&player.slots[&Slot::ModelInput], step.timestep);
            player.slots.insert(Slot::ModelOutput, output);
            if step.draws_noise {
                player.slots.insert(Slot::Noise, generator.randn(size));
            }
            step.update.iter().for_each(|combine| player.combine(combine));
            if image == Some(true) {
                let made = player.slots[&Slot::Sample].clone();
                player.combine(&schedule.original_after(i));
                let kept = player.slots.get_mut(&Slot::Sample).unwrap();
                (0..size).filter(|i| i % 3 != 0).for_each(|i| kept[i] = made[i]);
            }
            samples.push(player.slots[&Slot::Sample].clone());
        }
        let scratch = player
            .slots
            .keys()
            .filter(|slot| matches!(slot, Slot::Scratch(_)))
            .count();
        assert!(
            scratch <= usize::from(schedule.scratch),
            "{scratch} scratch slots of {}",
            schedule.scratch
        );
        samples
    }
}

/// The same made-up model as the golden script's.
fn model(x: &[f32], t: f32) -> Vec<f32> {
    let output =
        |(i, x): (usize, &f32)| (0.3 * f64::from(*x).tanh() + 0.1 * (f64::from(t) / 100.0 + i as f64).cos()) as f32;
    x.iter().enumerate().map(output).collect()
}

/// Absolute below 1, relative above.
fn close(ours: f32, theirs: f32) -> bool {
    (ours - theirs).abs() <= 5e-6 * theirs.abs().max(1.0)
}

#[test]
fn trajectories_are_those_of_diffusers() {
    let bytes = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/samplers.safetensors"
    ))
    .unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().as_ref().unwrap();
    let cases: Vec<Value> = serde_json::from_str(&metadata["cases"]).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert!(cases.len() >= 300, "{}", cases.len());
    for case in &cases {
        let mut config = SchedulerConfig::from_json(&case["config"]).unwrap_or_else(|error| panic!("{case}: {error}"));
        if let Some(class) = case["run_by"].as_str() {
            config = config.with_sampler(SamplerKind::from_name(class).unwrap());
        }
        if let Some(eta) = case["eta"].as_f64() {
            config = config.with_eta(eta).unwrap();
        }
        let number = |key: &str| case[key].as_u64().unwrap_or(0) as usize;
        let schedule = config.schedule_from(number("steps"), number("skipped")).unwrap();
        assert!(
            close(
                schedule.init_noise_sigma,
                case["init_noise_sigma"].as_f64().unwrap() as f32
            ),
            "{case}"
        );
        let timesteps: Vec<f32> = case["timesteps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_f64().unwrap() as f32)
            .collect();
        let ours: Vec<f32> = schedule.steps.iter().map(|step| step.timestep).collect();
        assert!(
            ours.len() == timesteps.len() && ours.iter().zip(&timesteps).all(|(a, b)| close(*a, *b)),
            "{case}: {ours:?}"
        );
        let samples = Player::play(&schedule, case["masked"].as_bool(), &mut Generator::new(42), model);
        let view = tensors.tensor(case["name"].as_str().unwrap()).unwrap();
        let theirs: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert_eq!(theirs.len(), samples.len() * 64);
        for (i, (a, b)) in samples.iter().flatten().zip(&theirs).enumerate() {
            assert!(
                close(*a, *b),
                "{case}: step {}, number {}: ours {a}, theirs {b}",
                i / 64,
                i % 64
            );
        }
    }
}

fn refusal(json: &Value) -> Error {
    match SchedulerConfig::from_json(json) {
        Err(error) => error,
        Ok(config) => config.schedule(4).expect_err(&json.to_string()),
    }
}

#[test]
fn what_is_not_implemented_is_said_so() {
    let dpm = "DPMSolverMultistepScheduler";
    let (unipc, deis) = ("UniPCMultistepScheduler", "DEISMultistepScheduler");
    for (class, key, value) in [
        ("LMSDiscreteScheduler", "solver_order", json!(2)),
        (unipc, "solver_order", json!(4)),
        (unipc, "solver_type", json!("magic")),
        (unipc, "solver_type", json!("bh1")),
        (unipc, "predict_x0", json!(false)),
        (unipc, "solver_p", json!({ "_class_name": "DDIMScheduler" })),
        (unipc, "shift_terminal", json!(0.1)),
        (unipc, "use_flow_sigmas", json!(true)),
        (unipc, "use_exponential_sigmas", json!(true)),
        (unipc, "use_beta_sigmas", json!(true)),
        (unipc, "use_dynamic_shifting", json!(true)),
        (unipc, "prediction_type", json!("flow_prediction")),
        (deis, "solver_order", json!(0)),
        (deis, "solver_type", json!("magic")),
        (deis, "algorithm_type", json!("sde-dpmsolver++")),
        (deis, "use_flow_sigmas", json!(true)),
        (deis, "use_exponential_sigmas", json!(true)),
        (deis, "use_beta_sigmas", json!(true)),
        (deis, "use_dynamic_shifting", json!(true)),
        ("PNDMScheduler", "skip_prk_steps", json!(false)),
        ("EulerAncestralDiscreteScheduler", "prediction_type", json!("sample")),
        ("DDIMScheduler", "thresholding", json!(true)),
        ("DDIMScheduler", "prediction_type", json!("flow_prediction")),
        ("DDIMScheduler", "beta_schedule", json!("sigmoid")),
        ("DDIMScheduler", "timestep_spacing", json!("quadratic")),
        ("DDIMScheduler", "noise_colour", json!("pink")),
        ("DDPMScheduler", "variance_type", json!("learned_range")),
        ("DDPMScheduler", "variance_type", json!("fixed_large_log")),
        ("EulerDiscreteScheduler", "use_exponential_sigmas", json!(true)),
        ("EulerDiscreteScheduler", "use_beta_sigmas", json!(true)),
        ("EulerDiscreteScheduler", "interpolation_type", json!("cubic")),
        ("HeunDiscreteScheduler", "beta_schedule", json!("exp")),
        ("HeunDiscreteScheduler", "use_exponential_sigmas", json!(true)),
        ("HeunDiscreteScheduler", "use_beta_sigmas", json!(true)),
        ("LCMScheduler", "thresholding", json!(true)),
        ("LCMScheduler", "rescale_betas_zero_snr", json!(true)),
        ("LCMScheduler", "timestep_scaling", json!("Infinity")),
        ("TCDScheduler", "prediction_type", json!("flow_prediction")),
        (dpm, "use_flow_sigmas", json!(true)),
        (dpm, "use_lu_lambdas", json!(true)),
        (dpm, "use_dynamic_shifting", json!(true)),
        (dpm, "algorithm_type", json!("dpmsolver")),
        (dpm, "algorithm_type", json!("magic")),
        (dpm, "solver_order", json!(4)),
        (dpm, "solver_type", json!("magic")),
        (dpm, "final_sigmas_type", json!("blurry")),
    ] {
        let error = refusal(&json!({ "_class_name": class, key: value }));
        assert!(matches!(error, Error::Unsupported(_)), "{class} {key} {value}: {error}");
        let names = [class, key].iter().any(|name| error.message().contains(*name));
        assert!(names, "{class} {key} {value}: {error}");
    }
    // diffusers has no formula for this one.
    let third = json!({
        "_class_name": dpm, "algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 3,
    });
    assert!(matches!(refusal(&third), Error::Unsupported(_)));
    // DDIM with the noise predicted can't start where nothing but noise is left.
    let blind =
        json!({ "_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing" });
    assert!(matches!(refusal(&blind), Error::Unsupported(_)));
}

#[test]
fn what_makes_no_sense_is_corrupt() {
    for json in [
        json!([]),
        json!({}),
        json!({ "_class_name": 3 }),
        json!({ "_class_name": "DDIMScheduler", "num_train_timesteps": 0 }),
        json!({ "_class_name": "DDIMScheduler", "num_train_timesteps": 1e12 }),
        json!({ "_class_name": "DDIMScheduler", "num_train_timesteps": -5 }),
        json!({ "_class_name": "DDIMScheduler", "num_train_timesteps": u64::MAX }),
        json!({ "_class_name": "DDIMScheduler", "beta_start": "low" }),
        json!({ "_class_name": "DDIMScheduler", "beta_end": "Infinity" }),
        json!({ "_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": -1.0 }),
        json!({ "_class_name": "DDIMScheduler", "trained_betas": [0.1, 0.2] }),
        json!({ "_class_name": "DDIMScheduler", "trained_betas": ["a"] }),
        json!({ "_class_name": "DDIMScheduler", "clip_sample": "yes" }),
        json!({ "_class_name": "DDIMScheduler", "clip_sample_range": "NaN" }),
        json!({ "_class_name": "DDIMScheduler", "prediction_type": null }),
        json!({ "_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": "Infinity" }),
        json!({ "_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "sigma_min": -1.0 }),
        json!({ "_class_name": "LCMScheduler", "original_inference_steps": 0 }),
        json!({ "_class_name": "TCDScheduler", "original_inference_steps": 1001 }),
    ] {
        let error = refusal(&json);
        assert!(matches!(error, Error::Corrupt(_)), "{json}: {error}");
    }
}

#[test]
fn keys_without_effect_are_let_through() {
    let json = json!({
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.42.1", "_note": "anything", "skip_prk_steps": true,
        "solver_order": 3, "unheard_of": false, "trained_betas": null, "lambda_min_clipped": "-Infinity",
    });
    SchedulerConfig::from_json(&json).unwrap().schedule(3).unwrap();
}

#[test]
fn steps_have_bounds() {
    for kind in SamplerKind::names() {
        let config = SchedulerConfig::from_json(&json!({ "_class_name": "DDIMScheduler", "num_train_timesteps": 50 }));
        let config = config.unwrap().with_sampler(SamplerKind::from_name(kind).unwrap());
        for steps in [0, 51, usize::MAX] {
            let error = config.schedule(steps).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{kind} {steps}: {error}");
            assert!(
                error.message().contains("50") && error.message().contains(&steps.to_string()),
                "{error}"
            );
        }
        for steps in 1..50 {
            // Spacings that put two steps on one timestep have no finite schedule; nothing may panic.
            if let Err(error) = config.schedule(steps) {
                assert!(matches!(error, Error::Unsupported(_)), "{kind} {steps}: {error}");
            }
        }
    }
    // An offset that leads past the last training step.
    let json = json!({ "_class_name": "DDIMScheduler", "num_train_timesteps": 10, "steps_offset": 1 });
    let config = SchedulerConfig::from_json(&json).unwrap();
    assert!(config.schedule(5).is_ok());
    assert!(matches!(config.schedule(10), Err(Error::InvalidArgument(_))));
}

#[test]
fn distilled_models_take_no_more_steps_than_they_were_distilled_to() {
    for class in ["LCMScheduler", "TCDScheduler"] {
        let config =
            SchedulerConfig::from_json(&json!({ "_class_name": class, "original_inference_steps": 7 })).unwrap();
        assert_eq!(config.schedule(7).unwrap().steps.len(), 7);
        let error = config.schedule(8).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        assert!(error.message().contains("1 to 7"), "{error}");
    }
}

#[test]
fn heun_calls_the_model_twice_a_step_but_for_the_last() {
    let config = SchedulerConfig::from_json(&json!({ "_class_name": "HeunDiscreteScheduler" })).unwrap();
    for steps in [1, 2, 20] {
        assert_eq!(config.schedule(steps).unwrap().steps.len(), 2 * steps - 1);
    }
}

#[test]
fn eta_is_what_the_pipeline_passes() {
    let tcd = SchedulerConfig::from_json(&json!({ "_class_name": "TCDScheduler" })).unwrap();
    let draws = |config: &SchedulerConfig| {
        let steps = config.schedule(4).unwrap().steps;
        steps.iter().filter(|step| step.draws_noise).count()
    };
    assert_eq!(draws(&tcd), 3);
    assert_eq!(tcd.schedule(4), tcd.clone().with_eta(0.3).unwrap().schedule(4));
    let pipeline = tcd.clone().for_pipeline();
    assert_eq!(draws(&pipeline), 0);
    // Another sampler is run with the same eta.
    let lcm = pipeline.with_sampler(SamplerKind::from_name("LCM").unwrap());
    assert_eq!(draws(&lcm), 3);
    assert_eq!(draws(&lcm.with_sampler(SamplerKind::from_name("TCD").unwrap())), 0);
    for eta in [-0.1, 1.1, f64::NAN] {
        assert!(matches!(tcd.clone().with_eta(eta), Err(Error::InvalidArgument(_))));
    }
    let ddim = SchedulerConfig::from_json(&json!({ "_class_name": "DDIMScheduler" })).unwrap();
    assert!(ddim.clone().with_eta(0.0).unwrap().schedule(4).is_ok());
    let error = ddim.with_eta(0.5).unwrap().schedule(4).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
}

#[test]
fn trailing_never_leaves_the_training_steps() {
    // With 61 of 1000 steps numpy's arange gives a 62nd point by rounding.
    let json = json!({ "_class_name": "DDIMScheduler", "timestep_spacing": "trailing" });
    let config = SchedulerConfig::from_json(&json).unwrap();
    for steps in 1..=1000 {
        let schedule = config.schedule(steps).unwrap();
        assert_eq!(schedule.steps.len(), steps);
        assert!(schedule.steps.iter().all(|step| (0.0..1000.0).contains(&step.timestep)));
    }
}

#[test]
fn samplers_have_names() {
    let karras = json!({ "_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true });
    let karras = SchedulerConfig::from_json(&karras).unwrap();
    let choose = |name: &str| karras.with_sampler(SamplerKind::from_name(name).unwrap());
    for name in SamplerKind::names() {
        assert_eq!(choose(&name.to_uppercase()).sampler_name(), name);
        choose(name).schedule(4).unwrap();
    }
    assert_eq!(choose("dpmsolvermultistepscheduler").sampler_name(), "DPM++ 2M Karras");
    assert_eq!(choose("PNDMScheduler").sampler_name(), "PNDMScheduler");
    let noisy = json!({ "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++" });
    let noisy = SchedulerConfig::from_json(&noisy).unwrap();
    assert_eq!(noisy.sampler_name(), "DPMSolverMultistepScheduler");
    let plain = noisy.with_sampler(SamplerKind::from_name("DPM++ 2M").unwrap());
    assert_eq!(plain.sampler_name(), "DPM++ 2M");
    assert!(plain.schedule(4).unwrap().steps.iter().all(|step| !step.draws_noise));
    let error = SamplerKind::from_name("Magic").unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)));
    assert!(
        ["Magic", "DPM++ 2M Karras", "DDIMScheduler"]
            .iter()
            .all(|name| error.message().contains(name)),
        "{error}"
    );
}

#[test]
fn the_prediction_can_be_overridden() {
    let config = SchedulerConfig::from_json(&json!({ "_class_name": "EulerDiscreteScheduler" })).unwrap();
    let velocity = json!({ "_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction" });
    let velocity = SchedulerConfig::from_json(&velocity).unwrap();
    let schedule = config
        .with_prediction_type("v_prediction")
        .unwrap()
        .schedule(5)
        .unwrap();
    assert_eq!(schedule, velocity.schedule(5).unwrap());
    assert_ne!(schedule, config.schedule(5).unwrap());
    assert!(matches!(
        config.with_prediction_type("v"),
        Err(Error::InvalidArgument(_))
    ));
}

#[test]
fn configurations_of_the_repository_are_read() {
    let mut found = 0;
    for folder in ["www/checkpoints", "tests/golden/pipelines"] {
        for entry in std::fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
            let path = entry.unwrap().path().join("scheduler/scheduler_config.json");
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            let json: Value = serde_json::from_str(&text.replace("-Infinity", "\"-Infinity\"")).unwrap();
            let config = SchedulerConfig::from_json(&json).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            // PNDM asks the model twice at its second timestep.
            let calls = if json["_class_name"] == "PNDMScheduler" { 21 } else { 20 };
            assert_eq!(config.schedule(20).unwrap().steps.len(), calls, "{path:?}");
            found += 1;
        }
    }
    assert!(found >= 23, "{found}");
}

#[test]
fn a_variance_of_no_name_is_the_small_one() {
    let steps = |variance: Value| {
        let config = json!({ "_class_name": "DPMSolverMultistepScheduler", "variance_type": variance });
        let config = SchedulerConfig::from_json(&config).unwrap();
        let ddpm = config.with_sampler(SamplerKind::from_name("DDPM").unwrap());
        format!("{:?}", ddpm.schedule(3).unwrap().steps)
    };
    assert_eq!(steps(Value::Null), steps(json!("fixed_small")));
}
