//! The names of samplers: diffusers' class names and AUTOMATIC1111's menu names.

use crate::{Error, Result};

/// A scheduler class of diffusers that is implemented here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerClass {
    /// `DDIMScheduler`: Denoising Diffusion Implicit Models (arXiv 2010.02502), eta 0.
    Ddim,
    /// `DDPMScheduler`: Denoising Diffusion Probabilistic Models (arXiv 2006.11239).
    Ddpm,
    /// `EulerDiscreteScheduler`: Euler steps over sigmas (arXiv 2206.00364), no churn.
    Euler,
    /// `DPMSolverMultistepScheduler`: DPM-Solver++ multistep (arXiv 2211.01095).
    DpmSolverMultistep,
}

impl SchedulerClass {
    /// All of them, in the menu's order.
    pub const ALL: [Self; 4] = [Self::DpmSolverMultistep, Self::Euler, Self::Ddim, Self::Ddpm];

    /// The name that diffusers gives the class.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::Ddpm => "DDPMScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::DpmSolverMultistep => "DPMSolverMultistepScheduler",
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

/// A sampler that a caller may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SamplerKind {
    /// The scheduler class that does the work.
    pub class: SchedulerClass,
    /// Whether it runs over Karras' sigmas (arXiv 2206.00364); `None` leaves that to the checkpoint's configuration,
    /// as diffusers does where only the class is changed.
    pub karras: Option<bool>,
}

/// AUTOMATIC1111's names, in the menu's order.
const MENU: [(&str, SamplerKind); 6] = [
    (
        "DPM++ 2M",
        SamplerKind {
            class: SchedulerClass::DpmSolverMultistep,
            karras: Some(false),
        },
    ),
    (
        "DPM++ 2M Karras",
        SamplerKind {
            class: SchedulerClass::DpmSolverMultistep,
            karras: Some(true),
        },
    ),
    (
        "Euler",
        SamplerKind {
            class: SchedulerClass::Euler,
            karras: Some(false),
        },
    ),
    (
        "Euler Karras",
        SamplerKind {
            class: SchedulerClass::Euler,
            karras: Some(true),
        },
    ),
    (
        "DDIM",
        SamplerKind {
            class: SchedulerClass::Ddim,
            karras: None,
        },
    ),
    (
        "DDPM",
        SamplerKind {
            class: SchedulerClass::Ddpm,
            karras: None,
        },
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
        if let Some((_, kind)) = MENU.iter().find(|(menu, _)| menu.eq_ignore_ascii_case(name)) {
            return Ok(*kind);
        }
        let class = SchedulerClass::from_name(name).map_err(|_| {
            let menu = Self::names().join(", ");
            let classes = SchedulerClass::ALL.map(SchedulerClass::name).join(", ");
            Error::InvalidArgument(format!("sampler: expected one of {menu}, {classes}; found {name:?}"))
        })?;
        Ok(Self { class, karras: None })
    }

    /// The menu, in its order.
    pub fn names() -> Vec<&'static str> {
        MENU.iter().map(|(name, _)| *name).collect()
    }

    /// The menu's name of this sampler.
    pub fn name(self) -> &'static str {
        let karras = self.karras.unwrap_or(false);
        let entry = MENU
            .iter()
            .find(|(_, kind)| kind.class == self.class && kind.karras.unwrap_or(karras) == karras);
        entry.map_or(self.class.name(), |(name, _)| name)
    }
}
