//! The clock that all sources of a process read: the current epoch and step.
//!
//! All sources move at the same ticks, so an idle one never holds a busy one back. The clock stands
//! still while nothing is read: an idle job costs nothing.

use super::tick::{Tick, epoch, step, tick};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Clock {
    now: AtomicU64,
    /// Something was emitted in the current step, so that it must end.
    active: AtomicBool,
    /// Counts what was emitted; unchanged means that there is nothing new.
    activity: AtomicU64,
    stopped: AtomicBool,
    workers: Mutex<Vec<Thread>>,
    ticker: OnceLock<Thread>,
}

impl Clock {
    pub(crate) fn new(first_epoch: u32) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicU64::new(tick(first_epoch, 0)),
            active: AtomicBool::new(true),
            activity: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            workers: Mutex::default(),
            ticker: OnceLock::new(),
        })
    }

    pub(crate) fn now(&self) -> Tick {
        self.now.load(SeqCst)
    }

    /// Registers the calling worker, to be woken.
    pub(crate) fn register_worker(&self) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(std::thread::current());
    }

    /// Ends the epoch of checkpoint `closes`: sources move to the next one when they see it.
    pub(crate) fn barrier(&self, closes: u32) {
        self.now.fetch_max(tick(closes + 1, 0), SeqCst);
        self.wake_workers();
    }

    /// Something was emitted at the current tick.
    pub(crate) fn note_activity(&self) {
        self.activity.fetch_add(1, SeqCst);
        if !self.active.swap(true, SeqCst)
            && let Some(ticker) = self.ticker.get()
        {
            ticker.unpark();
        }
    }

    /// Grows whenever something is emitted. Read before a barrier, it covers no more than that
    /// checkpoint does.
    pub(crate) fn activity(&self) -> u64 {
        self.activity.load(SeqCst)
    }

    pub(crate) fn wake_workers(&self) {
        for worker in self.workers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            worker.unpark();
        }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, SeqCst);
        if let Some(ticker) = self.ticker.get() {
            ticker.unpark();
        }
        self.wake_workers();
    }

    /// Body of the clock's thread: a step each `length`, while there is activity.
    pub(crate) fn run(&self, length: Duration) {
        let _ = self.ticker.set(std::thread::current());
        while !self.stopped.load(SeqCst) {
            if !self.active.load(SeqCst) {
                std::thread::park();
                continue;
            }
            std::thread::sleep(length);
            self.advance();
        }
    }

    /// Begins the next step, if anything was emitted in this one.
    pub(crate) fn advance(&self) {
        if !self.active.swap(false, SeqCst) {
            return;
        }
        let next = |now| Some(tick(epoch(now), step(now).saturating_add(1)));
        let _ = self.now.fetch_update(SeqCst, SeqCst, next);
        self.wake_workers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_begins_the_next_epoch_and_never_goes_back() {
        let clock = Clock::new(7);
        clock.barrier(7);
        assert_eq!(clock.now(), tick(8, 0));
        clock.barrier(6);
        assert_eq!(clock.now(), tick(8, 0));
    }
}
