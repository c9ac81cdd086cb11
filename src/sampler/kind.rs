//! The names of samplers: diffusers' class names and AUTOMATIC1111's menu names.

use crate::{Error, Result};

/// A scheduler class of diffusers that is implemented here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerClass {
    /// `DDIMScheduler`: Denoising Diffusion Implicit Models (arXiv 2010.02502), eta 0.
    Ddim,
    /// `DDPMScheduler`: Denoising Diffusion Probabilistic Models (arXiv 2006.11239).
    Ddpm,
    /// `PNDMScheduler`: Pseudo Numerical Methods (arXiv 2202.09778) without the Runge-Kutta steps.
    Pndm,
    /// `EulerDiscreteScheduler`: Euler steps over sigmas (arXiv 2206.00364), no churn.
    Euler,
    /// `EulerAncestralDiscreteScheduler`: Euler steps with fresh noise after each.
    EulerAncestral,
    /// `DPMSolverMultistepScheduler`: DPM-Solver++ multistep (arXiv 2211.01095).
    DpmSolverMultistep,
    /// `HeunDiscreteScheduler`: Heun's method over sigmas (arXiv 2206.00364), no churn; n steps call the model 2n - 1 times.
    Heun,
    /// `LCMScheduler`: multistep sampling of latent consistency models (arXiv 2310.04378).
    Lcm,
    /// `TCDScheduler`: trajectory consistency distillation (arXiv 2402.19159).
    Tcd,
    /// `UniPCMultistepScheduler`: a unified predictor and corrector (arXiv 2302.04867).
    UniPcMultistep,
    /// `DEISMultistepScheduler`: the diffusion exponential integrator (arXiv 2204.13902).
    DeisMultistep,
}

impl SchedulerClass {
    /// All of them, in the menu's order.
    pub const ALL: [Self; 11] = [
        Self::DpmSolverMultistep,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Lcm,
        Self::Tcd,
        Self::Ddim,
        Self::Pndm,
        Self::Ddpm,
        Self::UniPcMultistep,
        Self::DeisMultistep,
    ];

    /// The name that diffusers gives the class.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::Ddpm => "DDPMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::DpmSolverMultistep => "DPMSolverMultistepScheduler",
            Self::Heun => "HeunDiscreteScheduler",
            Self::Lcm => "LCMScheduler",
            Self::Tcd => "TCDScheduler",
            Self::UniPcMultistep => "UniPCMultistepScheduler",
            Self::DeisMultistep => "DEISMultistepScheduler",
        }
    }

    /// The class of this name (diffusers' spelling, any case).
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a class that is not implemented.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|class| class.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                Error::Unsupported(format!(
                    "scheduler class {name:?} is not implemented; there are {known}"
                ))
            })
    }
}

/// A sampler that a caller may choose: a class, and the keys of its configuration that the choice decides. A class alone
/// leaves all keys to the checkpoint, as diffusers does where only the class is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SamplerKind {
    pub(super) class: SchedulerClass,
    pub(super) settings: Settings,
}

/// Keys of a configuration that are switched on or off.
type Settings = &'static [(&'static str, bool)];

/// AUTOMATIC1111's names, in the menu's order.
const MENU: [(&str, SchedulerClass, Settings); 16] = [
    (
        "DPM++ 2M",
        SchedulerClass::DpmSolverMultistep,
        &[("use_karras_sigmas", false)],
    ),
    (
        "DPM++ 2M Karras",
        SchedulerClass::DpmSolverMultistep,
        &[("use_karras_sigmas", true)],
    ),
    ("Euler", SchedulerClass::Euler, &[("use_karras_sigmas", false)]),
    ("Euler Karras", SchedulerClass::Euler, &[("use_karras_sigmas", true)]),
    ("Euler a", SchedulerClass::EulerAncestral, &[]),
    ("Heun", SchedulerClass::Heun, &[("use_karras_sigmas", false)]),
    ("Heun Karras", SchedulerClass::Heun, &[("use_karras_sigmas", true)]),
    ("LCM", SchedulerClass::Lcm, &[]),
    ("TCD", SchedulerClass::Tcd, &[]),
    ("DDIM", SchedulerClass::Ddim, &[("clip_sample", false)]),
    ("PLMS", SchedulerClass::Pndm, &[("skip_prk_steps", true)]),
    ("DDPM", SchedulerClass::Ddpm, &[("clip_sample", false)]),
    ("UniPC", SchedulerClass::UniPcMultistep, &[("use_karras_sigmas", false)]),
    (
        "UniPC Karras",
        SchedulerClass::UniPcMultistep,
        &[("use_karras_sigmas", true)],
    ),
    ("DEIS", SchedulerClass::DeisMultistep, &[("use_karras_sigmas", false)]),
    (
        "DEIS Karras",
        SchedulerClass::DeisMultistep,
        &[("use_karras_sigmas", true)],
    ),
];

impl SamplerKind {
    /// The sampler of this name: a menu name ("DPM++ 2M Karras") or a class name of diffusers ("DDIMScheduler"), in any
    /// case.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a name that is neither, with the list of names.
    pub fn from_name(name: &str) -> Result<Self> {
        let name = name.trim();
        if let Some((_, class, settings)) = MENU.iter().find(|(menu, ..)| menu.eq_ignore_ascii_case(name)) {
            return Ok(Self {
                class: *class,
                settings,
            });
        }
        let class = SchedulerClass::from_name(name).map_err(|_| {
            let menu = Self::names().join(", ");
            let classes = SchedulerClass::ALL.map(SchedulerClass::name).join(", ");
            Error::InvalidArgument(format!("sampler: expected one of {menu}, {classes}; found {name:?}"))
        })?;
        Ok(Self { class, settings: &[] })
    }

    /// The menu, in its order.
    pub fn names() -> Vec<&'static str> {
        MENU.iter().map(|(name, ..)| *name).collect()
    }

    /// The scheduler class that does the work.
    pub fn class(self) -> SchedulerClass {
        self.class
    }
}

/// The menu's name of a class with a configuration of which `flag` tells whether a key is on; the class's own name where
/// the menu has none.
pub(super) fn menu_name(class: SchedulerClass, flag: impl Fn(&str) -> bool) -> &'static str {
    let same = |(_, menu_class, settings): &&(&str, SchedulerClass, Settings)| {
        *menu_class == class && settings.iter().all(|(key, on)| flag(key) == *on)
    };
    MENU.iter().find(same).map_or(class.name(), |(name, ..)| name)
}
