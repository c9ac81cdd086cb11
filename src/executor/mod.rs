//! Plays a [`Plan`] on a device. [`Executor`] is one of two: `webgpu` (wgpu and WGSL) or `cpu` (candle); nothing outside this
//! folder names either library. Both run the same nodes, so a wrong picture is found by comparing node by node.
//!
//! A caller allocates weights and feeds them tensor by tensor, prepares an instance of a plan (its slots), writes inputs, and
//! runs the plan rate by rate. Latents live in [`Buffer`]s on the device and are changed by [`Executor::combine`].

pub mod cpu;
mod dtype;
mod pack;
mod profile;
pub mod webgpu;

use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::graph::{Graph, ParamSpec, Plan, Rate, Value};
use std::rc::Rc;

pub use cpu::product;
pub use dtype::WeightDtype;
pub use pack::Packing;
pub use profile::NodeTimes;

/// Which device an executor runs on, as JavaScript sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendInfo {
    /// `"webgpu"` or `"cpu"`.
    pub kind: &'static str,
    /// The adapter's name or what instructions the CPU build uses.
    pub name: String,
    /// The adapter is emulated by the processor.
    pub software: bool,
    /// On the CPU the instructions in use, such as `simd128`; of a GPU what its adapter offers, used or not, such as `shader-f16`.
    pub features: Vec<String>,
    /// Threads of the CPU executor; 1 on the GPU.
    pub threads: usize,
}

/// Values for an input of a plan.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// For [`crate::graph::Element::F32`].
    F32(&'a [f32]),
    /// For [`crate::graph::Element::U32`].
    U32(&'a [u32]),
}

/// A device.
pub enum Executor {
    /// candle.
    Cpu(cpu::Cpu),
    /// wgpu.
    Webgpu(webgpu::Webgpu),
}

/// Packed weights of a component on a device, found by [`ParamSpec::key`]. Several plans may use them.
#[derive(Clone)]
pub enum Weights {
    /// candle tensors.
    Cpu(Rc<cpu::Weights>),
    /// GPU buffers.
    Webgpu(Rc<webgpu::Weights>),
}

/// The slots of a plan on a device.
#[derive(Clone)]
pub enum Instance {
    /// candle tensors.
    Cpu(Rc<cpu::Instance>),
    /// GPU buffers.
    Webgpu(Rc<webgpu::Instance>),
}

impl Instance {
    /// Whether someone else holds it too.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Cpu(i) => Rc::strong_count(i) > 1,
            Self::Webgpu(i) => Rc::strong_count(i) > 1,
        }
    }
}

/// A buffer of f32 on a device that is no plan's.
#[derive(Clone)]
pub enum Buffer {
    /// A candle tensor.
    Cpu(cpu::Buffer),
    /// A GPU buffer.
    Webgpu(webgpu::Buffer),
}

/// A range of a [`Buffer`], or of an instance's input or output.
#[derive(Clone)]
pub struct View {
    /// The buffer.
    pub buffer: Buffer,
    /// First element.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

impl View {
    /// Part `index` of `count` equal parts.
    #[must_use]
    pub fn part(&self, index: usize, count: usize) -> Self {
        let len = self.len / count.max(1);
        Self {
            buffer: self.buffer.clone(),
            offset: self.offset + index * len,
            len,
        }
    }
}

/// Calls the same method of whichever executor there is; operands of the other one are a fault of ours.
macro_rules! each {
    ($self:ident, $e:ident => $body:expr) => {
        match $self {
            Executor::Cpu($e) => $body,
            Executor::Webgpu($e) => $body,
        }
    };
}

macro_rules! both {
    ($self:ident, $operand:expr, $kind:ident, |$e:ident, $o:ident| $body:expr) => {
        match ($self, $operand) {
            (Executor::Cpu($e), $kind::Cpu($o)) => $body,
            (Executor::Webgpu($e), $kind::Webgpu($o)) => $body,
            _ => Err(foreign()),
        }
    };
}

fn foreign() -> Error {
    Error::Internal("operands of two executors were mixed".into())
}

impl Executor {
    /// What this device is.
    pub fn info(&self) -> &BackendInfo {
        each!(self, e => e.info())
    }

    /// When the first node ran since this was last asked, by [`now_ms`](crate::platform::now_ms).
    pub fn take_began(&self) -> Option<f64> {
        each!(self, e => e.began.take())
    }

    /// Pipelines that were compiled and are kept. The CPU has none.
    pub fn pipelines(&self) -> usize {
        match self {
            Self::Cpu(_) => 0,
            Self::Webgpu(e) => e.pipelines(),
        }
    }

    /// Products of the plans in use whose fastest way is not known yet, and is to be found out.
    pub fn unraced(&self) -> usize {
        match self {
            Self::Cpu(_) => 0,
            Self::Webgpu(e) => e.unraced(),
        }
    }

    /// Destroys the GPU device, as a driver that is reset would. The CPU has none.
    pub fn lose_device(&self) {
        if let Self::Webgpu(e) = self {
            e.lose_device();
        }
    }

