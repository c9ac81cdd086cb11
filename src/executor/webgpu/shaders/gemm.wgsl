// [m, k] x [k, n] -> [m, n], and convolution in NHWC as the same product: a row is a pixel of the output, gathered while it is
// loaded. Each workgroup makes a tile of 32 x 32, each thread 4 x 4 of it.
#import common
#import activation
#import gemm_args
#import gemm_rows
#import gemm_epilogue

#ifndef REGISTERS

const TILE_K: u32 = 16u;
// A row more than needed, so that the threads of a column don't meet in one memory bank.
const ROWS: u32 = 33u;

var<workgroup> x_tile: array<vec4<f32>, 132>;
var<workgroup> w_tile: array<vec4<f32>, 128>;

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let tile = workgroup_number(workgroup, count);
    if tile >= args.tiles {
        return;
    }
    let row0 = tile / args.tiles_n * 32u;
    let column0 = tile % args.tiles_n * 8u;

    // What this thread loads: two groups of four of x's tile, and two of the weights'.
    let first = row_of(row0 + t / 4u);
    let second = row_of(row0 + t / 4u + 16u);
    var cursor = cursor_at(t % 4u);
    let x_place = (t % 4u) * ROWS + t / 4u;
    let w_row = t / 8u;
    let w_column = min(column0 + t % 8u, args.n4 - 1u);

    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var k0 = 0u; k0 < args.k; k0 += TILE_K) {
        x_tile[x_place] = load_x(first, cursor);
        x_tile[x_place + 16u] = load_x(second, cursor);
        cursor = advance(cursor, 4u);
        w_tile[t] = load_w(k0 + w_row, w_column);
        w_tile[t + 64u] = load_w(k0 + w_row + 8u, w_column);
        workgroupBarrier();
        for (var i = 0u; i < 4u; i++) {
            let w0 = w_tile[i * 32u + local.x];
            let w1 = w_tile[i * 32u + 8u + local.x];
            let w2 = w_tile[i * 32u + 16u + local.x];
            let w3 = w_tile[i * 32u + 24u + local.x];
            let x0 = x_tile[i * ROWS + local.y];
            let x1 = x_tile[i * ROWS + 8u + local.y];
            let x2 = x_tile[i * ROWS + 16u + local.y];
            let x3 = x_tile[i * ROWS + 24u + local.y];
            sum0 += x0.x * w0 + x0.y * w1 + x0.z * w2 + x0.w * w3;
            sum1 += x1.x * w0 + x1.y * w1 + x1.z * w2 + x1.w * w3;
            sum2 += x2.x * w0 + x2.y * w1 + x2.z * w2 + x2.w * w3;
            sum3 += x3.x * w0 + x3.y * w1 + x3.z * w2 + x3.w * w3;
        }
        workgroupBarrier();
    }
    // A loop, so that what comes after the sums is compiled once.
    var sums = array<vec4<f32>, 4>(sum0, sum1, sum2, sum3);
    for (var i = 0u; i < 4u; i++) {
        finish(row0 + local.y + i * 8u, column0 + local.x, sums[i]);
    }
}

#else

// For adapters that are a processor: workgroup memory is slower than loading again, and loading is slow, so each thread makes 8 x 8.
@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let thread = workgroup_number(workgroup, count) * 64u + t;
    let columns = (args.n4 + 1u) / 2u;
    let column = thread % columns * 2u;
    let next = min(column + 1u, args.n4 - 1u);
    let row = thread / columns * 8u;
    if row >= args.m {
        return;
    }
    let r0 = row_of(row);
    let r1 = row_of(row + 1u);
    let r2 = row_of(row + 2u);
    let r3 = row_of(row + 3u);
    let r4 = row_of(row + 4u);
    let r5 = row_of(row + 5u);
    let r6 = row_of(row + 6u);
    let r7 = row_of(row + 7u);
    var at = cursor_at(0u);
    var sum00 = mat4x4<f32>();
    var sum01 = mat4x4<f32>();
    var sum10 = mat4x4<f32>();
    var sum11 = mat4x4<f32>();
    for (var k = 0u; k < args.k; k += 4u) {
        let w0 = mat4x4<f32>(load_w(k, column), load_w(k + 1u, column), load_w(k + 2u, column), load_w(k + 3u, column));
        let w1 = mat4x4<f32>(load_w(k, next), load_w(k + 1u, next), load_w(k + 2u, next), load_w(k + 3u, next));
        let x0 = mat4x4<f32>(load_x(r0, at), load_x(r1, at), load_x(r2, at), load_x(r3, at));
        let x1 = mat4x4<f32>(load_x(r4, at), load_x(r5, at), load_x(r6, at), load_x(r7, at));
        sum00 += w0 * x0;
        sum01 += w1 * x0;
        sum10 += w0 * x1;
        sum11 += w1 * x1;
        at = advance(at, 1u);
    }
    var sums = array<mat4x4<f32>, 4>(sum00, sum10, sum01, sum11);
    for (var i = 0u; i < 16u; i++) {
        let right = i / 8u;
        if column + right < args.n4 {
            finish(row + i % 8u, column + right, sums[i / 4u][i % 4u]);
        }
    }
}

#endif
