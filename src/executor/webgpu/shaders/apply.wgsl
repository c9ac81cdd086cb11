// What a linear layer or convolution would read, written out: channels of two values side by side, a group norm's scale and shift,
// an activation.
#import common
#import activation
#import threads
#import source

struct Args {
    first: u32,
    len: u32,
    // Channels, as many at once as are loaded; those of the first of two values; and pixels of a picture.
    lanes: u32,
    lanes_a: u32,
    pixels: u32,
    act: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<SlotE>;

fn each(i: u32) {
    if i >= args.len {
        return;
    }
    let p = i / args.lanes;
    dst[i] = SlotE(activate(source(p, i % args.lanes, p / args.pixels), args.act));
}
