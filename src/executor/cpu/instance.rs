//! The slots of a plan.

use super::memory::{Writable, leave_room, write, zeros};
use super::{Buffer, Cpu};
use crate::error::{Error, Result};
use crate::executor::{Data, View};
use crate::graph::{Element, Plan, Value};
use candle_core::Tensor;
use std::rc::Rc;

/// The slots of a plan, each a tensor of one dimension.
pub struct Instance {
    pub(super) plan: Rc<Plan>,
    /// For each context, all slots; those that are not persistent are the same in each.
    contexts: Vec<Vec<Tensor>>,
}

impl Instance {
    /// The tensor that holds a value, as long as the value.
    pub(super) fn tensor(&self, value: Value, context: usize) -> Result<Tensor> {
        let slots = self.contexts.get(context).ok_or_else(|| {
            Error::Internal(format!(
                "context {context} of an instance that has {}",
                self.contexts.len()
            ))
        })?;
        let info = (self.plan.values.get(value.0))
            .ok_or_else(|| Error::Internal(format!("the plan has no value {}", value.0)))?;
        let len = info.shape.len();
        match slots.get(info.slot).map(|slot| (slot, slot.elem_count())) {
            // The slot itself where it can be, for its identity says whether two views are of one buffer.
            Some((slot, held)) if held == len => Ok(slot.clone()),
            Some((slot, held)) if held > len => Ok(slot.narrow(0, 0, len)?),
            _ => Err(Error::Internal(format!(
                "value {} does not fit slot {}",
                value.0, info.slot
            ))),
        }
    }
}

impl Cpu {
    pub(in super::super) fn prepare(&self, plan: Rc<Plan>, contexts: usize) -> Result<Instance> {
        let mut elements = vec![Element::F32; plan.slots.len()];
        for (node, value) in plan.nodes.iter().zip(&plan.values) {
            if value.shape.len() == 0 {
                return Err(Error::Internal(format!(
                    "{}: a value of shape {}",
                    node.label, value.shape
                )));
            }
            if node
                .inputs
                .iter()
                .any(|v| plan.values.get(v.0).is_none_or(|v| v.slot == value.slot))
            {
                return Err(Error::Internal(format!("{}: one slot is read and written", node.label)));
            }
            if let Some(element) = elements.get_mut(value.slot)
                && value.element != Element::F32
            {
                *element = value.element;
            }
        }
        let make = |i: usize| {
            let (len, what) = (plan.slots[i].len, format!("slot {i} of {}", plan.slots.len()));
            match elements[i] {
                Element::F32 => zeros::<f32>(len, &what),
                Element::U32 => zeros::<u32>(len, &what),
                Element::F16 => Err(Error::Internal(format!("{what}: values are f32 on this device"))),
            }
        };
        let mut all: Vec<Vec<Tensor>> = Vec::with_capacity(contexts);
        for _ in 0..contexts {
            let slots = (0..plan.slots.len()).map(|i| match all.first() {
                Some(first) if !plan.slots[i].persistent => Ok(first[i].clone()),
                _ => make(i),
            });
            let slots = slots.collect::<Result<_>>()?;
            all.push(slots);
        }
        leave_room()?;
        Ok(Instance { plan, contexts: all })
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
