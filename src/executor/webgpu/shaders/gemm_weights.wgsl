@group(1) @binding(0) var<storage, read> weights: array<packed_$W0>; // [k, n4]

// A column beyond n4 is the caller's to avoid. A row beyond k is zero: NaN times zero would be NaN.
fn load_w(k: u32, column: u32) -> vec4<f32> {
    let found = widen_$W0(weights[k * args.n4 + column]);
#ifdef FIT_K
    return found;
#else
    return select(found, vec4<f32>(), k >= args.k);
#endif
}
