//! Passes over a graph that join an operation to the one before it, where nothing else reads what lies between.

use super::{Graph, Node, Op, Rate, Unary, Value};

/// Runs every pass, and after each drops what nobody reads any more.
#[must_use]
pub fn fuse(graph: Graph) -> Graph {
    [upsample_into_conv, row_bias, activation, residual, activation]
        .into_iter()
        .fold(graph, |mut graph, pass| {
            let mut uses = count_uses(&graph);
            rewrite(&mut graph, &mut uses, pass);
            drop_unread(graph)
        })
}

/// What a pass makes of a node: `Some(v)` where `v`, a node before it, was changed to do its work too.
type Folded = Option<Value>;

fn count_uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.nodes.len()];
    graph
        .nodes
        .iter()
        .flat_map(|n| &n.inputs)
        .chain(graph.outputs.values())
        .for_each(|v| uses[v.0] += 1);
    uses
}

/// Goes through the nodes in order; a folded node stays where it was, unread, and its readers are led to the one that took it in.
/// Where a node takes in a later one's operand, that operand comes before it (the passes see to it), so order is kept.
fn rewrite(graph: &mut Graph, uses: &mut [usize], pass: impl Fn(&mut [Node], &mut Node, &[usize]) -> Folded) {
    let mut stands_for: Vec<Value> = (0..graph.nodes.len()).map(Value).collect();
    for i in 0..graph.nodes.len() {
        let (before, rest) = graph.nodes.split_at_mut(i);
        let node = &mut rest[0];
        node.inputs.iter_mut().for_each(|v| *v = stands_for[v.0]);
        if let Some(value) = pass(before, node, uses) {
            stands_for[i] = value;
            // Its readers are now the other one's.
            uses[value.0] = uses[i];
        }
    }
    graph.outputs.values_mut().for_each(|v| *v = stands_for[v.0]);
}

/// A scaled-up image that only a convolution reads is never made: the convolution's gather scales.
fn upsample_into_conv(before: &mut [Node], node: &mut Node, uses: &[usize]) -> Folded {
    if let Op::Conv2d {
        upsample: upsample @ None,
        ..
    } = &mut node.op
    {
        let source = &before[node.inputs[0].0];
        if let (Op::Upsample { size }, 1) = (&source.op, uses[node.inputs[0].0]) {
            *upsample = Some(*size);
            node.inputs[0] = source.inputs[0];
        }
    }
    None
}

/// The time embedding goes into the sums of the convolution before it.
fn row_bias(before: &mut [Node], node: &mut Node, uses: &[usize]) -> Folded {
    if node.op != Op::AddRow {
        return None;
    }
    let (x, rows) = (node.inputs[0], node.inputs[1]);
    let producer = &mut before[x.0];
    let epilogue = producer.op.epilogue_mut()?;
    if uses[x.0] != 1 || rows > x || *epilogue != Default::default() || producer.rate != node.rate {
        return None;
    }
    epilogue.row_bias = true;
    producer.inputs.insert(1, rows);
    Some(x)
}

fn activation(before: &mut [Node], node: &mut Node, uses: &[usize]) -> Folded {
    let Op::Unary(Unary::Act(act)) = node.op else {
        return None;
    };
    let x = node.inputs[0];
    if uses[x.0] != 1 {
        return None;
    }
    match &mut before[x.0].op {
        Op::Linear { epilogue } | Op::Conv2d { epilogue, .. } => {
            if epilogue.post.is_some() || (epilogue.act.is_some() && !epilogue.residual) {
                return None;
            }
            let place = if epilogue.residual {
                &mut epilogue.post
            } else {
                &mut epilogue.act
            };
            *place = Some(act);
        }
        Op::GroupNorm { act: place @ None, .. } => *place = Some(act),
        _ => return None,
    }
    Some(x)
}

/// The later of two summands takes in the earlier one, so that both are there when it runs.
fn residual(before: &mut [Node], node: &mut Node, uses: &[usize]) -> Folded {
    if node.op != Op::Add {
        return None;
    }
    let (earlier, later) = (node.inputs[0].min(node.inputs[1]), node.inputs[0].max(node.inputs[1]));
    let producer = &mut before[later.0];
    // A producer that runs less often than the sum must not be made to run as often.
    if earlier == later || uses[later.0] != 1 || producer.rate != node.rate {
        return None;
    }
    let epilogue = producer.op.epilogue_mut()?;
    if epilogue.residual || epilogue.post.is_some() {
        return None;
    }
    epilogue.residual = true;
    producer.inputs.push(earlier);
    Some(later)
}

fn drop_unread(mut graph: Graph) -> Graph {
    let mut read = vec![false; graph.nodes.len()];
    graph.outputs.values().for_each(|v| read[v.0] = true);
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        // An input is part of the graph's contract, read or not.
        read[i] |= matches!(node.op, Op::Input { .. });
        if read[i] {
            node.inputs.iter().for_each(|v| read[v.0] = true);
        }
    }
    let mut number = vec![Value(0); read.len()];
    // What depends on nothing but weights would run once a prompt: there is no earlier moment.
    for (i, mut node) in std::mem::take(&mut graph.nodes)
        .into_iter()
        .enumerate()
        .filter(|(i, _)| read[*i])
    {
        number[i] = Value(graph.nodes.len());
        node.inputs.iter_mut().for_each(|v| *v = number[v.0]);
        node.rate = node.rate.max(Rate::Prompt);
        graph.nodes.push(node);
    }
    graph.outputs.values_mut().for_each(|v| *v = number[v.0]);
    graph
}
