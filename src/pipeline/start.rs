//! What a picture begins with: noise, or an image with noise over it. diffusers' `StableDiffusionImg2ImgPipeline` and
//! `StableDiffusionInpaintPipeline`, and those of SDXL.

use super::plans::{Key, PlanCache, Prepared};
use super::request::{Request, latent_size};
use super::{Model, Models};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::executor::{Data, Executor};
use crate::graph::Rate;
use crate::models::vae::VaeConfig;
use crate::sampler::noise::Generator;

/// An image as the autoencoder's encoder has it, on the host: it is small. Each picture that is drawn over it begins with this.
pub struct EncodedImage {
    /// What the encoder gave for the image, where that is looked at.
    image: Option<Vec<f32>>,
    /// The same for the image without what is repainted.
    masked: Option<Vec<f32>>,
    /// For each latent whether it is repainted.
    mask: Option<Vec<bool>>,
    /// Nothing of the image is in the first sample.
    pure_noise: bool,
}

/// Encodes the image of a request, if it has one. The encoder's memory is let go afterwards.
///
/// # Errors
/// [`Error::Internal`] if the encoder's weights were not read; [`Error::Unsupported`] for an encoder that is not implemented;
/// [`Error::Cancelled`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
pub async fn encode_image(
    executor: &Executor,
    models: &Models,
    plans: &PlanCache,
    request: &Request,
    cancel: &CancelToken,
) -> Result<Option<EncodedImage>> {
    let Some(image) = &request.image else { return Ok(None) };
    models.draws(request)?;
    let (vae, factor) = (&models.vae.config, models.vae.config.factor());
    let [height, width] = latent_size(factor, request)?;
    let image = image.resized(request.width, request.height);
    let weights = models.encoder.as_ref();
    let weights = weights.ok_or_else(|| Error::Internal("the autoencoder's encoder was not read".into()))?;

    let white = image.mask.as_ref().map(|mask| mask.is_white());
    let inpaints = models.unet.config.inpaints();
    let pure_noise = white.is_some() && image.strength == 1.0;
    let pixels = image.pixels.to_floats();
    let masked = white.as_ref().filter(|_| inpaints).map(|white| -> Vec<f32> {
        let kept = pixels.chunks_exact(3).zip(white);
        kept.flat_map(|(p, white)| if *white { [0.0; 3] } else { [p[0], p[1], p[2]] })
            .collect()
    });
    let key = Key::encoder(vae, [height, width]);
    let encoder = Encoder {
        executor,
        model: Model {
            config: vae.clone(),
            weights: weights.clone(),
        },
        prepared: plans.get(executor, key.clone()).await?,
    };
    let mut encoded = EncodedImage {
        image: None,
        masked: None,
        mask: white.map(|white| {
            // Nearest neighbours, as torch's `interpolate` finds them.
            let rows = white.chunks_exact(request.width).step_by(factor);
            rows.flat_map(|row| row.iter().step_by(factor).copied()).collect()
        }),
        pure_noise,
    };
    if !(pure_noise && inpaints) {
        encoded.image = Some(encoder.run(&pixels, cancel).await?);
    }
    if let Some(masked) = masked {
        encoded.masked = Some(encoder.run(&masked, cancel).await?);
    }
    drop(encoder);
    plans.release(&key);
    Ok(Some(encoded))
}

/// The encoder, ready to run.
struct Encoder<'a> {
    executor: &'a Executor,
    model: Model<VaeConfig>,
    prepared: Prepared,
}

impl Encoder<'_> {
    async fn run(&self, pixels: &[f32], cancel: &CancelToken) -> Result<Vec<f32>> {
        let Self {
            executor,
            model,
            prepared: Prepared { plan, instance, .. },
        } = self;
        executor.write(instance, "sample", 0, Data::F32(pixels))?;
        executor.run(instance, &model.weights, Rate::Step, 0, 0, cancel).await?;
        let output = executor.view(instance, plan.output(model.config.encoded())?, 0)?;
        executor.read(&output).await
    }
}

/// What the first sample is made of, and what else of an image the steps need. Latents are `[height, width, channels]`.
pub(super) struct Start {
    /// The clean latents of the image, if they are looked at.
    pub(super) original: Option<Vec<f32>>,
    /// The first noise.
    pub(super) noise: Vec<f32>,
    /// The first sample has nothing of the image.
    pub(super) pure_noise: bool,
    /// 1 where the image stays and is laid over each step's sample, where that is to be done.
    pub(super) kept: Option<Vec<f32>>,
    /// What a UNet that inpaints reads beside latents: the mask, and the latents of what stays.
    pub(super) condition: Option<Vec<f32>>,
}

impl Start {
    /// Draws what is random about it, in diffusers' order.
    pub(super) fn new(
        models: &Models,
        image: Option<&EncodedImage>,
        size: [usize; 2],
        generator: &mut Generator,
    ) -> Self {
        let vae = &models.vae.config;
        let channels = vae.latent_channels();
        // Where there is a mask, SDXL's pipeline scales latents, and looks at no mean and deviation.
        let normalised = image.is_some_and(|image| image.mask.is_none());
        let latents = |encoded: &[f32], generator: &mut Generator| match vae {
            VaeConfig::Kl(config) => config.latents(encoded, &noise(generator, channels, size), normalised),
            VaeConfig::Tiny(_) => encoded.to_vec(),
        };
        let original = image.and_then(|image| Some(latents(image.image.as_ref()?, generator)));
        let first = noise(generator, channels, size);
        let mut start = Self {
            original,
            noise: first,
            pure_noise: image.is_none_or(|image| image.pure_noise),
            kept: None,
            condition: None,
        };
        let Some((image, mask)) = image.and_then(|image| Some((image, image.mask.as_ref()?))) else {
            return start;
        };
        if let Some(masked) = &image.masked {
            let masked = latents(masked, generator);
            let each = mask.iter().zip(masked.chunks_exact(channels));
            let each = each.flat_map(|(mask, latent)| std::iter::once(f32::from(*mask)).chain(latent.iter().copied()));
            start.condition = Some(each.collect());
        } else {
            if let VaeConfig::Kl(_) = vae {
                // diffusers encodes what stays all the same, and then has no use for it.
                drop(noise(generator, channels, size));
            }
            let each = mask
                .iter()
                .flat_map(|mask| std::iter::repeat_n(f32::from(!mask), channels));
            start.kept = Some(each.collect());
        }
        start
    }
}

/// What `torch.randn([1, channels, height, width])` draws, as `[height, width, channels]`.
pub(super) fn noise(generator: &mut Generator, channels: usize, [height, width]: [usize; 2]) -> Vec<f32> {
    let pixels = height * width;
    let planes = generator.randn(channels * pixels);
    (0..pixels)
        .flat_map(|i| planes.iter().skip(i).step_by(pixels).copied())
        .collect()
}
