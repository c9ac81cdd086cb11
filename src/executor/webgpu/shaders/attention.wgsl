// softmax(q kT / sqrt(d)) v with a running maximum: no scores are kept. `TEAM` threads share a query, each with `WIDTH` fours of
// its channels; keys and values pass by in tiles of `KEYS`, of which `GROUP` are scored at once. A thread has `PER` queries. What a
// thread holds has names, no indices: an array might not be kept in registers. `REGISTERS`, for adapters that are a processor: no
// tiles, for workgroup memory is slower than loading again, and loops, for what is written out takes a processor long to compile.
#import common
#ifdef REGISTERS
#define LOOP
#endif

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
alias Memory = Slot;
#else
alias Memory = Slot4;
#endif

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<Memory>; // [batch, queries, heads * d]
// Queries, keys and values.
@group(0) @binding(3) var<storage, read> from0: array<Memory>;
@group(0) @binding(4) var<storage, read> from1: array<Memory>;
@group(0) @binding(5) var<storage, read> from2: array<Memory>;

const WIDTH: u32 = $WIDTHu;
const TEAM: u32 = $TEAMu;
const KEYS: u32 = $KEYSu;
// Threads with other queries.
const QUERIES: u32 = 64u / TEAM;
const ALL: u32 = WIDTH * TEAM;
const LOWEST: f32 = -3.4e38;

// Four channels from the `i`-th four of a head that starts at channel `first`; zeros beyond it.
#repeat F 3
fn load$F(first: u32, i: u32) -> Slot4 {
#ifdef SCALAR
    var four = Slot4();
    for (var c = 0u; c < 4u; c++) {
        four[c] = select(Slot(), from$F[first + i * 4u + c], i * 4u + c < args.d);
    }
    return four;
#else
    return select(Slot4(), from$F[first / 4u + i], i * 4u < args.d);
#endif
}
#end

fn store(first: u32, i: u32, four: vec4<f32>) {
#ifdef SCALAR
    for (var c = 0u; c < 4u; c++) {
        if i * 4u + c < args.d {
            dst[first + i * 4u + c] = Slot(four[c]);
        }
    }
#else
    if i * 4u < args.d {
        dst[first / 4u + i] = Slot4(four);
    }
#endif
}

// The `i`-th four of a key or value, which lies at `place`.
#ifdef REGISTERS
fn key_at(place: u32, i: u32) -> vec4<f32> {
    return vec4<f32>(load1(place, i));
}

fn value_at(place: u32, i: u32) -> vec4<f32> {
    return vec4<f32>(load2(place, i));
}
#else
var<workgroup> k_tile: array<Slot4, $KEYSu * $WIDTHu * $TEAMu>;
var<workgroup> v_tile: array<Slot4, $KEYSu * $WIDTHu * $TEAMu>;
#ifdef TEAMED
var<workgroup> team_scores: array<f32, $KEYSu * 64u>;
#endif

fn key_at(place: u32, i: u32) -> vec4<f32> {
    return vec4<f32>(k_tile[place + i]);
}

fn value_at(place: u32, i: u32) -> vec4<f32> {
    return vec4<f32>(v_tile[place + i]);
}
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
#ifdef LOOP
    // A compiler that knew how many would write them out.
    let fours = (args.d + 3u) / 4u;
#endif
#repeat Q PER
    let query$Q = base + $Qu * QUERIES + t / TEAM;
    // A query beyond the last is computed as if it were it, and not written.
    let token$Q = picture * args.queries + min(query$Q, args.queries - 1u);
    let q_first$Q = token$Q * args.q_stride + args.q_offset + head * args.d;
    var top$Q = LOWEST;
    var total$Q = 0.0;
#ifdef LOOP
    var mine$Qx: array<vec4<f32>, WIDTH>;
    var sum$Qx: array<vec4<f32>, WIDTH>;
#else
#repeat I WIDTH
    var mine$Qx$I: vec4<f32>;
    var sum$Qx$I: vec4<f32>;
#end
#endif
#loop I WIDTH fours
    mine$Qx$AT_I = vec4<f32>(load0(q_first$Q, member + u32($I) * TEAM)) * args.scale;
#end
#end

    let k_first = picture * args.k_batch * args.k_stride + args.k_offset + head * args.d;
    let v_first = picture * args.k_batch * args.v_stride + args.v_offset + head * args.d;
    // No query of this tile sees a key from here on.
    let end = select(args.keys, min(args.keys, base + QUERIES), args.causal == 1u);
    // Nor this thread's.
    let own_end = select(args.keys, min(args.keys, base + t / TEAM + 1u), args.causal == 1u);
    for (var key0 = 0u; key0 < end; key0 += KEYS) {
#ifndef REGISTERS
        for (var i = t; i < KEYS * ALL; i += 64u) {
            let key = min(key0 + i / ALL, args.keys - 1u);
            k_tile[i] = load1(key * args.k_stride + k_first, i % ALL);
            v_tile[i] = load2(key * args.v_stride + v_first, i % ALL);
        }
        workgroupBarrier();
#endif
#ifdef TEAMED
        for (var j = 0u; j < KEYS; j++) {
            var score = vec4<f32>();
#loop I WIDTH fours
            score += mine0x$AT_I * key_at(j * ALL, u32($I) * TEAM + member);
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
#ifdef REGISTERS
            let row$J = min(key0 + j + $Ju, args.keys - 1u);
            let k_place$J = row$J * args.k_stride + k_first;
            let v_place$J = row$J * args.v_stride + v_first;
#else
            let k_place$J = (j + $Ju) * ALL;
            let v_place$J = k_place$J;
#endif
#ifdef TEAMED
            var score$Jx0 = 0.0;
            for (var other = 0u; other < TEAM; other++) {
                score$Jx0 += team_scores[(j + $Ju) * 64u + t / TEAM * TEAM + other];
            }
#else
#repeat Q PER
            var dot$Jx$Q = vec4<f32>();
#end
#loop I WIDTH fours
            let key$Jx$I = key_at(k_place$J, u32($I));
#repeat Q PER
            dot$Jx$Q += mine$Qx$AT_I * key$Jx$I;
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
#repeat J GROUP
            let weight$Jx$Q = select(0.0, exp(score$Jx$Q - top$Q), seen$J);
            total$Q += weight$Jx$Q;
#end
#end
#loop I WIDTH fours
#repeat Q PER
            sum$Qx$AT_I *= shrink$Q;
#end
#repeat J GROUP
            let value$Jx$I = value_at(v_place$J, u32($I) * TEAM + member);
#repeat Q PER
            sum$Qx$AT_I += weight$Jx$Q * value$Jx$I;
#end
#end
#end
        }
#ifndef REGISTERS
        workgroupBarrier();
#endif
    }
#repeat Q PER
    if query$Q < args.queries {
        let first = (token$Q * args.heads + head) * args.d;
#loop I WIDTH fours
        store(first, member + u32($I) * TEAM, sum$Qx$AT_I / total$Q);
#end
    }
#end
}
