//! Putting a checkpoint's record into the log, beside the coordinator's thread: the storage may take its time, and
//! meanwhile requests are heard.
//!
//! In a simulation it is a part of the coordinator's move.

use super::coordinator::Driver;
use super::message::Message;
use crate::crash;
use crate::error::{Error, Result};
use crate::runtime::process::shared::panic_text;
use crate::runtime::process::wall_clock;
use staunch_checkpoint::{CheckpointId, Event, Manifest, Published, SegmentFile, Slot};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Wait before the outcome of a creation is looked for; doubled each time up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long the storage may take to answer, or as long as a checkpoint may take, if that is longer.
const STORAGE_LIMIT: Duration = Duration::from_secs(60);
/// The same once a stop or a drain was asked for: who stops a job because its storage is away wants to see it end.
pub(super) const STORAGE_LIMIT_AT_THE_END: Duration = Duration::from_secs(10);
/// How long a run whose workers are not all up may go on after a stop was asked for.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// A record on its way into the log.
pub(super) struct Publishing {
    checkpoint: CheckpointId,
    manifest: Arc<Manifest>,
    /// Before the next look at what became of it.
    wait: Duration,
    /// When the storage was asked.
    since: Instant,
    /// The thread's work; none in a simulation.
    pub(super) task: Option<JoinHandle<()>>,
}

impl Driver {
    /// Stores the segments that a manifest names, and then offers the manifest to the log.
    pub(super) fn publish(
        &mut self,
        checkpoint: CheckpointId,
        slot: Slot,
        manifest: Manifest,
        segments: Vec<SegmentFile>,
    ) {
        let manifest = Arc::new(manifest);
        self.state.publishing = Some(Publishing {
            checkpoint,
            manifest: Arc::clone(&manifest),
            wait: FIRST_WAIT,
            since: wall_clock::now(),
            task: None,
        });
        let (log, storage) = (self.log.clone(), Arc::clone(&self.shared.storage));
        self.ask_storage(checkpoint, slot, move || {
            for file in &segments {
                let stored = storage.put(&file.name, &file.bytes).map_err(|e| e.to_string());
                let stored = stored.and_then(|()| crash::point("splits.stored").map_err(|e| e.to_string()));
                if let Err(reason) = stored {
                    return Published::Failed(reason);
                }
            }
            log.publish(slot, &manifest)
        });
    }

    pub(super) fn reread(&mut self, checkpoint: CheckpointId, slot: Slot) {
        let Some(publishing) = &mut self.state.publishing else {
            return self.over(Err(Error::internal("asked to read a slot into which nothing was published")));
        };
        let (manifest, wait) = (Arc::clone(&publishing.manifest), publishing.wait);
        publishing.wait = (wait * 2).min(LONGEST_WAIT);
        publishing.since = wall_clock::now() + wait;
        let log = self.log.clone();
        self.ask_storage(checkpoint, slot, move || {
            wall_clock::sleep(wait);
            log.recognise(slot, &manifest)
        });
    }

    /// By when the storage must have answered.
    pub(super) fn deadline(&self, publishing: &Publishing) -> Instant {
        let usual = publishing.since + self.shared.config.checkpoint_timeout.max(STORAGE_LIMIT);
        self.state
            .end_asked
            .map_or(usual, |asked| usual.min(asked.max(publishing.since) + STORAGE_LIMIT_AT_THE_END))
    }

    fn ask_storage(
        &mut self,
        checkpoint: CheckpointId,
        slot: Slot,
        ask: impl FnOnce() -> Published + Send + 'static,
    ) {
        if wall_clock::is_simulated() {
            let outcome = ask();
            return self.published(checkpoint, slot, outcome);
        }
        let (shared, processes) = (Arc::clone(&self.shared), Arc::clone(&self.processes));
        let task = self.shared.io.beside(move || match catch_unwind(AssertUnwindSafe(ask)) {
            // After the end nobody listens.
            Ok(outcome) => processes.queue(Message::Published { checkpoint, slot, outcome }),
            Err(panic) => {
                let text = panic_text(&*panic);
                shared.fail(Error::internal(format!("the checkpoint storage panicked: {text}")));
            }
        });
        if let Some(publishing) = &mut self.state.publishing {
            publishing.task = task;
        }
    }

    pub(super) fn published(&mut self, checkpoint: CheckpointId, slot: Slot, outcome: Published) {
        if outcome == Published::Created {
            crash::pass("decision.made");
        }
        if !matches!(outcome, Published::Unknown(_)) {
            self.state.publishing = None;
        }
        self.feed(Event::Published { checkpoint, slot, outcome });
    }

    /// Ends the run if the storage does not answer, or if a stop is waiting for workers that do not come up.
    pub(super) fn give_up_waiting(&mut self, now: Instant) {
        if let Some(publishing) = &self.state.publishing
            && now >= self.deadline(publishing)
        {
            let over = self.no_answer(publishing);
            self.over(over);
        }
        if let Some(since) = self.state.stop_since
            && now >= since + STOP_PATIENCE
            && !self.processes.are_up()
        {
            tracing::info!("stopped before all workers had their state; nothing was read");
            self.over(Ok(crate::control::Outcome::Stopped));
        }
    }

    fn no_answer(&self, publishing: &Publishing) -> Result<crate::control::Outcome> {
        let limit = self.deadline(publishing).saturating_duration_since(publishing.since);
        Err(Error::external(format!(
            "no answer within {:.0} s to writing the record of checkpoint {} into the checkpoint log in {}; \
             whether it is decided is not known, and the next start finds out",
            limit.as_secs_f64(),
            publishing.checkpoint,
            self.shared.storage.place()
        )))
    }
}
