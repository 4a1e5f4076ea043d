//! Phase two: one task a sink publishes what was decided, with bounded retries.

use super::message::Message;
use super::processes::Processes;
use crate::crash;
use crate::error::{Error, Result};
use crate::runtime::process::shared::Shared;
use crate::runtime::process::wall_clock;
use crate::sink::{CommitError, Committer, Sink, SinkContext};
use staunch_checkpoint::{CheckpointId, Committable, Event};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// First wait before a commit is tried again; doubled each time up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A committer of whatever type.
pub(crate) trait AnyCommitter: Send {
    fn check(&mut self) -> BoxFuture<'_, Result<()>>;
    fn recover<'a>(&'a mut self, listed: &'a [Committable]) -> BoxFuture<'a, Result<Vec<String>>>;
    fn commit<'a>(&'a mut self, due: &'a [Committable]) -> BoxFuture<'a, Result<(), CommitError>>;
}

impl<C: Committer> AnyCommitter for C {
    fn check(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(Committer::check(self))
    }

    fn recover<'a>(&'a mut self, listed: &'a [Committable]) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(Committer::recover(self, listed))
    }

    fn commit<'a>(&'a mut self, due: &'a [Committable]) -> BoxFuture<'a, Result<(), CommitError>> {
        Box::pin(Committer::commit(self, due))
    }
}

type Open = Box<dyn Fn(SinkContext) -> BoxFuture<'static, Result<Box<dyn AnyCommitter>>> + Send + Sync>;

/// Opens the committer of one sink, whatever its types.
pub(crate) struct CommitterFactory {
    pub(crate) name: String,
    open: Open,
}

impl CommitterFactory {
    pub(crate) fn new<S: Sink>(name: &str, sink: Arc<S>) -> Self {
        let open = move |context: SinkContext| -> BoxFuture<'static, Result<Box<dyn AnyCommitter>>> {
            let sink = Arc::clone(&sink);
            Box::pin(async move {
                let committer = sink.committer(&context).await?;
                Ok(Box::new(committer) as Box<dyn AnyCommitter>)
            })
        };
        Self { name: name.to_owned(), open: Box::new(open) }
    }

    /// Whether the target is ours to write.
    pub(crate) async fn check(&self, context: SinkContext) -> Result<()> {
        let named = |e: Error| e.in_step(&self.name);
        (self.open)(context).await.map_err(named)?.check().await.map_err(named)
    }

    /// Opens the committer, fences, and removes what is ours and not listed.
    pub(crate) async fn recover(
        &self,
        context: SinkContext,
        listed: &[Committable],
    ) -> Result<Box<dyn AnyCommitter>> {
        let named = |e: Error| e.in_step(&self.name);
        let mut committer = (self.open)(context).await.map_err(named)?;
        for line in committer.recover(listed).await.map_err(named)? {
            tracing::info!(sink = self.name, "{line}");
        }
        Ok(committer)
    }
}

/// A call that has so many committables gets no further checkpoint. After an outage there may be many; each call
/// has the whole time limit.
const AT_ONCE: usize = 64;

/// Cuts what is due into calls, never within a checkpoint: a target may take note of a checkpoint as a whole.
fn calls(due: &[Committable]) -> impl Iterator<Item = &[Committable]> {
    let mut rest = due;
    std::iter::from_fn(move || {
        let last = rest.get(AT_ONCE - 1).or(rest.last())?.checkpoint;
        let end = rest.iter().rposition(|one| one.checkpoint == last)? + 1;
        let (call, later) = rest.split_at(end);
        rest = later;
        Some(call)
    })
}

/// The task of one sink's committer.
pub(crate) struct CommitTask {
    pub(crate) sink: String,
    pub(crate) committer: Box<dyn AnyCommitter>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) processes: Arc<Processes>,
}

impl CommitTask {
    /// Commits what comes, in order, until nobody sends any more.
    pub(crate) async fn run(mut self, mut due: mpsc::UnboundedReceiver<Vec<Committable>>) {
        while let Some(committables) = due.recv().await {
            crash::pass("commit.due");
            let began = Instant::now();
            let event = self.commit_all(&committables).await;
            let result = if matches!(event, Event::Committed { .. }) { "committed" } else { "refused" };
            self.shared.metrics.commits.with_label_values(&[&self.sink, result]).inc();
            let took = began.elapsed().as_secs_f64();
            self.processes.queue(Message::CommitTook(took));
            self.processes.tell(event);
            crash::pass("commit.done");
        }
    }

    async fn commit_all(&mut self, committables: &[Committable]) -> Event {
        let upto = committables.iter().map(|c| c.checkpoint).max().unwrap_or(CheckpointId(0));
        for some in calls(committables) {
            if let Err(failed) = self.commit(some).await {
                return failed;
            }
        }
        Event::Committed { sink: self.sink.clone(), upto }
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), Event> {
        let first = committables.first().map_or(CheckpointId(0), |c| c.checkpoint);
        let deadline = wall_clock::now() + self.shared.config.commit_timeout;
        let mut wait = FIRST_WAIT;
        loop {
            let left = deadline.saturating_duration_since(wall_clock::now());
            let committed = tokio::time::timeout(left, self.committer.commit(committables)).await;
            let committed = match crash::point("commit.at_target") {
                Ok(()) => committed,
                Err(lost) => {
                    Ok(Err(CommitError::Retry(Error::external("the answer is lost").caused_by(lost))))
                }
            };
            let reason = match committed {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(CommitError::Refused(error))) => error.to_string(),
                Ok(Err(CommitError::Retry(error))) if self.shared.is_stopping() => {
                    format!("{error}; not tried again, because the job ends")
                }
                Ok(Err(CommitError::Retry(error))) => {
                    // No further try without time for it: that would hide why this one failed.
                    if wall_clock::now() + wait < deadline {
                        tracing::warn!(sink = self.sink, %error, ?wait, "commit failed, trying again");
                        tokio::time::sleep(wait).await;
                        crash::pass("commit.again");
                        wait = (wait * 2).min(LONGEST_WAIT);
                        continue;
                    }
                    format!(
                        "{error}; gave up after {:?} (--commit-timeout)",
                        self.shared.config.commit_timeout
                    )
                }
                Err(_) => {
                    format!("no answer within {:?} (--commit-timeout)", self.shared.config.commit_timeout)
                }
            };
            return Err(Event::CommitFailed { sink: self.sink.clone(), checkpoint: first, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use staunch_checkpoint::Generation;

    fn due(checkpoints: &[(u32, u32)]) -> Vec<Committable> {
        let pieces = |&(checkpoint, instances): &(u32, u32)| {
            (0..instances).map(move |instance| Committable {
                checkpoint: CheckpointId(checkpoint),
                instance,
                generation: Generation(1),
                records: 1,
                payload: serde_json::Value::Null,
            })
        };
        checkpoints.iter().flat_map(pieces).collect()
    }

    #[test]
    fn a_call_has_whole_checkpoints_and_few_of_them() {
        let lengths = |checkpoints| calls(&due(checkpoints)).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[]), Vec::<usize>::new());
        assert_eq!(lengths(&[(1, 1)]), [1]);
        assert_eq!(lengths(&[(1, 64), (2, 1)]), [64, 1]);
        assert_eq!(lengths(&[(1, 200), (2, 3)]), [200, 3]);
        assert_eq!(lengths(&[(1, 40), (2, 40), (3, 40)]), [80, 40]);
        let all = due(&[(1, 40), (2, 3), (7, 100), (9, 1)]);
        assert_eq!(calls(&all).flatten().cloned().collect::<Vec<_>>(), all);
    }
}
