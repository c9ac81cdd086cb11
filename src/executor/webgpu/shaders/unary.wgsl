// An operation on each element by itself.
#import common
#import activation
#import threads

struct Args {
    first: u32,
    len: u32,
    // 0: activation, 1: x * a + b, 2: from a to b.
    kind: u32,
    act: u32,
    a: f32,
    b: f32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<V>;
@group(0) @binding(3) var<storage, read> x: array<V>;

fn each(i: u32) {
    if i >= args.len {
        return;
    }
    switch args.kind {
        case 0u: { dst[i] = activate(x[i], args.act); }
        case 1u: { dst[i] = x[i] * args.a + V(args.b); }
        default: { dst[i] = clamped(x[i], args.a, args.b); }
    }
}
