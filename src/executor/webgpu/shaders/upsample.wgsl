// Nearest neighbour: floor(i * from / to).
#import common
#import lanes
#import threads

struct Args {
    first: u32,
    len: u32,
    // Channels, as many at once as `V` holds.
    lanes: u32,
    h: u32,
    w: u32,
    ho: u32,
    wo: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<SlotV>;
@group(0) @binding(3) var<storage, read> x: array<SlotV>;

fn each(i: u32) {
    if i >= args.len {
        return;
    }
    let pixel = i / args.lanes;
    let line = pixel / args.wo;
    let from_x = pixel % args.wo * args.w / args.wo;
    let from_y = line % args.ho * args.h / args.ho;
    let picture = line / args.ho;
    dst[i] = x[((picture * args.h + from_y) * args.w + from_x) * args.lanes + i % args.lanes];
}
