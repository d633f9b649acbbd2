use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Drops `future` instead of polling it for the `polls + 1`th time: what a crash leaves behind at each of its awaits.
///
/// Completes with the future's output, or with `None` if it was dropped.
pub fn crash_after<F: Future>(future: F, polls: u32) -> CrashAfter<F> {
    CrashAfter { future: Some(Box::pin(future)), polls }
}

/// The future of [`crash_after`].
#[must_use = "a future does nothing until it is polled"]
pub struct CrashAfter<F> {
    future: Option<Pin<Box<F>>>,
    polls: u32,
}

impl<F: Future> Future for CrashAfter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let left = self.polls.checked_sub(1);
        let Some((future, left)) = self.future.as_mut().zip(left) else {
            self.future = None;
            return Poll::Ready(None);
        };
        let polled = future.as_mut().poll(context);
        self.polls = left;
        match polled {
            Poll::Ready(output) => {
                self.future = None;
                Poll::Ready(Some(output))
            }
            Poll::Pending if left == 0 => {
                // Nobody needs to wake it for its end.
                self.future = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for CrashAfter<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CrashAfter").field("polls", &self.polls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Waker;

    struct Yields(u32);

    impl Future for Yields {
        type Output = &'static str;

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<&'static str> {
            match self.0.checked_sub(1) {
                Some(left) => {
                    self.0 = left;
                    Poll::Pending
                }
                None => Poll::Ready("done"),
            }
        }
    }

    fn outcome(yields: u32, polls: u32) -> Option<&'static str> {
        let mut future = pin!(crash_after(Yields(yields), polls));
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(outcome) = future.as_mut().poll(&mut context) {
                return outcome;
            }
        }
    }

    #[test]
    fn ends_or_is_dropped_at_the_given_poll() {
        assert_eq!(outcome(0, 0), None);
        assert_eq!(outcome(0, 1), Some("done"));
        assert_eq!(outcome(2, 2), None);
        assert_eq!(outcome(2, 3), Some("done"));
    }
}
