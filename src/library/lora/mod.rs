//! LoRAs over the components of a checkpoint. What they change is merged into weights of its own, an overlay; the base stays as it
//! is, and others may use it. [`delta`] is the arithmetic.

mod delta;

use super::defaults::{Defaults, Own};
use super::pool::Shared;
use super::{Library, LoraInfo, Resident, Room};
use crate::cancel::CancelToken;
use crate::checkpoint::distilled::{Kind, Taken};
use crate::checkpoint::lora::names::Modules;
use crate::checkpoint::{Lora, LoraSource, ProgressSink};
use crate::error::{Error, Result};
use crate::executor::{Executor, WeightDtype, Weights};
use crate::graph::ParamSpec;
use crate::pipeline::keys;
use crate::platform::yield_now;
use crate::sampler::SchedulerConfig;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::rc::Rc;

type Params = [(ParamSpec, WeightDtype)];

/// What lies over a checkpoint.
#[derive(Clone, Default)]
pub(super) struct Overlays {
    /// For each component its overlay, if any LoRA changes it.
    pub(super) shared: Vec<Option<Rc<Shared>>>,
}

impl Overlays {
    pub(super) fn bytes(&self) -> u64 {
        self.all().map(|shared| shared.bytes).sum()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Shared>> {
        self.shared.iter().flatten()
    }
}

/// LoRAs that were read, and what they change.
pub(super) struct Loras {
    read: Vec<Lora>,
    /// For each component the parameters that are changed.
    changed: Vec<Vec<(ParamSpec, WeightDtype)>>,
}

impl Loras {
    /// Reads LoRAs that are to lie over components of these names with these parameters.
    pub(super) async fn read(
        executor: &Executor,
        sources: &[LoraSource],
        components: &[(&str, &Params)],
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let mut read = Vec::with_capacity(sources.len());
        if !sources.is_empty() {
            let specs =
                |params: &'_ Params| -> Vec<ParamSpec> { params.iter().map(|(spec, _)| spec.clone()).collect() };
            let specs: Vec<(&str, Vec<ParamSpec>)> = components.iter().map(|(name, p)| (*name, specs(p))).collect();
            let modules = Modules::new(specs.iter().map(|(name, specs)| (*name, specs.iter().collect())));
            // One after the other: the weights' downloads are open already, and browsers have six connections to a host.
            for source in sources {
                read.push(Lora::read(source, &modules, progress, cancel).await?);
            }
        }
        let changed = components.iter().enumerate().map(|(i, (_, params))| {
            let adapters = read.iter().flat_map(|lora| &lora.adapters);
            let names: HashSet<&str> = adapters
                .filter(|a| a.component == i)
                .map(|a| a.parameter.as_str())
                .collect();
            let is_changed =
                |(spec, _): &&(ParamSpec, WeightDtype)| spec.parts.iter().any(|p| names.contains(p.name.as_str()));
            let of_changed = params.iter().filter(is_changed);
            let merged = |(spec, dtype): &(ParamSpec, WeightDtype)| (spec.clone(), executor.merged(*dtype));
            of_changed.map(merged).collect()
        });
        Ok(Self {
            changed: changed.collect(),
            read,
        })
    }

    /// What a checkpoint under them draws with when nothing is said: the first that was distilled to few steps, and is laid on as it
    /// was trained and not for its opposite, brings its own. Where that can't be, a warning says so.
    pub(super) fn defaults(&mut self, own: &Own) -> (Defaults, SchedulerConfig) {
        let found = self.read.iter_mut().filter(|lora| lora.scale > 0.0).find_map(|lora| {
            let (taken, _) = Taken::of(Kind::Lora, own.kind, &lora.names)?;
            Some((taken, lora))
        });
        if let Some((taken, lora)) = found {
            match own.with(taken) {
                Ok(with) => return with,
                Err(error) => lora.warnings.push(format!(
                    "{}: by its name it draws with {taken}, which can't be over this checkpoint: {}",
                    lora.place,
                    error.message()
                )),
            }
        }
        (own.defaults.clone(), own.scheduler.clone())
    }

