//! What a catalogue says of a file beforehand.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Size and hash that a file must have, as an entry of `checkpoints.json` lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ExpectedFile {
    /// Bytes.
    pub size: Option<u64>,
    /// 64 hexadecimal digits.
    pub sha256: Option<String>,
}

impl ExpectedFile {
    /// Compares the size of the file at `place` with the one expected.
    pub fn check_size(&self, place: &str, found: u64) -> Result<()> {
        match self.size {
            Some(size) if size != found => {
                Err(Error::Corrupt(format!("{place}: expected {size} bytes, found {found}")))
            }
            _ => Ok(()),
        }
    }

    /// Compares the sha256 of the file at `place` with the one expected.
    pub fn check_hash(&self, place: &str, found: &[u8; 32]) -> Result<()> {
        let found = hex(found);
        match &self.sha256 {
            Some(sha256) if !sha256.eq_ignore_ascii_case(&found) => Err(Error::Corrupt(format!(
                "{place}: expected sha256 {sha256}, found {found}"
            ))),
            _ => Ok(()),
        }
    }

    /// The sha256, if it is one.
    pub fn hash(&self) -> Option<[u8; 32]> {
        let digits = self
            .sha256
            .as_deref()
            .filter(|digits| digits.len() == 64 && digits.is_ascii())?;
        let mut hash = [0; 32];
        for (i, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..][..2], 16).ok()?;
        }
        Some(hash)
    }

    /// Compares both for a file that is in memory.
    pub fn check(&self, place: &str, bytes: &[u8]) -> Result<()> {
        self.check_size(place, bytes.len() as u64)?;
        match self.sha256 {
            Some(_) => self.check_hash(place, &Sha256::digest(bytes).into()),
            None => Ok(()),
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
