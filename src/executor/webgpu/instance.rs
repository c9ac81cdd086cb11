//! The slots of a plan, the uniforms of its dispatches, and what binds them. All of it is made before the first step, but for
//! what depends on weights, which is made at the first step with those weights.

use super::Webgpu;
use super::buffers::{Buffer, count_object};
use super::kernels::{Dispatch, Operand, Target, dispatches};
use super::pipelines::Layout;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::executor::{Data, View};
use crate::graph::{Element, Op, Plan, Rate, Value};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::{Rc, Weak};

/// The slots of a plan.
pub struct Instance {
    pub(super) plan: Rc<Plan>,
    /// For each context, the buffer of each slot. Slots that are not persistent are the same in all.
    slots: Vec<Vec<Buffer>>,
    /// All dispatches, in order.
    pub(super) dispatches: Vec<Dispatch>,
    /// The first dispatch of each node, and their number.
    pub(super) first: Vec<usize>,
    /// For each context, group 0 of each dispatch.
    pub(super) groups: Vec<Vec<wgpu::BindGroup>>,
    bound: RefCell<Vec<(Weak<()>, Rc<Bound>)>>,
    /// What was known when it was made, or last found to be made as it would be now.
    known: Cell<u64>,
    pub(super) globals: Buffer,
    /// What bind groups refer to.
    _kept: Vec<Buffer>,
}

/// What depends on weights: for each dispatch its pipeline, and group 1 if it has one.
pub(super) struct Bound(pub Vec<(wgpu::ComputePipeline, Option<wgpu::BindGroup>)>);

impl Instance {
    /// The dispatches of one rate.
    pub(in crate::executor) fn phase(&self, rate: Rate) -> Range<usize> {
        let nodes = self.plan.phase(rate);
        self.first[nodes.start]..self.first[nodes.end]
    }

    /// What a node dispatches to compute its value. What converts an input or output is not of it.
    pub(super) fn own(&self, node: usize) -> Range<usize> {
        let start = self.first[node];
        let all = &self.dispatches[start..self.first[node + 1]];
        start..start + all.iter().take_while(|d| !d.converts()).count()
    }

    /// The number of rows that steps choose from in nodes of this rate, if any do.
    pub(super) fn steps(&self, rate: Rate) -> Option<usize> {
        let nodes = &self.plan.nodes[self.plan.phase(rate)];
        let rows = nodes.iter().filter_map(|n| {
            if n.op == Op::AddRow {
                n.inputs.get(1).copied()
            } else {
                n.row_bias()
            }
        });
        rows.map(|v| self.plan.values[v.0].shape.rows())
            .filter(|&rows| rows > 1)
            .min()
    }

    /// What a caller sees of a value: of an input or output in 16-bit floats the f32.
    pub(super) fn value(&self, value: usize, context: usize) -> Result<Buffer> {
        let slots = self
            .slots
            .get(context)
            .ok_or_else(|| Error::Internal(format!("there is no context {context}")))?;
        let info = self.plan.values.get(value);
        let found = info.and_then(|v| {
            let slot = slots.get(v.edge.unwrap_or(v.slot))?;
            Some(match v.edge {
                None if v.element == Element::F16 => slot.in_halves(),
                _ => slot.clone(),
            })
        });
        found.ok_or_else(|| Error::Internal(format!("there is no value {value}")))
    }
}

fn layout(dispatch: &Dispatch) -> Layout {
    Layout {
        reads: dispatch.reads.iter().map(|r| r.0).collect(),
        weights: dispatch.weights.len() as u32,
    }
}

/// Buffers that an instance needs apart from its slots.
struct Extra {
    uniforms: Buffer,
    /// Elements from one dispatch's uniforms to the next.
    stride: usize,
    globals: Buffer,
    scratch: [Buffer; 2],
    tables: HashMap<usize, Buffer>,
}

impl Extra {
    fn new(gpu: &Webgpu, all: &[Dispatch]) -> Result<Self> {
        let device = &gpu.device;
        let longest = all.iter().map(|d| d.args.len()).max().unwrap_or(0).next_multiple_of(4);
        let stride = longest
            .next_multiple_of(device.limits.min_uniform_buffer_offset_alignment as usize / 4)
            .max(4);
        let uniforms = Buffer::uniform(device, "sizes", stride * all.len())?;
        let mut words = vec![0u32; stride * all.len()];
        for (at, dispatch) in words.chunks_exact_mut(stride).zip(all) {
            at[..dispatch.args.len()].copy_from_slice(&dispatch.args);
        }
        uniforms.write(device, 0, bytemuck::cast_slice(&words))?;
        let globals = Buffer::uniform(device, "the step", 4)?;
        let operands = || all.iter().flat_map(|d| d.reads.iter().map(|r| &r.1).chain([&d.dst]));
        let most = |room: usize| {
            let each = operands().map(|o| match o {
                Operand::Scratch(of, len) if *of == room => *len,
                _ => 0,
            });
            each.max().unwrap_or(0)
        };
        let scratch = [
            Buffer::new(device, "scratch", most(0))?,
            Buffer::new(device, "more scratch", most(1))?,
        ];
        let mut tables = HashMap::new();
        for operand in operands() {
            if let Operand::Table(values) = operand {
                let buffer = Buffer::new(device, "a table", values.len())?;
                buffer.write(device, 0, bytemuck::cast_slice(values))?;
                tables.insert(values.as_ptr() as usize, buffer);
            }
        }
        Ok(Self {
            uniforms,
            stride,
            globals,
            scratch,
            tables,
        })
    }
}

