// [n] -> [n, dim]: sines and cosines of each timestep times frequencies, which the host made. The built-in functions are not exact
// for arguments up to a thousand, so they are reduced to half a quarter turn first (Cody and Waite).
#import common
#import threads

struct Args {
    first: u32,
    len: u32,
    dim: u32,
    // 1: cosines first.
    flip: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<f32>;
@group(0) @binding(3) var<storage, read> timesteps: array<f32>;
@group(0) @binding(4) var<storage, read> frequencies: array<f32>; // [dim / 2]

fn sine(angle: f32, quarters: i32) -> f32 {
    let turns = round(angle * 0.6366197723675814);
    // A quarter turn in three parts; the first two have so few bits that their products are exact.
    var r = fma(-turns, 1.5703125, angle);
    r = fma(-turns, 0.0004837512969970703, r);
    r = fma(-turns, 7.549789948768648e-8, r);
    let s = r * r;
    let near_zero = r + r * s * (-0.16666654611 + s * (0.0083321608736 - s * 0.00019515295891));
    let near_one = 1.0 - 0.5 * s + s * s * (0.041666645683 + s * (-0.0013887316255 + s * 0.000024433157118));
    let quadrant = (i32(turns) + quarters) & 3;
    let y = select(near_zero, near_one, (quadrant & 1) == 1);
    return select(y, -y, quadrant >= 2);
}

fn each(i: u32) {
    if i >= args.len {
        return;
    }
    let half = args.dim / 2u;
    let column = i % args.dim;
    let angle = timesteps[i / args.dim] * frequencies[column % half];
    // A cosine is the sine a quarter turn on.
    let cosine = (column < half) == (args.flip == 1u);
    dst[i] = sine(angle, select(0, 1, cosine));
}
