//! The direct strategy: rows go into an open transaction while the epoch runs, PREPARE TRANSACTION makes it durable and
//! invisible at the vote, COMMIT PREPARED publishes it after the decision.
//!
//! Only for inserts. A row that is written by key would wait for the transaction of the epoch before, which is committed
//! after a decision that may need this very row.
//!
//! Who may prepare: each transaction begins with a look at the mark of the start ([`staunch_core::owner`]). A start writes
//! its mark, then ends the sessions of older starts and waits until they are gone, and then rolls back what they left and
//! its checkpoint does not list. So nothing of an older start can be prepared after that: a session that was opened before
//! the mark is ended, one that is opened after it sees it.
//!
//! Whether a commit happened: its name is not among the prepared ones any more, and its row ([`done`]) is there. Without
//! the row somebody else has rolled it back, and its records are lost, which is said.

mod commit;
mod done;
pub(crate) mod gid;

pub use commit::PreparedCommitter;

use crate::address::Address;
use crate::load::{Failed, Load, Shape};
use crate::session::{self, Abandoned, Means, Session};
use crate::target::Target;
use crate::tokens::{Tokens, Wrong};
use crate::{Rows, address};
use done::Done;
use serde::{Deserialize, Serialize};
use staunch_core::owner::Owner;
use staunch_core::place::Place;
use staunch_core::sink::{OPEN_CUTS, Prepared, Sink, SinkContext, SinkWriter};
use staunch_core::staged::StagedTarget;
use staunch_core::{CheckpointId, Error, Result, crash};
use std::sync::{Arc, Mutex, PoisonError};

/// Prepared transactions that each instance may have: those of its open cuts, and one that is being committed.
const OF_EACH_INSTANCE: usize = OPEN_CUTS + 1;

/// A table of PostgreSQL that is written to by prepared transactions; made by [`Table::prepared`](crate::Table::prepared).
#[derive(Clone, Debug)]
pub struct PreparedTable<T> {
    target: Target<T>,
}

impl<T> PreparedTable<T> {
    pub(crate) fn new(target: Target<T>) -> Self {
        Self { target }
    }
}

/// What a checkpoint keeps of a prepared transaction.
#[derive(Serialize, Deserialize)]
struct Payload {
    prepared_transaction: String,
}

impl<T: Serialize + Send + 'static> Sink for PreparedTable<T> {
    type Record = T;
    type Writer = PreparedWriter<T>;
    type Committer = PreparedCommitter<T>;

    async fn writer(&self, context: &SinkContext) -> Result<Self::Writer> {
        let target = self.target.clone();
        target.before_rows(context).await?;
        let shape = target.shape()?;
        Ok(PreparedWriter {
            tokens: Tokens::new(&shape.names, target.place()),
            done: Done::new(&shape.names),
            context: context.clone(),
            open: None,
            idle: Idle::default(),
            count: 0,
            shape,
            target,
        })
    }

    async fn committer(&self, context: &SinkContext) -> Result<Self::Committer> {
        Ok(PreparedCommitter::new(self.target.clone(), context.clone()))
    }

    fn commit_lanes(&self) -> usize {
        self.target.lanes()
    }

    fn places(&self) -> Vec<Place> {
        address::places(&self.target.url, &self.target.table)
    }
}

/// Sessions of one instance that no transaction is open on.
#[derive(Clone, Default, Debug)]
struct Idle(Arc<Mutex<Vec<Session>>>);

impl Idle {
    fn take(&self) -> Option<Session> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|session| !session.client.is_closed());
        idle.pop()
    }

    fn give_back(&self, session: Session) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

/// Writes the rows of one instance into a transaction.
pub struct PreparedWriter<T> {
    target: Target<T>,
    shape: Arc<Shape>,
    tokens: Tokens,
    done: Done,
    context: SinkContext,
    open: Option<Open>,
    idle: Idle,
    /// Transactions ever begun by this writer: makes their names unique within the start.
    count: u64,
}

impl<T> std::fmt::Debug for PreparedWriter<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedWriter").field("target", &self.target).finish_non_exhaustive()
    }
}

/// The transaction of an epoch.
struct Open {
    session: Session,
    load: Load,
    rows: u64,
}

