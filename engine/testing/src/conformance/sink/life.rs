//! The life of a job with one sink, by hand: starts, checkpoints, crashes.
//!
//! Plays the engine's part of the contract in [`staunch::core::sink`]: the order of calls, and what a
//! manifest keeps. Knows nothing of the sink. Called by the rules, and by connectors' own tests.

use super::Target;
use crate::conformance::{Stop, Verdict, must};
use crate::storage::MemoryStorage;
use serde::{Deserialize, Serialize};
use staunch::core::context::SharedValues;
use staunch::core::sink::{CommitError, Committer, Prepared, Sink, SinkContext, SinkWriter};
use staunch::core::{CheckpointId, Committable, Error, Generation, Result};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// How often a commit is asked for that says `Retry`; the engine does so for a minute.
const ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);
/// Records that an error names.
const MOST_NAMED: usize = 5;

/// A record for sinks that can take any. Its text needs quoting in most formats.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its number.
    pub id: u64,
    /// A text that is made of the number.
    pub name: String,
}

/// Row number `id`.
#[must_use]
pub fn row(id: u64) -> Row {
    Row { id, name: format!("name, \"{id}\"") }
}

/// The rows of these numbers.
#[must_use]
pub fn rows(ids: impl IntoIterator<Item = u64>) -> Vec<Row> {
    ids.into_iter().map(row).collect()
}

/// What the manifest keeps of a prepared piece; through text, as the manifest does it.
///
/// # Errors
/// The payload does not survive as text.
pub fn committable(
    checkpoint: u32,
    instance: u32,
    generation: u64,
    prepared: &Prepared,
) -> Result<Committable> {
    let payload = serde_json::from_str(&prepared.payload.to_string())
        .map_err(|e| Error::internal("a payload cannot be read back from its text").caused_by(e))?;
    let (checkpoint, generation) = (CheckpointId(checkpoint), Generation(generation));
    Ok(Committable { checkpoint, instance, generation, records: prepared.records, payload })
}

/// What outlives crashes: the target, the checkpoint storage, the number of starts.
#[derive(Debug)]
pub struct Life<T> {
    /// The other end.
    pub target: T,
    /// The checkpoint storage.
    pub storage: MemoryStorage,
    /// Identity of the job's life.
    pub lineage: String,
    /// Starts so far: the generation of the newest.
    pub starts: u64,
    /// Writers of the next start.
    pub instances: u32,
    /// First id that the next start may give to a checkpoint; the highest there is, unless a test looks
    /// after it.
    pub next_checkpoint: u32,
    /// What the connectors of one process share, by start: each start is a process.
    shared: Mutex<BTreeMap<u64, SharedValues>>,
}

/// One start of the job. Dropping it is a crash; holding it while another one begins makes it a zombie.
#[derive(Debug)]
pub struct Start<S: Sink> {
    /// The committer, recovered.
    pub committer: S::Committer,
    /// The writers, by instance.
    pub writers: Vec<S::Writer>,
    /// Which start this is.
    pub generation: Generation,
    /// What the recovery said that it removed.
    pub removed: Vec<String>,
}

impl<T: Target> Life<T> {
    /// A job that was never started, with two instances.
    pub fn new(target: T) -> Self {
        let (storage, lineage) = (MemoryStorage::new(), "life-1".into());
        let shared = Mutex::default();
        Self { target, storage, lineage, starts: 0, instances: 2, next_checkpoint: u32::MAX, shared }
    }

