// Joins the chunks of each group (Chan et al., 1979) and writes what becomes of each channel: [batch; means, scales, shifts].
#import common
#import threads

struct Args {
    first: u32,
    // Channels of all pictures.
    total: u32,
    pixels: u32,
    chunk: u32,
    chunks: u32,
    c: u32,
    groups: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<f32>;
@group(0) @binding(3) var<storage, read> partial: array<f32>; // [batch, groups, chunks], mean and sum of squares
@group(1) @binding(0) var<storage, read> gamma_beta: array<f32>;

fn each(i: u32) {
    if i >= args.total {
        return;
    }
    let width = args.c / args.groups;
    let picture = i / args.c;
    let channel = i % args.c;
    let group = picture * args.groups + channel / width;
    var mean = 0.0;
    var spread = 0.0;
    var pixels = 0.0;
    for (var chunk = 0u; chunk < args.chunks; chunk++) {
        let place = (group * args.chunks + chunk) * 2u;
        let more = f32(min(args.chunk, args.pixels - chunk * args.chunk));
        let d = partial[place] - mean;
        let all = pixels + more;
        mean += d * (more / all);
        spread += partial[place + 1u] + d * d * (pixels * more / all) * f32(width);
        pixels = all;
    }
    let place = picture * 3u * args.c + channel;
    dst[place] = mean;
    dst[place + args.c] = gamma_beta[channel] / sqrt(spread / (pixels * f32(width)) + args.eps);
    dst[place + 2u * args.c] = gamma_beta[args.c + channel];
}
