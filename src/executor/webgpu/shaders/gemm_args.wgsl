struct Args {
    first: u32,
    m: u32,
    n: u32,
    k: u32,
    // Columns of the weights, in fours.
    n4: u32,
    // Tiles in a row of them, and in all.
    tiles_n: u32,
    tiles: u32,
    // Depth that one of several slices sums, and their number.
    k_slice: u32,
    slices: u32,
    // From one step's row bias to the next (0 if all steps share one), and where in it the first channel is.
    row_stride: u32,
    row_first: u32,
    act: u32,
    // What comes last: an activation, or 7 and 8 with two numbers.
    post: u32,
    post_a: f32,
    post_b: f32,
    // Channels of x, as many at once as are loaded; those of the first of two values; and pixels of a picture.
    lanes: u32,
    lanes_a: u32,
    pixels: u32,
    // Of a convolution: picture, output, kernel.
    h: u32,
    w: u32,
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
