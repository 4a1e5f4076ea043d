//! An answer that may be waited for, by a thread or by a task.

use super::Told;
use crate::error::{Error, Result};
use staunch_checkpoint::CheckpointId;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The answer to a request: the checkpoint that was taken for it, or why none was. Await it, or block with
/// [`Answer::wait`]. A run that ends without having carried the request out says so; a request that no run has heard
/// waits for the next run.
#[derive(Debug)]
pub struct Answer(Arc<Letter>);

/// Gives the answer; dropped without a word, it says that the run is over.
#[derive(Debug)]
pub(crate) struct Teller(Arc<Letter>);

#[derive(Debug, Default)]
struct Letter {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    told: Option<Told>,
    waker: Option<Waker>,
}

pub(super) fn pair() -> (Teller, Answer) {
    let letter = Arc::<Letter>::default();
    (Teller(Arc::clone(&letter)), Answer(letter))
}

impl Letter {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment; a panic leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, told: Told) {
        let mut state = self.lock();
        if state.told.is_none() {
            state.told = Some(told);
        }
        let waker = state.waker.take();
        drop(state);
        self.came.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Teller {
    pub(crate) fn tell(self, told: Told) {
        self.0.tell(told);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) > 1 {
            self.0.tell(Err(Error::external("the run ended before the request was carried out")));
        }
    }
}

impl Answer {
    /// Waits on this thread, so long at most.
    ///
    /// # Errors
    /// The request was refused or dropped, with why; the run failed; or the time is over: the request stands all the
    /// same.
    pub fn wait(self, longest: Duration) -> Result<CheckpointId> {
        let until = Instant::now() + longest;
        let mut state = self.0.lock();
        loop {
            if let Some(told) = state.told.take() {
                return told;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::external(format!("no answer within {longest:?}; the request stands")));
            }
            state = self.0.came.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Future for Answer {
    type Output = Result<CheckpointId>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        if let Some(told) = state.told.take() {
            return Poll::Ready(told);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_to_a_thread_and_to_a_task() {
        let (teller, answer) = pair();
        std::thread::spawn(move || teller.tell(Ok(CheckpointId(7))));
        assert_eq!(answer.wait(Duration::from_secs(20)).unwrap(), CheckpointId(7));
        let (teller, answer) = pair();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        std::thread::spawn(move || teller.tell(Ok(CheckpointId(8))));
        assert_eq!(runtime.block_on(answer).unwrap(), CheckpointId(8));
    }

    #[test]
    fn whoever_could_have_answered_and_is_gone_says_that_the_run_is_over() {
        let (teller, answer) = pair();
        drop(teller);
        let error = answer.wait(Duration::from_secs(20)).unwrap_err();
        assert!(error.to_string().contains("the run ended before"), "{error}");
    }

    #[test]
    fn nobody_waits_longer_than_asked() {
        let (_teller, answer) = pair();
        let error = answer.wait(Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().contains("the request stands"), "{error}");
    }
}
