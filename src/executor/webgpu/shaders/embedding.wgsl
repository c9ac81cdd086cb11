// table[id] + positions[token]. Rows of both are padded to fours.
#import common
#import threads

struct Args {
    first: u32,
    // Fours of the output.
    len: u32,
    // Fours of a row.
    c4: u32,
    // Channels.
    c: u32,
    tokens: u32,
    vocabulary: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(2) var<storage, read_write> dst: array<Slot>;
@group(0) @binding(3) var<storage, read> ids: array<u32>; // [batch, tokens]
@group(1) @binding(0) var<storage, read> table: array<packed_$W0>; // [vocabulary, c4]
@group(1) @binding(1) var<storage, read> positions: array<packed_$W1>; // [at least tokens, c4]

fn each(i: u32) {
    if i >= args.len {
        return;
    }
    let token = i / args.c4;
    let four = i % args.c4;
    let id = min(ids[token], args.vocabulary - 1u);
    let y = widen_$W0(table[id * args.c4 + four]) + widen_$W1(positions[token % args.tokens * args.c4 + four]);
    for (var j = 0u; j < 4u; j++) {
        if four * 4u + j < args.c {
            dst[token * args.c + four * 4u + j] = Slot(y[j]);
        }
    }
}
