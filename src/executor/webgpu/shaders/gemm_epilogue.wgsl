// post(act(sum + bias + row_bias) + residual), and writing it. `SCALAR_OUT`: n is no multiple of four.
#ifdef SCALAR_OUT
@group(0) @binding(2) var<storage, read_write> dst: array<f32>;
#else
@group(0) @binding(2) var<storage, read_write> dst: array<vec4<f32>>;
#endif
#ifdef BIAS
@group(1) @binding(1) var<storage, read> bias: array<vec4<f32>>;
#endif

#ifdef ROW_BIAS
#ifdef SCALAR_OUT
@group(0) @binding(4) var<storage, read> row_bias: array<f32>;
fn row_bias_at(column: u32) -> vec4<f32> {
    let first = globals.step * args.row_stride;
    let last = first + args.n - 1u;
    let i = first + column * 4u;
    return vec4<f32>(row_bias[i], row_bias[min(i + 1u, last)], row_bias[min(i + 2u, last)], row_bias[min(i + 3u, last)]);
}
#else
@group(0) @binding(4) var<storage, read> row_bias: array<vec4<f32>>;
fn row_bias_at(column: u32) -> vec4<f32> {
    return row_bias[globals.step * (args.row_stride / 4u) + column];
}
#endif
#endif

#ifdef RESIDUAL
#ifdef SCALAR_OUT
@group(0) @binding(5) var<storage, read> residual: array<f32>;
fn residual_at(row: u32, column: u32) -> vec4<f32> {
    let last = row * args.n + args.n - 1u;
    let i = row * args.n + column * 4u;
    return vec4<f32>(residual[i], residual[min(i + 1u, last)], residual[min(i + 2u, last)], residual[min(i + 3u, last)]);
}
#else
@group(0) @binding(5) var<storage, read> residual: array<vec4<f32>>;
fn residual_at(row: u32, column: u32) -> vec4<f32> {
    return residual[row * args.n4 + column];
}
#endif
#endif

fn finish(row: u32, column: u32, sum: vec4<f32>) {
    if row >= args.m || column >= args.n4 {
        return;
    }
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
    y = activate(y, args.post);
#ifdef SCALAR_OUT
    let left = args.n - column * 4u;
    let i = row * args.n + column * 4u;
    dst[i] = y.x;
    if left > 1u {
        dst[i + 1u] = y.y;
    }
    if left > 2u {
        dst[i + 2u] = y.z;
    }
    if left > 3u {
        dst[i + 3u] = y.w;
    }
#else
    dst[row * args.n4 + column] = y;
#endif
}
