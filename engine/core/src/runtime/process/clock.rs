//! The clock that all sources of a process read: the current epoch and step. It goes as the coordinator says.

use super::tick::{Tick, tick};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;

#[derive(Debug)]
pub(crate) struct Clock {
    now: AtomicU64,
    /// The coordinator was told since the last tick that something was emitted.
    told: AtomicBool,
    workers: Mutex<Vec<Thread>>,
}

impl Clock {
    pub(crate) fn new(first_epoch: u32) -> Self {
        Self {
            now: AtomicU64::new(tick(first_epoch, 0)),
            told: AtomicBool::new(false),
            workers: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Tick {
        self.now.load(SeqCst)
    }

    /// Registers the calling worker, to be woken.
    pub(crate) fn register_worker(&self) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(std::thread::current());
    }

    /// A tick has come. It may have been overtaken by a barrier.
    pub(crate) fn follow(&self, to: Tick) {
        // First this: what is emitted at the new tick is to be told, or nothing would end that one.
        self.told.store(false, SeqCst);
        self.now.fetch_max(to, SeqCst);
        self.wake_workers();
    }

    /// Something was emitted at the current tick; whether the coordinator is to be told.
    pub(crate) fn is_news(&self) -> bool {
        !self.told.swap(true, SeqCst)
    }

    pub(crate) fn wake_workers(&self) {
        for worker in self.workers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            worker.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_that_a_barrier_has_overtaken_does_not_set_the_clock_back() {
        let clock = Clock::new(7);
        clock.follow(tick(8, 0));
        clock.follow(tick(7, 33));
        assert_eq!(clock.now(), tick(8, 0));
    }

    #[test]
    fn what_is_emitted_is_told_once_between_two_ticks() {
        let clock = Clock::new(1);
        assert!(clock.is_news());
        assert!(!clock.is_news());
        clock.follow(tick(1, 1));
        assert!(clock.is_news());
        // A tick from before the last one takes nothing away: rather one message more than one too few.
        clock.follow(tick(1, 0));
        assert!(clock.is_news());
    }
}