impl<T: Serialize + Send + 'static> PreparedWriter<T> {
    async fn begin(&mut self) -> Result<Open> {
        let (target, context) = (&self.target, &self.context);
        let mut session = match self.idle.take() {
            Some(session) => session,
            None => {
                let address = Address::parse(&target.url)?;
                session::connect(&address, context, &writers(&target.table), &Abandoned::default()).await?
            }
        };
        session.busy = true;
        let begin = session.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await;
        begin.map_err(|e| written(&target.place(), &context.sink, &e))?;
        let owned = self.tokens.check_owner(&session.client, &Owner::from(context), "").await;
        owned.map_err(|wrong| match wrong {
            Wrong::Server(e) => written(&target.place(), &context.sink, &e),
            Wrong::Ours(error) => error,
        })?;
        Ok(Open { session, load: Load::new(), rows: 0 })
    }
}

/// What sessions of writers are known by: a start ends those of older ones, and not those of their committers, which are
/// to hear that they were replaced.
fn writers(table: &str) -> String {
    format!("{table} rows")
}

/// What to say if the rows of an epoch cannot be written.
fn written(place: &str, sink: &str, error: &tokio_postgres::Error) -> Error {
    let text = format!(
        "{place} does not take rows of sink `{sink}`; nothing of the epoch is written, and it comes again"
    );
    match session::means(error) {
        Means::No => Error::job(text),
        Means::Again => Error::external(text),
    }
    .caused_by(session::said(error))
}

fn not_loaded(place: &str, sink: &str, failed: Failed) -> Error {
    match failed {
        Failed::Server(error) => written(place, sink, &error),
        Failed::Changed(why) => Error::job(format!("{place}: {why}")),
    }
}

impl<T: Serialize + Send + 'static> SinkWriter for PreparedWriter<T> {
    type Record = T;

    async fn write(&mut self, records: Vec<T>) -> Result<()> {
        for record in records {
            let row = self.target.make(record)?;
            let open = match &mut self.open {
                Some(open) => open,
                None => {
                    let begun = self.begin().await?;
                    self.open.insert(begun)
                }
            };
            let pushed = open.load.push(&open.session.client, &self.shape, row).await;
            pushed.map_err(|e| not_loaded(&self.target.place(), &self.context.sink, e))?;
            open.rows += 1;
        }
        Ok(())
    }

    fn cut(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        let open = self.open.take();
        let name = gid::name(&self.context, &self.target.table, self.count);
        self.count += 1;
        let (shape, done, context) = (Arc::clone(&self.shape), self.done.clone(), self.context.clone());
        let (idle, place) = (self.idle.clone(), self.target.place());
        Ok(async move {
            let Some(Open { mut session, mut load, rows }) = open else { return Ok(Vec::new()) };
            let client = &session.client;
            let sink = &context.sink;
            load.finish(client, &shape).await.map_err(|e| not_loaded(&place, sink, e))?;
            let stored = done.store(client, &Owner::from(&context), context.instance, checkpoint).await;
            stored.map_err(|e| written(&place, sink, &e))?;
            passed("postgres/prepare_due", context.instance)?;
            let prepare = client.batch_execute(&format!("PREPARE TRANSACTION {}", gid::literal(&name))).await;
            prepare.map_err(|e| written(&place, sink, &e))?;
            passed("postgres/prepared", context.instance)?;
            session.busy = false;
            idle.give_back(session);
            let payload = serde_json::to_value(Payload { prepared_transaction: name })
                .map_err(|e| Error::internal("a prepared transaction has no JSON form").caused_by(e))?;
            Ok(vec![Prepared { records: rows, payload }])
        })
    }
}

/// Passes a crash point of an instance.
fn passed(point: &'static str, instance: u32) -> Result<()> {
    crash::point_of(point, instance)
        .map_err(|e| Error::external("a transaction was not prepared").caused_by(e))
}

/// Only what is inserted can be prepared.
pub(super) fn check_mode(target: &Target<impl Send + 'static, Rows>) -> Result<()> {
    if target.key.is_empty() {
        return Ok(());
    }
    Err(Error::job(format!(
        "{}: .prepared() is for inserts: a row of the same key would wait for the transaction of the epoch before, which may \
         wait for this one. Leave .prepared() or .upsert(..) out",
        target.place()
    )))
}