    /// How `branches` of guidance run, as batch and contexts: a GPU takes them in one batch, a CPU one after the other.
    pub fn batch_and_contexts(&self, branches: usize) -> (usize, usize) {
        match self {
            Self::Cpu(_) => (1, branches),
            Self::Webgpu(_) => (branches, 1),
        }
    }

    /// The dtype that weights of this one are kept in once something was added to them.
    pub fn merged(&self, dtype: WeightDtype) -> WeightDtype {
        match self {
            // What was merged has more digits, and only what a LoRA changes takes more room.
            Self::Cpu(_) => WeightDtype::F32,
            // Eight bits would round most of what is added away.
            Self::Webgpu(_) if dtype.size() == 1 => WeightDtype::F16,
            Self::Webgpu(_) => dtype,
        }
    }

    /// The plan of a graph with values as this device keeps them.
    pub fn plan(&self, graph: Graph) -> Plan {
        match self {
            Self::Webgpu(e) if e.keeps_halves() => Plan::in_halves(graph),
            Self::Cpu(_) | Self::Webgpu(_) => Plan::new(graph),
        }
    }

    /// Makes room for packed weights: for each parameter, the dtype it is kept in.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is not enough; nothing stays allocated then.
    pub async fn allocate(&self, params: &[(ParamSpec, WeightDtype)]) -> Result<Weights> {
        Ok(match self {
            Self::Cpu(e) => Weights::Cpu(Rc::new(e.allocate(params)?)),
            Self::Webgpu(e) => Weights::Webgpu(Rc::new(e.allocate(params).await?)),
        })
    }

    /// Bytes that packed weights take on this device.
    pub fn weight_bytes(&self, params: &[(ParamSpec, WeightDtype)]) -> u64 {
        let bytes = |(spec, dtype): &(ParamSpec, WeightDtype)| match self {
            Self::Cpu(_) => cpu::Weights::bytes(spec, *dtype),
            Self::Webgpu(_) => webgpu::Weights::bytes(spec, *dtype),
        };
        params.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Refuses parameters that this device could not hold, whatever else it holds.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with figures.
    pub fn check_weights(&self, params: &[(ParamSpec, WeightDtype)]) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Webgpu(e) => params
                .iter()
                .try_for_each(|(spec, dtype)| e.check_size(&spec.key(), webgpu::Weights::bytes(spec, *dtype))),
        }
    }

    /// Bytes of a plan's slots on this device, for this many contexts.
    pub fn slot_bytes(&self, plan: &Plan, contexts: usize) -> u64 {
        match self {
            Self::Cpu(e) => e.working_bytes(plan, contexts),
            Self::Webgpu(_) => plan.peak_bytes(contexts),
        }
    }

