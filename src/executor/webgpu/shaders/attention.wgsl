// softmax(q kT / sqrt(d)) v with a running maximum: no scores are kept. `TEAM` threads share a query, each with `WIDTH` fours of
// its channels; keys and values pass by in tiles of `KEYS`.
#import common

struct Args {
    first: u32,
    queries: u32,
    keys: u32,
    heads: u32,
    // Channels of a head.
    d: u32,
    // Channels from one token to the next, and the first channel of head 0.
    q_stride: u32,
    k_stride: u32,
    v_stride: u32,
    q_offset: u32,
    k_offset: u32,
    v_offset: u32,
    // From one picture's keys to the next's, in tokens; 0 if all share them.
    k_batch: u32,
    causal: u32,
    scale: f32,
    // Groups of queries of one head, and of all.
    tiles: u32,
    total: u32,
}

#ifdef SCALAR
alias Memory = f32;
#else
alias Memory = vec4<f32>;
#endif

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<Memory>; // [batch, queries, heads * d]
@group(0) @binding(3) var<storage, read> q: array<Memory>;
@group(0) @binding(4) var<storage, read> k: array<Memory>;
@group(0) @binding(5) var<storage, read> v: array<Memory>;

const WIDTH: u32 = $WIDTHu;
const TEAM: u32 = $TEAMu;
const KEYS: u32 = $KEYSu;
const QUERIES: u32 = 64u / TEAM;
const ALL: u32 = WIDTH * TEAM;
const LOWEST: f32 = -3.4e38;

// Four channels from the `i`-th four of a head that starts at channel `first`; zeros beyond it.
#ifdef SCALAR
fn load_q(first: u32, i: u32) -> vec4<f32> {
    var four = vec4<f32>();
    for (var c = 0u; c < 4u; c++) {
        four[c] = select(0.0, q[first + i * 4u + c], i * 4u + c < args.d);
    }
    return four;
}

fn load_k(first: u32, i: u32) -> vec4<f32> {
    var four = vec4<f32>();
    for (var c = 0u; c < 4u; c++) {
        four[c] = select(0.0, k[first + i * 4u + c], i * 4u + c < args.d);
    }
    return four;
}

fn load_v(first: u32, i: u32) -> vec4<f32> {
    var four = vec4<f32>();
    for (var c = 0u; c < 4u; c++) {
        four[c] = select(0.0, v[first + i * 4u + c], i * 4u + c < args.d);
    }
    return four;
}

fn store(first: u32, i: u32, four: vec4<f32>) {
    for (var c = 0u; c < 4u; c++) {
        if i * 4u + c < args.d {
            dst[first + i * 4u + c] = four[c];
        }
    }
}
#else
fn load_q(first: u32, i: u32) -> vec4<f32> {
    return select(vec4<f32>(), q[first / 4u + i], i * 4u < args.d);
}

fn load_k(first: u32, i: u32) -> vec4<f32> {
    return select(vec4<f32>(), k[first / 4u + i], i * 4u < args.d);
}

fn load_v(first: u32, i: u32) -> vec4<f32> {
    return select(vec4<f32>(), v[first / 4u + i], i * 4u < args.d);
}

fn store(first: u32, i: u32, four: vec4<f32>) {
    if i * 4u < args.d {
        dst[first / 4u + i] = four;
    }
}
#endif

