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
    if let Some(passed) = simulated::passed() {
        return passed.as_millis() as u64;
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
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use std::time::{Duration, Instant};

    /// The time of a simulated process.
    #[derive(Debug)]
    pub(crate) struct Time {
        began: Instant,
        passed_us: AtomicU64,
    }

    thread_local! {
        static TIME: RefCell<Option<Arc<Time>>> = const { RefCell::new(None) };
    }

    impl Time {
        pub(crate) fn new(passed: Duration) -> Arc<Self> {
            Arc::new(Self { began: Instant::now(), passed_us: AtomicU64::new(passed.as_micros() as u64) })
        }

        pub(crate) fn pass(&self, length: Duration) {
            self.passed_us.fetch_add(length.as_micros() as u64, SeqCst);
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

    pub(super) fn passed() -> Option<Duration> {
        TIME.with_borrow(|time| time.as_ref().map(|time| time.passed()))
    }

    pub(super) fn pass(length: Duration) -> bool {
        TIME.with_borrow(|time| time.as_ref().map(|time| time.pass(length))).is_some()
    }
}
