// Loading four neighbours of a row of x. `FIT_K`: no load is beyond the row's end; `FIT`: no row beyond the last.
#import source

fn row_number(m: u32) -> u32 {
#ifdef FIT
    return m;
#else
    // Rows beyond the last are computed as if they were it, and not written.
    return min(m, args.m - 1u);
#endif
}

#ifdef CONV

// A pixel of the output: its picture, that one's first pixel, and where its window begins.
struct Row {
    picture: u32,
    first: u32,
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
    let row = row_number(m);
    let line = row / args.wo;
    let picture = line / args.ho;
    let y = line % args.ho * args.stride;
    let x = row % args.wo * args.stride;
    return Row(picture, picture * args.h * args.w, i32(y) - i32(args.top), i32(x) - i32(args.left));
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
    return select(-1, i32(row.first + place), inside);
}

#ifdef SCALAR_IN

fn cursor_at(fours: u32) -> Cursor {
    return Cursor(fours * 4u, 0u, 0u, 0u);
}

fn advance(cursor: Cursor, fours: u32) -> Cursor {
    return Cursor(cursor.k + fours * 4u, 0u, 0u, 0u);
}

fn load_one(row: Row, k: u32) -> f32 {
    let tap = k / args.lanes;
    let p = pixel(row, tap / args.kw, tap % args.kw);
    let found = source(u32(max(p, 0)), k % args.lanes, row.picture);
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
    while at.c >= args.lanes {
        at.c -= args.lanes;
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
    let found = source(u32(max(p, 0)), at.c, row.picture);
#ifdef FIT_K
    return select(found, vec4<f32>(), p < 0);
#else
    return select(found, vec4<f32>(), (p < 0) | (at.k * 4u >= args.k));
#endif
}

#endif
#else

struct Row {
    number: u32,
    picture: u32,
}

struct Cursor {
    k: u32,
}

fn row_of(m: u32) -> Row {
    let row = row_number(m);
#ifdef NORM
    return Row(row, row / args.pixels);
#else
    return Row(row, 0u);
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
    return select(source(row.number, k, row.picture), 0.0, k >= args.k);
}

fn load_x(row: Row, at: Cursor) -> vec4<f32> {
    let k = at.k * 4u;
    return vec4<f32>(load_one(row, k), load_one(row, k + 1u), load_one(row, k + 2u), load_one(row, k + 3u));
}

#else

fn load_x(row: Row, at: Cursor) -> vec4<f32> {
    let found = source(row.number, at.k, row.picture);
#ifdef FIT_K
    return found;
#else
    return select(found, vec4<f32>(), at.k * 4u >= args.k);
#endif
}

#endif
#endif
