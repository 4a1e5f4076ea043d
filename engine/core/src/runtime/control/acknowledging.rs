//! Acknowledging: one task a source tells the outside what it may forget, with bounded retries.

use super::committing::blame;
use super::processes::Processes;
use crate::context::SourceContext;
use crate::error::{Error, Result};
use crate::runtime::process::shared::Shared;
use crate::runtime::process::wall_clock;
use crate::sink::CommitError;
use crate::source::{Acknowledging, Source};
use serde_json::Value;
use staunch_checkpoint::{Blame, CheckpointId, Event};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// First wait before it is tried again; doubled each time up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What is to be acknowledged: up to which checkpoint, and splits with their positions.
pub(crate) type Due = (CheckpointId, Vec<(String, Value)>);

/// An acknowledger, whatever its types.
pub(crate) trait AnyAcknowledger: Send {
    fn acknowledge<'a>(&'a mut self, upto: &'a [(String, Value)]) -> BoxFuture<'a, Result<(), CommitError>>;
}

impl<P: serde::de::DeserializeOwned + Send + Sync + 'static> AnyAcknowledger for Acknowledging<P> {
    fn acknowledge<'a>(&'a mut self, upto: &'a [(String, Value)]) -> BoxFuture<'a, Result<(), CommitError>> {
        Box::pin(async move {
            let typed = |(id, position): &(String, Value)| {
                let position: P = serde_json::from_value(position.clone()).map_err(|e| {
                    let what = format!("split {id}: its position in the checkpoint is of another shape");
                    CommitError::Refused(Error::job(what).caused_by(e))
                })?;
                Ok((id.clone(), position))
            };
            let upto = upto.iter().map(typed).collect::<Result<Vec<_>, CommitError>>()?;
            Acknowledging::acknowledge(self, &upto).await
        })
    }
}

/// Opens the acknowledger of a source, if it has one.
pub(crate) fn open<S: Source>(
    source: Arc<S>,
    context: SourceContext,
) -> BoxFuture<'static, Result<Option<Box<dyn AnyAcknowledger>>>> {
    Box::pin(async move {
        let acknowledger = source.acknowledger(&context).await?;
        Ok(acknowledger.map(|one| Box::new(one) as Box<dyn AnyAcknowledger>))
    })
}

/// The task of one source's acknowledger.
pub(crate) struct AcknowledgeTask {
    pub(crate) source: String,
    pub(crate) acknowledger: Box<dyn AnyAcknowledger>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) processes: Arc<Processes>,
}

impl AcknowledgeTask {
    /// Acknowledges what comes, in order, until nobody sends any more.
    pub(crate) async fn run(mut self, mut due: UnboundedReceiver<Due>) {
        while let Some((checkpoint, upto)) = due.recv().await {
            let event = match self.acknowledge(&upto).await {
                Ok(()) => Event::Acknowledged { source: self.source.clone() },
                Err((reason, blame)) => {
                    Event::AcknowledgeFailed { source: self.source.clone(), checkpoint, reason, blame }
                }
            };
            self.processes.tell(event);
        }
    }

    async fn acknowledge(&mut self, upto: &[(String, Value)]) -> Result<(), (String, Blame)> {
        let limit = self.shared.config.commit_timeout;
        let deadline = wall_clock::now() + limit;
        let mut wait = FIRST_WAIT;
        loop {
            let left = deadline.saturating_duration_since(wall_clock::now());
            match tokio::time::timeout(left, self.acknowledger.acknowledge(upto)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(CommitError::Refused(error))) => return Err((error.to_string(), blame(&error, true))),
                Ok(Err(CommitError::Retry(error))) if self.shared.is_stopping() => {
                    let reason = format!("{error}; not tried again, because the job ends");
                    return Err((reason, blame(&error, false)));
                }
                Ok(Err(CommitError::Retry(error))) if wall_clock::now() + wait < deadline => {
                    tracing::warn!(source = self.source, %error, ?wait, "acknowledging failed, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                Ok(Err(CommitError::Retry(error))) => {
                    let reason = format!("{error}; gave up after {limit:?} (--commit-timeout)");
                    return Err((reason, blame(&error, false)));
                }
                Err(_) => {
                    return Err((format!("no answer within {limit:?} (--commit-timeout)"), Blame::Outside));
                }
            }
        }
    }
}
