//! The memory of a plan, and the order in which it is played.

use super::bands::{Home, Layout, Part, Step};
use super::memory::{Writable, leave_room, write, zeros};
use super::{Buffer, Cpu};
use crate::error::{Error, Result};
use crate::executor::{Data, View};
use crate::graph::{Element, Plan, Rate, Value};
use candle_core::Tensor;
use std::rc::Rc;

/// The memory of a plan: tensors of one dimension.
pub struct Instance {
    pub(super) plan: Rc<Plan>,
    pub(super) layout: Layout,
    /// For each context, all slots; those that are not persistent are the same in each.
    contexts: Vec<Vec<Tensor>>,
    bands: Vec<Tensor>,
}

impl Instance {
    /// What is played at a rate, in order.
    pub(super) fn steps(&self, rate: Rate) -> &[Step] {
        let nodes = self.plan.phase(rate);
        let place = |node: usize| self.layout.steps.partition_point(|step| step.node < node);
        // Nodes of a chain take turns, but are of one rate.
        let first = place(nodes.start);
        let count = self.layout.steps[first..]
            .iter()
            .take_while(|s| nodes.contains(&s.node));
        &self.layout.steps[first..first + count.count()]
    }

    fn home(&self, value: Value, context: usize) -> Result<&Tensor> {
        let slots = self.contexts.get(context).ok_or_else(|| {
            Error::Internal(format!(
                "context {context} of an instance that has {}",
                self.contexts.len()
            ))
        })?;
        let home = match self.layout.homes.get(value.0) {
            Some(Home::Slot(slot)) => slots.get(*slot),
            Some(Home::Band(band)) => self.bands.get(*band),
            None => None,
        };
        home.ok_or_else(|| Error::Internal(format!("the plan has no value {}", value.0)))
    }

    /// The tensor that holds a value, as long as the value.
    pub(super) fn tensor(&self, value: Value, context: usize) -> Result<Tensor> {
        let home = self.home(value, context)?;
        let len = self.plan.values.get(value.0).map_or(0, |info| info.shape.len());
        match home.elem_count() {
            // The slot itself where it can be, for its identity says whether two views are of one buffer.
            held if held == len => Ok(home.clone()),
            held if held > len => Ok(home.narrow(0, 0, len)?),
            _ => Err(Error::Internal(format!("value {} is not whole in memory", value.0))),
        }
    }

    /// A part of the tensor that holds a value.
    pub(super) fn part(&self, value: Value, context: usize, elements: &std::ops::Range<usize>) -> Result<Tensor> {
        Ok(self.home(value, context)?.narrow(0, elements.start, elements.len())?)
    }

    /// Moves what is still to be seen of a node's lines to where they are looked for.
    pub(super) fn keep(&self, node: usize, context: usize, part: &Part) -> Result<()> {
        if part.kept.is_empty() || part.kept.start == 0 {
            return Ok(());
        }
        write(self.home(Value(node), context)?, |lines: &mut [f32]| {
            lines.copy_within(part.kept.clone(), 0);
        })
    }
}

impl Cpu {
    /// Bytes of what [`prepare`](Self::prepare) makes.
    pub(in super::super) fn working_bytes(&self, plan: &Plan, contexts: usize) -> u64 {
        Layout::new(plan, self.sizes).bytes(contexts)
    }

    pub(in super::super) fn prepare(&self, plan: Rc<Plan>, contexts: usize) -> Result<Instance> {
        let layout = Layout::new(&plan, self.sizes);
        let slots = &layout.slots;
        let mut elements = vec![Element::F32; slots.len()];
        for ((node, value), home) in plan.nodes.iter().zip(&plan.values).zip(&layout.homes) {
            if value.shape.len() == 0 {
                return Err(Error::Internal(format!(
                    "{}: a value of shape {}",
                    node.label, value.shape
                )));
            }
            if node
                .inputs
                .iter()
                .any(|v| layout.homes.get(v.0).is_none_or(|other| other == home))
            {
                return Err(Error::Internal(format!("{}: one slot is read and written", node.label)));
            }
            if let (Element::U32, Home::Slot(slot)) = (value.element, home)
                && let Some(element) = elements.get_mut(*slot)
            {
                *element = Element::U32;
            }
        }
        let make = |i: usize| {
            let (len, what) = (slots[i].len, format!("slot {i} of {}", slots.len()));
            match elements[i] {
                Element::F32 => zeros::<f32>(len, &what),
                Element::U32 => zeros::<u32>(len, &what),
            }
        };
        let mut all: Vec<Vec<Tensor>> = Vec::with_capacity(contexts);
        for _ in 0..contexts {
            let own = (0..slots.len()).map(|i| match all.first() {
                Some(first) if !slots[i].persistent => Ok(first[i].clone()),
                _ => make(i),
            });
            let own = own.collect::<Result<_>>()?;
            all.push(own);
        }
        let bands = layout.bands.iter().map(|len| zeros::<f32>(*len, "lines of a picture"));
        let bands = bands.collect::<Result<_>>()?;
        leave_room()?;
        Ok(Instance {
            plan,
            layout,
            contexts: all,
            bands,
        })
    }

    pub(in super::super) fn write(
        &self,
        instance: &Instance,
        input: &str,
        context: usize,
        data: Data<'_>,
    ) -> Result<()> {
        let tensor = instance.tensor(instance.plan.input(input)?, context)?;
        match data {
            Data::F32(data) => put(&tensor, data),
            Data::U32(data) => put(&tensor, data),
        }
        .map_err(|e| e.at(format_args!("input {input}")))
    }

    pub(in super::super) fn view(&self, instance: &Instance, value: Value, context: usize) -> Result<View> {
        let tensor = instance.tensor(value, context)?;
        let len = tensor.elem_count();
        Ok(View {
            buffer: crate::executor::Buffer::Cpu(Buffer(tensor)),
            offset: 0,
            len,
        })
    }
}

fn put<T: Writable>(tensor: &Tensor, data: &[T]) -> Result<()> {
    if data.len() > tensor.elem_count() {
        return Err(Error::Internal(format!(
            "{} values for {}",
            data.len(),
            tensor.elem_count()
        )));
    }
    write(tensor, |to: &mut [T]| to[..data.len()].copy_from_slice(data))
}
