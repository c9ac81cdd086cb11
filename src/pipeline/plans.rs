//! Plans with their memory slots, kept for the next picture of the same sizes. Weights are no part of a plan, so checkpoints
//! of one architecture share them.

use crate::error::{Error, Result};
use crate::executor::{Executor, Instance};
use crate::graph::{Graph, Plan};
use crate::models::clip::{ClipTextConfig, Hidden};
use crate::models::unet::UnetConfig;
use crate::models::vae::VaeConfig;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Plans whose slots are kept: those of four kinds of pictures, if memory allows.
const KEPT: usize = 16;
/// Plans that are kept without slots: they are small, and take some time to make.
const BUILT: usize = 32;
/// Steps whose time embeddings are computed at once.
const ROWS: usize = 64;

/// Rows of a schedule of this many steps: a power of two, so that another number of steps is seldom another plan.
pub(super) fn schedule_rows(steps: usize) -> usize {
    steps.clamp(1, ROWS).next_power_of_two()
}

/// How branches of guidance run, as batch and contexts. A UNet that reads `time_ids` has a time embedding a branch, which no row
/// of a schedule can hold; it is also so large that a batch gains little and takes twice the memory.
fn batch_and_contexts(executor: &Executor, config: &UnetConfig, branches: usize) -> (usize, usize) {
    match config.text_time {
        Some(_) => (1, branches),
        None => executor.batch_and_contexts(branches),
    }
}

/// What decides a plan.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Key {
    Text {
        config: ClipTextConfig,
        tokens: usize,
    },
    Unet {
        config: UnetConfig,
        size: [usize; 3],
        tokens: usize,
        rows: usize,
        contexts: usize,
    },
    Decoder {
        config: VaeConfig,
        size: [usize; 3],
    },
    Encoder {
        config: VaeConfig,
        size: [usize; 3],
    },
}

impl Key {
    /// The text encoder over one prompt.
    pub(crate) fn text(config: &ClipTextConfig, tokens: usize) -> Self {
        Self::Text {
            config: config.clone(),
            tokens,
        }
    }

    /// The UNet for latents of `[height, width]`, a number of steps, and this many branches of guidance.
    pub(crate) fn unet(
        executor: &Executor,
        config: &UnetConfig,
        [height, width]: [usize; 2],
        tokens: usize,
        steps: usize,
        branches: usize,
    ) -> Self {
        let (batch, contexts) = batch_and_contexts(executor, config, branches);
        Self::Unet {
            config: config.clone(),
            size: [batch, height, width],
            tokens,
            rows: schedule_rows(steps),
            contexts,
        }
    }

    /// The decoder for one latent of `[height, width]`.
    pub(crate) fn decoder(config: &VaeConfig, [height, width]: [usize; 2]) -> Self {
        Self::Decoder {
            config: config.clone(),
            size: [1, height, width],
        }
    }

    /// The encoder to one latent of `[height, width]`.
    pub(crate) fn encoder(config: &VaeConfig, [height, width]: [usize; 2]) -> Self {
        Self::Encoder {
            config: config.clone(),
            size: [1, height, width],
        }
    }

    /// The same with guidance's branches one after the other, if they are a batch: it takes half the memory.
    pub(crate) fn apart(&self) -> Option<Self> {
        match self {
            Self::Unet {
                config,
                size: [batch, height, width],
                tokens,
                rows,
                contexts,
            } if *batch > 1 => Some(Self::Unet {
                config: config.clone(),
                size: [1, *height, *width],
                tokens: *tokens,
                rows: *rows,
                contexts: batch * contexts,
            }),
            _ => None,
        }
    }

    /// How many pictures or branches run at once.
    pub(crate) fn batch(&self) -> usize {
        match self {
            Self::Text { .. } => 1,
            Self::Unet { size, .. } | Self::Decoder { size, .. } | Self::Encoder { size, .. } => size[0],
        }
    }

    /// Whether it runs by itself, before the others or after them: then its slots are not there beside theirs.
    pub(crate) fn runs_alone(&self) -> bool {
        matches!(self, Self::Encoder { .. })
    }

    /// The same model with all its layers, if it is run without some.
    pub(crate) fn whole(&self) -> Option<Self> {
        match self {
            Self::Text { config, tokens } if config.hidden != Hidden::Last => Some(Self::Text {
                config: ClipTextConfig {
                    hidden: Hidden::Last,
                    ..config.clone()
                },
                tokens: *tokens,
            }),
            _ => None,
        }
    }

