//! Writer and committer of a sink, by what it promises.

use super::at_least_once;
use super::cluster::{Cluster, Gate};
use super::form::Maker;
use super::message::Outgoing;
use super::staged::Target;
use staunch_core::sink::{CommitError, Committer, Prepared, Sink, SinkContext, SinkWriter};
use staunch_core::staged::{Staged, StagedCommitter, StagedWriter};
use staunch_core::{CheckpointId, Committable, Result};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

/// What a sink promises, and how it keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Promise {
    Staged,
    AtLeastOnce,
}

/// Makes messages of records, and hands them on.
pub struct Writing<M, T> {
    maker: M,
    gate: Gate,
    messages: Messages,
    record: PhantomData<fn(T)>,
}

enum Messages {
    Staged(Box<StagedWriter<Target>>),
    AtLeastOnce(at_least_once::Writer),
}

impl<M, T> fmt::Debug for Writing<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writing").finish_non_exhaustive()
    }
}

impl<T: Send + 'static, M: Maker<T>> Writing<M, T> {
    pub(super) async fn open(
        target: &Target,
        promise: Promise,
        mut maker: M,
        context: &SinkContext,
    ) -> Result<Self> {
        maker.open().await?;
        let cluster = Cluster::shared(&target.settings, context).await?;
        let gate = Gate::new(cluster, &target.topic, target.most_bytes).await?;
        let messages = match promise {
            Promise::Staged => Messages::Staged(Box::new(Staged::new(target.clone()).writer(context).await?)),
            Promise::AtLeastOnce => Messages::AtLeastOnce(at_least_once::Writer::open(target, context)?),
        };
        Ok(Self { maker, gate, messages, record: PhantomData })
    }
}

impl<T: Send + 'static, M: Maker<T>> SinkWriter for Writing<M, T> {
    type Record = T;

    async fn write(&mut self, records: Vec<T>) -> Result<()> {
        let mut messages = Vec::with_capacity(records.len());
        for record in records {
            let mut message = Outgoing::default();
            self.maker.make(record, &mut message)?;
            self.gate.check(&message).await?;
            messages.push(message);
        }
        match &mut self.messages {
            Messages::Staged(writer) => writer.write(messages).await,
            Messages::AtLeastOnce(writer) => writer.write(messages).await,
        }
    }

    fn cut(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        type Cut = Pin<Box<dyn Future<Output = Result<Vec<Prepared>>> + Send>>;
        Ok(match &mut self.messages {
            Messages::Staged(writer) => Box::pin(writer.cut(checkpoint)?) as Cut,
            Messages::AtLeastOnce(writer) => Box::pin(writer.cut()),
        })
    }
}

/// Commits, if there is something to commit.
#[derive(Debug)]
pub struct Halves(Commits);

#[derive(Debug)]
enum Commits {
    Staged(Box<StagedCommitter<Target>>),
    AtLeastOnce(at_least_once::Nothing),
}

impl Halves {
    pub(super) async fn open(target: &Target, promise: Promise, context: &SinkContext) -> Result<Self> {
        Ok(Self(match promise {
            Promise::Staged => {
                Commits::Staged(Box::new(Staged::new(target.clone()).committer(context).await?))
            }
            Promise::AtLeastOnce => Commits::AtLeastOnce(at_least_once::Nothing::new(&context.sink)),
        }))
    }
}

impl Committer for Halves {
    async fn check(&mut self) -> Result<()> {
        match &mut self.0 {
            Commits::Staged(committer) => committer.check().await,
            Commits::AtLeastOnce(_) => Ok(()),
        }
    }

    async fn recover(&mut self, listed: &[Committable]) -> Result<Vec<String>> {
        match &mut self.0 {
            Commits::Staged(committer) => committer.recover(listed).await,
            Commits::AtLeastOnce(nothing) => nothing.refuse_any(listed).map(|()| Vec::new()),
        }
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        match &mut self.0 {
            Commits::Staged(committer) => committer.commit(committables).await,
            Commits::AtLeastOnce(nothing) => nothing.refuse_any(committables).map_err(CommitError::Refused),
        }
    }
}