#ifndef REGISTERS
var<workgroup> k_tile: array<vec4<f32>, $KEYSu * $WIDTHu * $TEAMu>;
var<workgroup> v_tile: array<vec4<f32>, $KEYSu * $WIDTHu * $TEAMu>;
#ifdef TEAMED
var<workgroup> team_scores: array<f32, $KEYSu * 64u>;
#endif
#endif

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let tile = workgroup_number(workgroup, count);
    if tile >= args.total {
        return;
    }
    let head = tile / args.tiles % args.heads;
    let picture = tile / args.tiles / args.heads;
    let query0 = tile % args.tiles * QUERIES;
    let query = query0 + t / TEAM;
    let member = t % TEAM;
    // A query beyond the last is computed as if it were it, and not written.
    let token = picture * args.queries + min(query, args.queries - 1u);

    var mine: array<vec4<f32>, $WIDTHu>;
    var sum: array<vec4<f32>, $WIDTHu>;
    let q_first = token * args.q_stride + args.q_offset + head * args.d;
    for (var i = 0u; i < WIDTH; i++) {
        mine[i] = load_q(q_first, member + i * TEAM) * args.scale;
        sum[i] = vec4<f32>();
    }
    var top = LOWEST;
    var total = 0.0;
    var scores: array<f32, $KEYSu>;

    let k_first = picture * args.k_batch * args.k_stride + args.k_offset + head * args.d;
    let v_first = picture * args.k_batch * args.v_stride + args.v_offset + head * args.d;
    // No query of this group sees a key from here on.
    let end = select(args.keys, min(args.keys, query0 + QUERIES), args.causal == 1u);
    // Nor this query.
    let own_end = select(args.keys, min(args.keys, query + 1u), args.causal == 1u);
    for (var key0 = 0u; key0 < end; key0 += KEYS) {
#ifdef REGISTERS
        for (var j = 0u; j < KEYS; j++) {
            let row = min(key0 + j, args.keys - 1u) * args.k_stride + k_first;
            var score = vec4<f32>();
            for (var i = 0u; i < WIDTH; i++) {
                score += mine[i] * load_k(row, i);
            }
            scores[j] = score.x + score.y + score.z + score.w;
        }
#else
        for (var i = t; i < KEYS * ALL; i += 64u) {
            let key = min(key0 + i / ALL, args.keys - 1u);
            k_tile[i] = load_k(key * args.k_stride + k_first, i % ALL);
            v_tile[i] = load_v(key * args.v_stride + v_first, i % ALL);
        }
        workgroupBarrier();
        for (var j = 0u; j < KEYS; j++) {
            var score = vec4<f32>();
            for (var i = 0u; i < WIDTH; i++) {
                score += mine[i] * k_tile[j * ALL + i * TEAM + member];
            }
            scores[j] = score.x + score.y + score.z + score.w;
        }
#ifdef TEAMED
        for (var j = 0u; j < KEYS; j++) {
            team_scores[j * 64u + t] = scores[j];
        }
        workgroupBarrier();
        for (var j = 0u; j < KEYS; j++) {
            var score = 0.0;
            for (var other = 0u; other < TEAM; other++) {
                score += team_scores[j * 64u + t / TEAM * TEAM + other];
            }
            scores[j] = score;
        }
#endif
#endif
        var highest = top;
        for (var j = 0u; j < KEYS; j++) {
            highest = select(highest, max(highest, scores[j]), key0 + j < own_end);
        }
        let shrink = exp(top - highest);
        top = highest;
        total *= shrink;
        for (var i = 0u; i < WIDTH; i++) {
            sum[i] *= shrink;
        }
        for (var j = 0u; j < KEYS; j++) {
            if key0 + j < own_end {
                let weight = exp(scores[j] - top);
                total += weight;
#ifdef REGISTERS
                let row = (key0 + j) * args.v_stride + v_first;
                for (var i = 0u; i < WIDTH; i++) {
                    sum[i] += weight * load_v(row, i);
                }
#else
                for (var i = 0u; i < WIDTH; i++) {
                    sum[i] += weight * v_tile[j * ALL + i * TEAM + member];
                }
#endif
            }
        }
#ifndef REGISTERS
        workgroupBarrier();
#endif
    }
    if query < args.queries {
        let first = (token * args.heads + head) * args.d;
        for (var i = 0u; i < WIDTH; i++) {
            store(first, member + i * TEAM, sum[i] / total);
        }
    }
}
