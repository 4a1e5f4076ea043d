//! The target of the staged strategy: messages and a token in one transaction.

use super::cluster::{Cluster, MOST_MESSAGE_BYTES, limit};
use super::connection::Connection;
use super::message::Outgoing;
use super::tokens::Tokens;
use crate::settings::Settings;
use rdkafka::ClientConfig;
use staunch_core::background::blocking;
use staunch_core::error::Kind;
use staunch_core::sink::{CommitError, SinkContext};
use staunch_core::staged::{Applied, StagedRows, StagedTarget, Token};
use staunch_core::{CheckpointId, Error, Result};

/// Kilobytes that wait in the client library to be sent.
const QUEUE_KB: &str = "65536";
/// Bytes of a batch that the library makes unless it is told otherwise.
const BATCH_BYTES: usize = 1_000_000;

/// Where a sink writes.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) settings: Settings,
    pub(super) topic: String,
    pub(super) tokens: Option<String>,
    pub(super) most_bytes: Option<usize>,
}

impl Target {
    pub(super) fn new(settings: Settings, topic: String) -> Self {
        Self { settings, topic, tokens: None, most_bytes: None }
    }

    /// The topic for tokens, which is the transactional id too: not made of anything that another start has differently,
    /// because a start fences the ones before by it.
    pub(super) fn tokens_of(&self, context: &SinkContext) -> String {
        let ours = || format!("staunch-{}-{}-commits", context.job, context.sink);
        self.tokens.clone().unwrap_or_else(ours)
    }

    /// The settings of a producer, with batches that the topic takes.
    pub(super) fn producer(
        &self,
        name: &str,
        more: &[(&str, &str)],
        most_batch_bytes: Option<usize>,
    ) -> Result<ClientConfig> {
        let batch = most_batch_bytes.unwrap_or(BATCH_BYTES).min(BATCH_BYTES).to_string();
        let asked = self.most_bytes.or(most_batch_bytes).unwrap_or(MOST_MESSAGE_BYTES);
        let message = asked.max(BATCH_BYTES).saturating_add(1024).to_string();
        let mut all = vec![
            ("partitioner", "murmur2_random"),
            ("linger.ms", "5"),
            ("queue.buffering.max.kbytes", QUEUE_KB),
            ("batch.size", &batch),
            ("message.max.bytes", &message),
        ];
        all.extend(more);
        let mut config = self.settings.client(name, &all)?;
        // Whether a connection broke is only said in its log.
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Info);
        Ok(config)
    }
}

/// What is open for commits; nothing while a call is under way, and after one that was given up.
#[derive(Debug)]
pub struct Open(Option<Box<Connection>>);

impl Open {
    /// Calls block, so they go to another thread.
    async fn call<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> R + Send + 'static,
    ) -> Result<R> {
        let Some(mut connection) = self.0.take() else {
            return Err(Error::external("a call before this one was given up"));
        };
        let (connection, done) = blocking(move || {
            let done = work(&mut connection);
            (connection, done)
        })
        .await?;
        self.0 = Some(connection);
        Ok(done)
    }
}

/// An error of a commit: what is wrong with the job or its target is not mended by asking again.
pub(super) fn commit_error(error: Error) -> CommitError {
    match error.kind() {
        Kind::Job => CommitError::Refused(error),
        Kind::External | Kind::Internal => CommitError::Retry(error),
    }
}

impl StagedTarget for Target {
    type Record = Outgoing;
    type Row = Outgoing;
    type Connection = Open;

    fn row(&self, message: Outgoing) -> Result<Outgoing> {
        Ok(message)
    }

    async fn connect(&self, context: &SinkContext) -> Result<Open> {
        let cluster = Cluster::shared(&self.settings, context).await?;
        let takes = cluster.takes(&self.topic).await?;
        let tokens = Tokens::new(&cluster, self.tokens_of(context), limit(context))?;
        let id = tokens.topic.clone();
        let config = self.producer(&id, &[("transactional.id", &id)], takes.most_batch_bytes)?;
        let connection = Connection::new(config, &self.settings, &self.topic, tokens, context);
        Ok(Open(Some(Box::new(connection))))
    }

    async fn check(&self, open: &mut Open, context: &SinkContext) -> Result<()> {
        let cluster = Cluster::shared(&self.settings, context).await?;
        let exist = cluster.partitions(&self.tokens_of(context)).await?.is_some();
        let context = context.clone();
        open.call(move |connection| connection.check(&context, exist)).await?
    }

    async fn fence(&self, open: &mut Open, context: &SinkContext) -> Result<()> {
        let cluster = Cluster::shared(&self.settings, context).await?;
        // Not before it is known that it is ours to make.
        self.check(open, context).await?;
        Tokens::new(&cluster, self.tokens_of(context), limit(context))?.provide().await?;
        let context = context.clone();
        open.call(move |connection| connection.fence(&context)).await?
    }

    async fn committed(
        &self,
        open: &mut Open,
        context: &SinkContext,
        instance: u32,
    ) -> Result<Option<CheckpointId>, CommitError> {
        let context = context.clone();
        let held = open.call(move |connection| {
            let held = connection.held(&context).map_err(commit_error)?;
            Ok(held.newest.get(&instance).copied())
        });
        held.await.map_err(CommitError::Retry)?
    }

    async fn newest(
        &self,
        open: &mut Open,
        context: &SinkContext,
    ) -> Result<Option<CheckpointId>, CommitError> {
        let context = context.clone();
        let held = open.call(move |connection| {
            let held = connection.held(&context).map_err(commit_error)?;
            Ok(held.newest.values().copied().max())
        });
        held.await.map_err(CommitError::Retry)?
    }

    async fn apply(
        &self,
        open: &mut Open,
        token: &Token,
        rows: StagedRows<Outgoing>,
    ) -> Result<Applied, CommitError> {
        let token = token.clone();
        open.call(move |connection| connection.apply(&token, rows)).await.map_err(CommitError::Retry)?
    }
}
