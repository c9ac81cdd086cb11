//! How a caller says that it no longer wants what it asked for.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::{Error, Result};

/// A flag shared between whoever may cancel an operation and the operation. Clones are the same flag.
#[derive(Clone, Default)]
pub struct CancelToken(Rc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl CancelToken {
    /// Cancels: [`check`](Self::check) fails from now on, and every [`guard`](Self::guard) that waits ends at once.
    pub fn cancel(&self) {
        self.0.cancelled.set(true);
        // Taken out first: a waker may run code that asks this token again.
        let wakers = std::mem::take(&mut *self.0.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.get()
    }

    /// Fails with [`Error::Cancelled`] if [`cancel`](Self::cancel) was called.
    pub fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::Cancelled("the caller aborted the operation".into())),
            false => Ok(()),
        }
    }

    /// Waits for `work`, or fails with [`Error::Cancelled`] as soon as the token is cancelled. `work` is dropped then.
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Err(error) = self.check() {
                return Poll::Ready(Err(error));
            }
            let poll = work.as_mut().poll(context);
            if poll.is_pending() {
                let mut wakers = self.0.wakers.borrow_mut();
                if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    wakers.push(context.waker().clone());
                }
            }
            poll
        })
        .await
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelToken").field(&self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::{join, pending, ready};

    #[test]
    fn work_that_never_ends_is_cut_off() {
        let token = CancelToken::default();
        let other = token.clone();
        let (cut, ()) = pollster::block_on(join(
            token.guard(pending::<Result<()>>()),
            async move { other.cancel() },
        ));
        assert_eq!(cut.unwrap_err().code(), "cancelled");
        assert_eq!(
            pollster::block_on(token.guard(ready(Ok(1)))).unwrap_err().code(),
            "cancelled"
        );
    }

    #[test]
    fn work_that_ends_is_handed_on() {
        let token = CancelToken::default();
        assert_eq!(pollster::block_on(token.guard(ready(Ok(1)))), Ok(1));
        assert!(token.check().is_ok());
    }
}
