//! The staged strategy for sinks: exactly once into any target that has atomic writes.
//!
//! Prepare writes the epoch's rows to the checkpoint storage. Commit writes them to the target
//! together with a [`Token`] (job, sink, instance, checkpoint) in **one** transaction of the target.
//! After a crash the token answers "did it commit?", so that a commit is redone or passed over, never
//! doubled. No transaction of the target stays open between checkpoints, and none can expire. The
//! price: output is written twice.
//!
//! A connector implements [`StagedTarget`]; [`Staged`] makes a [`Sink`] of it. The tokens work because
//! an instance's checkpoints are committed in ascending order, also over restarts with another number
//! of instances: the committer refuses any other order.

use crate::background::blocking;
use crate::error::{Error, Kind, Result};
use crate::sink::{CommitError, Committer, Prepared, Sink, SinkContext, SinkWriter};
use crc32c::crc32c;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use staunch_checkpoint::{CheckpointId, Committable, Generation};
use staunch_state::storage::{Storage, StorageError};
use staunch_state::stored;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

/// A chunk of staged rows is put into the storage when it has this size; an epoch may have many.
const CHUNK_BYTES: usize = 8 << 20;
/// Rows of each writer that are read back as they are staged.
const READ_BACK: u64 = 64;
/// Checkpoints of one instance that a committer remembers, to tell a repetition from a wrong order.
const REMEMBERED: usize = 128;

/// A target with atomic writes.
pub trait StagedTarget: Send + Sync + 'static {
    /// What the stream carries.
    type Record: Send + 'static;
    /// What is staged: everything that the target needs for one record, in a form that does not depend
    /// on the job program, because another version of the program may have to commit it. Stored with
    /// postcard, so without `untagged`, `flatten` and the like.
    type Row: Serialize + DeserializeOwned + Send + 'static;
    /// An open connection. One that saw an error is dropped and never used again.
    type Connection: Send + 'static;

    /// Called once on the value of each writer, before its first row. The value is another one than the committer's: what
    /// the committer learnt of the target comes by [`SinkContext::shared`], or is asked for here.
    ///
    /// # Errors
    /// The target cannot be reached.
    fn before_rows(&self, _context: &SinkContext) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Whether the target that was taken over is still in its place: neither removed nor replaced. Asked on a writer's
    /// value before the rows of an epoch become a part of a checkpoint, also if there are none. What is refused here is
    /// not decided yet, and read again by the next start.
    ///
    /// # Errors
    /// It is not.
    fn in_place(&self, _context: &SinkContext) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// How many committers write at once, each over a connection of its own. See [`Sink::commit_lanes`].
    fn commit_lanes(&self) -> usize {
        1
    }

    /// Makes a record's row, on the writer's side: the place to refuse records that the target could
    /// never take, before anything is decided.
    ///
    /// # Errors
    /// The target cannot take such a record.
    fn row(&self, record: Self::Record) -> Result<Self::Row>;

    /// Connects, and checks that the target exists.
    ///
    /// # Errors
    /// The target cannot be reached, or lacks something that the user must create.
    fn connect(&self, context: &SinkContext) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Whether [`StagedTarget::fence`] would be refused; takes nothing over. Called before the job itself
    /// is taken over.
    ///
    /// # Errors
    /// The target holds tokens of another lineage.
    fn check(
        &self,
        _connection: &mut Self::Connection,
        _context: &SinkContext,
    ) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Takes the target over, durably: from now on [`StagedTarget::apply`] of lower generations fails.
    ///
    /// # Errors
    /// The target holds tokens of another lineage, or a higher generation has taken it over.
    fn fence(
        &self,
        connection: &mut Self::Connection,
        context: &SinkContext,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Checks that the fence is still ours, and reads the highest checkpoint of an instance that the
    /// target holds.
    ///
    /// # Errors
    /// As [`StagedTarget::apply`].
    fn committed(
        &self,
        connection: &mut Self::Connection,
        context: &SinkContext,
        instance: u32,
    ) -> impl Future<Output = Result<Option<CheckpointId>, CommitError>> + Send;

    /// Checks that the fence is still ours, and reads the highest checkpoint of any instance that the target
    /// holds, also of instances that there are no more.
    ///
    /// # Errors
    /// As [`StagedTarget::apply`].
    fn newest(
        &self,
        connection: &mut Self::Connection,
        context: &SinkContext,
    ) -> impl Future<Output = Result<Option<CheckpointId>, CommitError>> + Send;

    /// In one transaction: checks that the fence is still ours and that the token's checkpoint is above
    /// the stored one ([`Applied::Before`] if not), writes all rows, stores the token.
    ///
    /// # Errors
    /// [`CommitError::Retry`] if it may have happened or may work later, [`CommitError::Refused`] if it
    /// did not and will not. Errors of `rows` are passed on as they are.
    fn apply(
        &self,
        connection: &mut Self::Connection,
        token: &Token,
        rows: StagedRows<Self::Row>,
    ) -> impl Future<Output = Result<Applied, CommitError>> + Send;
}