impl Webgpu {
    pub(in crate::executor) async fn prepare(&self, plan: Rc<Plan>, contexts: usize) -> Result<Instance> {
        if !self.half && plan.values.iter().any(|v| v.element == Element::F16) {
            return Err(Error::Internal("a plan in 16-bit floats, on a device without".into()));
        }
        let (bytes, target) = (plan.peak_bytes(contexts), self.target(&plan));
        let made = self.device.guarded(|| self.make(plan, contexts, &target)).await;
        made.map_err(|e| e.at(format!("{bytes} bytes of activations")))
    }

    /// The slots, and the dispatches that `target` is for.
    pub(super) fn make(&self, plan: Rc<Plan>, contexts: usize, target: &Target) -> Result<Instance> {
        let mut all = Vec::new();
        let mut first = vec![0];
        for node in 0..plan.nodes.len() {
            all.extend(dispatches(&plan, node, target)?);
            first.push(all.len());
        }
        let mut slots: Vec<Vec<Buffer>> = Vec::new();
        for context in 0..contexts {
            let mut row = Vec::with_capacity(plan.slots.len());
            for (i, slot) in plan.slots.iter().enumerate() {
                row.push(match slots.first() {
                    Some(shared) if !slot.persistent => shared[i].clone(),
                    _ => Buffer::new(&self.device, &format!("slot {i} of context {context}"), slot.len)?,
                });
            }
            slots.push(row);
        }
        let extra = Extra::new(self, &all)?;
        let groups = slots
            .iter()
            .map(|slots| self.groups(&plan, slots, &all, &extra))
            .collect::<Result<_>>()?;
        let kept = [extra.uniforms]
            .into_iter()
            .chain(extra.scratch)
            .chain(extra.tables.into_values())
            .collect();
        let (bound, globals) = (RefCell::new(Vec::new()), extra.globals);
        Ok(Instance {
            plan,
            slots,
            dispatches: all,
            first,
            groups,
            bound,
            known: Cell::new(self.tuner.age()),
            globals,
            _kept: kept,
        })
    }

    /// Whether an instance would be prepared otherwise by what is known now about ways to run products.
    pub(in crate::executor) fn is_outdated(&self, instance: &Instance) -> bool {
        let now = self.tuner.age();
        if instance.known.get() == now {
            return false;
        }
        let (plan, target) = (&instance.plan, self.target(&instance.plan));
        let is_same = (0..plan.nodes.len()).all(|node| {
            let made = &instance.dispatches[instance.first[node]..instance.first[node + 1]];
            dispatches(plan, node, &target)
                .is_ok_and(|all| all.len() == made.len() && all.iter().zip(made).all(|(a, b)| a.is_like(b)))
        });
        if is_same {
            instance.known.set(now);
        }
        !is_same
    }

