//! The shipped checkpoints, and old names of weights: what is opened, and what is handed over.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pollster::block_on;
use safetensors::SafeTensors;
use serde::Deserialize;
use tintype::cancel::CancelToken;
use tintype::checkpoint::{Checkpoint, DType, ExpectedFile, OpenFile, OpenOptions, Progress, ProgressSink, Source};
use tintype::text::Tokenizer;

const FOLDER: &str = "www/checkpoints";

#[derive(Deserialize)]
struct Catalogue {
    checkpoints: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    url: String,
    files: BTreeMap<String, ExpectedFile>,
}

fn catalogue() -> Vec<Entry> {
    let bytes = fs::read(Path::new(FOLDER).join("checkpoints.json")).unwrap();
    serde_json::from_slice::<Catalogue>(&bytes).unwrap().checkpoints
}

fn open(entry: &Entry, progress: &ProgressSink<'_>) -> Checkpoint {
    let source = Source::Dir(Path::new(FOLDER).join(&entry.url));
    let options = OpenOptions {
        files: entry.files.clone(),
        ..OpenOptions::default()
    };
    block_on(Checkpoint::open(source, &options, &CancelToken::default(), progress)).unwrap()
}

#[test]
fn the_shipped_checkpoints_open() {
    let entries = catalogue();
    assert_eq!(entries.len(), 4);
    for entry in &entries {
        let checkpoint = open(entry, &ProgressSink::none());
        assert_eq!(checkpoint.pipeline_class, "StableDiffusionPipeline");
        let classes = checkpoint.components().map(|component| component.class.clone());
        assert_eq!(classes, ["CLIPTextModel", "UNet2DConditionModel", "AutoencoderTiny"]);
        assert_eq!(checkpoint.scheduler["lambda_min_clipped"], "-Infinity");
        let weights = entry.files.iter().filter(|(path, _)| path.ends_with(".safetensors"));
        assert_eq!(
            checkpoint.total_bytes(),
            weights.map(|(_, file)| file.size.unwrap()).sum::<u64>()
        );
        let conv_in = checkpoint.unet.tensor("conv_in.weight").unwrap();
        assert_eq!(
            (conv_in.dtype, conv_in.shape.as_slice()),
            (DType::F16, &[64, 4, 3, 3][..])
        );

        let size = |name: &str| checkpoint.text_encoder.config[name].as_u64().unwrap() as usize;
        let tokenizer = Tokenizer::new(
            &checkpoint.tokenizer,
            size("max_position_embeddings"),
            size("vocab_size"),
        );
        assert_eq!(tokenizer.unwrap().encode("fox").ids[..4], [2245, 402, 276, 2246]);
    }
}

#[test]
fn tensors_arrive_as_the_safetensors_crate_reads_them() {
    let entry = &catalogue()[0];
    let reports: RefCell<Vec<Progress>> = RefCell::default();
    let progress = ProgressSink::new(|report| reports.borrow_mut().push(report));
    let mut checkpoint = open(entry, &progress);
    let cancel = CancelToken::default();
    let total = checkpoint.total_bytes();
    for component in [&mut checkpoint.text_encoder, &mut checkpoint.unet, &mut checkpoint.vae] {
        let path = &component.weights[0].path;
        let whole = fs::read(Path::new(FOLDER).join(&entry.url).join(path)).unwrap();
        let sha256 = entry.files[path].sha256.clone().unwrap();
        let whole = SafeTensors::deserialize(&whole).unwrap();
        let mut count = 0;
        let read = component.for_each_piece(
            &cancel,
            &progress,
            |_| true,
            |tensor, start, piece| {
                let expected = whole.tensor(&tensor.name).unwrap();
                assert_eq!(
                    (tensor.dtype, tensor.shape.as_slice()),
                    (expected.dtype(), expected.shape())
                );
                let at = usize::try_from(start).unwrap();
                assert!(piece == &expected.data()[at..][..piece.len()], "{}", tensor.name);
                count += usize::from(at + piece.len() == expected.data().len());
                Ok(())
            },
        );
        let hashes = block_on(read).unwrap();
        assert_eq!(tintype::checkpoint::expected::hex(&hashes[0]), sha256);
        assert_eq!(count, whole.len());
    }
    drop((checkpoint, progress));
    let reports = reports.into_inner();
    assert!(
        reports
            .windows(2)
            .all(|pair| pair[0].loaded_bytes <= pair[1].loaded_bytes)
    );
    assert_eq!(
        reports.first().map(|r| (r.phase, r.file.as_str(), r.fraction)),
        Some(("open", "model_index.json", 0.0))
    );
    let last = reports.last().unwrap();
    assert_eq!(
        (last.phase, last.loaded_bytes, last.total_bytes, last.fraction),
        ("weights", total, total, 1.0)
    );
}

