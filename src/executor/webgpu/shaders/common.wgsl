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
alias packed_e4m3 = u32;
alias packed_e5m2 = u32;

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

// Without floats that are subnormal on the way: an adapter may take those for zero.
fn widen_e4m3(w: packed_e4m3) -> vec4<f32> {
    let bytes = vec4<u32>(w, w >> 8u, w >> 16u, w >> 24u) & vec4<u32>(0xffu);
    let size = bytes & vec4<u32>(0x7fu);
    let small = bitcast<vec4<u32>>(vec4<f32>(size) * 0x1p-9f);
    var bits = select((size + vec4<u32>(120u << 3u)) << vec4<u32>(20u), small, size < vec4<u32>(8u));
    bits = select(bits, vec4<u32>(0x7fc00000u), size == vec4<u32>(0x7fu));
    return bitcast<vec4<f32>>(bits | ((bytes >> vec4<u32>(7u)) << vec4<u32>(31u)));
}

// The upper bytes of halves.
fn widen_e5m2(w: packed_e5m2) -> vec4<f32> {
    let low = unpack2x16float(((w & 0xffu) << 8u) | ((w & 0xff00u) << 16u));
    return vec4<f32>(low, unpack2x16float(((w >> 8u) & 0xff00u) | (w & 0xff000000u)));
}

// A grid is folded where one dimension would be too long, and parted where it would run too long: `args.first` is then the number of
// a part's first workgroup.
fn workgroup_number(workgroup: vec3<u32>, count: vec3<u32>) -> u32 {
    return args.first + workgroup.x + workgroup.y * count.x;
}