    fn graph(&self) -> Result<Graph> {
        match self {
            Self::Text { config, tokens } => config.graph(1, *tokens),
            Self::Unet {
                config,
                size,
                tokens,
                rows,
                ..
            } => config.graph(*size, *tokens, *rows),
            Self::Decoder { config, size } => config.decoder(*size),
            Self::Encoder { config, size } => config.encoder(*size),
        }
    }

    /// Whether two plans differ in the number of steps alone: nobody goes to and fro between them.
    fn is_same_but_for_rows(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Unet {
                    config,
                    size,
                    tokens,
                    contexts,
                    ..
                },
                Self::Unet {
                    config: c,
                    size: s,
                    tokens: t,
                    contexts: n,
                    ..
                },
            ) => config == c && size == s && tokens == t && contexts == n,
            _ => false,
        }
    }

    fn what(&self) -> String {
        match self {
            Self::Text { tokens, .. } => format!("the text encoder for {tokens} tokens"),
            Self::Unet { size: [_, h, w], .. } => format!("the UNet for latents of width {w} and height {h}"),
            Self::Decoder { config, size } | Self::Encoder { config, size } => {
                let (what, factor) = (if self.runs_alone() { "encoder" } else { "decoder" }, config.factor());
                let [_, height, width] = size.map(|n| n * factor);
                format!("the {what} for pictures of width {width} and height {height}")
            }
        }
    }

    /// Branches of guidance that run one after the other.
    pub(crate) fn contexts(&self) -> usize {
        if let Self::Unet { contexts, .. } = self {
            *contexts
        } else {
            1
        }
    }
}

/// The models of a picture, and how it is drawn.
pub(crate) struct Drawing<'a> {
    pub(crate) texts: Vec<&'a ClipTextConfig>,
    pub(crate) unet: &'a UnetConfig,
    pub(crate) vae: &'a VaeConfig,
    pub(crate) tokens: usize,
    /// Height and width of the latents.
    pub(crate) size: [usize; 2],
    /// How often the UNet is asked.
    pub(crate) evaluations: usize,
    pub(crate) guidance_scale: f32,
    /// Whether it begins with an image.
    pub(crate) from_image: bool,
}

impl Drawing<'_> {
    /// The plans that it needs: the text encoders', the UNet's, the decoder's and, to begin with an image, the encoder's.
    pub(crate) fn keys(&self, executor: &Executor) -> Vec<Key> {
        let branches = if self.unet.is_guided(self.guidance_scale) { 2 } else { 1 };
        let texts = self.texts.iter().map(|config| Key::text(config, self.tokens));
        let unet = Key::unet(executor, self.unet, self.size, self.tokens, self.evaluations, branches);
        let encoder = self.from_image.then(|| Key::encoder(self.vae, self.size));
        let all = texts.chain([unet, Key::decoder(self.vae, self.size)]).chain(encoder);
        all.collect()
    }
}

/// A plan with its slots.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) plan: Rc<Plan>,
    pub(crate) instance: Instance,
    /// Bytes of its slots.
    bytes: u64,
}

/// The plans in use, the latest last.
#[derive(Default)]
pub struct PlanCache {
    kept: RefCell<Vec<(Key, Prepared)>>,
    built: RefCell<Vec<(Key, Rc<Plan>)>>,
    limit: Cell<Option<u64>>,
    made: Cell<u64>,
    /// UNets whose guidance has no room for a batch, and whether the device itself said so.
    apart: RefCell<Vec<(Key, bool)>>,
}

impl PlanCache {
    /// Bounds the bytes of all slots together. Slots that are being used are kept all the same.
    pub fn set_limit(&self, bytes: Option<u64>) {
        self.limit.set(bytes);
        self.shrink_to(bytes.unwrap_or(u64::MAX));
    }

    /// What is run for a key: the same, or its branches one after the other.
    pub(crate) fn fitting(&self, key: Key) -> Key {
        let is_apart = self.apart.borrow().iter().any(|(other, _)| *other == key);
        key.apart().filter(|_| is_apart).unwrap_or(key)
    }

    /// The branches of these keys are to run one after the other: there is no room, or the device had none. Gives whether that
    /// changes anything.
    pub(crate) fn run_apart(&self, keys: &[Key], by_device: bool) -> bool {
        let mut all = self.apart.borrow_mut();
        let before = all.len();
        for key in keys.iter().filter(|key| key.apart().is_some()) {
            if all.iter().all(|(other, _)| other != key) {
                all.push((key.clone(), by_device));
            }
        }
        all.len() > before
    }

