//! A line in which asynchronous callers wait, first come, first served.

use futures_channel::oneshot;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// The line. Clones are the same one.
#[derive(Clone, Default)]
pub struct Queue(Rc<RefCell<Line>>);

#[derive(Default)]
struct Line {
    busy: bool,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// It is the holder's turn until this is dropped.
pub struct Turn(Option<Queue>);

impl Queue {
    /// Waits for one's turn. Who stops waiting gives up the place.
    pub async fn turn(&self) -> Turn {
        let waiting = {
            let mut line = self.0.borrow_mut();
            if !line.busy {
                line.busy = true;
                return Turn(Some(self.clone()));
            }
            let (sender, receiver) = oneshot::channel();
            line.waiting.push_back(sender);
            receiver
        };
        match waiting.await {
            Ok(turn) => turn,
            // A sender is dropped only after it has sent; were it otherwise, nobody's turn would be ended by this one.
            Err(_) => Turn(None),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(queue) = self.0.take() else { return };
        loop {
            let Some(next) = queue.0.borrow_mut().waiting.pop_front() else {
                break;
            };
            match next.send(Turn(Some(queue.clone()))) {
                Ok(()) => return,
                // Nobody waits there any more: that turn is void, and the next in line is called.
                Err(mut void) => void.0 = None,
            }
        }
        queue.0.borrow_mut().busy = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::cell::Cell;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn first_come_first_served() {
        let (queue, order) = (Queue::default(), RefCell::new(Vec::new()));
        let jobs = (0..5).map(|i| {
            let (queue, order) = (&queue, &order);
            async move {
                let _turn = queue.turn().await;
                let yielded = Cell::new(false);
                std::future::poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if yielded.replace(true) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
                order.borrow_mut().push(i);
            }
        });
        pollster::block_on(join_all(jobs));
        assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn who_leaves_the_line_does_not_stop_it() {
        let queue = Queue::default();
        let mut cx = Context::from_waker(Waker::noop());
        let first = pollster::block_on(queue.turn());
        {
            let mut called = pin!(queue.turn());
            assert!(called.as_mut().poll(&mut cx).is_pending());
            let mut gone = Box::pin(queue.turn());
            assert!(gone.as_mut().poll(&mut cx).is_pending());
            drop(gone);
            // The one that is next is called, and leaves before it hears of it.
            drop(first);
        }
        assert!(matches!(pin!(queue.turn()).poll(&mut cx), Poll::Ready(_)));
    }
}