#[test]
fn only_what_is_wanted_is_handed_over_and_a_second_time_reads_again() {
    let (cancel, progress) = (CancelToken::default(), ProgressSink::none());
    let mut unet = open(&catalogue()[0], &ProgressSink::none()).unet;
    for _ in 0..2 {
        let mut names = Vec::new();
        let wanted = |name: &str| name.starts_with("conv_in.");
        let read = unet.for_each_piece(&cancel, &progress, wanted, |tensor, _, _| {
            names.push(tensor.name.clone());
            Ok(())
        });
        block_on(read).unwrap();
        names.sort();
        assert_eq!(names, ["conv_in.bias", "conv_in.weight"]);
    }
}

#[test]
fn cancelling_ends_a_load() {
    let mut unet = open(&catalogue()[0], &ProgressSink::none()).unet;
    let (cancel, progress) = (CancelToken::default(), ProgressSink::none());
    let mut count = 0;
    let read = unet.for_each_piece(
        &cancel,
        &progress,
        |_| true,
        |_, _, _| {
            count += 1;
            if count == 3 {
                cancel.cancel();
            }
            Ok(())
        },
    );
    assert_eq!(block_on(read).unwrap_err().code(), "cancelled");
    assert_eq!(count, 3);
    let options = OpenOptions::default();
    let opened = Checkpoint::open(Source::memory([]), &options, &cancel, &progress);
    assert_eq!(block_on(opened).unwrap_err().code(), "cancelled");
}

#[test]
fn old_names_are_handed_over_as_new_ones() {
    let data = [0u8; 8];
    let view = || safetensors::tensor::TensorView::new(DType::F32, vec![2], &data).unwrap();
    for (class, old, new) in [
        (
            "CLIPTextModel",
            "text_model.final_layer_norm.bias",
            "final_layer_norm.bias",
        ),
        (
            "AutoencoderKL",
            "decoder.mid_block.attentions.0.query.bias",
            "decoder.mid_block.attentions.0.to_q.bias",
        ),
        ("UNet2DConditionModel", "conv_in.bias", "conv_in.bias"),
    ] {
        let bytes = safetensors::serialize([(old, view())], None).unwrap();
        let source = Source::memory([("x.safetensors".to_owned(), bytes)]);
        let cancel = CancelToken::default();
        let open = block_on(OpenFile::open(
            &source,
            "x.safetensors",
            class,
            ExpectedFile::default(),
            &cancel,
        ))
        .unwrap();
        assert_eq!(open.header().get(new).unwrap().bytes(), 8);
        let mut names = Vec::new();
        block_on(open.for_each_piece(
            &cancel,
            |name| name == new,
            |_| (),
            |tensor, _, _| {
                names.push(tensor.name.clone());
                Ok(())
            },
        ))
        .unwrap();
        assert_eq!(names, [new]);
    }
}

#[test]
fn the_goldens_open() {
    let folders = fs::read_dir("tests/golden/pipelines")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut count = 0;
    for folder in folders.filter(|folder| folder.join("model_index.json").exists()) {
        let (options, cancel, progress) = (OpenOptions::default(), CancelToken::default(), ProgressSink::none());
        let checkpoint = Checkpoint::open(Source::Dir(folder.clone()), &options, &cancel, &progress);
        let checkpoint = block_on(checkpoint).unwrap();
        let size = |name: &str| checkpoint.text_encoder.config[name].as_u64().unwrap() as usize;
        let tokenizer = Tokenizer::new(
            &checkpoint.tokenizer,
            size("max_position_embeddings"),
            size("vocab_size"),
        );
        assert!(tokenizer.unwrap().length() >= 2, "{}", folder.display());
        count += 1;
    }
    assert!(count >= 6);
}
