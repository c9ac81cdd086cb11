#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

use super::{Engine, GenerateOptions, Recipe};
use crate::checkpoint::{ProgressSink, Source};
use crate::executor::Executor;
use crate::executor::cpu::Cpu;
use crate::image::Rgba;
use crate::library::{Library, LoadOptions};
use futures_util::future::join;
use std::rc::Rc;

#[test]
fn a_checkpoint_that_goes_while_its_encoder_waits_is_read_again() {
    let engine = Engine::new(Library::new(Executor::Cpu(Cpu::new()), None));
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pipelines/sd1-image");
    let recipe = Recipe {
        source: Source::Dir(golden.into()),
        options: LoadOptions {
            id: Some("x".into()),
            ..LoadOptions::default()
        },
    };
    let progress = ProgressSink::none();
    drop(pollster::block_on(engine.load(0, &recipe, &progress)).unwrap());
    let options = GenerateOptions {
        checkpoint: "x".into(),
        steps: Some(2),
        image: Some(Rc::new(Rgba {
            width: 16,
            height: 16,
            data: vec![255; 16 * 16 * 4],
        })),
        ..GenerateOptions::default()
    };
    let known = || Ok(Some(recipe.clone()));
    let (drawn, gone) = pollster::block_on(async {
        let turn = engine.loading.turn().await;
        let drawing = engine.generate(1, &options, known, &progress, |_| ());
        join(drawing, async {
            // It waits for the other load by now.
            let gone = engine.library.unload("x");
            drop(turn);
            gone
        })
        .await
    });
    gone.unwrap();
    assert_eq!(drawn.unwrap().pictures.len(), 1);
    assert!(engine.library.get("x").unwrap().models.encoder.is_some());
}
