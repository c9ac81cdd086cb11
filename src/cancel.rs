//! A flag by which a caller stops work that is under way.

use crate::error::{Error, Result};
use std::cell::Cell;
use std::rc::Rc;

/// Shared between who works and who may stop it.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Rc<Cell<bool>>);

impl CancelToken {
    /// Asks the work to stop at its next check.
    pub fn cancel(&self) {
        self.0.set(true);
    }

    /// Whether it was asked to.
    pub fn is_cancelled(&self) -> bool {
        self.0.get()
    }

    /// # Errors
    /// [`Error::Cancelled`] once it was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(Error::Cancelled("the caller aborted".into()))
        } else {
            Ok(())
        }
    }
}
