//! What makes the clocks of all processes go: one step each few milliseconds while anything is emitted anywhere.
//!
//! All sources of a job move at the same ticks, so an idle one never holds a busy one back, in whatever process it is. The
//! clock stands still while nothing is read: an idle job costs nothing.

use crate::runtime::process::tick::{Tick, epoch, step, tick};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::Thread;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Pulse {
    now: AtomicU64,
    /// Something was emitted in the current step, so that it must end.
    active: AtomicBool,
    /// Counts how often that was said; unchanged means that there is nothing new.
    activity: AtomicU64,
    stopped: AtomicBool,
    ticker: OnceLock<Thread>,
}

impl Pulse {
    pub(crate) fn new(first_epoch: u32) -> Self {
        Self {
            now: AtomicU64::new(tick(first_epoch, 0)),
            active: AtomicBool::new(true),
            activity: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            ticker: OnceLock::new(),
        }
    }

    /// Something was emitted, in whatever process.
    pub(crate) fn note_activity(&self) {
        self.activity.fetch_add(1, SeqCst);
        if !self.active.swap(true, SeqCst)
            && let Some(ticker) = self.ticker.get()
        {
            ticker.unpark();
        }
    }

    /// Grows whenever something is emitted for the first time since a tick. Read before a barrier, it covers no more
    /// than that checkpoint does.
    pub(crate) fn activity(&self) -> u64 {
        self.activity.load(SeqCst)
    }

    /// Ends the epoch of a checkpoint; the tick that says so.
    pub(crate) fn barrier(&self, closes: u32) -> Tick {
        let barrier = tick(closes + 1, 0);
        self.now.fetch_max(barrier, SeqCst).max(barrier)
    }

    /// Begins the next step, if anything was emitted in this one; the tick that says so.
    pub(crate) fn advance(&self) -> Option<Tick> {
        if !self.active.swap(false, SeqCst) {
            return None;
        }
        let next = |now| tick(epoch(now), step(now).saturating_add(1));
        let before = self.now.fetch_update(SeqCst, SeqCst, |now| Some(next(now)));
        before.ok().map(next)
    }

    /// Body of the clock's thread: a step each `length`, while there is activity.
    pub(crate) fn run(&self, length: Duration, send: impl Fn(Tick)) {
        let _ = self.ticker.set(std::thread::current());
        while !self.stopped.load(SeqCst) {
            if !self.active.load(SeqCst) {
                std::thread::park();
                continue;
            }
            std::thread::sleep(length);
            if let Some(now) = self.advance() {
                send(now);
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, SeqCst);
        if let Some(ticker) = self.ticker.get() {
            ticker.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_begins_the_next_epoch_and_never_goes_back() {
        let pulse = Pulse::new(7);
        assert_eq!(pulse.barrier(7), tick(8, 0));
        assert_eq!(pulse.barrier(6), tick(8, 0));
        assert_eq!(pulse.advance(), Some(tick(8, 1)));
    }

    #[test]
    fn the_clock_stands_still_until_something_is_emitted() {
        let pulse = Pulse::new(1);
        assert_eq!(pulse.advance(), Some(tick(1, 1)));
        assert_eq!(pulse.advance(), None);
        let before = pulse.activity();
        pulse.note_activity();
        assert_ne!(pulse.activity(), before);
        assert_eq!(pulse.advance(), Some(tick(1, 2)));
    }
}
