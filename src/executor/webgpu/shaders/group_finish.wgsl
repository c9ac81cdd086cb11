// Joins the chunks of each group (Chan et al., 1979) and writes mean and reciprocal deviation for each channel:
// [batch, c] means, then [batch, c] reciprocals.
#import common

struct Args {
    pixels: u32,
    chunk: u32,
    chunks: u32,
    c: u32,
    groups: u32,
    // Channels of all pictures.
    total: u32,
    eps: f32,
    partials: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> scratch: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = workgroup_number(workgroup, count) * 64u + t;
    if i >= args.total {
        return;
    }
    let width = args.c / args.groups;
    let group = i / args.c * args.groups + i % args.c / width;
    var mean = 0.0;
    var spread = 0.0;
    var pixels = 0.0;
    for (var chunk = 0u; chunk < args.chunks; chunk++) {
        let place = args.partials + (group * args.chunks + chunk) * 2u;
        let more = f32(min(args.chunk, args.pixels - chunk * args.chunk));
        let d = scratch[place] - mean;
        let all = pixels + more;
        mean += d * (more / all);
        spread += scratch[place + 1u] + d * d * (pixels * more / all) * f32(width);
        pixels = all;
    }
    scratch[i] = mean;
    scratch[args.total + i] = 1.0 / sqrt(spread / (pixels * f32(width)) + args.eps);
}
