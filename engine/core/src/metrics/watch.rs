//! What one step on one worker does, and how far its watermark is.
//!
//! The step says so once an activation or batch. What follows from it, shares of time and the lag behind
//! the clock on the wall, is worked out when somebody asks for metrics: a step that stands still could
//! not keep them right.

use crate::time::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shares are of this much time at least: of less, they would only say what the step does just now.
const WINDOW: Duration = Duration::from_secs(1);
/// No watermark yet; no [`Timestamp`] is this.
const NONE: i64 = i64::MIN;

/// What a step does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doing {
    /// Nothing, as far as it knows.
    Nothing,
    /// Its work.
    Work,
    /// It would go on, but others have to do theirs first.
    Wait,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Watch {
    times: Mutex<Times>,
    watermark_ms: AtomicI64,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { times: Mutex::new(Times::new(Instant::now())), watermark_ms: AtomicI64::new(NONE) }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the step does this.
    pub(crate) fn does(&self, doing: Doing) {
        self.times().change(doing, Instant::now());
    }

    /// See [`Times::shares`].
    pub(super) fn shares(&self) -> Option<[f64; 3]> {
        self.times().shares(Instant::now())
    }

    /// This watermark holds.
    pub(crate) fn applied(&self, watermark: Timestamp) {
        self.watermark_ms.store(watermark.as_millis(), SeqCst);
    }

    /// Seconds from the watermark to `now`; negative if event time is ahead. `None` without a watermark.
    pub(super) fn lag_seconds(&self, now: Timestamp) -> Option<f64> {
        match self.watermark_ms.load(SeqCst) {
            NONE => None,
            // All input is read: nothing is behind any more.
            i64::MAX => Some(0.0),
            watermark => Some(now.as_millis().saturating_sub(watermark) as f64 / 1e3),
        }
    }
}

/// Time spent, by what was done in it.
#[derive(Debug)]
struct Times {
    doing: Doing,
    since: Instant,
    /// In the order of [`Doing`].
    spent: [Duration; 3],
    /// What of it was in earlier shares.
    counted: [Duration; 3],
}

impl Times {
    fn new(now: Instant) -> Self {
        let none = [Duration::ZERO; 3];
        Self { doing: Doing::Nothing, since: now, spent: none, counted: none }
    }

    fn change(&mut self, doing: Doing, now: Instant) {
        self.spent[self.doing as usize] += now.saturating_duration_since(self.since);
        (self.doing, self.since) = (doing, now);
    }

    /// Shares of the time since they were last given, in the order of [`Doing`]; `None` if that was too
    /// short ago.
    fn shares(&mut self, now: Instant) -> Option<[f64; 3]> {
        self.change(self.doing, now);
        let new: [Duration; 3] = std::array::from_fn(|doing| self.spent[doing] - self.counted[doing]);
        let all: Duration = new.iter().sum();
        if all < WINDOW {
            return None;
        }
        self.counted = self.spent;
        Some(new.map(|one| one.as_secs_f64() / all.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_since_they_were_last_given_and_what_lasts_counts_too() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut times = Times::new(began);
        times.change(Doing::Work, at(250));
        assert_eq!(times.shares(at(750)), None, "too short");
        times.change(Doing::Wait, at(1250));
        assert_eq!(times.shares(at(2000)), Some([0.125, 0.5, 0.375]));
        assert_eq!(times.shares(at(2500)), None);
        assert_eq!(times.shares(at(3000)), Some([0.0, 0.0, 1.0]), "it has waited all the time");
        times.change(Doing::Nothing, at(3500));
        assert_eq!(times.shares(at(4000)), Some([0.5, 0.0, 0.5]));
    }

    #[test]
    fn the_lag_grows_while_the_watermark_stands_and_is_over_at_the_end_of_time() {
        let (watch, at) = (Watch::new(), Timestamp::from_millis);
        assert_eq!(watch.lag_seconds(at(5000)), None);
        watch.applied(at(3000));
        assert_eq!(watch.lag_seconds(at(5000)), Some(2.0));
        assert_eq!(watch.lag_seconds(at(6500)), Some(3.5));
        assert_eq!(watch.lag_seconds(at(1000)), Some(-2.0));
        watch.applied(Timestamp::MAX);
        assert_eq!(watch.lag_seconds(at(6500)), Some(0.0));
        watch.applied(Timestamp::MIN);
        assert!(watch.lag_seconds(at(6500)).is_some_and(f64::is_finite));
    }
}