    /// There may be room for batches of these keys again, unless the device itself had none.
    pub(crate) fn run_together(&self, keys: &[Key]) {
        self.apart
            .borrow_mut()
            .retain(|(key, by_device)| *by_device || !keys.contains(key));
    }

    /// How often slots were made for a plan.
    pub fn made(&self) -> u64 {
        self.made.get()
    }

    /// Bytes of the slots of all plans that are kept.
    pub fn bytes(&self) -> u64 {
        self.kept.borrow().iter().map(|(_, p)| p.bytes).sum()
    }

    /// Bytes of the slots that are being used, but for those of these plans.
    pub(crate) fn busy_bytes(&self, but: &[Key]) -> u64 {
        let kept = self.kept.borrow();
        let busy = kept
            .iter()
            .filter(|(key, p)| p.instance.is_shared() && !but.contains(key));
        busy.map(|(_, p)| p.bytes).sum()
    }

    /// Lets go of all slots that nobody uses.
    pub fn clear(&self) {
        self.shrink_to(0);
    }

    /// Bytes that the slots of all plans may take yet.
    pub(crate) fn room(&self) -> u64 {
        let limit = self.limit.get().unwrap_or(u64::MAX);
        limit.saturating_sub(self.bytes())
    }

    /// Lets go of slots that would be made otherwise by what was found out since, unless someone uses them.
    pub(crate) fn renew(&self, executor: &Executor) {
        self.kept
            .borrow_mut()
            .retain(|(_, p)| p.instance.is_shared() || !executor.is_outdated(&p.instance));
    }

    /// Lets go of the slots of one plan, unless someone uses them.
    pub(crate) fn release(&self, key: &Key) {
        self.kept
            .borrow_mut()
            .retain(|(k, p)| k != key || p.instance.is_shared());
    }

    /// Lets go of slots that nobody uses, those used longest ago first, until this many bytes are left at most.
    fn shrink_to(&self, bytes: u64) {
        while self.bytes() > bytes {
            let mut kept = self.kept.borrow_mut();
            let Some(idle) = kept.iter().position(|(_, p)| !p.instance.is_shared()) else {
                return;
            };
            kept.remove(idle);
        }
    }

    /// A plan, without slots. All are for one device.
    pub(crate) fn plan(&self, executor: &Executor, key: &Key) -> Result<Rc<Plan>> {
        let mut built = self.built.borrow_mut();
        let found = match built.iter().position(|(k, _)| k == key) {
            Some(at) => built.remove(at),
            None => (key.clone(), Rc::new(executor.plan(key.graph()?))),
        };
        let plan = found.1.clone();
        built.push(found);
        if built.len() > BUILT {
            built.remove(0);
        }
        Ok(plan)
    }

    /// A plan with its slots.
    pub(crate) async fn get(&self, executor: &Executor, key: Key) -> Result<Prepared> {
        if let Some(found) = self.take(&key) {
            self.kept.borrow_mut().push((key, found.clone()));
            return Ok(found);
        }
        self.kept
            .borrow_mut()
            .retain(|(k, p)| p.instance.is_shared() || !k.is_same_but_for_rows(&key));
        let plan = self.plan(executor, &key)?;
        let bytes = executor.slot_bytes(&plan, key.contexts());
        if let Some(limit) = self.limit.get() {
            self.shrink_to(limit.saturating_sub(bytes));
            let used = self.bytes();
            if used.saturating_add(bytes) > limit {
                return Err(Error::OutOfMemory(format!(
                    "{}: needs {bytes} bytes besides the weights; memoryBudget leaves {limit}, of which {used} are in use",
                    key.what()
                )));
            }
        }
        let instance = executor.prepare(plan.clone(), key.contexts()).await?;
        // Meanwhile someone else may have made the same.
        let prepared = self.take(&key).unwrap_or_else(|| {
            self.made.set(self.made.get() + 1);
            Prepared { plan, instance, bytes }
        });
        let mut kept = self.kept.borrow_mut();
        kept.push((key, prepared.clone()));
        if kept.len() > KEPT
            && let Some(idle) = kept.iter().position(|(_, p)| !p.instance.is_shared())
        {
            kept.remove(idle);
        }
        Ok(prepared)
    }

    fn take(&self, key: &Key) -> Option<Prepared> {
        let mut kept = self.kept.borrow_mut();
        let at = kept.iter().position(|(k, _)| k == key)?;
        Some(kept.remove(at).1)
    }
}
