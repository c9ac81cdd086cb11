//! What a page asks for with an image: the encoder comes with the first one, sizes follow it, and bad ones are refused by name.

#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

mod common;

use common::{cpu, golden_path};
use safetensors::SafeTensors;
use sha2::Digest;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tintype::checkpoint::expected::hex;
use tintype::checkpoint::{ExpectedFile, ProgressSink, Source, VaeSource};
use tintype::engine::{Engine, GenerateOptions, Generated, Recipe};
use tintype::image::Rgba;
use tintype::library::{Library, LoadOptions};
use tintype::{Error, Result};

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

type Files = BTreeMap<String, Vec<u8>>;

/// A golden checkpoint's files.
fn files(case: &str) -> Files {
    let root = golden_path(&format!("pipelines/{case}"));
    let mut files = Files::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

fn recipe(files: Files, id: &str) -> Recipe {
    Recipe {
        source: Source::memory(files),
        options: LoadOptions {
            id: Some(id.into()),
            ..LoadOptions::default()
        },
    }
}

/// The same with the files' hashes, as a catalogue or the store knows them.
fn known(files: Files, id: &str) -> Recipe {
    let expected = |(name, bytes): (&String, &Vec<u8>)| {
        let sha256 = Some(hex(&sha2::Sha256::digest(bytes)));
        (name.clone(), ExpectedFile { size: None, sha256 })
    };
    let expected = files.iter().map(expected).collect();
    let mut recipe = recipe(files, id);
    recipe.options.open.files = expected;
    recipe
}

fn loaded(case: &str, budget: Option<u64>) -> (Engine, Recipe) {
    let (engine, recipe) = (Engine::new(Library::new(cpu(), budget)), recipe(files(case), case));
    pollster::block_on(engine.load(0, &recipe, &ProgressSink::none())).unwrap();
    (engine, recipe)
}

fn picture(width: usize, height: usize, grey: impl Fn(usize, usize) -> u8) -> Rc<Rgba> {
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let data = rows
        .flat_map(|(x, y)| [grey(x, y), 255 - grey(x, y), 90, 255])
        .collect();
    Rc::new(Rgba { width, height, data })
}

fn image() -> Rc<Rgba> {
    picture(64, 64, |x, y| (x * 3 + y) as u8)
}

fn asked(case: &str) -> GenerateOptions {
    GenerateOptions {
        checkpoint: case.into(),
        prompt: "fox".into(),
        steps: Some(2),
        guidance_scale: Some(1.0),
        seed: Some("3".into()),
        image: Some(image()),
        ..GenerateOptions::default()
    }
}

fn draw(engine: &Engine, recipe: &Recipe, options: &GenerateOptions) -> Result<Generated> {
    let known = || Ok(Some(recipe.clone()));
    pollster::block_on(engine.generate(1, options, known, &ProgressSink::none(), |_| ()))
}

fn pixels(generated: &Generated) -> Vec<&[u8]> {
    generated.pictures.iter().map(|p| p.pixels.data.as_slice()).collect()
}

#[test]
fn the_encoder_is_read_with_the_first_image_and_goes_with_its_checkpoint() {
    let (engine, recipe) = loaded("sd1-image", None);
    let without = engine.library.memory().weights;
    let text = GenerateOptions {
        image: None,
        ..asked("sd1-image")
    };
    draw(&engine, &recipe, &text).unwrap();
    assert_eq!(
        engine.library.memory().weights,
        without,
        "who draws from text pays nothing"
    );
    let first = draw(&engine, &recipe, &asked("sd1-image")).unwrap();
    let with = engine.library.memory().weights;
    assert!(with > without);
    let uploaded = engine.library.counts().uploaded;
    let again = draw(&engine, &recipe, &asked("sd1-image")).unwrap();
    assert_eq!(engine.library.counts().uploaded, uploaded, "once");
    assert_eq!(pixels(&again), pixels(&first));
    // The encoder's slots are not kept.
    let all = GenerateOptions {
        strength: Some(1.0),
        ..asked("sd1-image")
    };
    draw(&engine, &recipe, &all).unwrap();
    let kept = engine.library.memory().working;
    draw(&engine, &recipe, &text).unwrap();
    assert_eq!(engine.library.memory().working, kept);

    // Gone and back, it is the same, and was read in one pass.
    engine.library.unload("sd1-image").unwrap();
    assert_eq!(engine.library.memory().weights, 0);
    let back = draw(&engine, &recipe, &asked("sd1-image")).unwrap();
    assert_eq!(pixels(&back), pixels(&first));
    assert_eq!(engine.library.memory().weights, with);
    assert_eq!(engine.library.counts().uploaded, uploaded + with);
}

#[test]
fn checkpoints_of_one_autoencoder_share_its_encoder() {
    let engine = Engine::new(Library::new(cpu(), None));
    let first = known(files("sd1-image"), "sd1-image");
    pollster::block_on(engine.load(0, &first, &ProgressSink::none())).unwrap();
    let mut other = files("sd1-image");
    // Another UNet: a byte of its metadata is not the same.
    let unet = other.get_mut("unet/diffusion_pytorch_model.safetensors").unwrap();
    let at = unet.windows(4).position(|w| w == b"\"pt\"").unwrap();
    unet[at + 1] = b'P';
    let second = known(other, "other");
    pollster::block_on(engine.load(0, &second, &ProgressSink::none())).unwrap();
    let a = draw(&engine, &first, &asked("sd1-image")).unwrap();
    let (weights, uploaded) = (engine.library.memory().weights, engine.library.counts().uploaded);
    let b = draw(&engine, &second, &asked("other")).unwrap();
    assert_eq!(pixels(&a), pixels(&b));
    assert_eq!(engine.library.memory().weights, weights, "held once");
    assert_eq!(engine.library.counts().uploaded, uploaded, "read once");
    engine.library.unload("sd1-image").unwrap();
    assert_eq!(pixels(&draw(&engine, &second, &asked("other")).unwrap()), pixels(&b));

    // One that paints into images brings its encoder with it, and shares with those that don't.
    let mut inpaint = files("sd1-inpaint");
    for name in [VAE, "vae/config.json"] {
        inpaint.insert(name.into(), files("sd1-image")[name].clone());
    }
    let third = known(inpaint.clone(), "third");
    let (before, uploaded) = (engine.library.memory().weights, engine.library.counts().uploaded);
    let resident = pollster::block_on(engine.load(0, &third, &ProgressSink::none())).unwrap();
    let held = engine.library.memory().weights;
    assert!(held < before + resident.bytes);
    assert_eq!(engine.library.counts().uploaded - uploaded, held - before);
    drop(resident);
    // Where nobody knows the files' hashes, it is read to be known.
    let fourth = recipe(inpaint, "fourth");
    pollster::block_on(engine.load(0, &fourth, &ProgressSink::none())).unwrap();
    assert_eq!(engine.library.memory().weights, held, "held once");
}

/// The tensors of a file that are to stay.
fn keeping(bytes: &[u8], stays: impl Fn(&str) -> bool) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let tensors: Vec<_> = file.iter().filter(|(name, _)| stays(name)).collect();
    safetensors::serialize(tensors, None).unwrap()
}