/// The mark that a target keeps beside the rows of one commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// Name of the job.
    pub job: String,
    /// Name of the sink.
    pub sink: String,
    /// Identity of the job's life.
    pub lineage: String,
    /// The generation that commits; the fence compares it.
    pub generation: Generation,
    /// The instance that wrote the rows.
    pub instance: u32,
    /// The checkpoint that the rows belong to.
    pub checkpoint: CheckpointId,
}

/// What a commit found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// The rows are in the target since now.
    Now,
    /// They were there already.
    Before,
}

/// One staged blob, as the checkpoint lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Chunk {
    name: String,
    bytes: u64,
    crc32c: u32,
    rows: u64,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    chunks: Vec<Chunk>,
}

impl Payload {
    fn of(committable: &Committable, sink: &str) -> Result<Self> {
        serde_json::from_value(committable.payload.clone()).map_err(|e| {
            Error::job(format!(
                "the checkpoint lists output of sink `{sink}` (checkpoint {}) that this kind of sink did not \
                 stage; was it replaced under the same name? Stop the old program cleanly, or rename the new sink",
                committable.checkpoint
            ))
            .caused_by(e)
        })
    }
}

/// The rows of one commit, read back chunk by chunk. Reading **blocks**: iterate on a blocking thread.
#[derive(Debug)]
pub struct StagedRows<R> {
    storage: Arc<dyn Storage>,
    chunks: std::vec::IntoIter<Chunk>,
    /// The chunk that is being read, how far it is, and the rows that are left of it.
    bytes: Vec<u8>,
    at: usize,
    left: u64,
    /// What is lost if a blob cannot be read: for messages.
    what: String,
    row: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> StagedRows<R> {
    fn load(&self, chunk: &Chunk) -> Result<Vec<u8>, CommitError> {
        let lost = |why: String| {
            CommitError::Refused(Error::external(format!("{} cannot be committed: {why}", self.what)))
        };
        let bytes = self.storage.get(&chunk.name).map_err(|e| match e {
            StorageError::NotFound { .. } => lost(e.to_string()),
            other => CommitError::Retry(other.into()),
        })?;
        if bytes.len() as u64 != chunk.bytes || crc32c(&bytes) != chunk.crc32c {
            return Err(lost(format!("{} in {} is damaged", chunk.name, self.storage.place())));
        }
        Ok(bytes)
    }

    fn row(&mut self) -> Result<Option<R>, CommitError> {
        while self.left == 0 {
            let behind = self.bytes.len() - self.at;
            if behind > 0 {
                return Err(self.unreadable(format!("{behind} bytes are behind the last one")));
            }
            let Some(chunk) = self.chunks.next() else { return Ok(None) };
            self.bytes = self.load(&chunk)?;
            (self.at, self.left) = (0, chunk.rows);
        }
        let (row, rest) =
            postcard::take_from_bytes(&self.bytes[self.at..]).map_err(|e| self.unreadable(e.to_string()))?;
        self.at = self.bytes.len() - rest.len();
        self.left -= 1;
        Ok(Some(row))
    }

    fn unreadable(&self, why: String) -> CommitError {
        CommitError::Refused(Error::internal(format!("{}: a staged row cannot be read: {why}", self.what)))
    }
}

impl<R: DeserializeOwned> Iterator for StagedRows<R> {
    type Item = Result<R, CommitError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.row().transpose()
    }
}

/// A [`Sink`] that stages its output for a [`StagedTarget`].
#[derive(Debug)]
pub struct Staged<T> {
    target: Arc<T>,
}

