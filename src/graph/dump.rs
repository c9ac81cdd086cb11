//! A plan as text: a line a node, for people and for comparing two versions of a plan.

use super::{Element, Op, Plan, Unary};
use std::fmt::{self, Write};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (node, value)) in self.nodes.iter().zip(&self.values).enumerate() {
            let mut args: Vec<String> = node.inputs.iter().map(|v| format!("%{}", v.0)).collect();
            args.extend(node.params.iter().map(|&p| self.params[p].key()));
            let rate = format!("{:?}", node.rate).to_lowercase();
            writeln!(
                f,
                "%{i} {rate} slot {} {}{} = {}({}) {}",
                value.slot,
                value.shape,
                if value.element == Element::F16 { " f16" } else { "" },
                node.op,
                args.join(", "),
                node.label
            )?;
        }
        for (s, slot) in self.slots.iter().enumerate() {
            writeln!(
                f,
                "slot {s}: {} words{}",
                slot.len,
                if slot.persistent { ", persistent" } else { "" }
            )?;
        }
        writeln!(f, "peak: {} bytes", self.peak_bytes(1))
    }
}

/// The operation with those of its attributes that say something.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(self))
    }
}

fn short(op: &Op) -> String {
    let mut s = match op {
        Op::Input { .. } => "input".into(),
        Op::Embedding => "embedding".into(),
        Op::TimestepEmbedding { .. } => "timestep_embedding".into(),
        Op::Linear { .. } => "linear".into(),
        Op::Conv2d {
            kernel,
            stride,
            padding,
            upsample,
            ..
        } => {
            let mut s = format!("conv2d {}x{} stride {stride} padding {padding:?}", kernel[0], kernel[1]);
            if let Some([h, w]) = upsample {
                let _ = write!(s, " of upsample {h}x{w}");
            }
            s
        }
        Op::GroupNorm { groups, act, .. } => format!(
            "group_norm {groups}{}",
            act.map_or(String::new(), |a| format!(" {a:?}"))
        ),
        Op::GroupStatistics { groups, .. } => format!("group_statistics {groups}"),
        Op::LayerNorm { .. } => "layer_norm".into(),
        Op::Attention {
            heads,
            head_dim,
            causal,
            offsets,
        } => {
            format!(
                "attention {heads}x{head_dim}{} at {offsets:?}",
                if *causal { " causal" } else { "" }
            )
        }
        Op::Unary(unary) => format!("{unary:?}"),
        Op::Geglu => "geglu".into(),
        Op::Add => "add".into(),
        Op::AddRow => "add_row".into(),
        Op::Concat => "concat".into(),
        Op::Upsample { size } => format!("upsample {}x{}", size[0], size[1]),
    };
    if let Some(p) = op.prologue() {
        for (on, name) in [(p.joined, " of two"), (p.norm, " of normed")] {
            s.push_str(if on { name } else { "" });
        }
        let _ = p.act.map_or(Ok(()), |act| write!(s, " {act:?}"));
    }
    if let Some(e) = op.epilogue() {
        for (on, name) in [
            (e.row_bias.is_some(), " +row"),
            (e.gate, " gated"),
            (e.residual, " +residual"),
        ] {
            s.push_str(if on { name } else { "" });
        }
        let _ = e.act.map_or(Ok(()), |act| write!(s, " {act:?}"));
        let _ = match e.post {
            Some(Unary::Act(act)) => write!(s, " {act:?}"),
            Some(other) => write!(s, " {other:?}"),
            None => Ok(()),
        };
    }
    s
}
