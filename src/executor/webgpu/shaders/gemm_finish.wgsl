// The sums of slices of the depth, added in the order of the slices, and what a product does to a sum.
#import common
#import activation
#import gemm_args
#import gemm_epilogue
#import threads

@group(0) @binding(3) var<storage, read> partial: array<vec4<f32>>; // [slices, m, n4]

fn each(i: u32) {
    let all = args.m * args.n4;
    if i >= all {
        return;
    }
    var sum = partial[i];
    for (var slice = 1u; slice < args.slices; slice++) {
        sum += partial[slice * all + i];
    }
    finish(i / args.n4, i % args.n4, sum);
}
