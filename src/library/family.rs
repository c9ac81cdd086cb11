//! What a checkpoint is by its configurations, and what its like draws well with when nothing is said.
//!
//! A config does not always tell. What was distilled to few steps (Turbo, Lightning) has the UNet's config of what it was
//! distilled from; its scheduler gives it away: Euler steps with trailing timesteps, over epsilons. A model that is
//! published so without being distilled would draw badly by default; a catalogue's hints go before all of this.

use crate::models::unet::{MidBlock, UnetConfig};
use serde_json::Value;

/// A family of checkpoints.
pub struct Family {
    /// What a person calls it.
    pub name: &'static str,
    is: fn(&Signs<'_>) -> bool,
    /// Number of steps.
    pub steps: usize,
    /// Weight of the prompt.
    pub guidance_scale: f32,
}

/// From the special to the general: the first that fits is taken.
static FAMILIES: [Family; 18] = [
    //          name, how it is known, steps, guidance scale (the figures of the model's card or its pipeline)
    family("SDXL inpainting", |s| s.xl() && s.inpaints(), 25, 7.5),
    family("SD 2.x inpainting", |s| s.sd2() && s.inpaints(), 20, 7.5),
    family("SD 1.x inpainting", |s| s.inpaints(), 20, 7.5),
    // Told the guidance scale; else distilled by a LoRA, with no guidance at all.
    family("SDXL LCM", |s| s.xl() && s.is_told_guidance(), 4, 8.0),
    family("SDXL LCM", |s| s.xl() && s.scheduler("LCMScheduler"), 4, 1.0),
    family("LCM", |s| s.is_told_guidance(), 4, 8.5),
    family("LCM", |s| s.scheduler("LCMScheduler"), 4, 1.0),
    family("SDXL Turbo", |s| s.xl() && s.few_steps() && s.sample_size(64), 1, 0.0),
    family("SDXL Lightning", |s| s.xl() && s.few_steps(), 4, 0.0),
    family("SSD-1B", |s| s.xl_without_middle(4), 25, 9.0),
    family("Segmind Vega", |s| s.xl_without_middle(2), 25, 9.0),
    family("KOALA", |s| s.xl_sized() && s.layers(1), 25, 3.5),
    family("SDXL", |s| s.xl(), 25, 5.0),
    // Its UNet draws at once whatever scheduler comes with it.
    family("SDXS", |s| s.sdxs(), 1, 0.0),
    family("SD Turbo", |s| s.sd2() && s.few_steps(), 1, 0.0),
    family("SD 2.x", |s| s.sd2(), 20, 7.5),
    family("BK-SDM", |s| s.channels(&[320, 640, 1280]) && s.layers(1), 20, 7.5),
    family("SD 1.x", |_| true, 20, 7.5),
];

const fn family(name: &'static str, is: fn(&Signs<'_>) -> bool, steps: usize, guidance_scale: f32) -> Family {
    Family {
        name,
        is,
        steps,
        guidance_scale,
    }
}

impl Family {
    /// The family of a checkpoint, by its UNet and its scheduler's config as the file has it.
    pub fn of(unet: &UnetConfig, scheduler: &Value) -> &'static Self {
        let signs = Signs { unet, scheduler };
        let fits = FAMILIES.iter().find(|family| (family.is)(&signs));
        fits.unwrap_or(&FAMILIES[FAMILIES.len() - 1])
    }
}

/// What a family is known by.
struct Signs<'a> {
    unet: &'a UnetConfig,
    scheduler: &'a Value,
}

impl Signs<'_> {
    fn xl(&self) -> bool {
        self.unet.text_time.is_some()
    }

    /// Of SDXL's own width: a cut of it, and no other model.
    fn xl_sized(&self) -> bool {
        self.xl() && self.channels(&[320, 640, 1280])
    }

    /// A cut whose middle has no transformer; those of its coarsest level have so many blocks.
    fn xl_without_middle(&self, blocks: usize) -> bool {
        let coarsest = self.unet.levels.last().map(|level| level.transformer_layers.iter());
        let deep = coarsest.is_some_and(|mut layers| layers.all(|&n| n == blocks));
        self.xl_sized() && self.unet.mid_block == MidBlock::Resnet && deep
    }

    fn sdxs(&self) -> bool {
        let finest_attends = self.unet.levels.first().is_some_and(|level| level.down_attention);
        let cut = self.layers(1) && self.unet.mid_block == MidBlock::None && !finest_attends;
        self.channels(&[320, 640, 1280]) && cut
    }

    fn sd2(&self) -> bool {
        self.unet.use_linear_projection && !self.xl()
    }

    fn inpaints(&self) -> bool {
        self.unet.in_channels != self.unet.out_channels
    }

    fn is_told_guidance(&self) -> bool {
        self.unet.time_cond_proj_dim.is_some()
    }

    fn scheduler(&self, class: &str) -> bool {
        self.scheduler["_class_name"] == class
    }

    /// The scheduler of a model that was distilled to a few steps.
    fn few_steps(&self) -> bool {
        let on = |key: &str, value: &str, default: bool| self.scheduler[key].as_str().map_or(default, |v| v == value);
        (self.scheduler("EulerDiscreteScheduler") || self.scheduler("EulerAncestralDiscreteScheduler"))
            && on("timestep_spacing", "trailing", false)
            && on("prediction_type", "epsilon", true)
            && self.scheduler["rescale_betas_zero_snr"] != true
    }

    fn sample_size(&self, side: usize) -> bool {
        self.unet.sample_size == Some([side; 2])
    }

    fn channels(&self, first: &[usize]) -> bool {
        let mut levels = self.unet.levels.iter().map(|level| level.channels);
        first.iter().all(|&channels| levels.next() == Some(channels))
    }

    fn layers(&self, layers: usize) -> bool {
        self.unet.levels.iter().all(|level| level.layers == layers)
    }
}
