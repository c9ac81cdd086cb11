// A workgroup a row: mean, then variance about it, then scale and shift.
#import common
#import lanes
#import reduce

struct Args {
    first: u32,
    rows: u32,
    c: u32,
    // Channels, as many at once as `V` holds.
    lanes: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<SlotV>;
@group(0) @binding(3) var<storage, read> x: array<SlotV>;
@group(1) @binding(0) var<storage, read> gamma_beta: array<V>;

fn across(v: V) -> f32 {
#ifdef SCALAR
    return v;
#else
    return v.x + v.y + v.z + v.w;
#endif
}

@compute @workgroup_size($THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let row = workgroup_number(workgroup, count);
    if row >= args.rows {
        return;
    }
    let first = row * args.lanes;
    var sum = V();
    for (var i = t; i < args.lanes; i += $THREADSu) {
        sum += V(x[first + i]);
    }
    let mean = sum_of_all(across(sum), t) / f32(args.c);
    var squares = V();
    for (var i = t; i < args.lanes; i += $THREADSu) {
        let d = V(x[first + i]) - mean;
        squares += d * d;
    }
    let scale = 1.0 / sqrt(sum_of_all(across(squares), t) / f32(args.c) + args.eps);
    for (var i = t; i < args.lanes; i += $THREADSu) {
        dst[first + i] = SlotV((V(x[first + i]) - mean) * scale * gamma_beta[i] + gamma_beta[args.lanes + i]);
    }
}
