//! What is not in every checkpoint and not in the program either: fetched where it is needed, once.

use std::fmt;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

use crate::{Error, Result};

type Fetch = dyn Fn() -> LocalBoxFuture<'static, Result<Vec<u8>>>;

/// Where CLIP's standard vocabulary comes from, which single files leave out.
#[derive(Clone, Default)]
pub struct Assets(Option<Rc<Fetch>>);

impl Assets {
    /// `merges` fetches the merges of the vocabulary: a pair a line.
    pub fn new(merges: impl Fn() -> LocalBoxFuture<'static, Result<Vec<u8>>> + 'static) -> Self {
        Self(Some(Rc::new(merges)))
    }

    /// Merges that are in memory.
    pub fn memory(merges: Vec<u8>) -> Self {
        Self::new(move || Box::pin(std::future::ready(Ok(merges.clone()))))
    }

    /// Merges that a function of JavaScript's gives a promise of, as bytes.
    #[cfg(target_arch = "wasm32")]
    pub fn js(function: js_sys::Function) -> Self {
        Self::new(move || Box::pin(super::web::bytes_of(function.clone())))
    }

    pub(super) async fn merges(&self) -> Result<Vec<u8>> {
        match &self.0 {
            Some(fetch) => fetch().await,
            None => Err(Error::NotFound(
                "CLIP's standard vocabulary: nothing was said of where it is".into(),
            )),
        }
    }
}

impl fmt::Debug for Assets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Assets({})", self.0.is_some())
    }
}
