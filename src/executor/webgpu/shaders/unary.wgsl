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
@group(0) @binding(2) var<storage, read_write> dst: array<SlotV>;
@group(0) @binding(3) var<storage, read> x: array<SlotV>;

fn each(i: u32) {
    if i >= args.len {
        return;
    }
    var y = V(x[i]);
    switch args.kind {
        case 0u: { y = activate(y, args.act); }
        case 1u: { y = y * args.a + V(args.b); }
        default: { y = clamped(y, args.a, args.b); }
    }
    dst[i] = SlotV(y);
}
