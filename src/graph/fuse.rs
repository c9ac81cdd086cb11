//! Passes over a graph that join an operation to the one before it, where nothing else reads what lies between.

use super::{Epilogue, Graph, Node, Op, Pack, ParamSpec, Prologue, Rate, Shape, Unary, Value};
use std::collections::BTreeMap;

/// Runs every pass, and after each drops what nobody reads any more.
#[must_use]
pub fn fuse(graph: Graph) -> Graph {
    let passes: [fn(At<'_>) -> Folded; 7] = [
        upsample_into_conv,
        gate,
        row_bias,
        unary,
        residual,
        unary,
        norm_into_reader,
    ];
    let folded = passes.into_iter().fold(graph, |mut graph, pass| {
        rewrite(&mut graph, pass);
        drop_unread(graph)
    });
    [concat_into_readers, row_biases_side_by_side]
        .into_iter()
        .fold(folded, |mut graph, pass| {
            pass(&mut graph);
            drop_unread(graph)
        })
}

/// What a pass makes of a node: `Some(v)` where `v`, a node before it, was changed to do its work too.
type Folded = Option<Value>;

/// A node that a pass looks at, and what lies around it.
struct At<'a> {
    before: &'a mut [Node],
    node: &'a mut Node,
    params: &'a mut [ParamSpec],
    /// Readers of each value, and nodes that use each parameter.
    uses: &'a [usize],
    param_uses: &'a [usize],
}

fn count(of: usize, used: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut uses = vec![0; of];
    used.for_each(|i| uses[i] += 1);
    uses
}

fn count_uses(graph: &Graph) -> Vec<usize> {
    let inputs = graph.nodes.iter().flat_map(|n| &n.inputs);
    count(graph.nodes.len(), inputs.chain(graph.outputs.values()).map(|v| v.0))
}

