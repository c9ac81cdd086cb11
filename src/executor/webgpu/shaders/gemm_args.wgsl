struct Args {
    m: u32,
    n: u32,
    k: u32,
    // Columns of the weights, in fours.
    n4: u32,
    // Tiles in a row of them, and in all.
    tiles_n: u32,
    tiles: u32,
    // From one step's row bias to the next; 0 if all steps share one.
    row_stride: u32,
    act: u32,
    post: u32,
    // Of a convolution: picture, channels, output.
    h: u32,
    w: u32,
    ci: u32,
    ho: u32,
    wo: u32,
    kw: u32,
    stride: u32,
    top: u32,
    left: u32,
    // The size to which the picture is scaled first.
    uh: u32,
    uw: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<uniform> globals: Globals;
@group(1) @binding(0) var<storage, read> weights: array<packed_$W0>; // [k, n4]

// A column beyond n4 is the caller's to avoid. A row beyond k is zero: NaN times zero would be NaN.
fn load_w(k: u32, column: u32) -> vec4<f32> {
    let found = widen_$W0(weights[k * args.n4 + column]);
#ifdef FIT
    return found;
#else
    return select(found, vec4<f32>(), k >= args.k);
#endif
}
