// What is read: a value, or two side by side (`JOINED`), scaled and shifted by a group norm's statistics (`NORM`), and with `SILU`
// activated. `SCALAR_IN`: channels are no multiple of four.
#ifdef SCALAR_IN
alias E = f32;
alias SlotE = Slot;
#else
alias E = vec4<f32>;
alias SlotE = Slot4;
#endif
@group(0) @binding(3) var<storage, read> x: array<SlotE>;
#ifdef JOINED
@group(0) @binding(6) var<storage, read> x2: array<SlotE>;
#endif
#ifdef NORM
@group(0) @binding(7) var<storage, read> statistics: array<E>; // [batch; means, scales, shifts]
#endif

// Channel `c` of pixel `p`, which is one of picture `picture`.
fn source(p: u32, c: u32, picture: u32) -> E {
#ifdef JOINED
    var found: E;
    if c < args.lanes_a {
        found = E(x[p * args.lanes_a + c]);
    } else {
        found = E(x2[p * (args.lanes - args.lanes_a) + c - args.lanes_a]);
    }
#else
    let found = E(x[p * args.lanes + c]);
#endif
#ifdef NORM
    let place = picture * 3u * args.lanes + c;
    let y = (found - statistics[place]) * statistics[place + args.lanes] + statistics[place + 2u * args.lanes];
#ifdef SILU
    return y / (E(1.0) + exp(min(-y, E(80.0))));
#else
    return y;
#endif
#else
    return found;
#endif
}