impl<T: StagedTarget> Staged<T> {
    /// A sink that writes into `target`.
    pub fn new(target: T) -> Self {
        Self { target: Arc::new(target) }
    }
}

impl<T: StagedTarget> Sink for Staged<T> {
    type Record = T::Record;
    type Writer = StagedWriter<T>;
    type Committer = StagedCommitter<T>;

    async fn writer(&self, context: &SinkContext) -> Result<Self::Writer> {
        let (target, context) = (Arc::clone(&self.target), context.clone());
        target.before_rows(&context).await?;
        Ok(StagedWriter { target, context, open: Vec::new(), open_rows: 0, chunks: Vec::new(), put: 0 })
    }

    async fn committer(&self, context: &SinkContext) -> Result<Self::Committer> {
        stored::check::<T::Row>(&context.sink, "staged row")?;
        let (target, context) = (Arc::clone(&self.target), context.clone());
        Ok(StagedCommitter { target, context, connection: None, done: BTreeMap::new() })
    }

    fn commit_lanes(&self) -> usize {
        self.target.commit_lanes()
    }
}

/// Stages the rows of one instance.
#[derive(Debug)]
pub struct StagedWriter<T> {
    target: Arc<T>,
    context: SinkContext,
    open: Vec<u8>,
    open_rows: u64,
    /// Chunks of this epoch that are in the storage already.
    chunks: Vec<Chunk>,
    /// Chunks ever put by this writer: makes their names unique within the generation.
    put: u64,
}

impl<T: StagedTarget> StagedWriter<T> {
    /// Adds a row to the open chunk. The first ones are read back: another life may have to.
    fn stage(&mut self, row: &T::Row) -> Result<()> {
        let before = self.open.len();
        let mut staged = stored::append(row, &mut self.open);
        if staged.is_ok() && self.put == 0 && self.open_rows < READ_BACK {
            staged = stored::read_back::<T::Row>(&self.open[before..]).map(drop);
        }
        staged.map_err(|problem| {
            let (sink, rust) = (&self.context.sink, std::any::type_name::<T::Row>());
            Error::job(format!("sink `{sink}`: its row, of type {rust}, cannot be staged: {problem}"))
        })
    }

    /// Takes the open rows; what is left to do is to put them into the storage.
    fn take_chunk(&mut self) -> impl Future<Output = Result<Chunk>> + Send + use<T> {
        let SinkContext { sink, instance, generation, storage, .. } = &self.context;
        let (instance, storage) = (*instance, Arc::clone(storage));
        let name = format!("{}{:010}-{instance:04}-g{generation}", folder(sink), self.put);
        self.put += 1;
        let (bytes, rows) = (std::mem::take(&mut self.open), std::mem::take(&mut self.open_rows));
        let put = move || {
            storage.put(&name, &bytes)?;
            // Perhaps the first chunk of many; it is stored, and no list has it.
            let failed = |e| Error::external(format!("{name} could not be staged")).caused_by(e);
            crate::crash::point_of("sink.half_flushed", instance).map_err(failed)?;
            Ok::<_, Error>(Chunk { name, bytes: bytes.len() as u64, crc32c: crc32c(&bytes), rows })
        };
        async move { blocking(put).await? }
    }
}

impl<T: StagedTarget> SinkWriter for StagedWriter<T> {
    type Record = T::Record;

    async fn write(&mut self, records: Vec<T::Record>) -> Result<()> {
        for record in records {
            let row = self.target.row(record)?;
            self.stage(&row)?;
            self.open_rows += 1;
            if self.open.len() >= CHUNK_BYTES {
                let put = self.take_chunk();
                self.chunks.push(put.await?);
            }
        }
        Ok(())
    }

    fn cut(
        &mut self,
        _checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        let last = (self.open_rows > 0).then(|| self.take_chunk());
        let mut chunks = std::mem::take(&mut self.chunks);
        let (target, context) = (Arc::clone(&self.target), self.context.clone());
        Ok(async move {
            target.in_place(&context).await?;
            if let Some(last) = last {
                chunks.push(last.await?);
            }
            if chunks.is_empty() {
                return Ok(Vec::new());
            }
            let records = chunks.iter().map(|chunk| chunk.rows).sum();
            let payload = serde_json::to_value(Payload { chunks })
                .map_err(|e| Error::internal("a staged committable has no JSON form").caused_by(e))?;
            Ok(vec![Prepared { records, payload }])
        })
    }
}

