#ifdef F16
enable f16;
#endif

// Values of a plan as they lie in memory, one and four. Kernels compute with f32: what is read is widened, what is written is rounded,
// and what is beyond f16 becomes infinite, as it does in torch.
#ifdef F16
alias Slot = f16;
alias Slot4 = vec4<f16>;
#else
alias Slot = f32;
alias Slot4 = vec4<f32>;
#endif

// Set once a run.
struct Globals {
    // The row of schedule-rate values that this step uses.
    step: u32,
}

// Four values of a weight in memory, and as the kernels compute with them.
alias packed_f32 = vec4<f32>;
alias packed_bf16 = vec2<u32>;

fn widen_f32(w: packed_f32) -> vec4<f32> {
    return w;
}

#ifdef F16
alias packed_f16 = vec4<f16>;

fn widen_f16(w: packed_f16) -> vec4<f32> {
    return vec4<f32>(w);
}
#else
alias packed_f16 = vec2<u32>;

fn widen_f16(w: packed_f16) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}
#endif

fn widen_bf16(w: packed_bf16) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u));
}

// A grid is folded where one dimension would be too long, and parted where it would run too long: `args.first` is then the number of
// a part's first workgroup.
fn workgroup_number(workgroup: vec3<u32>, count: vec3<u32>) -> u32 {
    return args.first + workgroup.x + workgroup.y * count.x;
}
