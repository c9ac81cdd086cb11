// a's channels, then b's.
#import common
#import lanes
#import threads

struct Args {
    len: u32,
    // Channels of each, as many at once as `V` holds.
    a_lanes: u32,
    b_lanes: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<V>;
@group(0) @binding(3) var<storage, read> a: array<V>;
@group(0) @binding(4) var<storage, read> b: array<V>;

fn each(i: u32) {
    if i >= args.len {
        return;
    }
    let row = i / (args.a_lanes + args.b_lanes);
    let channel = i % (args.a_lanes + args.b_lanes);
    if channel < args.a_lanes {
        dst[i] = a[row * args.a_lanes + channel];
    } else {
        dst[i] = b[row * args.b_lanes + channel - args.a_lanes];
    }
}
