//! Sinks that misbehave on demand, around the reference sink.

use staunch::core::sink::{CommitError, Committer, Prepared, Sink, SinkContext, SinkWriter};
use staunch::core::{CheckpointId, Committable};
use staunch::memory::{Collected, collect};
use staunch::prelude::*;
use std::sync::{Arc, Mutex};

/// Where a sink is when it asks what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    OpenWriter,
    OpenCommitter,
    Recover,
    Write,
    Prepare,
    /// Nothing of this commit is done.
    Commit,
    /// All of this commit is done, and the answer is on its way.
    Committed,
}

/// What it then does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    Go,
    Wait(Duration),
    Hang,
    Fail,
    Panic,
    /// Only for commits; elsewhere it fails.
    Refuse,
}

type Script = Arc<dyn Fn(Moment) -> Deed + Send + Sync>;

/// A memory sink that does at each moment what the script says.
#[derive(Clone)]
pub struct Faulty<T> {
    pub inner: Collected<T>,
    script: Arc<Mutex<Script>>,
}

pub fn faulty<T: Clone + Send + 'static>(
    script: impl Fn(Moment) -> Deed + Send + Sync + 'static,
) -> Faulty<T> {
    Faulty { inner: collect(), script: Arc::new(Mutex::new(Arc::new(script))) }
}

impl<T: Clone + Send + 'static> Faulty<T> {
    pub fn replace(&self, script: impl Fn(Moment) -> Deed + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub fn behave(&self) {
        self.replace(|_| Deed::Go);
    }

    pub fn committed(&self) -> Vec<T> {
        self.inner.committed()
    }

    async fn at(&self, moment: Moment) -> Result<(), CommitError> {
        let script = Arc::clone(&*self.script.lock().unwrap());
        match script(moment) {
            Deed::Go => Ok(()),
            Deed::Wait(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Deed::Hang => std::future::pending().await,
            Deed::Fail => Err(CommitError::Retry(Error::external(format!("{moment:?} failed")))),
            Deed::Panic => panic!("{moment:?} panics"),
            Deed::Refuse => Err(CommitError::Refused(Error::external(format!("{moment:?} refused")))),
        }
    }
}

fn plain(error: CommitError) -> Error {
    match error {
        CommitError::Retry(error) | CommitError::Refused(error) => error,
    }
}

pub struct FaultyWriter<T: Clone + Send + 'static> {
    sink: Faulty<T>,
    inner: <Collected<T> as Sink>::Writer,
}

pub struct FaultyCommitter<T: Clone + Send + 'static> {
    sink: Faulty<T>,
    inner: <Collected<T> as Sink>::Committer,
}

impl<T: Clone + Send + 'static> Sink for Faulty<T> {
    type Record = T;
    type Writer = FaultyWriter<T>;
    type Committer = FaultyCommitter<T>;

    async fn writer(&self, context: &SinkContext) -> Result<FaultyWriter<T>> {
        self.at(Moment::OpenWriter).await.map_err(plain)?;
        Ok(FaultyWriter { sink: self.clone(), inner: self.inner.writer(context).await? })
    }

    async fn committer(&self, context: &SinkContext) -> Result<FaultyCommitter<T>> {
        self.at(Moment::OpenCommitter).await.map_err(plain)?;
        Ok(FaultyCommitter { sink: self.clone(), inner: self.inner.committer(context).await? })
    }
}

impl<T: Clone + Send + 'static> SinkWriter for FaultyWriter<T> {
    type Record = T;

    async fn write(&mut self, records: Vec<T>) -> Result<()> {
        self.sink.at(Moment::Write).await.map_err(plain)?;
        self.inner.write(records).await
    }

    fn cut(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        let (sink, inner) = (self.sink.clone(), self.inner.cut(checkpoint)?);
        Ok(async move {
            sink.at(Moment::Prepare).await.map_err(plain)?;
            inner.await
        })
    }
}

impl<T: Clone + Send + 'static> Committer for FaultyCommitter<T> {
    async fn recover(&mut self, listed: &[Committable]) -> Result<Vec<String>> {
        self.sink.at(Moment::Recover).await.map_err(plain)?;
        self.inner.recover(listed).await
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        self.sink.at(Moment::Commit).await?;
        self.inner.commit(committables).await?;
        self.sink.at(Moment::Committed).await
    }
}
