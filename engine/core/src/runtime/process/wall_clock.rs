//! The clock on the wall, and whether this thread belongs to a simulation, which has a clock of its own.
//!
//! Whatever decides by time asks here. Measurements for metrics do not.

use std::time::{Duration, Instant, SystemTime};

/// Now.
pub(crate) fn now() -> Instant {
    #[cfg(feature = "simulation")]
    if let Some(now) = simulated::now() {
        return now;
    }
    Instant::now()
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    #[cfg(feature = "simulation")]
    if let Some(unix_ms) = simulated::unix_ms() {
        return unix_ms;
    }
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Lets time pass.
pub(crate) fn sleep(length: Duration) {
    #[cfg(feature = "simulation")]
    if simulated::pass(length) {
        return;
    }
    std::thread::sleep(length);
}

/// Whether this thread is part of a simulation.
pub(crate) fn is_simulated() -> bool {
    #[cfg(feature = "simulation")]
    return simulated::now().is_some();
    #[cfg(not(feature = "simulation"))]
    false
}

#[cfg(feature = "simulation")]
pub(crate) use simulated::{Entered, Time};

#[cfg(feature = "simulation")]
mod simulated {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
    use std::time::{Duration, Instant};

    /// What the clock on the wall shows when the simulation begins: milliseconds since the Unix epoch.
    const BEGAN_MS: i64 = 1_700_000_000_000;

    /// The time of a simulated process.
    #[derive(Debug)]
    pub(crate) struct Time {
        began: Instant,
        passed_us: AtomicU64,
        /// How far the clock on the wall was set forward, or back.
        jumped_ms: AtomicI64,
    }

    thread_local! {
        static TIME: RefCell<Option<Arc<Time>>> = const { RefCell::new(None) };
    }

    impl Time {
        pub(crate) fn new(passed: Duration) -> Arc<Self> {
            let passed_us = AtomicU64::new(passed.as_micros() as u64);
            Arc::new(Self { began: Instant::now(), passed_us, jumped_ms: AtomicI64::new(0) })
        }

        pub(crate) fn pass(&self, length: Duration) {
            self.passed_us.fetch_add(length.as_micros() as u64, SeqCst);
        }

        /// The clock on the wall is set forward, or back.
        pub(crate) fn jump(&self, by_ms: i64) {
            self.jumped_ms.fetch_add(by_ms, SeqCst);
        }

        fn unix_ms(&self) -> u64 {
            let passed = self.passed().as_millis() as i64;
            let now = BEGAN_MS.saturating_add(passed).saturating_add(self.jumped_ms.load(SeqCst));
            now.try_into().unwrap_or(0)
        }

        fn passed(&self) -> Duration {
            Duration::from_micros(self.passed_us.load(SeqCst))
        }

        /// This thread has this time until the guard is dropped.
        pub(crate) fn enter(self: &Arc<Self>) -> Entered {
            Entered(TIME.replace(Some(Arc::clone(self))))
        }
    }

    pub(crate) struct Entered(Option<Arc<Time>>);

    impl Entered {
        /// The thread keeps this time until it ends.
        pub(crate) fn for_ever(self) {
            std::mem::forget(self);
        }
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            TIME.set(self.0.take());
        }
    }

    pub(super) fn now() -> Option<Instant> {
        TIME.with_borrow(|time| time.as_ref().map(|time| time.began + time.passed()))
    }

    pub(super) fn unix_ms() -> Option<u64> {
        TIME.with_borrow(|time| time.as_ref().map(|time| time.unix_ms()))
    }

    pub(super) fn pass(length: Duration) -> bool {
        TIME.with_borrow(|time| time.as_ref().map(|time| time.pass(length))).is_some()
    }
}
