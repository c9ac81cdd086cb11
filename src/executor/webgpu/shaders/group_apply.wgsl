// Scale, shift and activation by the statistics that group_finish made.
#import common
#import activation
#import threads

struct Args {
    len: u32,
    // Channels, and those of all pictures, as many at once as `V` holds.
    lanes: u32,
    all_lanes: u32,
    // Lanes of a picture.
    picture: u32,
    act: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<V>;
@group(0) @binding(3) var<storage, read> x: array<V>;
@group(0) @binding(4) var<storage, read> statistics: array<V>;
@group(1) @binding(0) var<storage, read> gamma_beta: array<V>;

fn each(i: u32) {
    if i >= args.len {
        return;
    }
    let channel = i % args.lanes;
    let place = i / args.picture * args.lanes + channel;
    let y = (x[i] - statistics[place]) * statistics[args.all_lanes + place];
    dst[i] = activate(y * gamma_beta[channel] + gamma_beta[args.lanes + channel], args.act);
}