/// Commits staged rows of all instances.
#[derive(Debug)]
pub struct StagedCommitter<T: StagedTarget> {
    target: Arc<T>,
    context: SinkContext,
    /// `None` before recovery, and after an error: the next call connects anew.
    connection: Option<T::Connection>,
    /// By instance: checkpoints committed by this committer, with the first blob of each.
    done: BTreeMap<u32, BTreeMap<CheckpointId, String>>,
}

impl<T: StagedTarget> StagedCommitter<T> {
    /// Refuses what the token would wrongly take for committed: a checkpoint below a later one, or a
    /// second one of the same id.
    fn check_order(&self, committable: &Committable, first: &str) -> Result<(), CommitError> {
        let Some(done) = self.done.get(&committable.instance) else { return Ok(()) };
        let wrong = match done.get(&committable.checkpoint) {
            Some(known) => known != first,
            None => done.last_key_value().is_some_and(|(last, _)| *last > committable.checkpoint),
        };
        if !wrong {
            return Ok(());
        }
        Err(CommitError::Refused(Error::internal(format!(
            "sink `{}`: the {} records of checkpoint {} (instance {}) were given out of order and are not committed",
            self.context.sink, committable.records, committable.checkpoint, committable.instance
        ))))
    }

    async fn commit_one(&mut self, committable: &Committable, payload: &Payload) -> Result<(), CommitError> {
        if self.is_committed(committable).await? {
            return Ok(());
        }
        let applied = self.apply(committable, payload).await;
        let Err(CommitError::Refused(refused)) = applied else { return applied };
        // Perhaps a newer start has committed it, and deleted what was staged, since it was asked whose the target is. What
        // the connection saw is of no more use.
        self.connection = None;
        match self.is_committed(committable).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(CommitError::Refused(refused)),
            Err(CommitError::Refused(other)) => {
                tracing::warn!(sink = self.context.sink, error = %refused, "what a commit was refused with at first");
                Err(CommitError::Refused(other))
            }
            Err(CommitError::Retry(error)) => {
                let sink = &self.context.sink;
                Err(CommitError::Retry(Error::external(format!(
                    "sink `{sink}`: a commit was refused ({refused}), and whose the target is cannot be asked: {error}"
                ))))
            }
        }
    }

    /// Whether the target holds it already, after a check that the target is still ours.
    async fn is_committed(&mut self, committable: &Committable) -> Result<bool, CommitError> {
        let connection = match &mut self.connection {
            Some(open) => open,
            none => {
                // What is wrong with the job or its target is not mended by asking again.
                let failed = |error: Error| match error.kind() {
                    Kind::Job => CommitError::Refused(error),
                    Kind::External | Kind::Internal => CommitError::Retry(error),
                };
                none.insert(self.target.connect(&self.context).await.map_err(failed)?)
            }
        };
        let stored = self.target.committed(connection, &self.context, committable.instance).await?;
        let done = self.done.get(&committable.instance).and_then(|done| done.last_key_value());
        if let Some((done, _)) = done.filter(|(done, _)| stored < Some(**done)) {
            return Err(CommitError::Refused(Error::job(format!(
                "sink `{}`: the target has lost checkpoint {done} (instance {}), which was committed: its newest is {}. Was \
                 it replaced by an older copy? Restore it, or start over with --from none and another output",
                self.context.sink,
                committable.instance,
                stored.map_or_else(|| "none".to_owned(), |stored| stored.to_string())
            ))));
        }
        Ok(stored >= Some(committable.checkpoint))
    }

    async fn apply(&mut self, committable: &Committable, payload: &Payload) -> Result<(), CommitError> {
        let Some(connection) = &mut self.connection else {
            return Err(CommitError::Retry(Error::internal("a commit came before its connection was open")));
        };
        let SinkContext { job, sink, lineage, generation, storage, .. } = self.context.clone();
        let what = format!(
            "sink `{sink}`: {} records of checkpoint {} (instance {})",
            committable.records, committable.checkpoint, committable.instance
        );
        let chunks = payload.chunks.clone().into_iter();
        let rows = StagedRows { storage, chunks, bytes: Vec::new(), at: 0, left: 0, what, row: PhantomData };
        let (instance, checkpoint) = (committable.instance, committable.checkpoint);
        let token = Token { job, sink, lineage, generation, instance, checkpoint };
        self.target.apply(connection, &token, rows).await.map(|_| ())
    }
}