#[test]
fn an_encoder_that_fails_leaves_all_as_it_was() {
    let (engine, recipe) = loaded("sd1-image", None);
    let text = GenerateOptions {
        image: None,
        ..asked("sd1-image")
    };
    let good = draw(&engine, &recipe, &text).unwrap();
    let held = engine.library.memory().weights;
    let altered = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut files = files("sd1-image");
        change(files.get_mut(VAE).unwrap());
        self::recipe(files, "sd1-image")
    };
    let other_bytes = altered(&|vae| {
        let (at, header) = SafeTensors::read_metadata(vae).unwrap();
        let decoder = header.info("decoder.conv_in.weight").unwrap().data_offsets.0;
        vae[8 + at + decoder] ^= 1;
    });
    let no_encoder = altered(&|vae| *vae = keeping(vae, |name| !name.starts_with("encoder.conv_in")));
    let cut_off = altered(&|vae| vae.truncate(vae.len() / 2));
    let gone = {
        let mut files = files("sd1-image");
        files.remove(VAE);
        self::recipe(files, "sd1-image")
    };
    for (recipe, code, said) in [
        (
            &other_bytes,
            "corrupt",
            "vae: the file has changed since the checkpoint was loaded",
        ),
        (&no_encoder, "corrupt", "vae: tensor \"encoder.conv_in"),
        (&cut_off, "corrupt", "vae/diffusion_pytorch_model.safetensors"),
        (&gone, "not-found", "vae/diffusion_pytorch_model.safetensors"),
    ] {
        let refused = draw(&engine, recipe, &asked("sd1-image")).err().unwrap();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(said), "{refused}");
        assert_eq!(engine.library.memory().weights, held, "{said}");
        assert_eq!(pixels(&draw(&engine, recipe, &text).unwrap()), pixels(&good));
    }
    draw(&engine, &recipe, &asked("sd1-image")).unwrap();

    // A file without an encoder draws from text; it can be loaded, and says later what it lacks.
    let mut files = files("sd1-image");
    let vae = files.get_mut(VAE).unwrap();
    *vae = keeping(vae, |name| {
        name.starts_with("decoder.") || name.starts_with("post_quant_conv.")
    });
    let decodes = self::recipe(files, "decodes");
    let resident = pollster::block_on(engine.load(0, &decodes, &ProgressSink::none())).unwrap();
    assert!(resident.warnings.is_empty(), "{:?}", resident.warnings);
    drop(resident);
    // Whether it is in memory or read again for it.
    for _ in 0..2 {
        let refused = draw(&engine, &decodes, &asked("decodes")).err().unwrap();
        assert_eq!(refused.code(), "unsupported", "{refused}");
        assert!(refused.message().contains("expected an encoder"), "{refused}");
        drop(engine.library.unload("decodes"));
    }
    // One that paints into images can't do without: that is said of it before it is loaded.
    let mut inpaint = self::files("sd1-inpaint");
    let vae = inpaint.get_mut(VAE).unwrap();
    *vae = keeping(vae, |name| !name.starts_with("encoder."));
    let inpaint = self::recipe(inpaint, "inpaint");
    let said = pollster::block_on(engine.inspect(5, &inpaint, &ProgressSink::none())).unwrap();
    assert!(said.unsupported[0].contains("expected an encoder"), "{said:?}");
    let refused = pollster::block_on(engine.load(0, &inpaint, &ProgressSink::none()));
    assert_eq!(refused.err().unwrap().code(), "unsupported");
    let mut text = text;
    text.checkpoint = "decodes".into();
    assert_eq!(pixels(&draw(&engine, &decodes, &text).unwrap()), pixels(&good));
}