    /// What a person is told of them.
    pub(super) fn said(&self) -> LoraInfo {
        LoraInfo {
            scales: self.read.iter().map(|lora| (lora.name.clone(), lora.scale)).collect(),
            warnings: self.read.iter().flat_map(|lora| lora.warnings.clone()).collect(),
        }
    }

    /// Bytes of their files.
    pub(super) fn bytes(&self) -> u64 {
        self.read.iter().map(|lora| lora.bytes).fold(0, u64::saturating_add)
    }

    /// What an overlay over a component is known by: all that it is made of.
    fn id(&self, base: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(base.as_bytes());
        for lora in &self.read {
            hash.update(lora.sha256);
            hash.update(lora.scale.to_le_bytes());
        }
        crate::checkpoint::expected::hex(&hash.finalize())
    }

    /// The parameter's tensors with what the LoRAs add to them.
    fn merge(&self, component: usize, spec: &ParamSpec, kept: WeightDtype, tensors: &mut [Vec<f32>]) -> Result<()> {
        for (part, tensor) in spec.parts.iter().zip(tensors) {
            let adapters = self
                .read
                .iter()
                .flat_map(|lora| lora.adapters.iter().map(move |a| (lora, a)));
            let touching: Vec<_> = adapters
                .filter(|(_, a)| a.component == component && a.parameter == part.name)
                .collect();
            let Some((last, _)) = touching.last() else { continue };
            let mut sum = vec![0.0; tensor.len()];
            for (lora, adapter) in &touching {
                delta::add(lora, adapter, tensor, &mut sum)?;
            }
            let most = match kept {
                WeightDtype::F16 if spec.pack != crate::graph::Pack::Vector => half::f16::MAX.to_f32(),
                _ => f32::MAX,
            };
            for (w, d) in tensor.iter_mut().zip(&sum) {
                *w += d;
                if w.is_nan() || w.abs() > most {
                    return Err(Error::Corrupt(format!(
                        "{}: {}: the weights with it are no finite numbers, or too large to be kept: {w}",
                        last.place, part.name
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Lets the checkpoint go, unless its new LoRAs are in place.
struct Unfinished<'a> {
    library: &'a Library,
    id: Option<String>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.library.let_go(id);
        }
    }
}

impl Library {
    /// Bytes of the overlays of these LoRAs.
    pub(super) fn overlay_bytes(&self, loras: &Loras) -> u64 {
        let bytes = loras.changed.iter().map(|params| self.executor.weight_bytes(params));
        bytes.fold(0, u64::saturating_add)
    }

    /// Room for the overlays: for each component, if any LoRA changes it.
    pub(super) async fn allocate_overlays(&self, loras: &Loras, room: Room) -> Result<Vec<Option<Weights>>> {
        let mut all = Vec::with_capacity(loras.changed.len());
        for params in &loras.changed {
            all.push(match params.is_empty() {
                true => None,
                false => Some(self.allocate_weights(params, room).await?),
            });
        }
        Ok(all)
    }

    /// Merges the LoRAs with the components' weights into `rooms`, or takes the overlays that are here already.
    pub(super) async fn merge(
        &self,
        loras: &Loras,
        base: &[Rc<Shared>],
        rooms: Vec<Option<Weights>>,
        cancel: &CancelToken,
    ) -> Result<Overlays> {
        let mut shared = Vec::with_capacity(base.len());
        for (i, (base, room)) in base.iter().zip(rooms).enumerate() {
            let Some(weights) = room else {
                shared.push(None);
                continue;
            };
            let (id, params) = (loras.id(&base.id), &loras.changed[i]);
            if let Some(found) = self.pool.find(&id, params) {
                shared.push(Some(found));
                continue;
            }
            for (spec, dtype) in params {
                let mut tensors = self.executor.tensors(&base.weights, spec).await?;
                loras.merge(i, spec, *dtype, &mut tensors)?;
                for (part, tensor) in tensors.iter().enumerate() {
                    let bytes = bytemuck::cast_slice(tensor);
                    let from = WeightDtype::F32;
                    self.executor.upload(&weights, spec, part, from, 0, bytes)?;
                }
                yield_now().await;
                cancel.check()?;
            }
            let bytes = self.executor.weight_bytes(params);
            let params = Rc::new(params.clone());
            shared.push(Some(self.pool.keep(Shared {
                id,
                params,
                weights,
                bytes,
            })));
        }
        Ok(Overlays { shared })
    }

    /// The weights of each component under its overlay.
    pub(super) fn overlaid(&self, base: &[Rc<Shared>], overlays: &Overlays) -> Result<Vec<Weights>> {
        let over = |i: usize| overlays.shared.get(i).and_then(Option::as_ref);
        let each = base.iter().enumerate().map(|(i, base)| match over(i) {
            Some(over) => self.executor.overlaid(&base.weights, &over.weights),
            None => Ok(base.weights.clone()),
        });
        each.collect()
    }

    /// Lays these LoRAs over a checkpoint in place of those that lie there; none takes them all off. The weights below are not read
    /// again. Not to be called while the checkpoint is drawn with, nor while another is loaded.
    ///
    /// If it fails, the former LoRAs stay. Only where there is no room for both sets and the new one fails after the former one made
    /// way for it, the checkpoint is let go.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no checkpoint of this id; whatever the files bring forth; [`Error::OutOfMemory`].
    pub async fn set_loras(
        &self,
        id: &str,
        sources: &[LoraSource],
        room: Room,
        progress: &ProgressSink<'_>,
        cancel: &CancelToken,
    ) -> Result<Rc<Resident>> {
        let resident = self.get(id)?;
        let names = resident.components.iter().map(|c| c.name);
        let components: Vec<(&str, &Params)> = names
            .zip(&resident.shared)
            .map(|(name, shared)| (name, shared.params.as_slice()))
            .collect();
        let mut loras = Loras::read(&self.executor, sources, &components, progress, cancel).await?;
        let defaults = loras.defaults(&resident.own);
        progress.done();
        match self.lay(&resident, &loras, &defaults, room, cancel).await {
            Err(Error::OutOfMemory(_)) if resident.overlays.bytes() > 0 => {}
            laid => {
                drop(resident);
                self.set_plan_limit();
                return laid;
            }
        }
        // Without the former ones there may be room.
        let mut unfinished = Unfinished {
            library: self,
            id: Some(id.into()),
        };
        let bare = self.replace(&resident, Overlays::default(), LoraInfo::default(), &defaults)?;
        drop(resident);
        let laid = self.lay(&bare, &loras, &defaults, room, cancel).await?;
        unfinished.id = None;
        Ok(laid)
    }

    async fn lay(
        &self,
        resident: &Resident,
        loras: &Loras,
        defaults: &(Defaults, SchedulerConfig),
        room: Room,
        cancel: &CancelToken,
    ) -> Result<Rc<Resident>> {
        let bytes = self.overlay_bytes(loras);
        let _coming = (bytes > 0)
            .then(|| self.make_room(&resident.name, bytes, &resident.keys, room))
            .transpose()?;
        let rooms = self.allocate_overlays(loras, room).await?;
        let overlays = self.merge(loras, &resident.shared, rooms, cancel).await?;
        self.replace(resident, overlays, loras.said(), defaults)
    }

    /// Puts the checkpoint with these overlays, and what it draws with under them, where it was without. Who draws with the former one
    /// goes on with it.
    fn replace(
        &self,
        former: &Resident,
        overlays: Overlays,
        loras: LoraInfo,
        (defaults, scheduler): &(Defaults, SchedulerConfig),
    ) -> Result<Rc<Resident>> {
        let weights = self.overlaid(&former.shared, &overlays)?;
        let mut resident = former.clone();
        resident.models.set_weights(weights);
        (resident.overlays, resident.loras) = (overlays, loras);
        resident.defaults.clone_from(defaults);
        resident.models.scheduler.clone_from(scheduler);
        let keys = keys(&self.executor, &resident.models, &defaults.request()?)?;
        resident.keys = keys.into_iter().map(|key| self.plans.fitting(key)).collect();
        let resident = Rc::new(resident);
        let mut residents = self.residents.borrow_mut();
        let place = residents.iter_mut().find(|r| r.id == former.id);
        let place = place.ok_or_else(|| Error::NotFound(format!("checkpoint {:?} is not loaded", former.id)))?;
        *place = resident.clone();
        drop(residents);
        self.set_plan_limit();
        Ok(resident)
    }
}