impl<T: StagedTarget> Committer for StagedCommitter<T> {
    async fn check(&mut self) -> Result<()> {
        let mut connection = self.target.connect(&self.context).await?;
        self.target.check(&mut connection, &self.context).await
    }

    async fn recover(&mut self, listed: &[Committable]) -> Result<Vec<String>> {
        let sink = self.context.sink.clone();
        let mut keep = BTreeSet::new();
        for committable in listed {
            keep.extend(Payload::of(committable, &sink)?.chunks.into_iter().map(|chunk| chunk.name));
        }
        let mut connection = self.target.connect(&self.context).await?;
        self.target.fence(&mut connection, &self.context).await?;
        check_known(&*self.target, &mut connection, &self.context).await?;
        self.connection = Some(connection);
        let (storage, generation) = (Arc::clone(&self.context.storage), self.context.generation);
        blocking(move || {
            // Blobs of a higher generation stay: then this start is the one that is late.
            let orphan = |name: &String| !keep.contains(name) && generation_of(name) <= Some(generation);
            let remove = |name: String| {
                storage.delete(&name)?;
                let failed = |error| Error::external(format!("{name} cannot be removed")).caused_by(error);
                crate::crash::point("recovery.some_orphans_removed").map_err(failed)?;
                Ok(format!("sink `{sink}`: removed {name}, staged for a checkpoint that was never decided"))
            };
            storage.list(&folder(&sink))?.into_iter().filter(orphan).map(remove).collect()
        })
        .await?
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        for committable in committables {
            let payload = Payload::of(committable, &self.context.sink).map_err(CommitError::Refused)?;
            let first = payload.chunks.first().map(|chunk| chunk.name.clone()).unwrap_or_default();
            self.check_order(committable, &first)?;
            if let Err(error) = self.commit_one(committable, &payload).await {
                self.connection = None;
                return Err(error);
            }
            crate::crash::point("commit.some_done")
                .map_err(|e| CommitError::Retry(Error::external("a commit failed").caused_by(e)))?;
            let done = self.done.entry(committable.instance).or_default();
            done.insert(committable.checkpoint, first);
            if done.len() > REMEMBERED.max(committables.len()) {
                done.pop_first();
            }
            let storage = Arc::clone(&self.context.storage);
            let delete = move || payload.chunks.iter().try_for_each(|chunk| storage.delete(&chunk.name));
            if let Ok(Err(error)) = blocking(delete).await {
                tracing::warn!(sink = self.context.sink, %error, "committed output stays in the checkpoint storage");
            }
        }
        Ok(())
    }
}

/// Refuses a target that has seen a checkpoint of which the log knows nothing: its token would make what
/// comes next under that id look committed.
async fn check_known<T: StagedTarget>(
    target: &T,
    connection: &mut T::Connection,
    context: &SinkContext,
) -> Result<()> {
    let newest = match target.newest(connection, context).await {
        Ok(newest) => newest,
        Err(CommitError::Retry(error) | CommitError::Refused(error)) => return Err(error),
    };
    match newest.filter(|newest| *newest >= context.next_checkpoint) {
        Some(lost) => Err(Error::job(lost_checkpoint(&context.sink, lost))),
        None => Ok(()),
    }
}

/// What to say about a target that holds output of a checkpoint that the log does not know.
#[must_use]
pub fn lost_checkpoint(sink: &str, lost: CheckpointId) -> String {
    format!(
        "sink `{sink}` holds output of checkpoint {lost}, of which the checkpoint directory knows nothing: its newest \
         records are lost. Continuing would publish that output again. Restore the checkpoint directory from a backup \
         that has checkpoint {lost}, or start over with --from none and another output"
    )
}

fn folder(sink: &str) -> String {
    format!("staged/{sink}/")
}

fn generation_of(name: &str) -> Option<Generation> {
    name.rsplit_once("-g")?.1.parse().ok().map(Generation)
}