#[test]
fn an_image_has_room_or_is_refused_with_figures() {
    let (engine, recipe) = loaded("sd1-image", None);
    let inspect = |engine: &Engine, recipe: &Recipe| {
        let said = pollster::block_on(engine.inspect(5, recipe, &ProgressSink::none()));
        said.unwrap().memory.unwrap()
    };
    let needs = inspect(&engine, &recipe);
    let most = needs.with_image.unwrap();
    assert!(most > needs.peak());
    // The guidance and steps of the defaults decide what a picture takes.
    let options = GenerateOptions {
        steps: None,
        guidance_scale: None,
        ..asked("sd1-image")
    };
    drop(engine);
    let (engine, recipe) = loaded("sd1-image", Some(most));
    draw(&engine, &recipe, &options).unwrap();
    let memory = engine.library.memory();
    assert!(memory.weights + memory.working <= most);
    assert!(memory.weights > needs.weights);

    let (engine, recipe) = loaded("sd1-image", Some(most - 1));
    let refused = draw(&engine, &recipe, &options).err().unwrap();
    assert!(matches!(refused, Error::OutOfMemory(_)), "{refused}");
    assert!(refused.message().contains("memoryBudget is"), "{refused}");
    let text = GenerateOptions {
        image: None,
        ..options.clone()
    };
    draw(&engine, &recipe, &text).unwrap();

    let inpaints = self::recipe(files("sd1-inpaint"), "x");
    let needs = inspect(&engine, &inpaints);
    assert_eq!(needs.with_image, Some(needs.peak()));
}

