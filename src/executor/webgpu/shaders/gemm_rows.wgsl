// Loading four neighbours of a row of x. `FIT`: k is a multiple of the tile, so no load is beyond it. `SCALAR_IN`: channels are
// no multiple of four.
#ifdef SCALAR_IN
@group(0) @binding(3) var<storage, read> x: array<f32>;
#else
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
#endif

#ifdef CONV

// A pixel of the output: its picture's first pixel, and where its window begins.
struct Row {
    picture: u32,
    y: i32,
    x: i32,
}

// A place in the window; `k` and `c` count as x's elements do.
struct Cursor {
    k: u32,
    c: u32,
    kx: u32,
    ky: u32,
}

fn row_of(m: u32) -> Row {
    // Rows beyond the last are computed as if they were it, and not written.
    let row = min(m, args.m - 1u);
    let line = row / args.wo;
    let y = line % args.ho * args.stride;
    let x = row % args.wo * args.stride;
    return Row(line / args.ho * args.h * args.w, i32(y) - i32(args.top), i32(x) - i32(args.left));
}

// The pixel below a tap, or -1 outside of the picture. Comparisons are of unsigned numbers, where what is negative is large; there
// are no branches, which cost most where a processor plays the GPU.
fn pixel(row: Row, ky: u32, kx: u32) -> i32 {
    let y = u32(row.y + i32(ky));
    let x = u32(row.x + i32(kx));
#ifdef UPSAMPLE
    let inside = (y < args.uh) & (x < args.uw);
    let place = y * args.h / args.uh * args.w + x * args.w / args.uw;
#else
    let inside = (y < args.h) & (x < args.w);
    let place = y * args.w + x;
#endif
    return select(-1, i32(row.picture + place), inside);
}

#ifdef SCALAR_IN

fn cursor_at(fours: u32) -> Cursor {
    return Cursor(fours * 4u, 0u, 0u, 0u);
}

fn advance(cursor: Cursor, fours: u32) -> Cursor {
    return Cursor(cursor.k + fours * 4u, 0u, 0u, 0u);
}

fn load_one(row: Row, k: u32) -> f32 {
    let tap = k / args.ci;
    let p = pixel(row, tap / args.kw, tap % args.kw);
    let found = x[u32(max(p, 0)) * args.ci + k % args.ci];
    return select(found, 0.0, (p < 0) | (k >= args.k));
}

fn load_x(row: Row, at: Cursor) -> vec4<f32> {
    var four = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        four[i] = load_one(row, at.k + i);
    }
    return four;
}

#else

fn wrapped(cursor: Cursor) -> Cursor {
    var at = cursor;
    let channels = args.ci / 4u;
    while at.c >= channels {
        at.c -= channels;
        at.kx += 1u;
        if at.kx == args.kw {
            at.kx = 0u;
            at.ky += 1u;
        }
    }
    return at;
}

fn cursor_at(fours: u32) -> Cursor {
    return wrapped(Cursor(fours, fours, 0u, 0u));
}

fn advance(cursor: Cursor, fours: u32) -> Cursor {
    return wrapped(Cursor(cursor.k + fours, cursor.c + fours, cursor.kx, cursor.ky));
}

fn load_x(row: Row, at: Cursor) -> vec4<f32> {
    let p = pixel(row, at.ky, at.kx);
    let found = x[u32(max(p, 0)) * (args.ci / 4u) + at.c];
#ifdef FIT
    return select(found, vec4<f32>(), p < 0);
#else
    return select(found, vec4<f32>(), (p < 0) | (at.k * 4u >= args.k));
#endif
}

#endif
#else

struct Row {
    first: u32,
}

struct Cursor {
    k: u32,
}

fn row_of(m: u32) -> Row {
    let row = min(m, args.m - 1u);
#ifdef SCALAR_IN
    return Row(row * args.k);
#else
    return Row(row * (args.k / 4u));
#endif
}

fn cursor_at(fours: u32) -> Cursor {
    return Cursor(fours);
}

fn advance(cursor: Cursor, fours: u32) -> Cursor {
    return Cursor(cursor.k + fours);
}

#ifdef SCALAR_IN

fn load_one(row: Row, k: u32) -> f32 {
    return select(x[row.first + k], 0.0, k >= args.k);
}

fn load_x(row: Row, at: Cursor) -> vec4<f32> {
    let k = at.k * 4u;
    return vec4<f32>(load_one(row, k), load_one(row, k + 1u), load_one(row, k + 2u), load_one(row, k + 3u));
}

#else

fn load_x(row: Row, at: Cursor) -> vec4<f32> {
    let found = x[row.first + at.k];
#ifdef FIT
    return found;
#else
    return select(found, vec4<f32>(), at.k * 4u >= args.k);
#endif
}

#endif
#endif