    fn shared(&self, generation: u64) -> SharedValues {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).entry(generation).or_default().clone()
    }

    /// Who the sink is.
    pub fn context(&self, generation: u64, instance: u32) -> SinkContext {
        let mut context = SinkContext::alone("out");
        context.job = "job".into();
        context.lineage = self.lineage.clone();
        context.generation = Generation(generation);
        (context.instance, context.instances) = (instance, self.instances);
        context.next_checkpoint = CheckpointId(self.next_checkpoint);
        context.fresh = generation == 1;
        context.storage = Arc::new(self.storage.clone());
        context.shared = self.shared(generation);
        context
    }

    /// Starts the job from a checkpoint that lists these committables. As in the engine the committer and each writer
    /// come from sink values of their own, which share nothing but [`SinkContext::shared`].
    ///
    /// # Errors
    /// As those of the sink.
    pub async fn start(&mut self, listed: &[Committable]) -> Result<Start<T::Sink>> {
        self.starts += 1;
        let planned = self.target.sink();
        let mut committer = planned.committer(&self.context(self.starts, 0)).await?;
        committer.check().await?;
        let removed = committer.recover(listed).await?;
        let mut writers = Vec::new();
        for instance in 0..self.instances {
            let built = self.target.sink();
            writers.push(built.writer(&self.context(self.starts, instance)).await?);
        }
        Ok(Start { committer, writers, generation: Generation(self.starts), removed })
    }

    /// The same, where the rule needs it to succeed.
    pub(super) async fn begin(&mut self, listed: &[Committable]) -> Result<Start<T::Sink>, Stop> {
        let number = self.starts + 1;
        self.start(listed).await.map_err(|e| Stop::failed(format!("start {number}"), &e))
    }

    /// The records of these numbers.
    pub fn records(&self, numbers: Range<u64>) -> Vec<T::Record> {
        numbers.map(|n| self.target.record(n)).collect()
    }

    /// Pieces of prepared output in the target.
    pub fn leftovers(&self) -> usize {
        self.target.leftovers(&self.storage)
    }

    /// What a reader sees, sorted.
    pub fn visible(&self) -> Vec<T::Record>
    where
        T::Record: Ord,
    {
        let mut records = self.target.visible();
        records.sort();
        records
    }

    /// Breaks the rule unless a reader sees exactly the records of these numbers, each once.
    pub(super) fn shows(&self, when: &str, numbers: Range<u64>) -> Verdict {
        let (mut surplus, mut missing) = (self.target.visible(), Vec::new());
        let found = surplus.len();
        for record in self.records(numbers.clone()) {
            match surplus.iter().position(|seen| *seen == record) {
                Some(at) => drop(surplus.swap_remove(at)),
                None => missing.push(record),
            }
        }
        let expected = match numbers.is_empty() {
            true => format!("{when}, a reader sees nothing"),
            false => {
                format!("{when}, a reader sees records {} to {}, each once", numbers.start, numbers.end - 1)
            }
        };
        let some = |records: &[T::Record]| format!("{:?}", &records[..records.len().min(MOST_NAMED)]);
        must(
            surplus.is_empty() && missing.is_empty(),
            expected,
            format_args!(
                "{found} records; {} missing: {}; {} doubled, foreign or too early: {}",
                missing.len(),
                some(&missing),
                surplus.len(),
                some(&surplus)
            ),
        )
    }

    /// Breaks the rule if prepared output is left.
    pub(super) fn is_tidy(&self, when: &str) -> Verdict {
        let left = self.leftovers();
        must(left == 0, format!("{when}, no prepared output is left"), format_args!("{left} pieces"))
    }

    /// Breaks the rule unless prepared output is there.
    pub(super) fn holds_prepared(&self, when: &str) -> Verdict {
        let expected = format!("{when}, prepared output is there to be counted (by `Target::leftovers`)");
        must(self.leftovers() > 0, expected, "none")
    }
}

type Preparing = Pin<Box<dyn Future<Output = Result<Vec<Prepared>>> + Send>>;

/// The open cuts of all instances for one checkpoint. Dropping it is a crash before they have answered.
pub struct Cut {
    checkpoint: u32,
    generation: Generation,
    open: Vec<Preparing>,
}

impl Cut {
    /// What the manifest lists.
    ///
    /// # Errors
    /// As those of the sink.
    pub async fn answers(self) -> Result<Vec<Committable>> {
        let mut all = Vec::new();
        for (instance, preparing) in (0..).zip(self.open) {
            for prepared in preparing.await? {
                all.push(committable(self.checkpoint, instance, self.generation.0, &prepared)?);
            }
        }
        Ok(all)
    }

