//! Pictures drawn by a whole pipeline, and how far they are from diffusers'.

use std::path::Path;
use std::rc::Rc;

use tintype::cancel::CancelToken;
use tintype::checkpoint::{ProgressSink, Source};
use tintype::library::{Library, LoadOptions, Resident, Room};
use tintype::pipeline::{Request, draw as draw_picture, encode_image};

/// The pipelines below `tests/golden/pipelines`.
pub const PIPELINES: [&str; 19] = [
    "sd1-ddim",
    "sd2-euler",
    "dpm-karras",
    "ddpm",
    "one-step",
    "odd-sizes",
    "sdxl",
    "sdxl-one-encoder",
    "sdxl-turbo",
    "lcm-euler",
    "lcm",
    "bk-sdm-tiny",
    "sd2-base",
    "sd-turbo",
    "sdxs",
    "sdxl-lightning",
    "ssd-1b",
    "segmind-vega",
    "koala",
];

/// Loads a checkpoint's folder.
pub fn load(library: &Library, folder: &Path) -> Rc<Resident> {
    let (options, progress, cancel) = (LoadOptions::default(), ProgressSink::none(), CancelToken::default());
    let loading = library.load(Source::Dir(folder.into()), &options, Room::Any, &progress, &cancel);
    pollster::block_on(loading).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

/// The same checkpoint with its autoencoder's encoder.
pub fn load_encoder(library: &Library, resident: &Resident, folder: &Path) -> Rc<Resident> {
    let (options, progress, cancel) = (LoadOptions::default(), ProgressSink::none(), CancelToken::default());
    let source = Source::Dir(folder.into());
    let reading = library.read_encoder(&resident.id, source, &options, Room::Any, &progress, &cancel);
    pollster::block_on(reading).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

/// Draws a picture: red, green and blue of each pixel, row after row.
pub fn draw(library: &Library, resident: &Resident, request: &Request) -> Vec<u8> {
    let cancel = CancelToken::default();
    let (executor, models, plans) = (&library.executor, &resident.models, &library.plans);
    let drawing = async {
        let image = encode_image(executor, models, plans, request, &cancel).await?;
        draw_picture(executor, models, plans, request, image.as_ref(), |_| (), &cancel).await
    };
    let (pixels, ..) = pollster::block_on(drawing).unwrap_or_else(|e| panic!("{}: {e}", resident.name));
    assert_eq!((pixels.width, pixels.height), (request.width, request.height));
    assert!(pixels.data.chunks_exact(4).all(|p| p[3] == 255));
    pixels.data.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect()
}

/// The largest and the mean difference of two pictures' bytes.
pub fn byte_distance(ours: &[u8], theirs: &[u8]) -> (u8, f64) {
    assert_eq!(ours.len(), theirs.len());
    let far = || ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = far().map(f64::from).sum();
    (far().max().unwrap_or(0), sum / ours.len() as f64)
}

/// Whether a picture is diffusers': no byte is off by more than 2, and the mean is below a quarter.
pub fn is_same_picture((largest, mean): (u8, f64)) -> bool {
    largest <= 2 && mean < 0.25
}
