// post(act(sum + bias + row_bias) + residual), or value times gelu(gate), and writing it. `SCALAR_OUT`: n is no multiple of four.
// `BIAS` is the bias's binding.
#ifdef GATE
@group(0) @binding(2) var<storage, read_write> dst: array<Slot>;
#ifdef BIAS
@group(1) @binding($BIAS) var<storage, read> bias: array<f32>; // values, then gates
#endif

// A sum is of two values and their gates: value, gate, value, gate.
fn finish(row: u32, column: u32, sum: vec4<f32>) {
#ifndef FIT
    if row >= args.m || column >= args.n4 {
        return;
    }
#endif
    let half = args.n / 2u;
    let c = column * 2u;
    var y = sum;
#ifdef BIAS
    let last = half - 1u;
    y += vec4<f32>(bias[c], bias[half + c], bias[min(c + 1u, last)], bias[half + min(c + 1u, last)]);
#endif
    let gated = y.xz * gelu(y.ywyw).xy;
    let i = row * half + c;
    dst[i] = Slot(gated.x);
    if c + 1u < half {
        dst[i + 1u] = Slot(gated.y);
    }
}

#else
#ifdef SCALAR_OUT
@group(0) @binding(2) var<storage, read_write> dst: array<Slot>;
#else
@group(0) @binding(2) var<storage, read_write> dst: array<Slot4>;
#endif
#ifdef BIAS
@group(1) @binding($BIAS) var<storage, read> bias: array<vec4<f32>>;
#endif

#ifdef ROW_BIAS
@group(0) @binding(4) var<storage, read> row_bias: array<f32>;
fn row_bias_at(column: u32) -> vec4<f32> {
    let first = globals.step * args.row_stride + args.row_first;
    let last = first + args.n - 1u;
    let i = first + column * 4u;
    return vec4<f32>(row_bias[i], row_bias[min(i + 1u, last)], row_bias[min(i + 2u, last)], row_bias[min(i + 3u, last)]);
}
#endif

#ifdef RESIDUAL
#ifdef SCALAR_OUT
@group(0) @binding(5) var<storage, read> residual: array<Slot>;
fn residual_at(row: u32, column: u32) -> vec4<f32> {
    let last = row * args.n + args.n - 1u;
    let i = row * args.n + column * 4u;
    return vec4<f32>(Slot4(residual[i], residual[min(i + 1u, last)], residual[min(i + 2u, last)], residual[min(i + 3u, last)]));
}
#else
@group(0) @binding(5) var<storage, read> residual: array<Slot4>;
fn residual_at(row: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(residual[row * args.n4 + column]);
}
#endif
#endif

fn last_of_all(y: vec4<f32>) -> vec4<f32> {
    switch args.post {
        case 7u: { return y * args.post_a + args.post_b; }
        case 8u: { return clamped(y, args.post_a, args.post_b); }
        default: { return activate(y, args.post); }
    }
}

fn finish(row: u32, column: u32, sum: vec4<f32>) {
#ifndef FIT
    if row >= args.m || column >= args.n4 {
        return;
    }
#endif
    var y = sum;
#ifdef BIAS
    y += bias[column];
#endif
#ifdef ROW_BIAS
    y += row_bias_at(column);
#endif
    y = activate(y, args.act);
#ifdef RESIDUAL
    y += residual_at(row, column);
#endif
    y = last_of_all(y);
#ifdef SCALAR_OUT
    let left = args.n - column * 4u;
    let i = row * args.n + column * 4u;
    dst[i] = Slot(y.x);
    if left > 1u {
        dst[i + 1u] = Slot(y.y);
    }
    if left > 2u {
        dst[i + 2u] = Slot(y.z);
    }
    if left > 3u {
        dst[i + 3u] = Slot(y.w);
    }
#else
    dst[row * args.n4 + column] = Slot4(y);
#endif
}
#endif
