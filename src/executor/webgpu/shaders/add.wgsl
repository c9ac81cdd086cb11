// a + b, where b is of a's shape, or (`ROWS`) the row of the current step.
#import common
#import lanes
#import threads

struct Args {
    first: u32,
    len: u32,
    // Channels, as many at once as `V` holds.
    lanes: u32,
    // From one step's row to the next; 0 if all steps share one.
    row_stride: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<uniform> globals: Globals;
@group(0) @binding(2) var<storage, read_write> dst: array<SlotV>;
@group(0) @binding(3) var<storage, read> a: array<SlotV>;
#ifdef ROWS
@group(0) @binding(4) var<storage, read> b: array<V>;
#else
@group(0) @binding(4) var<storage, read> b: array<SlotV>;
#endif

fn each(i: u32) {
    if i >= args.len {
        return;
    }
#ifdef ROWS
    dst[i] = SlotV(V(a[i]) + b[globals.step * args.row_stride + i % args.lanes]);
#else
    dst[i] = SlotV(V(a[i]) + V(b[i]));
#endif
}
