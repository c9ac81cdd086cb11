// dst = clamp(sum of coefficient * source), where a mask, if there is one, is not 0. A source may be dst itself, which is then
// read there.
#import common
#define SCALAR
#import activation
#import threads

struct Term {
    // 0: dst, 1 to 4: that source.
    source: u32,
    offset: u32,
    coefficient: f32,
    unused: u32,
}

struct Args {
    len: u32,
    offset: u32,
    terms: u32,
    clamps: u32,
    limit: f32,
    masked: u32,
    mask_offset: u32,
    first: u32,
    term: array<Term, 4>,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<f32>;
@group(0) @binding(3) var<storage, read> source1: array<f32>;
@group(0) @binding(4) var<storage, read> source2: array<f32>;
@group(0) @binding(5) var<storage, read> source3: array<f32>;
@group(0) @binding(6) var<storage, read> source4: array<f32>;
@group(0) @binding(7) var<storage, read> mask: array<f32>;

fn value(source: u32, i: u32) -> f32 {
    switch source {
        case 0u: { return dst[i]; }
        case 1u: { return source1[i]; }
        case 2u: { return source2[i]; }
        case 3u: { return source3[i]; }
        default: { return source4[i]; }
    }
}

fn each(i: u32) {
    if i >= args.len {
        return;
    }
    if args.masked == 1u && mask[args.mask_offset + i] == 0.0 {
        return;
    }
    var sum = 0.0;
    for (var n = 0u; n < args.terms; n++) {
        let term = args.term[n];
        sum += term.coefficient * value(term.source, term.offset + i);
    }
    if args.clamps == 1u {
        sum = clamped(sum, -args.limit, args.limit);
    }
    dst[args.offset + i] = sum;
}
