#import lanes

// Exponentials are taken of negative numbers alone: nothing overflows. Shaders may assume that there is no NaN, so where a
// comparison decides, it is on bits.

fn sigmoid(x: V) -> V {
    let e = exp(-abs(x));
    let s = V(1.0) / (V(1.0) + e);
    return select(e * s, s, x >= V(0.0));
}

fn tangent(x: V) -> V {
    let e = exp(-2.0 * abs(x));
    let t = (V(1.0) - e) / (V(1.0) + e);
    return select(t, -t, x < V(0.0));
}

// Abramowitz and Stegun, 7.1.26: half the complementary error function, to 1e-7.
fn gelu(x: V) -> V {
    let z = abs(x) * 0.7071067811865476;
    let t = V(1.0) / (V(1.0) + 0.3275911 * z);
    let p = t * (V(0.254829592) + t * (V(-0.284496736) + t * (V(1.421413741) + t * (V(-1.453152027) + t * 1.061405429))));
    let tail = 0.5 * p * exp(-z * z);
    return x * select(V(1.0) - tail, tail, x < V(0.0));
}

fn gelu_tanh(x: V) -> V {
    return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
}

fn is_nan(x: V) -> U {
    return select(U(0u), U(1u), (bitcast<U>(x) & U(0x7fffffffu)) > U(0x7f800000u));
}

fn relu(x: V) -> V {
    let bits = bitcast<U>(x);
    // From minus zero to minus infinity; what comes after is NaN.
    return select(x, V(0.0), (bits - U(0x80000000u)) <= U(0x7f800000u));
}

fn clamped(x: V, low: f32, high: f32) -> V {
    return select(clamp(x, V(low), V(high)), x, is_nan(x) == U(1u));
}

fn activate(x: V, kind: u32) -> V {
    switch kind {
        case 1u: { return x * sigmoid(x); }
        case 2u: { return gelu(x); }
        case 3u: { return gelu_tanh(x); }
        case 4u: { return x * sigmoid(1.702 * x); }
        case 5u: { return relu(x); }
        case 6u: { return tangent(x); }
        default: { return x; }
    }
}
