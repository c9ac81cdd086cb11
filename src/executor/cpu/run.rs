//! Plays the nodes of one rate, a slice of time after the other.

use super::bands::Step;
use super::chunks::Work;
use super::operands::{Operand, Operands};
use super::{Cpu, Instance, Weights};
use super::{
    add, attention, concat, conv2d, embedding, group_norm, layer_norm, linear, timestep_embedding, unary, upsample,
};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::graph::{Op, Rate, Value};
use crate::platform::{now_ms, yield_now};

impl Cpu {
    pub(in super::super) async fn run(
        &self,
        instance: &Instance,
        weights: &Weights,
        rate: Rate,
        context: usize,
        step: usize,
        cancel: &CancelToken,
    ) -> Result<()> {
        cancel.check()?;
        for part in instance.steps(rate) {
            self.play(instance, weights, part, context, step, cancel).await?;
        }
        Ok(())
    }

    /// Plays a node, or a part of it. Gives the milliseconds that it took, without pauses.
    pub(super) async fn play(
        &self,
        instance: &Instance,
        weights: &Weights,
        part: &Step,
        context: usize,
        step: usize,
        cancel: &CancelToken,
    ) -> Result<f64> {
        let label = &instance.plan.nodes[part.node].label;
        let (mut resumed, mut worked) = (now_ms(), 0.0);
        let work = self
            .operands(instance, weights, part, context, step)
            .and_then(|o| plan_work(&o));
        let Some(mut work) = work.map_err(|e| e.at(label))? else {
            return Ok(0.0);
        };
        self.began.set(self.began.get().or(Some(resumed)));
        for unit in 0..work.units {
            (work.unit)(unit).map_err(|e| e.at(label))?;
            let now = now_ms();
            if now - self.resumed.get() >= self.slice_ms {
                worked += now - resumed;
                yield_now().await;
                resumed = now_ms();
                self.resumed.set(resumed);
                cancel.check()?;
            }
        }
        Ok(worked + now_ms() - resumed)
    }

    fn operands<'a>(
        &self,
        instance: &'a Instance,
        weights: &Weights,
        step: &'a Step,
        context: usize,
        row: usize,
    ) -> Result<Operands<'a>> {
        let (plan, i) = (&instance.plan, step.node);
        let part = step.part.as_deref();
        if let Some(part) = part {
            instance.keep(i, context, part)?;
        }
        let node = &plan.nodes[i];
        let inputs = node.inputs.iter().enumerate().map(|(operand, &v)| {
            Ok(match part.and_then(|part| part.inputs[operand].as_ref()) {
                Some((elements, shape)) => Operand {
                    tensor: instance.part(v, context, elements)?,
                    shape: shape.clone(),
                },
                None => Operand {
                    tensor: instance.tensor(v, context)?,
                    shape: plan.values[v.0].shape.clone(),
                },
            })
        });
        let params = node.params.iter().map(|&p| weights.get(&plan.params[p]));
        Ok(Operands {
            node: part.map_or(node, |part| &part.node),
            inputs: inputs.collect::<Result<_>>()?,
            params: params.collect::<Result<_>>()?,
            dst: match part {
                Some(part) => instance.part(Value(i), context, &part.to)?,
                None => instance.tensor(Value(i), context)?,
            },
            height: node.shape.image().map_or(1, |[_, height, ..]| height),
            skipped: part.map_or(0, |part| part.skipped),
            step: row,
            pool: self.pool,
        })
    }
}

/// What a node does; nothing for an input.
fn plan_work(o: &Operands<'_>) -> Result<Option<Work>> {
    Ok(Some(match o.node.op {
        Op::Input { .. } => return Ok(None),
        Op::Embedding => embedding::work(o)?,
        Op::TimestepEmbedding { .. } => timestep_embedding::work(o)?,
        Op::Linear { .. } => linear::work(o)?,
        Op::Conv2d { .. } => conv2d::work(o)?,
        Op::GroupNorm { .. } => group_norm::work(o)?,
        Op::GroupStatistics { .. } => group_norm::statistics_work(o)?,
        Op::LayerNorm { .. } => layer_norm::work(o)?,
        Op::Attention { .. } => attention::work(o)?,
        Op::Unary(_) => unary::work(o)?,
        Op::Geglu => unary::geglu_work(o)?,
        Op::Add => add::work(o)?,
        Op::AddRow => add::row_work(o)?,
        Op::Concat => concat::work(o)?,
        Op::Upsample { .. } => upsample::work(o)?,
    }))
}