#[test]
fn sizes_follow_the_image() {
    let (engine, recipe) = loaded("sd1-image", None);
    // A latent stands for four pixels a side.
    let image = picture(71, 50, |x, y| (x + y) as u8);
    for (width, height, expected) in [
        (None, None, (68, 48)),
        (Some(32), None, (32, 24)),
        (None, Some(64), (92, 64)),
        (Some(16), Some(8), (16, 8)),
    ] {
        let options = GenerateOptions {
            image: Some(image.clone()),
            width,
            height,
            ..asked("sd1-image")
        };
        let drawn = draw(&engine, &recipe, &options).unwrap();
        let picture = &drawn.pictures[0].pixels;
        assert_eq!((picture.width, picture.height), expected);
    }
    let tiny = GenerateOptions {
        image: Some(picture(3, 1, |x, _| x as u8)),
        ..asked("sd1-image")
    };
    let drawn = draw(&engine, &recipe, &tiny).unwrap();
    assert_eq!(
        (drawn.pictures[0].pixels.width, drawn.pictures[0].pixels.height),
        (4, 4)
    );
}

#[test]
fn only_the_steps_that_run_are_told_and_each_picture_has_its_own_seed() {
    let (engine, recipe) = loaded("sd1-image", None);
    let told = RefCell::new(Vec::new());
    let options = GenerateOptions {
        steps: Some(5),
        strength: Some(0.5),
        sampler: Some("Euler a".into()),
        mask: Some(picture(64, 64, |x, _| if x < 16 { 0 } else { 255 })),
        count: Some(2),
        ..asked("sd1-image")
    };
    let known = || Ok(Some(recipe.clone()));
    let on_step = |step: tintype::pipeline::StepReport| told.borrow_mut().push((step.step, step.steps));
    let both = pollster::block_on(engine.generate(1, &options, known, &ProgressSink::none(), on_step)).unwrap();
    assert_eq!(told.into_inner(), [(1, 2), (2, 2), (1, 2), (2, 2)]);
    assert!(both.timings[0].encode > 0.0 && both.timings[1].encode == 0.0);
    let second = GenerateOptions {
        seed: Some("4".into()),
        count: None,
        ..options
    };
    let second = draw(&engine, &recipe, &second).unwrap();
    assert_eq!(pixels(&both)[1], pixels(&second)[0]);
    assert_ne!(pixels(&both)[0], pixels(&both)[1]);
    let text = both.pictures[0].parameters.to_string();
    assert!(
        text.contains("Steps: 5") && text.contains("Denoising strength: 0.5"),
        "{text}"
    );
    // The mask's green is black where its red is white: more than half of the luma's weight.
    assert!(text.contains("Masked area: "), "{text}");

    // Defaults are diffusers'.
    for (mask, strength) in [(None, 0.8), (Some(image()), 1.0)] {
        let drawn = draw(
            &engine,
            &recipe,
            &GenerateOptions {
                mask,
                ..asked("sd1-image")
            },
        );
        assert_eq!(drawn.unwrap().pictures[0].parameters.strength, Some(strength));
    }
}

