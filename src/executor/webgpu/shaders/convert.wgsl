// Between a value in 16-bit floats and what is outside of the plan, four at a time.
#import common
#import threads

struct Args {
    first: u32,
    len: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<vec4<$TO>>;
@group(0) @binding(3) var<storage, read> x: array<vec4<$FROM>>;

fn each(i: u32) {
    if i < args.len {
        dst[i] = vec4<$TO>(x[i]);
    }
}