/// Goes through the nodes in order; a folded node stays where it was, unread, and its readers are led to the one that took it in.
/// Where a node takes in a later one's operand, that operand comes before it (the passes see to it), so order is kept.
fn rewrite(graph: &mut Graph, pass: impl Fn(At<'_>) -> Folded) {
    let mut uses = count_uses(graph);
    let params = graph.nodes.iter().flat_map(|n| &n.params).copied();
    let param_uses = count(graph.params.len(), params);
    let mut stands_for: Vec<Value> = (0..graph.nodes.len()).map(Value).collect();
    for i in 0..graph.nodes.len() {
        let (before, rest) = graph.nodes.split_at_mut(i);
        let node = &mut rest[0];
        node.inputs.iter_mut().for_each(|v| *v = stands_for[v.0]);
        let at = At {
            before,
            node,
            params: &mut graph.params,
            uses: &uses,
            param_uses: &param_uses,
        };
        if let Some(value) = pass(at) {
            stands_for[i] = value;
            // Its readers are now the other one's.
            uses[value.0] = uses[i];
        }
    }
    graph.outputs.values_mut().for_each(|v| *v = stands_for[v.0]);
}

/// A scaled-up image that only a convolution reads is never made: the convolution's gather scales.
fn upsample_into_conv(at: At<'_>) -> Folded {
    if let Op::Conv2d {
        upsample: upsample @ None,
        ..
    } = &mut at.node.op
    {
        let source = &at.before[at.node.inputs[0].0];
        if let (Op::Upsample { size }, 1) = (&source.op, at.uses[at.node.inputs[0].0]) {
            *upsample = Some(*size);
            at.node.inputs[0] = source.inputs[0];
        }
    }
    None
}

/// A layer that makes values and their gates multiplies them itself. Its weights are packed so that both are at hand at once.
fn gate(at: At<'_>) -> Folded {
    let x = *at.node.inputs.first()?;
    let producer = &mut at.before[x.0];
    let weights = *producer.params.first()?;
    let spec = &mut at.params[weights];
    let is_alone = at.uses[x.0] == 1 && at.param_uses[weights] == 1 && spec.parts.len() == 1;
    match &mut producer.op {
        Op::Linear { prologue, epilogue }
            if at.node.op == Op::Geglu
                && is_alone
                && spec.pack == Pack::Matrix
                && *prologue == Prologue::default()
                && *epilogue == Epilogue::default() =>
        {
            epilogue.gate = true;
            spec.pack = Pack::Gated;
            producer.shape = at.node.shape.clone();
            Some(x)
        }
        _ => None,
    }
}

/// The time embedding goes into the sums of the convolution before it.
fn row_bias(at: At<'_>) -> Folded {
    if at.node.op != Op::AddRow {
        return None;
    }
    let (x, rows) = (at.node.inputs[0], at.node.inputs[1]);
    let producer = &mut at.before[x.0];
    let epilogue = producer.op.epilogue_mut()?;
    if at.uses[x.0] != 1 || rows > x || *epilogue != Epilogue::default() || producer.rate != at.node.rate {
        return None;
    }
    epilogue.row_bias = Some(0);
    producer.inputs.insert(1, rows);
    Some(x)
}

/// What is done to each element by itself is done to sums before they are written.
fn unary(at: At<'_>) -> Folded {
    let Op::Unary(unary) = at.node.op else {
        return None;
    };
    let x = at.node.inputs[0];
    if at.uses[x.0] != 1 {
        return None;
    }
    match &mut at.before[x.0].op {
        Op::Linear { epilogue, .. } | Op::Conv2d { epilogue, .. } => match unary {
            _ if epilogue.post.is_some() || epilogue.gate => return None,
            Unary::Act(act) if epilogue.act.is_none() && !epilogue.residual => epilogue.act = Some(act),
            _ => epilogue.post = Some(unary),
        },
        Op::GroupNorm { act: place @ None, .. } => match unary {
            Unary::Act(act) => *place = Some(act),
            _ => return None,
        },
        _ => return None,
    }
    Some(x)
}

/// The later of two summands takes in the earlier one, so that both are there when it runs.
fn residual(at: At<'_>) -> Folded {
    if at.node.op != Op::Add {
        return None;
    }
    let (a, b) = (at.node.inputs[0], at.node.inputs[1]);
    let (earlier, later) = (a.min(b), a.max(b));
    let producer = &mut at.before[later.0];
    // A producer that runs less often than the sum must not be made to run as often.
    if earlier == later || at.uses[later.0] != 1 || producer.rate != at.node.rate {
        return None;
    }
    let epilogue = producer.op.epilogue_mut()?;
    if epilogue.residual || epilogue.post.is_some() || epilogue.gate {
        return None;
    }
    epilogue.residual = true;
    producer.inputs.push(earlier);
    Some(later)
}

/// A group norm leaves scaling, shifting and its activation to the layer that reads it, and makes statistics alone.
fn norm_into_reader(at: At<'_>) -> Folded {
    let At { before, node, uses, .. } = at;
    let read = *node.inputs.first()?;
    let norm = &mut before[read.0];
    let is_plain = match &node.op {
        Op::Linear { prologue, epilogue } => *prologue == Prologue::default() && !epilogue.gate,
        // A gather that scales would norm each pixel several times.
        Op::Conv2d { prologue, upsample, .. } => *prologue == Prologue::default() && upsample.is_none(),
        _ => false,
    };
    let Op::GroupNorm { groups, eps, act } = norm.op else {
        return None;
    };
    if !is_plain || uses[read.0] != 1 || norm.rate != node.rate {
        return None;
    }
    let prologue = node.op.prologue_mut()?;
    (prologue.norm, prologue.act) = (true, act);
    node.inputs[0] = norm.inputs[0];
    node.inputs.insert(1, read);
    norm.op = Op::GroupStatistics { groups, eps };
    norm.shape = Shape::new([norm.shape.batch(), 3 * norm.shape.channels()]);
    None
}

/// Two values side by side are never made where all who read them can read two.
fn concat_into_readers(graph: &mut Graph) {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|v| readers[v.0].push(i));
    }
    graph.outputs.values().for_each(|v| readers[v.0].clear());
    for (i, readers) in readers.into_iter().enumerate() {
        let Node {
            op: Op::Concat,
            inputs,
            rate,
            ..
        } = &graph.nodes[i]
        else {
            continue;
        };
        let (pair, rate) = (inputs.clone(), *rate);
        let takes_two = |&r: &usize| {
            let node = &graph.nodes[r];
            let is_one = match &node.op {
                Op::GroupStatistics { .. } => node.inputs.len() == 1,
                Op::Linear { prologue, epilogue } => !prologue.joined && !epilogue.gate,
                Op::Conv2d { prologue, upsample, .. } => !prologue.joined && upsample.is_none(),
                _ => false,
            };
            // What is joined once a prompt is not joined anew in each step.
            is_one && node.inputs.iter().position(|v| v.0 == i) == Some(0) && node.rate == rate
        };
        let is_read_once = |&r: &usize| graph.nodes[r].inputs.iter().filter(|v| v.0 == i).count() == 1;
        if readers.iter().all(|r| takes_two(r) && is_read_once(r)) {
            for r in readers {
                let node = &mut graph.nodes[r];
                node.inputs.splice(..1, pair.iter().copied());
                if let Some(prologue) = node.op.prologue_mut() {
                    prologue.joined = true;
                }
            }
        }
    }
}

