//! Files that are not what they should be: each gives a typed error that names the file, and none a panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use pollster::block_on;
use serde_json::{Value, json};
use tintype::cancel::CancelToken;
use tintype::checkpoint::{Checkpoint, ExpectedFile, Header, OpenFile, OpenOptions, ProgressSink, Source};
use tintype::{Error, Result};

type Files = BTreeMap<String, Vec<u8>>;

/// A safetensors file with this header, and `data` zeros.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn tensor(dtype: &str, shape: Value, offsets: Value) -> Value {
    json!({"dtype": dtype, "shape": shape, "data_offsets": offsets})
}

/// A diffusers folder that opens, with one small tensor a component.
fn folder() -> Files {
    let weights = safetensors(&json!({"a": tensor("F32", json!([2]), json!([0, 8]))}).to_string(), 8);
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "safety_checker": [null, null],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    let files = [
        ("model_index.json", index.to_string().into_bytes()),
        (
            "scheduler/scheduler_config.json",
            br#"{"lambda_min_clipped": -Infinity}"#.to_vec(),
        ),
        (
            "text_encoder/config.json",
            br#"{"architectures": ["CLIPTextModel"]}"#.to_vec(),
        ),
        ("text_encoder/model.safetensors", weights.clone()),
        ("tokenizer/vocab.json", b"{}".to_vec()),
        ("tokenizer/merges.txt", b"".to_vec()),
        (
            "unet/config.json",
            br#"{"_class_name": "UNet2DConditionModel"}"#.to_vec(),
        ),
        ("unet/diffusion_pytorch_model.safetensors", weights.clone()),
        ("vae/config.json", br#"{"_class_name": "AutoencoderKL"}"#.to_vec()),
        ("vae/diffusion_pytorch_model.safetensors", weights),
    ];
    files
        .into_iter()
        .map(|(path, bytes)| (path.to_owned(), bytes))
        .collect()
}

fn source(files: Files, chunk: usize, sized: bool) -> Source {
    Source::Memory {
        files: Rc::new(files),
        chunk,
        sized,
    }
}

fn open(files: Files, options: &OpenOptions) -> Result<Checkpoint> {
    block_on(Checkpoint::open(
        source(files, 5, true),
        options,
        &CancelToken::default(),
        &ProgressSink::none(),
    ))
}

/// Opens and reads a file of weights, and gives the names that went to the sink.
fn read(bytes: &[u8], chunk: usize, sized: bool, expected: ExpectedFile) -> Result<Vec<String>> {
    let source = source(
        Files::from([("unet/x.safetensors".to_owned(), bytes.to_vec())]),
        chunk,
        sized,
    );
    let cancel = CancelToken::default();
    let mut names = Vec::new();
    block_on(async {
        let open = OpenFile::open(&source, "unet/x.safetensors", "UNet2DConditionModel", expected, &cancel).await?;
        let mut done = 0;
        let sink = |tensor: &tintype::checkpoint::TensorInfo, start: u64, piece: &[u8]| {
            assert_eq!(start, done);
            done += piece.len() as u64;
            if done == tensor.bytes() {
                names.push(tensor.name.clone());
                done = 0;
            }
            Ok(())
        };
        open.for_each_piece(&cancel, |_| true, |_| (), sink).await
    })?;
    Ok(names)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, code: &str, file: &str, found: &str) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(file), "{error}: does not name {file}");
    assert!(error.message().contains(found), "{error}: does not say {found}");
    error
}

