//! Plans with their memory slots, kept for the next picture of the same sizes. Weights are no part of a plan, so checkpoints
//! of one architecture share them.

use crate::error::{Error, Result};
use crate::executor::{Executor, Instance};
use crate::graph::{Graph, Plan};
use crate::models::clip::ClipTextConfig;
use crate::models::unet::UnetConfig;
use crate::models::vae::VaeConfig;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Plans that are kept: those of two kinds of pictures.
const KEPT: usize = 6;
/// Steps whose time embeddings are computed at once.
const ROWS: usize = 64;

/// Rows of a schedule of this many steps: a power of two, so that another number of steps is seldom another plan.
pub(crate) fn schedule_rows(steps: usize) -> usize {
    steps.clamp(1, ROWS).next_power_of_two()
}

/// What decides a plan.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Key {
    Text {
        config: ClipTextConfig,
        batch: usize,
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
}

impl Key {
    fn graph(&self) -> Result<Graph> {
        match self {
            Self::Text { config, batch, tokens } => config.graph(*batch, *tokens),
            Self::Unet {
                config,
                size,
                tokens,
                rows,
                ..
            } => config.graph(*size, *tokens, *rows),
            Self::Decoder { config, size } => config.decoder(*size),
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

    fn contexts(&self) -> usize {
        if let Self::Unet { contexts, .. } = self {
            *contexts
        } else {
            1
        }
    }
}

/// A plan with its slots.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) plan: Rc<Plan>,
    pub(super) instance: Instance,
}

/// The plans in use, the latest last.
#[derive(Default)]
pub struct PlanCache {
    kept: RefCell<Vec<(Key, Prepared)>>,
    limit: Cell<Option<u64>>,
}

impl PlanCache {
    /// Bounds the bytes of all slots together.
    pub fn set_limit(&self, bytes: Option<u64>) {
        self.limit.set(bytes);
        while bytes.is_some_and(|limit| self.bytes() > limit) {
            self.kept.borrow_mut().remove(0);
        }
    }

    /// Bytes of the slots of all plans that are kept.
    pub fn bytes(&self) -> u64 {
        self.kept
            .borrow()
            .iter()
            .map(|(key, p)| p.plan.peak_bytes(key.contexts()))
            .sum()
    }

    /// Lets go of every plan.
    pub fn clear(&self) {
        self.kept.borrow_mut().clear();
    }

    pub(super) async fn get(&self, executor: &Executor, key: Key) -> Result<Prepared> {
        if let Some(found) = self.take(&key) {
            self.kept.borrow_mut().push((key, found.clone()));
            return Ok(found);
        }
        self.kept.borrow_mut().retain(|(k, _)| !k.is_same_but_for_rows(&key));
        let plan = Rc::new(Plan::new(key.graph()?));
        let bytes = plan.peak_bytes(key.contexts());
        if let Some(limit) = self.limit.get() {
            while self.bytes() + bytes > limit && !self.kept.borrow().is_empty() {
                self.kept.borrow_mut().remove(0);
            }
            if bytes > limit {
                return Err(Error::OutOfMemory(format!(
                    "a picture of this size needs {bytes} bytes besides the weights, and memoryBudget leaves {limit}"
                )));
            }
        }
        let instance = executor.prepare(plan.clone(), key.contexts()).await?;
        let prepared = Prepared { plan, instance };
        let mut kept = self.kept.borrow_mut();
        kept.push((key, prepared.clone()));
        if kept.len() > KEPT {
            kept.remove(0);
        }
        Ok(prepared)
    }

    fn take(&self, key: &Key) -> Option<Prepared> {
        let mut kept = self.kept.borrow_mut();
        let at = kept.iter().position(|(k, _)| k == key)?;
        Some(kept.remove(at).1)
    }
}