    /// Refuses a plan whose slots this device could not hold, whatever else it holds.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with figures.
    pub fn check_limits(&self, plan: &Plan) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Webgpu(e) => {
                let largest = plan.slots.iter().map(|slot| slot.len as u64 * 4).max();
                e.check_size("a picture's largest part", largest.unwrap_or(0))
            }
        }
    }

    /// Waits until the device has taken what it was given, and says if it could not.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn settle(&self) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Webgpu(e) => e.settle().await,
        }
    }

    /// Packs a piece of a tensor of the file (`part` of `spec`) into its place: little endian, of dtype `from`, from element
    /// `start` on. Pieces of a part come in order, and for a GPU each but the last is a multiple of four bytes.
    ///
    /// # Errors
    /// [`Error::Internal`] if the parameter was not allocated, or the piece is out of turn or too long.
    pub fn upload(
        &self,
        weights: &Weights,
        spec: &ParamSpec,
        part: usize,
        from: WeightDtype,
        start: usize,
        bytes: &[u8],
    ) -> Result<()> {
        both!(self, weights, Weights, |e, w| e
            .upload(w, spec, part, from, start, bytes))
    }

    /// `base`, but for what `over` has too: that is found there. Both stay as they are.
    ///
    /// # Errors
    /// [`Error::Internal`] for weights of two executors.
    pub fn overlaid(&self, base: &Weights, over: &Weights) -> Result<Weights> {
        match (base, over) {
            (Weights::Cpu(base), Weights::Cpu(over)) => Ok(Weights::Cpu(Rc::new(base.under(over)))),
            (Weights::Webgpu(base), Weights::Webgpu(over)) => Ok(Weights::Webgpu(Rc::new(base.under(over)))),
            _ => Err(foreign()),
        }
    }

    /// The tensors that a parameter was packed from, read back: the same values, widened to f32.
    ///
    /// # Errors
    /// [`Error::Internal`] if it was not uploaded; [`Error::OutOfMemory`]; [`Error::DeviceLost`].
    pub async fn tensors(&self, weights: &Weights, spec: &ParamSpec) -> Result<Vec<Vec<f32>>> {
        match (self, weights) {
            (Self::Cpu(e), Weights::Cpu(w)) => e.tensors(w, spec),
            (Self::Webgpu(e), Weights::Webgpu(w)) => e.tensors(w, spec).await,
            _ => Err(foreign()),
        }
    }

    /// Says how the weights of a plan will be kept, before it is prepared: what is known to be fastest depends on it.
    pub fn expect(&self, plan: &Rc<Plan>, dtypes: &[(ParamSpec, WeightDtype)]) {
        if let Self::Webgpu(e) = self {
            e.expect(plan, dtypes);
        }
    }

    /// Compiles what a plan will need while its weights still arrive. `dtypes` are those of [`Executor::allocate`].
    pub async fn warm(&self, plan: &Plan, dtypes: &[(ParamSpec, WeightDtype)]) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Webgpu(e) => e.warm(plan, dtypes).await,
        }
    }

    /// Allocates the slots of a plan; persistent ones once for each context.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is not enough; nothing stays allocated then.
    pub async fn prepare(&self, plan: Rc<Plan>, contexts: usize) -> Result<Instance> {
        Ok(match self {
            Self::Cpu(e) => Instance::Cpu(Rc::new(e.prepare(plan, contexts)?)),
            Self::Webgpu(e) => Instance::Webgpu(Rc::new(e.prepare(plan, contexts).await?)),
        })
    }

    /// Writes an input from its start. Fewer values than the input holds leave the rest as it was.
    ///
    /// # Errors
    /// [`Error::Internal`] for an input that is not there, or too many values, or of another type.
    pub fn write(&self, instance: &Instance, input: &str, context: usize, data: Data<'_>) -> Result<()> {
        both!(self, instance, Instance, |e, i| e.write(i, input, context, data))
    }

    /// An input or output (or, in tests, any value) of a plan, as a range of memory; [`Plan::input`] and [`Plan::output`] find it.
    ///
    /// # Errors
    /// [`Error::Internal`] for a context that is not there.
    pub fn view(&self, instance: &Instance, value: Value, context: usize) -> Result<View> {
        both!(self, instance, Instance, |e, i| e.view(i, value, context))
    }

    /// Runs all nodes of one rate in one context, whose inputs of that rate were written. `step` says which row of schedule-rate values is used.
    ///
    /// # Errors
    /// [`Error::Cancelled`] between two slices of the work; [`Error::DeviceLost`]; [`Error::Internal`] for missing weights.
    pub async fn run(
        &self,
        instance: &Instance,
        weights: &Weights,
        rate: Rate,
        context: usize,
        step: usize,
        cancel: &CancelToken,
    ) -> Result<()> {
        match (self, instance, weights) {
            (Self::Cpu(e), Instance::Cpu(i), Weights::Cpu(w)) => e.run(i, w, rate, context, step, cancel).await,
            (Self::Webgpu(e), Instance::Webgpu(i), Weights::Webgpu(w)) => {
                e.run(i, w, rate, context, step, cancel).await
            }
            _ => Err(foreign()),
        }
    }

    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub async fn buffer(&self, len: usize) -> Result<Buffer> {
        Ok(match self {
            Self::Cpu(e) => Buffer::Cpu(e.buffer(len)?),
            Self::Webgpu(e) => Buffer::Webgpu(e.buffer(len).await?),
        })
    }

    /// Writes a range of a buffer.
    ///
    /// # Errors
    /// [`Error::Internal`] if the lengths differ.
    pub fn fill(&self, view: &View, data: &[f32]) -> Result<()> {
        both!(self, &view.buffer, Buffer, |e, b| e.fill(
            b,
            view.offset,
            view.len,
            data
        ))
    }

    /// `dst = clamp(Σ coefficient · source, -c..=c)`, element by element; `dst` may be among its own sources. At most four terms.
    ///
    /// # Errors
    /// [`Error::Internal`] if lengths differ or there are too many terms.
    pub fn combine(&self, dst: &View, terms: &[(View, f32)], clamp: Option<f32>) -> Result<()> {
        each!(self, e => e.combine(dst, terms, clamp, None))
    }

    /// The same where `mask`, a range of another buffer, is not 0; elsewhere `dst` stays as it is.
    ///
    /// # Errors
    /// [`Error::Internal`] if lengths differ or there are too many terms.
    pub fn combine_where(&self, mask: &View, dst: &View, terms: &[(View, f32)]) -> Result<()> {
        each!(self, e => e.combine(dst, terms, None, Some(mask)))
    }

    /// Makes what a GPU needs for [`Executor::combine`] of these operands, or for [`Executor::combine_where`], so that they make
    /// nothing more. Coefficients don't matter.
    ///
    /// # Errors
    /// [`Error::Internal`] if lengths differ or there are too many terms.
    pub fn ready_to_combine(&self, dst: &View, terms: &[(View, f32)], mask: Option<&View>) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Webgpu(e) => e.ready_to_combine(dst, terms, mask),
        }
    }

    /// Reads a range back.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub async fn read(&self, view: &View) -> Result<Vec<f32>> {
        match (self, &view.buffer) {
            (Self::Cpu(e), Buffer::Cpu(b)) => e.read(b, view.offset, view.len),
            (Self::Webgpu(e), Buffer::Webgpu(b)) => e.read(b, view.offset, view.len).await,
            _ => Err(foreign()),
        }
    }
}