#[test]
fn headers_that_lie() {
    let f32x2 = |offsets| tensor("F32", json!([2]), offsets);
    let two = |b: Value| json!({"a": f32x2(json!([0, 8])), "b": b}).to_string();
    let one = |a: Value| json!({"a": a}).to_string();
    for (header, data, code, found) in [
        (two(f32x2(json!([4, 12]))), 12, "corrupt", "\"b\" overlaps"),
        (two(f32x2(json!([0, 8]))), 8, "corrupt", "\"b\" overlaps"),
        (two(f32x2(json!([9, 17]))), 17, "corrupt", "\"b\" leaves a gap"),
        (one(f32x2(json!([8, 16]))), 16, "corrupt", "\"a\" leaves a gap"),
        (
            one(f32x2(json!([0, 7]))),
            7,
            "corrupt",
            "expected 8 bytes for F32 of shape [2], found 7",
        ),
        (
            one(tensor("F16", json!([2]), json!([0, 8]))),
            8,
            "corrupt",
            "expected 4 bytes for F16",
        ),
        (
            one(tensor("F4", json!([3]), json!([0, 1]))),
            1,
            "corrupt",
            "expected 2 bytes for F4",
        ),
        (one(tensor("F7", json!([2]), json!([0, 8]))), 8, "unsupported", "F7"),
        (one(f32x2(json!([8, 0]))), 8, "corrupt", "8..0"),
        (one(f32x2(json!([0]))), 8, "corrupt", "\"a\""),
        (one(f32x2(json!([-8, 0]))), 8, "corrupt", "-8"),
        (one(f32x2(json!([0, 8.5]))), 8, "corrupt", "8.5"),
        (one(tensor("F32", json!([-2]), json!([0, 8]))), 8, "corrupt", "-2"),
        (
            one(tensor("F32", json!([u64::MAX, 2]), json!([0, 8]))),
            8,
            "corrupt",
            "too large",
        ),
        (
            one(tensor("F32", json!([1u64 << 32, 1u64 << 32]), json!([0, 8]))),
            8,
            "corrupt",
            "too large",
        ),
        (
            one(tensor("F32", json!([1u64 << 40]), json!([0, 1u64 << 42]))),
            8,
            "corrupt",
            "found",
        ),
        (one(f32x2(json!([u64::MAX - 8, u64::MAX]))), 8, "corrupt", "gap"),
        (
            one(tensor("F32", json!([1, 1, 1, 1, 1, 1, 1, 1, 2]), json!([0, 8]))),
            8,
            "corrupt",
            "dimensions",
        ),
        (one(json!({"dtype": "F32", "shape": [2]})), 8, "corrupt", "data_offsets"),
        (one(json!(7)), 8, "corrupt", "\"a\""),
        (
            format!("{{\"a\": {0}, \"a\": {0}}}", tensor("F32", json!([0]), json!([0, 0]))),
            0,
            "corrupt",
            "\"a\" twice",
        ),
        ("[]".into(), 0, "corrupt", "an object of tensors"),
        ("{".into(), 0, "corrupt", "EOF"),
        ("".into(), 0, "corrupt", "empty"),
        ("\u{1}\u{2}".into(), 0, "corrupt", "expected JSON"),
        (one(f32x2(json!([0, 8]))), 7, "corrupt", "by its header, found"),
        (one(f32x2(json!([0, 8]))), 9, "corrupt", "by its header, found"),
    ] {
        let result = read(&safetensors(&header, data), 5, true, ExpectedFile::default());
        refused(result, code, "unet/x.safetensors", found);
    }
}