    /// Group 0 of each dispatch.
    fn groups(&self, plan: &Plan, slots: &[Buffer], all: &[Dispatch], extra: &Extra) -> Result<Vec<wgpu::BindGroup>> {
        let buffer = |operand: &Operand| match operand {
            Operand::Value(v) => Ok(&slots[plan.values[*v].slot]),
            Operand::Edge(v) => {
                let edge = plan.values[*v].edge.and_then(|edge| slots.get(edge));
                edge.ok_or_else(|| Error::Internal(format!("value {v} is not seen from outside")))
            }
            Operand::Scratch(room, _) => {
                (extra.scratch.get(*room)).ok_or_else(|| Error::Internal(format!("there is no scratch {room}")))
            }
            Operand::Table(values) => {
                let found = extra.tables.get(&(values.as_ptr() as usize));
                found.ok_or_else(|| Error::Internal("a table was not made".into()))
            }
        };
        let make = |(i, dispatch): (usize, &Dispatch)| {
            let args = wgpu::BufferBinding {
                buffer: extra.uniforms.raw(),
                offset: (i * extra.stride) as u64 * 4,
                size: wgpu::BufferSize::new(dispatch.args.len().next_multiple_of(4) as u64 * 4),
            };
            let args = wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(args),
            };
            let whole = |binding, buffer: &'_ Buffer| (binding, buffer.raw().clone());
            let mut others = vec![whole(1, &extra.globals), whole(2, buffer(&dispatch.dst)?)];
            for (binding, operand) in &dispatch.reads {
                others.push(whole(*binding, buffer(operand)?));
            }
            let others = others.iter().map(|(binding, b)| wgpu::BindGroupEntry {
                binding: *binding,
                resource: b.as_entire_binding(),
            });
            count_object();
            Ok(self.device.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.variant.shader),
                layout: &self.pipelines.slots(&self.device, &layout(dispatch)),
                entries: &[args].into_iter().chain(others).collect::<Vec<_>>(),
            }))
        };
        all.iter().enumerate().map(make).collect()
    }

    /// Pipelines and group 1 for these weights, made once.
    pub(super) async fn bind(&self, instance: &Instance, weights: &Weights) -> Result<Rc<Bound>> {
        instance
            .bound
            .borrow_mut()
            .retain(|(alive, _)| alive.strong_count() > 0);
        let is_ours = |b: &&(Weak<()>, Rc<Bound>)| b.0.as_ptr() == Rc::as_ptr(&weights.alive);
        if let Some((_, bound)) = instance.bound.borrow().iter().find(is_ours) {
            return Ok(Rc::clone(bound));
        }
        let make = || -> Result<Bound> {
            let each = instance
                .dispatches
                .iter()
                .map(|d| self.bind_one(&instance.plan, d, weights));
            Ok(Bound(each.collect::<Result<_>>()?))
        };
        let bound = Rc::new(self.compiling(make).await?);
        instance
            .bound
            .borrow_mut()
            .push((Rc::downgrade(&weights.alive), Rc::clone(&bound)));
        Ok(bound)
    }

    fn bind_one(
        &self,
        plan: &Plan,
        dispatch: &Dispatch,
        weights: &Weights,
    ) -> Result<(wgpu::ComputePipeline, Option<wgpu::BindGroup>)> {
        let variant = dispatch.variant_with(plan, |p| Ok(weights.get(&plan.params[p])?.dtype))?;
        let layout = layout(dispatch);
        let pipeline = self.pipelines.get(&self.device, &variant, &layout)?;
        let mut entries = Vec::new();
        for (binding, &p) in (0..).zip(&dispatch.weights) {
            let resource = weights.get(&plan.params[p])?.buffer.raw().as_entire_binding();
            entries.push(wgpu::BindGroupEntry { binding, resource });
        }
        let group = self.pipelines.weights(&self.device, &layout).map(|layout| {
            let descriptor = wgpu::BindGroupDescriptor {
                label: None,
                layout: &layout,
                entries: &entries,
            };
            count_object();
            self.device.device.create_bind_group(&descriptor)
        });
        Ok((pipeline, group))
    }

    /// The pipelines of a plan whose weights are not there yet.
    pub(super) fn wanted(
        &self,
        plan: &Plan,
        dtype: impl Fn(usize) -> Result<crate::executor::WeightDtype>,
    ) -> Result<Vec<(super::select::Variant, Layout)>> {
        let (target, mut wanted) = (self.target(plan), Vec::new());
        for node in 0..plan.nodes.len() {
            for dispatch in dispatches(plan, node, &target)? {
                let variant = dispatch.variant_with(plan, &dtype)?;
                if !self.pipelines.has(&variant) && wanted.iter().all(|(v, _)| *v != variant) {
                    wanted.push((variant, layout(&dispatch)));
                }
            }
        }
        Ok(wanted)
    }

    pub(in crate::executor) fn write(
        &self,
        instance: &Instance,
        input: &str,
        context: usize,
        data: Data<'_>,
    ) -> Result<()> {
        let value = instance.plan.input(input)?;
        let info = &instance.plan.values[value.0];
        let (element, len, bytes) = match data {
            Data::F32(values) => (Element::F32, values.len(), bytemuck::cast_slice(values)),
            Data::U32(values) => (Element::U32, values.len(), bytemuck::cast_slice(values)),
        };
        let expected = if info.edge.is_some() {
            Element::F32
        } else {
            info.element
        };
        if element != expected || len > info.shape.len() {
            return Err(Error::Internal(format!(
                "input {input} is {} of {:?}; {len} of {element:?} were written",
                info.shape, expected
            )));
        }
        instance.value(value.0, context)?.write(&self.device, 0, bytes)
    }

    pub(in crate::executor) fn view(&self, instance: &Instance, value: Value, context: usize) -> Result<View> {
        let buffer = instance.value(value.0, context)?;
        let len = instance.plan.values[value.0].shape.len();
        Ok(View {
            buffer: crate::executor::Buffer::Webgpu(buffer),
            offset: 0,
            len,
        })
    }
}