/// Layers of one input whose outputs are row biases (the projections of the time embedding) run as one.
fn row_biases_side_by_side(graph: &mut Graph) {
    let uses = count_uses(graph);
    let mut groups: BTreeMap<(Value, usize), Vec<(usize, Value)>> = BTreeMap::new();
    for (reader, node) in graph.nodes.iter().enumerate() {
        let Some(rows) = node.row_bias() else { continue };
        let layer = &graph.nodes[rows.0];
        let is_plain = match &layer.op {
            Op::Linear { prologue, epilogue } => *prologue == Prologue::default() && *epilogue == Epilogue::default(),
            _ => false,
        };
        if is_plain && uses[rows.0] == 1 && layer.rate < node.rate {
            let key = (layer.inputs[0], layer.params.len());
            groups.entry(key).or_default().push((reader, rows));
        }
    }
    for group in groups.into_values().filter(|g| g.len() > 1) {
        let Some(first) = group.iter().map(|g| g.1).min() else {
            continue;
        };
        // All that a layer's own rows were is now there.
        for place in 0..graph.nodes[first.0].params.len() {
            let parts = group.iter().flat_map(|(_, layer)| {
                let spec = &graph.params[graph.nodes[layer.0].params[place]];
                spec.parts.iter().cloned()
            });
            let pack = graph.params[graph.nodes[first.0].params[place]].pack;
            let parts = parts.collect();
            graph.params.push(ParamSpec { parts, pack });
        }
        let mut offset = 0;
        for (reader, layer) in &group {
            let channels = graph.nodes[layer.0].shape.channels();
            let node = &mut graph.nodes[*reader];
            node.inputs.iter_mut().filter(|v| *v == layer).for_each(|v| *v = first);
            if let Some(epilogue) = node.op.epilogue_mut() {
                epilogue.row_bias = Some(offset);
            }
            offset += channels;
        }
        let added = graph.params.len();
        let node = &mut graph.nodes[first.0];
        node.params = (added - node.params.len()..added).collect();
        node.shape = node.shape.with_channels(offset);
    }
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
    drop_unused_params(&mut graph);
    graph
}

fn drop_unused_params(graph: &mut Graph) {
    let params = graph.nodes.iter().flat_map(|n| &n.params).copied();
    let uses = count(graph.params.len(), params);
    let mut number = vec![0; uses.len()];
    let all = std::mem::take(&mut graph.params).into_iter().enumerate();
    for (i, spec) in all.filter(|(i, _)| uses[*i] > 0) {
        number[i] = graph.params.len();
        graph.params.push(spec);
    }
    let params = graph.nodes.iter_mut().flat_map(|n| &mut n.params);
    params.for_each(|p| *p = number[*p]);
}