    /// The same, where the rule needs it to succeed.
    pub(super) async fn answered(self) -> Result<Vec<Committable>, Stop> {
        let checkpoint = self.checkpoint;
        self.answers().await.map_err(|e| Stop::failed(format!("the cut of checkpoint {checkpoint}"), &e))
    }

    /// Lets the cuts begin what they do; their answers are heard by nobody.
    pub(super) async fn begin(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        poll_fn(|cx: &mut Context<'_>| {
            open.retain_mut(|preparing| preparing.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }
}

impl<S: Sink> Start<S> {
    /// Writes records, dealt out to the instances in turn.
    ///
    /// # Errors
    /// As those of the sink.
    pub async fn write(&mut self, records: Vec<S::Record>) -> Result<()> {
        let count = self.writers.len();
        let mut parts: Vec<Vec<S::Record>> = self.writers.iter().map(|_| Vec::new()).collect();
        for (at, record) in records.into_iter().enumerate() {
            parts[at % count].push(record);
        }
        for (writer, part) in self.writers.iter_mut().zip(parts) {
            writer.write(part).await?;
        }
        Ok(())
    }

    /// Cuts all instances and waits for their answers; what comes back goes into the manifest.
    ///
    /// # Errors
    /// As those of the sink.
    pub async fn prepare(&mut self, checkpoint: u32) -> Result<Vec<Committable>> {
        self.cut(checkpoint)?.answers().await
    }

    /// Cuts all instances. The answers are waited for later, or never.
    ///
    /// # Errors
    /// As those of the sink.
    pub fn cut(&mut self, checkpoint: u32) -> Result<Cut> {
        let mut open: Vec<Preparing> = Vec::new();
        for writer in &mut self.writers {
            open.push(Box::pin(writer.cut(CheckpointId(checkpoint))?));
        }
        Ok(Cut { checkpoint, generation: self.generation, open })
    }

    /// Cuts, where the rule needs it to succeed.
    pub(super) fn begin_cut(&mut self, checkpoint: u32) -> Result<Cut, Stop> {
        self.cut(checkpoint).map_err(|e| Stop::failed(format!("the cut of checkpoint {checkpoint}"), &e))
    }

    /// Commits, once.
    ///
    /// # Errors
    /// As those of the sink.
    pub async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        self.committer.commit(committables).await
    }

    /// One epoch: records in two portions, as batches come, then the barrier.
    pub(super) async fn epoch(
        &mut self,
        checkpoint: u32,
        mut records: Vec<S::Record>,
    ) -> Result<Vec<Committable>, Stop> {
        let second = records.split_off(records.len() / 2);
        for portion in [records, second] {
            self.put(portion).await?;
        }
        let prepared = self.prepare(checkpoint).await;
        prepared.map_err(|e| Stop::failed(format!("prepare of checkpoint {checkpoint}"), &e))
    }

    /// Writes, where the rule needs it to succeed.
    pub(super) async fn put(&mut self, records: Vec<S::Record>) -> Verdict {
        self.write(records).await.map_err(|e| Stop::failed("write", &e))
    }

    /// Commits, asking again as the engine does, where the rule needs it to succeed.
    pub(super) async fn publish(&mut self, when: &str, committables: &[Committable]) -> Verdict {
        for attempt in 1.. {
            match self.commit(committables).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Retry(_)) if attempt < ATTEMPTS => {
                    tokio::time::sleep(BETWEEN_ATTEMPTS).await;
                }
                Err(error) => return Err(Stop::not_committed(format!("the commit {when}"), &error)),
            }
        }
        Ok(())
    }

    /// Commits, where the rule needs a refusal; returns its text.
    pub(super) async fn is_refused(
        &mut self,
        when: &str,
        committables: &[Committable],
    ) -> Result<String, Stop> {
        let seen = match self.commit(committables).await {
            Err(CommitError::Refused(error)) => return Ok(error.to_string()),
            Err(CommitError::Retry(error)) => format!("Retry: {error}"),
            Ok(()) => "Ok".to_owned(),
        };
        Err(Stop::broken(format!("the commit {when} is refused (CommitError::Refused)"), seen))
    }
}
