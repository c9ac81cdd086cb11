//! PNG files with their generation parameters, written and read back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use std::io::Cursor;

use common::Golden;
use tintype::Error;
use tintype::image::{Parameters, Rgba, png};

fn parameters(prompt: &str, negative_prompt: &str) -> Parameters {
    Parameters {
        prompt: prompt.into(),
        negative_prompt: negative_prompt.into(),
        steps: Some(20),
        sampler: Some("DPM++ 2M".into()),
        guidance_scale: Some(3.0),
        seed: Some(u64::MAX),
        size: Some((128, 96)),
        model: Some("soft".into()),
        version: Some(Parameters::VERSION.into()),
        ..Parameters::default()
    }
}

#[test]
fn parameters_of_a_picture_over_an_image() {
    let mut one = parameters("a fox", "");
    one.strength = Some(0.75);
    one.masked = Some(0.25);
    let text = one.to_string();
    assert!(
        text.contains("Model: soft, Denoising strength: 0.75, Masked area: 0.25, Version"),
        "{text}"
    );
    assert_eq!(Parameters::parse(&text), one);
}

#[test]
fn parameters_are_written_as_the_web_ui_writes_them() {
    let mut one = parameters("a fox in the snow", "blurry");
    one.seed = Some(1);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "a fox in the snow\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 3, Seed: 1, \
         Size: 128x96, Model: soft, Version: tintype {version}"
    );
    assert_eq!(one.to_string(), expected);
    one.guidance_scale = Some(7.5);
    one.negative_prompt.clear();
    one.model = Some("fox, red: \"v2\"".into());
    one.model_hash = Some("abc123".into());
    let expected = format!(
        "a fox in the snow\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 7.5, Seed: 1, Size: 128x96, Model hash: abc123, \
         Model: \"fox, red: \\\"v2\\\"\", Version: tintype {version}"
    );
    assert_eq!(one.to_string(), expected);
}

#[test]
fn parameters_come_back() {
    for (prompt, negative) in [
        ("a fox", ""),
        ("", ""),
        ("", "blurry"),
        ("a fox\nin the snow,\n\nat night", "blurry\nugly: yes, very"),
        ("a \"quoted\" fox, with: colons, and (weights:1.2), [brackets]", "\"\""),
        ("ein Füchslein, été, ÿ", "naïve"),
        ("雪の中の狐 🦊", "ぼやけた"),
        ("Steps: 20, Sampler: none, Seed: 5", ""),
        ("  two spaces first", "  and here"),
    ] {
        let mut one = parameters(prompt, negative);
        for model in ["soft", "a, b", "c: d", "\"e\"", "line\nbreak", " space", "", "雪, 🦊"] {
            one.model = Some(model.into());
            one.others = vec![
                ("Hires upscale".into(), "0.75".into()),
                ("Clip skip".into(), "a, b".into()),
            ];
            let text = one.to_string();
            assert_eq!(Parameters::parse(&text), one, "{text}");
            let file = png::encode(&[7; 4 * 6], 3, 2, &text).unwrap();
            assert_eq!(png::read_parameters(&file).unwrap().as_deref(), Some(text.as_str()));
        }
    }
}

#[test]
fn texts_of_the_web_ui_are_read() {
    let text = "masterpiece, fox\nNegative prompt: lowres, bad anatomy\nSteps: 28, Sampler: DPM++ 2M, Schedule type: Karras, \
                CFG scale: 7, Seed: 2264371321, Size: 512x768, Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, \
                Lora hashes: \"detail: 7c6bad76eb54, fox: 12\", Version: v1.9.4\n";
    let read = Parameters::parse(text);
    assert_eq!(
        (read.prompt.as_str(), read.negative_prompt.as_str()),
        ("masterpiece, fox", "lowres, bad anatomy")
    );
    assert_eq!(
        (read.steps, read.seed, read.size),
        (Some(28), Some(2_264_371_321), Some((512, 768)))
    );
    assert_eq!(read.sampler.as_deref(), Some("DPM++ 2M Karras"));
    assert_eq!(read.model_hash.as_deref(), Some("6ce0161689"));
    assert_eq!(
        read.others,
        [("Lora hashes".to_string(), "detail: 7c6bad76eb54, fox: 12".to_string())]
    );
}

#[test]
fn any_text_is_at_least_a_prompt() {
    for text in [
        "just words",
        "a: b, c: d",
        "Steps",
        ":,:,:",
        "x: \"unclosed, y: 2, z: 3\nlast: line",
    ] {
        assert_eq!(Parameters::parse(text).prompt, text);
    }
    let odd = Parameters::parse("fox\nSteps: many, Seed: -1, Size: big, Sampler: Euler");
    assert_eq!(
        (odd.prompt.as_str(), odd.steps, odd.seed, odd.size),
        ("fox", None, None, None)
    );
    assert_eq!(odd.others.len(), 3);
    Parameters::parse("");
}

fn chunk_names(file: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 8;
    while at + 8 <= file.len() {
        let length = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        names.push(String::from_utf8_lossy(&file[at + 4..at + 8]).into_owned());
        at += 12 + length;
    }
    names
}

