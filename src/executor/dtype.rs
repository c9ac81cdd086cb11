//! The types that weights are kept in, and what their elements are as f32.

/// The types that weights are kept in; arithmetic is in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightDtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// 4 bits of exponent, no infinity (torch's `float8_e4m3fn`).
    E4m3,
    /// 5 bits of exponent: the upper byte of a half (torch's `float8_e5m2`).
    E5m2,
}

impl WeightDtype {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::E4m3, Self::E5m2];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::E4m3 | Self::E5m2 => 1,
        }
    }

    /// The type that holds both without loss.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        match [self.size(), other.size()] {
            _ if self == other => self,
            // Either half holds all floats of eight bits.
            [1, 1] => Self::F16,
            [1, 2] => other,
            [2, 1] => self,
            _ => Self::F32,
        }
    }
}

/// IEEE half to single, without a branch: scaling makes subnormal numbers right too.
#[inline(always)]
pub(super) fn half_to_f32(half: u16) -> f32 {
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    // The sign is extended to where it belongs, and cleared in between.
    let bits = (i32::from(half as i16) << 13) as u32 & 0x8fff_e000;
    let scaled = f32::from_bits(bits) * SCALE;
    // What is as large as no finite half is infinity, or no number.
    let endless = if scaled.abs() >= 65536.0 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | endless)
}

#[inline(always)]
pub(super) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Weights are often subnormal here, and scaling subnormal singles, as a half's are, is slow on many processors: a leading one is
/// put before those, and taken away again.
#[inline(always)]
pub(super) fn e4m3_to_f32(byte: u8) -> f32 {
    const ONE: u32 = 121 << 23;
    let signed = i32::from(byte as i8);
    let size = signed & 0x7f;
    let bits = (size << 20) as u32;
    let small = (f32::from_bits(bits + ONE) - f32::from_bits(ONE)).to_bits();
    let bits = if size < 8 { small } else { bits + (120 << 23) };
    let none = if size == 0x7f { 0x7f80_0000 } else { 0 };
    f32::from_bits(bits | none | signed as u32 & 0x8000_0000)
}

#[inline(always)]
pub(super) fn e5m2_to_f32(byte: u8) -> f32 {
    half_to_f32(u16::from(byte) << 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_half_is_widened_as_it_should_be() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (half_to_f32(bits), half::f16::from_bits(bits).to_f32());
            assert!(
                ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(),
                "{bits:#06x}: {ours}, not {theirs}"
            );
        }
    }

    #[test]
    fn floats_of_eight_bits_are_what_torch_makes_of_them() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/dtypes.json")).unwrap();
        for (name, widen) in [("F8_E4M3", e4m3_to_f32 as fn(u8) -> f32), ("F8_E5M2", e5m2_to_f32)] {
            let halves = golden[name].as_array().unwrap();
            assert_eq!(halves.len(), 256);
            for (byte, half) in (0..=255).zip(halves) {
                let theirs = half::f16::from_bits(half.as_u64().unwrap() as u16).to_f32();
                let ours = widen(byte);
                assert!(
                    ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(),
                    "{name} {byte:#04x}: {ours}, not {theirs}"
                );
            }
        }
    }

    #[test]
    fn what_holds_two_types_loses_nothing() {
        use WeightDtype::{Bf16, E4m3, E5m2, F16, F32};
        for (a, b, both) in [
            (E4m3, E4m3, E4m3),
            (E4m3, E5m2, F16),
            (E4m3, F16, F16),
            (E5m2, Bf16, Bf16),
            (F16, Bf16, F32),
            (E4m3, F32, F32),
        ] {
            assert_eq!([a.join(b), b.join(a)], [both; 2], "{a:?} and {b:?}");
        }
    }
}
