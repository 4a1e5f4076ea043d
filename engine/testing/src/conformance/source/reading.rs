//! A reader, polled by hand as a worker does it.
//!
//! Promises that every poll is watched, that waiting is bounded, and that what was handed out is kept in
//! order. Knows nothing of what is right. Called by the rules.

use super::Input;
use super::bench::{PositionOf, ReaderOf};
use crate::conformance::{Stop, Watch};
use staunch::core::source::{DeadLetter, Progress, Records, SplitReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long an idle reader is left alone before it is asked all the same. Only the rules about wakers rely
/// on being woken, so that a reader that forgets it breaks those rules and no others.
const IDLE_WAIT: Duration = Duration::from_millis(2);
/// Polls that must bring nothing before a split that never ends counts as read.
const QUIET_POLLS: u32 = 3;

/// A waker that remembers being called, and wakes the thread that made it, as a worker's does.
#[derive(Debug)]
pub(super) struct Bell {
    rang: AtomicBool,
    sleeper: Thread,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.sleeper.unpark();
    }
}

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self { rang: AtomicBool::new(false), sleeper: std::thread::current() })
    }

    /// Sleeps until it is called, or for so long. True if it was called.
    pub fn wait(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            if self.rang.load(Ordering::Acquire) {
                return true;
            }
            match until.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => std::thread::park_timeout(left),
                _ => return false,
            }
        }
    }
}

/// What one poll brought.
#[derive(Debug)]
pub(super) struct Polled {
    pub progress: Progress,
    pub records: usize,
    pub bad: usize,
    pub took: Duration,
    /// The waker that was given to this poll.
    pub bell: Arc<Bell>,
}

pub(super) struct Reading<I: Input> {
    pub reader: ReaderOf<I>,
    /// All that was handed out since it was opened.
    pub records: Vec<I::Record>,
    pub bad: Vec<DeadLetter>,
    watch: Watch,
    patience: Duration,
}

impl<I: Input> Reading<I> {
    pub fn new(reader: ReaderOf<I>, watch: Watch, patience: Duration) -> Self {
        Self { reader, records: Vec::new(), bad: Vec::new(), watch, patience }
    }

    pub fn position(&self) -> PositionOf<I> {
        self.reader.position()
    }

    /// Polls once, with a waker of its own.
    pub fn try_poll(&mut self, limit: usize) -> staunch::core::Result<Polled> {
        let bell = Bell::new();
        let waker = Waker::from(Arc::clone(&bell));
        let (mut out, reader) = (Records::with_limit(limit), &mut self.reader);
        let began = Instant::now();
        let progress = self.watch.ask("SplitReader::poll", self.patience, || {
            reader.poll(&mut Context::from_waker(&waker), &mut out)
        })?;
        let took = began.elapsed();
        self.records.extend_from_slice(out.records());
        self.bad.extend_from_slice(out.bad_input());
        let (records, bad) = (out.records().len(), out.bad_input().len());
        Ok(Polled { progress, records, bad, took, bell })
    }

    /// The same, where the rule needs it to succeed.
    pub fn poll(&mut self, limit: usize) -> Result<Polled, Stop> {
        self.try_poll(limit).map_err(|e| Stop::failed("SplitReader::poll", &e))
    }

    /// Reads until so many records and pieces of bad input were handed out since it was opened and no more
    /// come, or the split ends, or nothing comes for too long.
    pub fn read_on(&mut self, limit: usize, records: usize, bad: usize) -> Result<(), Stop> {
        self.read_noting(limit, records, bad, |_, _, _| {})
    }

    /// The same; after each poll `note` gets the reader, and what was handed out until then.
    pub fn read_noting(
        &mut self,
        limit: usize,
        records: usize,
        bad: usize,
        mut note: impl FnMut(&ReaderOf<I>, usize, usize),
    ) -> Result<(), Stop> {
        let (mut since, mut quiet) = (Instant::now(), 0);
        while quiet < QUIET_POLLS {
            let polled = self.poll(limit)?;
            note(&self.reader, self.records.len(), self.bad.len());
            if polled.progress == Progress::End {
                break;
            }
            if polled.records + polled.bad > 0 {
                (since, quiet) = (Instant::now(), 0);
                // What is too much is seen by now, and might be without end.
                if self.records.len() > records + limit || self.bad.len() > bad + limit {
                    break;
                }
                continue;
            }
            quiet += u32::from(self.records.len() >= records && self.bad.len() >= bad);
            if since.elapsed() > self.patience {
                break;
            }
            polled.bell.wait(IDLE_WAIT);
        }
        Ok(())
    }

    /// Reads at least so many records, a few at a time, and not the rest.
    pub fn read_some(&mut self, limit: usize, records: usize) -> Result<(), Stop> {
        let began = Instant::now();
        while self.records.len() < records && began.elapsed() < self.patience {
            let polled = self.poll(limit)?;
            if polled.progress == Progress::End {
                break;
            }
            if polled.records == 0 {
                polled.bell.wait(IDLE_WAIT);
            }
        }
        Ok(())
    }

    /// Waits for the call of a poll's waker.
    pub fn is_woken(&self, polled: &Polled) -> bool {
        polled.bell.wait(self.patience)
    }
}
