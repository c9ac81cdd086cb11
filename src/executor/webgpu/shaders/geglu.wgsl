// [.., 2 n] -> [.., n]: the first half times gelu of the second.
#import common
#import activation
#import threads

struct Args {
    first: u32,
    len: u32,
    // Channels of the output, as many at once as `V` holds.
    lanes: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<SlotV>;
@group(0) @binding(3) var<storage, read> x: array<SlotV>;

fn each(i: u32) {
    if i >= args.len {
        return;
    }
    let value = i / args.lanes * args.lanes + i;
    dst[i] = SlotV(V(x[value]) * gelu(V(x[value + args.lanes])));
}
