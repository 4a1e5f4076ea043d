//! What happens to a job, for whoever supervises it.

use super::Outcome;
use crate::error::Kind;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use staunch_checkpoint::{CheckpointId, Generation, Kind as CheckpointKind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Events that may wait for one listener; more are dropped and counted.
const MOST_WAITING: usize = 1024;

/// Something that happened to a job.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum JobEvent {
    /// All workers run.
    Started {
        /// How often the job has been started on its checkpoints.
        generation: Generation,
        /// The checkpoint that it continues from.
        restored: Option<CheckpointId>,
    },
    /// A checkpoint is decided.
    Checkpoint {
        /// Its number.
        id: CheckpointId,
        /// Why it was taken.
        kind: CheckpointKind,
        /// Barrier to decision.
        took: Duration,
        /// State that was written for it.
        bytes: u64,
    },
    /// A checkpoint was abandoned; the next one covers its records.
    CheckpointFailed {
        /// Its number.
        id: CheckpointId,
        /// Why.
        reason: String,
    },
    /// A sink has published its output up to a checkpoint.
    Committed {
        /// The sink.
        sink: String,
        /// The newest checkpoint of which everything is published.
        upto: CheckpointId,
    },
    /// The run failed; the last event.
    Failed {
        /// Whether running it again may help.
        kind: Kind,
        /// In which step.
        step: Option<String>,
        /// The whole error.
        text: String,
    },
    /// The run ended well; the last event.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// A listener to a job's events. It never holds the job back: whoever does not take events in time misses some.
#[derive(Debug)]
pub struct Events {
    events: Receiver<JobEvent>,
    missed: Arc<AtomicU64>,
}

impl Events {
    /// The next event; waits for it, so long at most.
    #[must_use]
    pub fn next(&self, longest: Duration) -> Option<JobEvent> {
        self.events.recv_timeout(longest).ok()
    }

    /// How many events were dropped because too many waited.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(SeqCst)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Listeners(Arc<Mutex<Vec<Listener>>>);

#[derive(Debug)]
struct Listener {
    events: Sender<JobEvent>,
    missed: Arc<AtomicU64>,
}

impl Listeners {
    pub(super) fn add(&self) -> Events {
        let (sender, events) = bounded(MOST_WAITING);
        let missed = Arc::<AtomicU64>::default();
        let listener = Listener { events: sender, missed: Arc::clone(&missed) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        Events { events, missed }
    }

    pub(super) fn tell(&self, event: impl FnOnce() -> JobEvent) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.is_empty() {
            return;
        }
        let event = event();
        listeners.retain(|listener| match listener.events.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                listener.missed.fetch_add(1, SeqCst);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_takes_nothing_misses_events_and_knows_how_many() {
        let listeners = Listeners::default();
        let (slow, gone) = (listeners.add(), listeners.add());
        drop(gone);
        let ended = || JobEvent::Ended { outcome: Outcome::Finished };
        for _ in 0..MOST_WAITING + 5 {
            listeners.tell(ended);
        }
        assert_eq!(slow.missed(), 5);
        let taken = std::iter::from_fn(|| slow.next(Duration::ZERO)).count();
        assert_eq!(taken, MOST_WAITING);
        assert_eq!(listeners.0.lock().unwrap().len(), 1, "who is gone is forgotten");
    }
}