#[test]
fn files_that_are_no_safetensors() {
    for (bytes, found) in [
        (b"".to_vec(), "a file of 0 bytes"),
        (b"1234567".to_vec(), "a file of 7 bytes"),
        (b"<!doctype html><title>404</title>".to_vec(), "HTML"),
        (b"\n <html lang=en>".to_vec(), "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "Git LFS"),
        (
            [100u64.to_le_bytes().to_vec(), vec![b' '; 99]].concat(),
            "a header of 100 bytes where at most 99",
        ),
        (
            u64::MAX.to_le_bytes().to_vec(),
            "a header of 18446744073709551615 bytes where at most 0",
        ),
    ] {
        refused(
            read(&bytes, 3, true, ExpectedFile::default()),
            "corrupt",
            "unet/x.safetensors",
            found,
        );
    }
    for (start, format) in [
        (&b"GGUF\x03\0\0\0"[..], "GGUF"),
        (b"PK\x03\x04\0\0\x08\x08", "a pickle"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "a pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
    ] {
        let bytes = [start, &[0; 100]].concat();
        let result = read(&bytes, 3, true, ExpectedFile::default());
        refused(result, "unsupported", "unet/x.safetensors", format);
    }
    // What PyTorch saves is a ZIP archive too: by its name it is one or the other.
    let zip = [&b"PK\x03\x04\0\0\x08\x08"[..], &[0; 100]].concat();
    let source = Source::memory([("x.zip".to_owned(), zip)]);
    let (none, cancel) = (ExpectedFile::default(), CancelToken::default());
    let result = block_on(OpenFile::open(&source, "x.zip", "", none, &cancel));
    refused(result, "unsupported", "x.zip", "a ZIP archive");
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let header = json!({
        "__metadata__": {"format": "pt"},
        "a": tensor("F32", json!([2]), json!([0, 8])),
        "b": tensor("I64", json!([]), json!([8, 16])),
    });
    let bytes = safetensors(&header.to_string(), 16);
    for chunk in [1, 7, 1000] {
        for sized in [true, false] {
            let read = |bytes: &[u8]| read(bytes, chunk, sized, ExpectedFile::default());
            assert_eq!(read(&bytes).unwrap(), ["a", "b"]);
            for len in 0..bytes.len() {
                let found = if sized { String::new() } else { len.to_string() };
                refused(read(&bytes[..len]), "corrupt", "unet/x.safetensors", &found);
            }
            refused(
                read(&[&bytes[..], &[0]].concat()),
                "corrupt",
                "unet/x.safetensors",
                "found",
            );
        }
    }
}

#[test]
fn of_metadata_only_texts_are_kept_and_not_all() {
    let nested = "[[0],".repeat(100) + "0" + &"]".repeat(100);
    let metadata = format!(
        r#"{{"text": "kept", "long": "{}", "{}": "x", "list": {nested}, "map": {{"a": {{"b": 1}}}}, "a": 1, "b": -2.5, "c": true,
        "d": null, "e": NaN, "later": "kept too"}}"#,
        "y".repeat(5 << 20),
        "k".repeat(5 << 20),
    );
    let header = |metadata: &str| {
        let header =
            format!(r#"{{"__metadata__": {metadata}, "a": {{"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}}}"#);
        Header::parse("x.safetensors", header.as_bytes())
    };
    let read = header(&metadata).unwrap();
    assert_eq!(read.tensors().len(), 1);
    assert_eq!(read.metadata("text"), Some("kept"));
    assert_eq!(read.metadata("later"), Some("kept too"));
    for name in ["long", "list", "map", "a", "b", "c", "d"] {
        assert_eq!(read.metadata(name), None, "{name}");
    }
    assert!(header("null").is_ok());
    let error = header("7").unwrap_err();
    assert_eq!(error.code(), "corrupt");
    // However many there are, memory is bounded.
    let many: Vec<_> = (0..100_000).map(|i| format!(r#""{i}": "{i}""#)).collect();
    let read = header(&format!("{{{}}}", many.join(","))).unwrap();
    assert_eq!(read.metadata("0"), Some("0"));
    assert_eq!(read.metadata("99999"), None);
}

#[test]
fn every_flipped_byte_of_a_header_is_survived() {
    let header = json!({"a": tensor("F32", json!([2]), json!([0, 8]))});
    let bytes = safetensors(&header.to_string(), 8);
    for at in 0..bytes.len() - 8 {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            if let Err(error) = read(&bytes, 64, at % 2 == 0, ExpectedFile::default()) {
                assert!(matches!(error.code(), "corrupt" | "unsupported"), "{error}");
            }
        }
    }
}

#[test]
fn sizes_and_hashes_of_the_catalogue_are_compared() {
    let bytes = safetensors(&json!({"a": tensor("F32", json!([2]), json!([0, 8]))}).to_string(), 8);
    let sha256 = "0123456789abcdef".repeat(4);
    let size = Some(bytes.len() as u64);
    let read = |expected| read(&bytes, 5, false, expected);
    assert!(read(ExpectedFile { size, sha256: None }).is_ok());
    let error = read(ExpectedFile {
        size,
        sha256: Some(sha256.clone()),
    });
    let error = refused(error, "corrupt", "unet/x.safetensors", &sha256);
    let found = error.message().rsplit(' ').next().unwrap().to_uppercase();
    assert!(
        read(ExpectedFile {
            size,
            sha256: Some(found)
        })
        .is_ok()
    );
    refused(
        read(ExpectedFile {
            size: Some(999),
            sha256: None,
        }),
        "corrupt",
        "unet/x.safetensors",
        "expected 999 bytes",
    );

    let wrong = ExpectedFile {
        size: None,
        sha256: Some(sha256),
    };
    let listed = folder().into_keys().map(|path| (path, ExpectedFile::default()));
    let mut options = OpenOptions {
        files: listed.collect(),
        ..OpenOptions::default()
    };
    assert!(open(folder(), &options).is_ok());
    options.files.insert("unet/config.json".into(), wrong);
    refused(open(folder(), &options), "corrupt", "unet/config.json", "sha256");
    options.files.remove("unet/config.json");
    refused(open(folder(), &options), "not-found", "unet/config.json", "listed");
}

#[test]
fn a_folder_without_a_file_says_which() {
    assert!(open(folder(), &OpenOptions::default()).is_ok());
    for (path, _) in folder() {
        let mut files = folder();
        files.remove(&path);
        refused(open(files, &OpenOptions::default()), "not-found", &path, "");
    }
}

#[test]
fn classes_and_configurations_that_are_not_known() {
    let index = |change: fn(&mut Value)| -> Vec<u8> {
        let mut index: Value = serde_json::from_slice(&folder()["model_index.json"]).unwrap();
        change(&mut index);
        index.to_string().into_bytes()
    };
    let html = b"<!DOCTYPE html><html></html>".to_vec();
    for (path, bytes, code, found) in [
        ("model_index.json", b"[]".to_vec(), "corrupt", "expected a JSON object"),
        ("model_index.json", b"{}".to_vec(), "corrupt", "_class_name"),
        ("model_index.json", html.clone(), "corrupt", "HTML"),
        (
            "model_index.json",
            index(|i| i["_class_name"] = json!("FluxPipeline")),
            "unsupported",
            "FluxPipeline",
        ),
        (
            "model_index.json",
            index(|i| i["unet"] = json!([null, null])),
            "corrupt",
            "unet",
        ),
        (
            "model_index.json",
            index(|i| i["vae"][1] = json!("VQModel")),
            "unsupported",
            "AutoencoderTiny, found \"VQModel\"",
        ),
        (
            "model_index.json",
            index(|i| i["tokenizer"] = json!(["x", "T5Tokenizer"])),
            "unsupported",
            "T5Tokenizer",
        ),
        (
            "unet/config.json",
            br#"{"_class_name": "UNet3D"}"#.to_vec(),
            "unsupported",
            "UNet3D",
        ),
        ("unet/config.json", b"{}".to_vec(), "corrupt", "_class_name"),
        ("unet/config.json", b"".to_vec(), "corrupt", "empty"),
        ("unet/config.json", b"{\"a\": ".to_vec(), "corrupt", "expected JSON"),
        ("unet/config.json", vec![b' '; 5 << 20], "corrupt", "expected at most"),
        (
            "text_encoder/config.json",
            br#"{"architectures": ["T5EncoderModel"]}"#.to_vec(),
            "unsupported",
            "T5EncoderModel",
        ),
        ("scheduler/scheduler_config.json", html.clone(), "corrupt", "HTML"),
        ("vae/diffusion_pytorch_model.safetensors", html, "corrupt", "HTML"),
    ] {
        let mut files = folder();
        files.insert(path.into(), bytes);
        refused(open(files, &OpenOptions::default()), code, path, found);
    }
}

#[test]
fn shards_are_read_and_their_index_is_checked() {
    const INDEX: &str = "unet/diffusion_pytorch_model.safetensors.index.json";
    let shard = |name: &str| safetensors(&json!({name: tensor("F32", json!([2]), json!([0, 8]))}).to_string(), 8);
    let with = |index: Value, second: &str| {
        let mut files = folder();
        files.remove("unet/diffusion_pytorch_model.safetensors");
        files.insert(INDEX.into(), index.to_string().into_bytes());
        files.insert("unet/1.safetensors".into(), shard("a"));
        files.insert("unet/2.safetensors".into(), shard(second));
        open(files, &OpenOptions::default())
    };
    let map = |second: &str| json!({"weight_map": {"a": "1.safetensors", "b": second}});
    let mut checkpoint = with(map("2.safetensors"), "b").unwrap();
    let (cancel, progress) = (CancelToken::default(), ProgressSink::none());
    let mut names = Vec::new();
    let read = checkpoint.component_mut("unet").unwrap().for_each_piece(
        &cancel,
        &progress,
        |_| true,
        |tensor, _, _| {
            names.push(tensor.name.clone());
            Ok(())
        },
    );
    assert_eq!(block_on(read).unwrap().len(), 2);
    assert_eq!(names, ["a", "b"]);

    refused(with(map("2.safetensors"), "a"), "corrupt", "unet", "\"a\" in two");
    refused(with(map("3.safetensors"), "b"), "corrupt", "unet/3.safetensors", INDEX);
    refused(
        with(map("../../secret"), "b"),
        "corrupt",
        "secret",
        "inside of the checkpoint's folder",
    );
    refused(with(json!({"weight_map": {}}), "b"), "corrupt", INDEX, "weight_map");
    refused(
        with(json!({"weight_map": {"a": 1}}), "b"),
        "corrupt",
        INDEX,
        "weight_map",
    );
    refused(with(json!({}), "b"), "corrupt", INDEX, "weight_map");
}

/// Four shards of the UNet, each with one tensor.
fn sharded() -> Files {
    let mut files = folder();
    files.remove("unet/diffusion_pytorch_model.safetensors");
    let names = ["a", "b", "c", "d"];
    let map: BTreeMap<_, _> = names
        .iter()
        .map(|name| (*name, format!("{name}.safetensors")))
        .collect();
    let index = json!({"weight_map": map}).to_string().into_bytes();
    files.insert("unet/diffusion_pytorch_model.safetensors.index.json".into(), index);
    for name in names {
        let header = json!({name: tensor("F32", json!([2]), json!([0, 8]))});
        files.insert(format!("unet/{name}.safetensors"), safetensors(&header.to_string(), 8));
    }
    files
}

#[test]
fn shards_are_not_kept_open() {
    // Each stream over files in memory holds them once more.
    let held = |files: Files| {
        let files = Rc::new(files);
        let source = Source::Memory {
            files: Rc::clone(&files),
            chunk: 5,
            sized: true,
        };
        let (cancel, progress) = (CancelToken::default(), ProgressSink::none());
        let mut checkpoint = block_on(Checkpoint::open(source, &OpenOptions::default(), &cancel, &progress)).unwrap();
        let open = Rc::strong_count(&files);
        let mut names = Vec::new();
        let sink = |tensor: &tintype::checkpoint::TensorInfo, _: u64, _: &[u8]| {
            names.push(tensor.name.clone());
            Ok(())
        };
        let unet = checkpoint.component_mut("unet").unwrap();
        block_on(unet.for_each_piece(&cancel, &progress, |_| true, sink)).unwrap();
        (open - Rc::strong_count(&files), names)
    };
    assert_eq!(held(folder()), (1, vec!["a".into()]));
    assert_eq!(held(sharded()), (0, ["a", "b", "c", "d"].map(String::from).into()));
}

#[test]
fn a_shard_that_changes_between_header_and_weights_is_refused() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("changed-shard");
    for (path, bytes) in sharded() {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let (cancel, progress) = (CancelToken::default(), ProgressSink::none());
    let open = || {
        let options = OpenOptions::default();
        block_on(Checkpoint::open(
            Source::Dir(root.clone()),
            &options,
            &cancel,
            &progress,
        ))
        .unwrap()
    };
    let read = |mut checkpoint: Checkpoint| {
        block_on(checkpoint.component_mut("unet").unwrap().for_each_piece(
            &cancel,
            &progress,
            |_| true,
            |_, _, _| Ok(()),
        ))
    };
    assert_eq!(read(open()).unwrap().len(), 4);
    let before = open();
    let other = json!({"c": tensor("F16", json!([4]), json!([0, 8]))});
    fs::write(root.join("unet/c.safetensors"), safetensors(&other.to_string(), 8)).unwrap();
    refused(read(before), "corrupt", "unet/c.safetensors", "has changed");
    let before = open();
    fs::remove_file(root.join("unet/c.safetensors")).unwrap();
    refused(read(before), "not-found", "unet/c.safetensors", "no such file");
}

#[test]
fn old_names_that_become_equal_are_refused() {
    let mut files = folder();
    let header = json!({
        "text_model.a": tensor("F32", json!([0]), json!([0, 0])),
        "a": tensor("F32", json!([0]), json!([0, 0])),
    });
    files.insert(
        "text_encoder/model.safetensors".into(),
        safetensors(&header.to_string(), 0),
    );
    refused(
        open(files, &OpenOptions::default()),
        "corrupt",
        "text_encoder/model.safetensors",
        "\"a\" twice",
    );
}
