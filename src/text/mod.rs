//! A prompt to token ids.
//!
//! [`tokenizer`]: CLIP's tokenizer, as transformers has it. [`vocabulary`]: what it reads from its files. `bpe`: the
//! merging of byte pairs. `split`: where words begin and end. `finder`: tokens that are taken out of a text whole.
//!
//! Written here, not taken from the `tokenizers` crate: that one would add 800 KB, compressed, to what a visitor
//! downloads. No tensors, and no device, in here.

mod bpe;
mod finder;
mod split;
pub mod tokenizer;
pub mod vocabulary;

pub use tokenizer::{Tokenizer, Tokens};