#[test]
fn pixels_and_chunks_are_as_asked_for() {
    let rgba: Vec<u8> = (0..5 * 3 * 4).map(|i| (i * 37 % 256) as u8).collect();
    for (text, chunk) in [("Füchslein\nline\0two", "tEXt"), ("狐", "iTXt")] {
        let file = png::encode(&rgba, 5, 3, text).unwrap();
        assert_eq!(chunk_names(&file), ["IHDR", chunk, "IDAT", "IEND"]);
        assert_eq!(png::read_parameters(&file).unwrap().unwrap(), text.replace('\0', ""));
        let mut reader = ::png::Decoder::new(Cursor::new(&file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(
            (info.width, info.height, info.color_type),
            (5, 3, ::png::ColorType::Rgba)
        );
        assert_eq!(pixels, rgba);
    }
}

#[test]
fn text_is_found_in_every_kind_of_chunk_and_place() {
    let write = |add: &dyn Fn(&mut ::png::Encoder<'_, &mut Vec<u8>>), late: Option<&str>| {
        let mut file = Vec::new();
        let mut encoder = ::png::Encoder::new(&mut file, 1, 1);
        encoder.set_color(::png::ColorType::Rgba);
        add(&mut encoder);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[1, 2, 3, 4]).unwrap();
        if let Some(text) = late {
            writer
                .write_text_chunk(&::png::text_metadata::TEXtChunk::new("parameters", text))
                .unwrap();
        }
        writer.finish().unwrap();
        file
    };
    let read = |file: &[u8]| png::read_parameters(file).unwrap();
    let packed = write(
        &|encoder| encoder.add_ztxt_chunk("parameters".into(), "packed".into()).unwrap(),
        None,
    );
    assert_eq!(read(&packed).as_deref(), Some("packed"));
    assert_eq!(read(&write(&|_| {}, Some("late"))).as_deref(), Some("late"));
    let other = write(
        &|encoder| encoder.add_text_chunk("Comment".into(), "other".into()).unwrap(),
        None,
    );
    assert_eq!(read(&other), None);
}

#[test]
fn bad_input_is_refused() {
    for (length, width, height) in [(0, 0, 0), (4, 1, 2), (8, 1, 1), (4, u32::MAX, u32::MAX), (0, 0, 7)] {
        let error = png::encode(&vec![0; length], width, height, "").unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    }
    let file = png::encode(&[9; 64], 4, 4, "").unwrap();
    assert!(matches!(png::read_parameters(b"GIF89a"), Err(Error::Corrupt(_))));
    assert!(matches!(png::read_parameters(&[]), Err(Error::Corrupt(_))));
    assert!(matches!(png::read_parameters(&file[..20]), Err(Error::Corrupt(_))));
    let mut damaged = png::encode(&[9; 64], 4, 4, "text").unwrap();
    damaged[18] ^= 1;
    assert!(matches!(png::read_parameters(&damaged), Err(Error::Corrupt(_))));
}

fn opaque(rgb: &[u8], width: usize, height: usize) -> Rgba {
    let data = rgb.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
    Rgba { width, height, data }
}

/// To the bit, whatever the sizes.
#[test]
fn pictures_are_resized_as_pil_resizes_them() {
    let golden = Golden::read("resize.safetensors");
    let picture = golden.get("picture");
    let picture = opaque(&picture.bytes, picture.shape[1], picture.shape[0]);
    let sizes: Vec<&String> = golden.tensors.keys().filter(|name| name.contains('x')).collect();
    assert!(sizes.len() > 6);
    for size in sizes {
        let (width, height) = size.split_once('x').unwrap();
        let (width, height) = (width.parse().unwrap(), height.parse().unwrap());
        let ours = picture.resized(width, height);
        assert_eq!((ours.width, ours.height), (width, height));
        assert!(ours == opaque(&golden.get(size).bytes, width, height), "{size}");
    }
}

#[test]
fn masks_are_read_as_diffusers_reads_them() {
    let golden = Golden::read("resize.safetensors");
    let picture = golden.get("picture");
    let picture = opaque(&picture.bytes, picture.shape[1], picture.shape[0]);
    let white = |name: &str| -> Vec<bool> { golden.get(name).bytes.iter().map(|b| *b == 1).collect() };
    assert_eq!(picture.is_white(), white("white"));
    let ramp: Vec<u8> = (0..=255).flat_map(|grey| [grey; 3]).collect();
    assert_eq!(opaque(&ramp, 256, 1).is_white(), white("ramp_white"));
}

#[test]
fn pictures_that_are_none_are_refused_by_name() {
    let good = opaque(&[7; 3 * 4], 2, 2);
    good.check("image").unwrap();
    let wide = Rgba {
        width: 20_000,
        height: 1,
        data: vec![255; 80_000],
    };
    let mut translucent = good.clone();
    translucent.data[11] = 254;
    let short = Rgba {
        data: vec![255; 15],
        ..good.clone()
    };
    let empty = Rgba {
        width: 0,
        height: 0,
        data: Vec::new(),
    };
    for (picture, said) in [
        (empty, "1 to 8192 pixels a side, found 0 x 0"),
        (wide, "found 20000 x 1"),
        (short, "found 15"),
        (translucent, "an alpha of 254 in column 0, row 1"),
    ] {
        let refused = picture.check("mask").unwrap_err();
        assert!(matches!(refused, Error::InvalidArgument(_)), "{refused}");
        let message = refused.message();
        assert!(message.starts_with("mask: ") && message.contains(said), "{message}");
    }
}
