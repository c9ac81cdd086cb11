//! A hash over bytes as they stream: the platform's own digest wants all of them at once.

use sha2::Digest;
use wasm_bindgen::prelude::*;

use crate::checkpoint::expected::hex;

/// sha256 of what was given to `update`, piece by piece.
#[wasm_bindgen]
#[derive(Default)]
pub struct Sha256(sha2::Sha256);

#[wasm_bindgen]
impl Sha256 {
    /// The hash of nothing yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash as lower-case hexadecimal digits. The object is of no use afterwards.
    pub fn finish(self) -> String {
        let hash: [u8; 32] = self.0.finalize().into();
        hex(&hash)
    }
}
