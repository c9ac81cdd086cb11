// [m, k] x [k, n] -> [m, n], and convolution in NHWC as the same product: a row is a pixel of the output, gathered while it is
// loaded. A workgroup of 64 threads, `ACROSS` of them side by side, makes a tile: each thread `ROWS` rows of `FOURS` fours of columns,
// as far apart as there are threads.
// `SPLIT`: a workgroup sums a slice of the depth, and gemm_finish the slices. `HALF`: products are of halves, and so are the sums of
// eight; those of more are not.
#import common
#import activation
#import gemm_args
#import gemm_weights
#import gemm_rows
#ifdef SPLIT
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>; // [slices, m, n4]
#else
#import gemm_epilogue
#endif

#ifndef REGISTERS

#ifdef HALF
alias T = vec4<f16>;
#else
alias T = vec4<f32>;
#endif

const TILE_K: u32 = 16u;
const ACROSS: u32 = $ACROSSu;
const DOWN: u32 = 64u / ACROSS;
const TILE_ROWS: u32 = DOWN * $ROWSu;
const TILE_FOURS: u32 = ACROSS * $FOURSu;
// A row more than needed, so that the threads of a column don't meet in one memory bank.
const X_ROWS: u32 = TILE_ROWS + 1u;
// Rows of the weights' tile that all threads load at once.
const W_ROWS: u32 = 64u / TILE_FOURS;

var<workgroup> x_tile: array<T, 4u * X_ROWS>;
var<workgroup> w_tile: array<T, TILE_K * TILE_FOURS>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let x_own = t / ACROSS;
    let w_own = t % ACROSS;
    let number = workgroup_number(workgroup, count);
#ifdef SPLIT
    let tile = number % args.tiles;
    let slice = number / args.tiles;
    if slice >= args.slices {
        return;
    }
    let begin = slice * args.k_slice;
    let end = min(begin + args.k_slice, args.k);
#else
    let tile = number;
    if tile >= args.tiles {
        return;
    }
    let begin = 0u;
    let end = args.k;
#endif
    let row0 = tile / args.tiles_n * TILE_ROWS;
    let four0 = tile % args.tiles_n * TILE_FOURS;

    // What this thread loads.
#repeat I X_LOADS
    let x_row$I = row_of(row0 + t / 4u + $Iu * 16u);
#end
    var cursor = cursor_at(begin / 4u + t % 4u);
    let x_place = (t % 4u) * X_ROWS + t / 4u;
    let w_row = t / TILE_FOURS;
#ifdef FIT
    let w_four = four0 + t % TILE_FOURS;
#else
    let w_four = min(four0 + t % TILE_FOURS, args.n4 - 1u);
#endif

#repeat R ROWS
#repeat C FOURS
    var sum$Rx$C = vec4<f32>();
#end
#end
    for (var k0 = begin; k0 < end; k0 += TILE_K) {
#ifdef FEW_X
        if t < TILE_ROWS * 4u {
            x_tile[x_place] = T(load_x(x_row0, cursor));
        }
#else
#repeat I X_LOADS
        x_tile[x_place + $Iu * 16u] = T(load_x(x_row$I, cursor));
#end
#endif
        cursor = advance(cursor, 4u);
#ifdef FEW_W
        if t < TILE_FOURS * TILE_K {
            w_tile[t] = T(load_w(k0 + w_row, w_four));
        }
#else
#repeat I W_LOADS
        w_tile[t + $Iu * 64u] = T(load_w(k0 + w_row + $Iu * W_ROWS, w_four));
#end
#endif
        workgroupBarrier();
#ifdef HALF
        for (var i0 = 0u; i0 < 4u; i0 += 2u) {
#repeat R ROWS
#repeat C FOURS
        var part$Rx$C = T();
#end
#end
        for (var i = i0; i < i0 + 2u; i++) {
#else
        for (var i = 0u; i < 4u; i++) {
#endif
            let w_first = i * 4u * TILE_FOURS + w_own;
#repeat C FOURS
            let w0x$C = w_tile[w_first + $Cu * ACROSS];
            let w1x$C = w_tile[w_first + TILE_FOURS + $Cu * ACROSS];
            let w2x$C = w_tile[w_first + 2u * TILE_FOURS + $Cu * ACROSS];
            let w3x$C = w_tile[w_first + 3u * TILE_FOURS + $Cu * ACROSS];
#end
#repeat R ROWS
            let x$R = x_tile[i * X_ROWS + $Ru * DOWN + x_own];
#repeat C FOURS
#ifdef HALF
            part$Rx$C += x$R.x * w0x$C + x$R.y * w1x$C + x$R.z * w2x$C + x$R.w * w3x$C;
#else
            sum$Rx$C += x$R.x * w0x$C + x$R.y * w1x$C + x$R.z * w2x$C + x$R.w * w3x$C;
#endif
#end
#end
        }
#ifdef HALF
#repeat R ROWS
#repeat C FOURS
        sum$Rx$C += vec4<f32>(part$Rx$C);
#end
#end
        }
#endif
        workgroupBarrier();
    }
#ifdef SPLIT
#repeat R ROWS
#repeat C FOURS
    put(slice, row0 + x_own + $Ru * DOWN, four0 + w_own + $Cu * ACROSS, sum$Rx$C);
#end
#end
#else
    // A loop, so that what comes after the sums is compiled once.
    var sums = array<vec4<f32>, $ROWSu * $FOURSu>();
#repeat R ROWS
#repeat C FOURS
    sums[$Ru * $FOURSu + $Cu] = sum$Rx$C;
#end
#end
    for (var i = 0u; i < $ROWSu * $FOURSu; i++) {
        finish(row0 + x_own + i / $FOURSu * DOWN, four0 + w_own + i % $FOURSu * ACROSS, sums[i]);
    }
#endif
}

#ifdef SPLIT
fn put(slice: u32, row: u32, four: u32, sum: vec4<f32>) {
#ifndef FIT
    if row >= args.m || four >= args.n4 {
        return;
    }
#endif
    partial[(slice * args.m + row) * args.n4 + four] = sum;
}
#endif

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
