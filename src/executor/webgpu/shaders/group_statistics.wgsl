// A workgroup a group of channels of one picture, or a chunk of its pixels. `WHOLE`: the group is small, and what becomes of its
// channels is written here; otherwise mean and sum of squares about it go to group_finish.
#import common
#import reduce
#define SCALAR_IN
#import source

struct Args {
    first: u32,
    lanes: u32,
    lanes_a: u32,
    // Pixels of a picture, and of a chunk.
    pixels: u32,
    chunk: u32,
    chunks: u32,
    groups: u32,
    // Workgroups.
    total: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<f32>;
#ifdef WHOLE
@group(1) @binding(0) var<storage, read> gamma_beta: array<f32>;
#endif

@compute @workgroup_size($THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let number = workgroup_number(workgroup, count);
    if number >= args.total {
        return;
    }
    let group = number % args.groups;
    let chunk = number / args.groups % args.chunks;
    let picture = number / args.groups / args.chunks;
    let width = args.lanes / args.groups;
    // Threads side by side take neighbouring channels; those that fill no row rest.
    let columns = min(width, $THREADSu);
    let rows = $THREADSu / columns;
    let column = t % columns;
    let row = select(t / columns, args.pixels, t / columns >= rows);
    let begin = chunk * args.chunk;
    let end = min(begin + args.chunk, args.pixels);
    let first = picture * args.pixels;
    let size = f32((end - begin) * width);

    var sum = 0.0;
    for (var p = begin + row; p < end; p += rows) {
        for (var j = column; j < width; j += columns) {
            sum += source(first + p, group * width + j, picture);
        }
    }
    let mean = sum_of_all(sum, t) / size;
    var squares = 0.0;
    for (var p = begin + row; p < end; p += rows) {
        for (var j = column; j < width; j += columns) {
            let d = source(first + p, group * width + j, picture) - mean;
            squares += d * d;
        }
    }
    let spread = sum_of_all(squares, t);
#ifdef WHOLE
    let reciprocal = 1.0 / sqrt(spread / size + args.eps);
    for (var j = t; j < width; j += $THREADSu) {
        let channel = group * width + j;
        let place = picture * 3u * args.lanes + channel;
        dst[place] = mean;
        dst[place + args.lanes] = gamma_beta[channel] * reciprocal;
        dst[place + 2u * args.lanes] = gamma_beta[args.lanes + channel];
    }
#else
    if t == 0u {
        let place = ((picture * args.groups + group) * args.chunks + chunk) * 2u;
        dst[place] = mean;
        dst[place + 1u] = spread;
    }
#endif
}