#[test]
fn what_cannot_be_is_refused_by_name_before_anything_is_read() {
    let (engine, recipe) = loaded("sd1-image", None);
    let held = engine.library.memory().weights;
    let with = |change: &dyn Fn(&mut GenerateOptions)| {
        let mut options = asked("sd1-image");
        change(&mut options);
        options
    };
    let translucent = || {
        let mut picture = (*image()).clone();
        picture.data[7] = 0;
        Some(Rc::new(picture))
    };
    let empty = || {
        Some(Rc::new(Rgba {
            width: 0,
            height: 8,
            data: Vec::new(),
        }))
    };
    let wide = || Some(picture(20_000, 1, |_, _| 0));
    for (options, said) in [
        (
            with(&|o| {
                o.mask = o.image.take();
            }),
            "mask: expected the option image beside it, found none",
        ),
        (
            with(&|o| (o.image, o.strength) = (None, Some(0.5))),
            "strength: expected the option image beside it, found none",
        ),
        (
            with(&|o| o.strength = Some(1.5)),
            "strength: expected a number from 0 to 1, found 1.5",
        ),
        (
            with(&|o| o.strength = Some(-0.1)),
            "strength: expected a number from 0 to 1",
        ),
        (
            with(&|o| o.strength = Some(f64::NAN)),
            "strength: expected a number from 0 to 1, found NaN",
        ),
        (
            with(&|o| o.strength = Some(0.4)),
            "strength: of 2 steps 0.4 leaves none to take; expected at least 0.5",
        ),
        (
            with(&|o| o.strength = Some(0.0)),
            "strength: of 2 steps 0.0 leaves none",
        ),
        (
            with(&|o| o.image = translucent()),
            "image: expected opaque pixels, found an alpha of 0 in column 1, row 0",
        ),
        (with(&|o| o.mask = translucent()), "mask: expected opaque pixels"),
        (
            with(&|o| o.image = empty()),
            "image: expected 1 to 8192 pixels a side, found 0 x 8",
        ),
        (with(&|o| o.mask = empty()), "mask: expected 1 to 8192 pixels a side"),
        (
            with(&|o| o.image = wide()),
            "image: expected 1 to 8192 pixels a side, found 20000 x 1",
        ),
        (with(&|o| o.width = Some(63)), "width: expected a multiple of 4"),
        (with(&|o| o.steps = Some(0)), "steps: expected 1 to"),
    ] {
        let refused = draw(&engine, &recipe, &options).err().unwrap();
        assert_eq!(refused.code(), "invalid-argument", "{refused}");
        assert!(refused.message().starts_with(said), "{refused}");
        assert_eq!(engine.library.memory().weights, held);
    }
    // Of two checkpoints only one paints into images, and that one does nothing else.
    let (engine, recipe) = loaded("sd1-inpaint", None);
    for (image, said) in [
        (None, "give the options image and mask"),
        (Some(image()), "give the option mask too"),
    ] {
        let options = GenerateOptions {
            image,
            ..asked("sd1-inpaint")
        };
        let refused = draw(&engine, &recipe, &options).err().unwrap();
        assert_eq!(refused.code(), "unsupported", "{refused}");
        assert!(refused.message().contains(said), "{refused}");
    }
}

#[test]
fn a_picture_over_an_image_is_cancelled_and_the_next_is_as_before() {
    let (engine, recipe) = loaded("sd1-image", None);
    let good = draw(&engine, &recipe, &asked("sd1-image")).unwrap();
    let options = GenerateOptions {
        steps: Some(20),
        ..asked("sd1-image")
    };
    let known = || Ok(Some(recipe.clone()));
    let on_step = |step: tintype::pipeline::StepReport| {
        if step.step == 2 {
            engine.cancel(9);
        }
    };
    let stopped = pollster::block_on(engine.generate(9, &options, known, &ProgressSink::none(), on_step));
    let stopped = stopped.err().unwrap();
    assert_eq!(stopped.code(), "cancelled");
    assert_eq!(
        pixels(&draw(&engine, &recipe, &asked("sd1-image")).unwrap()),
        pixels(&good)
    );
}

#[test]
fn an_autoencoder_from_elsewhere_encodes_too() {
    let tiny = files("sd1-tiny-image");
    // The same checkpoint, with the other's autoencoder among its files and without.
    let mut own = files("sd1-image");
    for name in [VAE, "vae/config.json"] {
        own.insert(name.into(), tiny[name].clone());
    }
    let mut index: serde_json::Value = serde_json::from_slice(&own["model_index.json"]).unwrap();
    index["vae"] = serde_json::json!(["diffusers", "AutoencoderTiny"]);
    own.insert("model_index.json".into(), index.to_string().into_bytes());
    let own = recipe(own, "own");
    let mut elsewhere = recipe(files("sd1-image"), "elsewhere");
    elsewhere.options.open.vae = Some(VaeSource {
        source: Source::memory(tiny),
        file: None,
        name: Some("tiny".into()),
        files: BTreeMap::default(),
    });
    let engine = Engine::new(Library::new(cpu(), None));
    let drawn = [&own, &elsewhere].map(|recipe| {
        pollster::block_on(engine.load(0, recipe, &ProgressSink::none())).unwrap();
        let options = GenerateOptions {
            mask: Some(image()),
            strength: Some(0.6),
            ..asked(recipe.options.id.as_deref().unwrap())
        };
        draw(&engine, recipe, &options).unwrap()
    });
    assert_eq!(pixels(&drawn[0]), pixels(&drawn[1]));
    let own = loaded("sd1-image", None);
    let options = GenerateOptions {
        mask: Some(image()),
        strength: Some(0.6),
        ..asked("sd1-image")
    };
    assert_ne!(pixels(&draw(&own.0, &own.1, &options).unwrap()), pixels(&drawn[0]));
}
