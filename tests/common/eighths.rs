//! Floats of eight bits, by what torch makes of each of them.

use safetensors::Dtype;

/// The value of every byte of an 8-bit dtype.
pub fn eighths(dtype: Dtype) -> Vec<f32> {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/dtypes.json")).unwrap();
    let halves = golden[format!("{dtype:?}")].as_array().unwrap();
    assert_eq!(halves.len(), 256, "{dtype:?}");
    let value = |half: &serde_json::Value| half::f16::from_bits(half.as_u64().unwrap() as u16).to_f32();
    halves.iter().map(value).collect()
}

/// The byte whose value is nearest.
pub fn nearest(table: &[f32], x: f32) -> u8 {
    let far = |byte: u8| (table[usize::from(byte)] - x).abs();
    let finite = (0..=255u8).filter(|&byte| table[usize::from(byte)].is_finite());
    finite.min_by(|&a, &b| far(a).total_cmp(&far(b))).unwrap()
}
