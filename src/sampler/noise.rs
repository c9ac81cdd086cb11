//! The normal numbers of `torch.Generator("cpu").manual_seed(seed)` and `torch.randn(n, generator=…)` in f32.
//!
//! torch takes two paths. Below 16 numbers it runs Box-Muller in f64, one pair at a time, and keeps the second number
//! of a pair for the next call. From 16 on it fills the whole tensor with 24-bit uniforms and turns them into normals
//! in blocks of 16, in f32, with the Cephes polynomials for the logarithm, sine and cosine (fused multiply-adds
//! included, since that is how torch's AVX2 kernel is compiled). Everything here is the same on every machine: no
//! function of the platform's mathematics library is called.

/// `numpy`'s and `torch`'s Mersenne Twister, MT19937 (Matsumoto and Nishimura, 1998).
#[derive(Clone, Debug)]
struct MersenneTwister {
    state: [u32; Self::N],
    next: usize,
}

impl MersenneTwister {
    const N: usize = 624;
    const M: usize = 397;

    fn new(seed: u32) -> Self {
        let mut state = [seed; Self::N];
        for j in 1..Self::N {
            let last = state[j - 1];
            state[j] = 1_812_433_253_u32
                .wrapping_mul(last ^ (last >> 30))
                .wrapping_add(j as u32);
        }
        Self { state, next: Self::N }
    }

    fn refill(&mut self) {
        for j in 0..Self::N {
            let mixed = (self.state[j] & 0x8000_0000) | (self.state[(j + 1) % Self::N] & 0x7fff_ffff);
            let twist = (mixed >> 1) ^ if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[j] = self.state[(j + Self::M) % Self::N] ^ twist;
        }
        self.next = 0;
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == Self::N {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A uniform number in [0, 1) with 24 bits.
    fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    /// A uniform number in [0, 1) with 53 bits; the first word drawn is the high one.
    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (self.next_u32(), self.next_u32());
        let bits = ((u64::from(high) << 32) | u64::from(low)) & ((1 << 53) - 1);
        bits as f64 * (1.0 / 9_007_199_254_740_992.0)
    }
}

/// A seeded source of standard normal numbers that goes on from call to call as `torch.Generator("cpu")` does.
#[derive(Clone, Debug)]
pub struct Generator {
    twister: MersenneTwister,
    /// The second number of the last pair of the short path, not handed out yet.
    cached: Option<f64>,
}

impl Generator {
    /// A generator as after `torch.Generator("cpu").manual_seed(seed)`. As in torch, only the low 32 bits count.
    pub fn new(seed: u64) -> Self {
        Self {
            twister: MersenneTwister::new(seed as u32),
            cached: None,
        }
    }

    /// The next `n` numbers, as `torch.randn(n, generator=self)` gives them (in f32, for a tensor of `n` elements of any
    /// shape). Drawing `n` at once differs from drawing fewer several times, as it does in torch.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < 16 {
            return (0..n).map(|_| self.normal_f64() as f32).collect();
        }
        let mut data: Vec<f32> = (0..n).map(|_| self.twister.uniform_f32()).collect();
        for block in data.chunks_exact_mut(16) {
            box_muller_16(block);
        }
        if !n.is_multiple_of(16) {
            // torch draws the last 16 anew, over what the last whole block has already given.
            let tail = &mut data[n - 16..];
            tail.fill_with(|| self.twister.uniform_f32());
            box_muller_16(tail);
        }
        data
    }

    fn normal_f64(&mut self) -> f64 {
        if let Some(cached) = self.cached.take() {
            return cached;
        }
        let u1 = self.twister.uniform_f64();
        let u2 = self.twister.uniform_f64();
        let radius = libm::sqrt(-2.0 * libm::log1p(-u2));
        let (sin, cos) = libm::sincos(2.0 * std::f64::consts::PI * u1);
        self.cached = Some(radius * sin);
        radius * cos
    }
}

/// Turns 16 uniforms into 16 normals: numbers 0 to 7 give the radii, 8 to 15 the angles.
fn box_muller_16(data: &mut [f32]) {
    let (first, second) = data.split_at_mut(8);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * log(1.0 - *a)).sqrt();
        let (sin, cos) = sin_cos(std::f32::consts::TAU * *b);
        *a = radius * cos;
        *b = radius * sin;
    }
}

/// The natural logarithm of a positive, normal `x` (Cephes' `logf`).
fn log(x: f32) -> f32 {
    const P: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let bits = x.to_bits();
    // x = m * 2^e with m in [0.5, 1), then moved to [sqrt(1/2), sqrt(2)).
    let m = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    let mut e = ((bits >> 23) as i32 - 126) as f32;
    let mut x = m - 1.0;
    if m < std::f32::consts::FRAC_1_SQRT_2 {
        e -= 1.0;
        x += m;
    }
    let z = x * x;
    let y = P[1..].iter().fold(P[0], |y, p| y.mul_add(x, *p)) * x;
    let y = y.mul_add(z, e * -2.121_944_4e-4);
    let y = (-z).mul_add(0.5, y);
    e.mul_add(0.693_359_4, x + y)
}

/// Sine and cosine of an `x` from 0 to 2π (Cephes' `sinf` and `cosf`).
fn sin_cos(x: f32) -> (f32, f32) {
    const FOUR_OVER_PI: f32 = 1.273_239_5;
    // π/4 in three pieces, so that x - j·π/4 loses no bits.
    const PIECES: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];
    const SIN: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
    const COS: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
    let octant = ((x * FOUR_OVER_PI) as u32 + 1) & !1;
    let j = octant as f32;
    let x = PIECES.iter().fold(x, |x, piece| j.mul_add(*piece, x));
    let z = x * x;
    let cos = COS[1..].iter().fold(COS[0], |y, p| y.mul_add(z, *p)) * z;
    let cos = cos.mul_add(z, -(z * 0.5)) + 1.0;
    let sin = SIN[1..].iter().fold(SIN[0], |y, p| y.mul_add(z, *p)) * z;
    let sin = sin.mul_add(x, x);
    let (sin, cos) = if octant & 2 == 0 { (sin, cos) } else { (cos, sin) };
    let sign = |value: f32, negative: bool| if negative { -value } else { value };
    (sign(sin, octant & 4 != 0), sign(cos, octant.wrapping_sub(2) & 4 == 0))
}
