// How far two values are apart: of what a thread looks at, the largest of the first, the largest difference, and how many of each
// are no numbers, which is seen by their bits: compilers may take for granted that there are none.
#import common

struct Args {
    first: u32,
    total: u32,
    threads: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> right: array<f32>;
@group(0) @binding(4) var<storage, read> found: array<f32>;

fn is_strange(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let thread = workgroup_number(workgroup, count) * 64u + t;
    if thread >= args.threads {
        return;
    }
    var most = vec4<f32>();
    for (var i = thread; i < args.total; i += args.threads) {
        let a = right[i];
        let b = found[i];
        let strange = vec2<bool>(is_strange(a), is_strange(b));
        if any(strange) {
            most += vec4<f32>(0.0, 0.0, vec2<f32>(strange));
        } else {
            most = vec4<f32>(max(most.xy, abs(vec2<f32>(a, b - a))), most.zw);
        }
    }
    dst[thread] = most;
}
