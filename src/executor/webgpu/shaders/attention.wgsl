// softmax(q kT / sqrt(d)) v with a running maximum: no scores are kept. `TEAM` threads share a query, each with `WIDTH` fours of
// its channels; keys and values pass by in tiles of `KEYS`, of which `GROUP` are scored at once. A thread has `PER` queries. What a
// thread holds has names, no indices: an array might not be kept in registers.
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
// Threads with other queries.
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
    let base = tile % args.tiles * QUERIES * $PERu;
    let member = t % TEAM;
#repeat Q PER
    let query$Q = base + $Qu * QUERIES + t / TEAM;
    // A query beyond the last is computed as if it were it, and not written.
    let token$Q = picture * args.queries + min(query$Q, args.queries - 1u);
    let q_first$Q = token$Q * args.q_stride + args.q_offset + head * args.d;
    var top$Q = LOWEST;
    var total$Q = 0.0;
#repeat I WIDTH
    let mine$Ix$Q = load_q(q_first$Q, member + $Iu * TEAM) * args.scale;
    var sum$Ix$Q = vec4<f32>();
#end
#end

    let k_first = picture * args.k_batch * args.k_stride + args.k_offset + head * args.d;
    let v_first = picture * args.k_batch * args.v_stride + args.v_offset + head * args.d;
    // No query of this tile sees a key from here on.
    let end = select(args.keys, min(args.keys, base + QUERIES), args.causal == 1u);
    // Nor this thread's.
    let own_end = select(args.keys, min(args.keys, base + t / TEAM + 1u), args.causal == 1u);
    for (var key0 = 0u; key0 < end; key0 += KEYS) {
        for (var i = t; i < KEYS * ALL; i += 64u) {
            let key = min(key0 + i / ALL, args.keys - 1u);
            k_tile[i] = load_k(key * args.k_stride + k_first, i % ALL);
            v_tile[i] = load_v(key * args.v_stride + v_first, i % ALL);
        }
        workgroupBarrier();
#ifdef TEAMED
        for (var j = 0u; j < KEYS; j++) {
            var score = vec4<f32>();
#repeat I WIDTH
            score += mine$Ix0 * k_tile[j * ALL + $Iu * TEAM + member];
#end
            team_scores[j * 64u + t] = score.x + score.y + score.z + score.w;
        }
        workgroupBarrier();
#endif
        for (var j = 0u; j < KEYS; j += $GROUPu) {
            if key0 + j >= end {
                break;
            }
#repeat J GROUP
#ifdef TEAMED
            var score$Jx0 = 0.0;
            for (var other = 0u; other < TEAM; other++) {
                score$Jx0 += team_scores[(j + $Ju) * 64u + t / TEAM * TEAM + other];
            }
#else
#repeat Q PER
            var dot$Jx$Q = vec4<f32>();
#end
#repeat I WIDTH
            let key$Jx$I = k_tile[(j + $Ju) * ALL + $Iu];
#repeat Q PER
            dot$Jx$Q += mine$Ix$Q * key$Jx$I;
#end
#end
#repeat Q PER
            let score$Jx$Q = dot$Jx$Q.x + dot$Jx$Q.y + dot$Jx$Q.z + dot$Jx$Q.w;
#end
#endif
            let seen$J = key0 + j + $Ju < own_end;
#end
#repeat Q PER
            var highest$Q = top$Q;
#repeat J GROUP
            highest$Q = select(highest$Q, max(highest$Q, score$Jx$Q), seen$J);
#end
            let shrink$Q = exp(top$Q - highest$Q);
            top$Q = highest$Q;
            total$Q *= shrink$Q;
#repeat I WIDTH
            sum$Ix$Q *= shrink$Q;
#end
#end
#repeat J GROUP
            if seen$J {
#repeat Q PER
                let weight$Q = exp(score$Jx$Q - top$Q);
                total$Q += weight$Q;
#end
#repeat I WIDTH
                let value$I = v_tile[(j + $Ju) * ALL + $Iu * TEAM + member];
#repeat Q PER
                sum$Ix$Q += weight$Q * value$I;
#end
#end
            }
#end
        }
        workgroupBarrier();
    }
#repeat Q PER
    if query$Q < args.queries {
        let first = (token$Q * args.heads + head) * args.d;
#repeat I WIDTH
        store(first, member + $Iu * TEAM, sum$Ix$Q / total$Q);
#end
    }
#end
}

#else

// For adapters that are a processor: a thread a query, and keys and values from where they are.
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
    let query = query0 + t;
    // A query beyond the last is computed as if it were it, and not written.
    let token = picture * args.queries + min(query, args.queries - 1u);

    var mine: array<vec4<f32>, $WIDTHu>;
    var sum: array<vec4<f32>, $WIDTHu>;
    let q_first = token * args.q_stride + args.q_offset + head * args.d;
    for (var i = 0u; i < WIDTH; i++) {
        mine[i] = load_q(q_first, i) * args.scale;
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
        for (var j = 0u; j < KEYS; j++) {
            let row = min(key0 + j, args.keys - 1u) * args.k_stride + k_first;
            var score = vec4<f32>();
            for (var i = 0u; i < WIDTH; i++) {
                score += mine[i] * load_k(row, i);
            }
            scores[j] = score.x + score.y + score.z + score.w;
        }
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
                let row = (key0 + j) * args.v_stride + v_first;
                for (var i = 0u; i < WIDTH; i++) {
                    sum[i] += weight * load_v(row, i);
                }
            }
        }
    }
    if query < args.queries {
        let first = (token * args.heads + head) * args.d;
        for (var i = 0u; i < WIDTH; i++) {
            store(first, i, sum[i] / total);
        }
    }
}

#endif
