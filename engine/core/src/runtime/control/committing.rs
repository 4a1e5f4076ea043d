//! Phase two: one task a sink has what was decided published, with bounded retries.
//!
//! Committers are on threads of their own, one for each lane of a sink; the task hands them what is due and waits for the
//! answers. So a committer that blocks holds up nobody else, and its limit holds for it too.

use super::message::Message;
use super::processes::Processes;
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::runtime::process::shared::Shared;
use crate::runtime::process::wall_clock;
use crate::sink::{CommitError, Committer, Sink, SinkContext};
use staunch_checkpoint::{Blame, CheckpointId, Committable, Event};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// First wait before a commit is tried again; doubled each time up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Committers of one sink, each with a thread and most with a connection.
const MOST_LANES: usize = 64;

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
    lanes: usize,
}

impl CommitterFactory {
    pub(crate) fn new<S: Sink>(name: &str, sink: Arc<S>) -> Self {
        let lanes = sink.commit_lanes().clamp(1, MOST_LANES);
        let open = move |context: SinkContext| -> BoxFuture<'static, Result<Box<dyn AnyCommitter>>> {
            let sink = Arc::clone(&sink);
            Box::pin(async move {
                let committer = sink.committer(&context).await?;
                Ok(Box::new(committer) as Box<dyn AnyCommitter>)
            })
        };
        Self { name: name.to_owned(), open: Box::new(open), lanes }
    }

    /// Whether the target is ours to write.
    pub(crate) fn check(&self, context: SinkContext) -> BoxFuture<'static, Result<()>> {
        let opening = (self.open)(context);
        Box::pin(async move { opening.await?.check().await })
    }

    /// Opens the committer, fences, and removes what is ours and not listed.
    pub(crate) fn recover(
        &self,
        context: SinkContext,
        listed: Vec<Committable>,
    ) -> BoxFuture<'static, Result<Box<dyn AnyCommitter>>> {
        let opening = (self.open)(context);
        let sink = self.name.clone();
        Box::pin(async move {
            let mut committer = opening.await?;
            for line in committer.recover(&listed).await? {
                tracing::info!(sink, "{line}");
            }
            Ok(committer)
        })
    }

    /// Lanes beside the one that was recovered.
    pub(crate) fn more_lanes(&self) -> usize {
        self.lanes - 1
    }

    /// Opens the committer of a further lane.
    pub(crate) fn open(&self, context: SinkContext) -> BoxFuture<'static, Result<Box<dyn AnyCommitter>>> {
        (self.open)(context)
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

/// What a lane is given, and where the answer goes.
type Call = (Vec<Committable>, oneshot::Sender<Result<(), CommitError>>);

/// One committer on a thread of its own, seen from outside.
#[derive(Clone)]
struct Lane(mpsc::UnboundedSender<Call>);

impl Lane {
    fn open(shared: &Arc<Shared>, sink: &str, mut committer: Box<dyn AnyCommitter>) -> Result<Self> {
        let (sender, mut calls) = mpsc::unbounded_channel::<Call>();
        shared.spawn_apart(sink, "the committer", async move {
            while let Some((due, answer)) = calls.recv().await {
                let committed = committer.commit(&due).await;
                // Whoever asked may have given up.
                let _ = answer.send(committed);
            }
        })?;
        Ok(Self(sender))
    }
}

/// Why a sink's output is not published.
struct Failed {
    checkpoint: CheckpointId,
    reason: String,
    blame: Blame,
}

/// The task of one sink's committers.
pub(crate) struct CommitTask {
    sink: String,
    lanes: Vec<Lane>,
    shared: Arc<Shared>,
    processes: Arc<Processes>,
}

impl CommitTask {
    /// With a lane for each committer.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        processes: &Arc<Processes>,
        sink: &str,
        committers: Vec<Box<dyn AnyCommitter>>,
    ) -> Result<Self> {
        let lanes = committers.into_iter().map(|committer| Lane::open(shared, sink, committer));
        let lanes = lanes.collect::<Result<_>>().map_err(|e| e.in_step(sink))?;
        Ok(Self {
            sink: sink.to_owned(),
            lanes,
            shared: Arc::clone(shared),
            processes: Arc::clone(processes),
        })
    }

    /// Has published what comes, in order, until nobody sends any more.
    pub(crate) async fn run(self, mut due: mpsc::UnboundedReceiver<Vec<Committable>>) {
        let this = Arc::new(self);
        while let Some(committables) = due.recv().await {
            crash::pass("commit.due");
            let began = Instant::now();
            let Some(done) = Self::commit_all(&this, &committables).await else { return };
            let result = if done.is_ok() { "committed" } else { "refused" };
            this.shared.metrics.commits.with_label_values(&[&this.sink, result]).inc();
            let took = began.elapsed().as_secs_f64();
            this.processes.queue(Message::CommitTook(took));
            let sink = this.sink.clone();
            this.processes.tell(match done {
                Ok(()) => {
                    let upto = committables.iter().map(|c| c.checkpoint).max().unwrap_or(CheckpointId(0));
                    Event::Committed { sink, upto }
                }
                Err(Failed { checkpoint, reason, blame }) => {
                    Event::CommitFailed { sink, checkpoint, reason, blame }
                }
            });
            crash::pass("commit.done");
        }
    }

    /// All lanes at once, each with what its instances wrote; `None` if one died, whose panic is on its way.
    async fn commit_all(this: &Arc<Self>, committables: &[Committable]) -> Option<Result<(), Failed>> {
        let mut parts = dealt(committables, this.lanes.len());
        if parts.len() == 1 {
            let (lane, part) = parts.remove(0);
            return this.commit_lane(lane, &part).await;
        }
        let mut lanes = tokio::task::JoinSet::new();
        for (lane, part) in parts {
            let this = Arc::clone(this);
            lanes.spawn(async move { this.commit_lane(lane, &part).await });
        }
        let mut all = Some(Ok(()));
        while let Some(done) = lanes.join_next().await {
            match done.ok().flatten() {
                Some(Ok(())) => {}
                Some(Err(failed)) if matches!(all, Some(Ok(()))) => all = Some(Err(failed)),
                Some(Err(_)) => {}
                None => all = None,
            }
        }
        all
    }

    async fn commit_lane(&self, lane: usize, committables: &[Committable]) -> Option<Result<(), Failed>> {
        for some in calls(committables) {
            match self.commit(&self.lanes[lane], some).await? {
                Ok(()) => {}
                Err((reason, blame)) => {
                    let checkpoint = some.first().map_or(CheckpointId(0), |c| c.checkpoint);
                    return Some(Err(Failed { checkpoint, reason, blame }));
                }
            }
        }
        Some(Ok(()))
    }

    async fn commit(&self, lane: &Lane, committables: &[Committable]) -> Option<Result<(), (String, Blame)>> {
        let limit = self.shared.config.commit_timeout;
        let deadline = wall_clock::now() + limit;
        let mut wait = FIRST_WAIT;
        loop {
            let left = deadline.saturating_duration_since(wall_clock::now());
            let (answer, committed) = oneshot::channel();
            lane.0.send((committables.to_vec(), answer)).ok()?;
            let committed = match tokio::time::timeout(left, committed).await {
                Ok(Ok(committed)) => Some(committed),
                Ok(Err(_)) => return None,
                Err(_) => None,
            };
            let committed = match crash::point("commit.at_target") {
                Ok(()) => committed,
                Err(lost) => {
                    Some(Err(CommitError::Retry(Error::external("the answer is lost").caused_by(lost))))
                }
            };
            return Some(Err(match committed {
                Some(Ok(())) => return Some(Ok(())),
                Some(Err(CommitError::Refused(error))) => (error.to_string(), blame(&error, true)),
                Some(Err(CommitError::Retry(error))) if self.shared.is_stopping() => {
                    let reason = format!("{error}; not tried again, because the job ends");
                    (reason, blame(&error, false))
                }
                Some(Err(CommitError::Retry(error))) => {
                    // No further try without time for it: that would hide why this one failed.
                    if wall_clock::now() + wait < deadline {
                        tracing::warn!(sink = self.sink, %error, ?wait, "commit failed, trying again");
                        tokio::time::sleep(wait).await;
                        crash::pass("commit.again");
                        wait = (wait * 2).min(LONGEST_WAIT);
                        continue;
                    }
                    let reason = format!("{error}; gave up after {limit:?} (--commit-timeout)");
                    (reason, blame(&error, false))
                }
                None => (format!("no answer within {limit:?} (--commit-timeout)"), Blame::Outside),
            }));
        }
    }
}

/// What is refused for good is not mended by running the job again, whatever the reason.
pub(super) fn blame(error: &Error, for_good: bool) -> Blame {
    match error.kind() {
        Kind::Internal => Blame::Engine,
        Kind::Job => Blame::Job,
        Kind::External if for_good => Blame::Job,
        Kind::External => Blame::Outside,
    }
}

/// Deals committables out to lanes by their instances, each lane's in the order that they had. At least one lane has a
/// part, and no other without any.
fn dealt(committables: &[Committable], lanes: usize) -> Vec<(usize, Vec<Committable>)> {
    let of = |lane: usize| -> Vec<Committable> {
        committables.iter().filter(|c| c.instance as usize % lanes == lane).cloned().collect()
    };
    let mut parts: Vec<_> = (0..lanes).map(|lane| (lane, of(lane))).collect();
    parts.retain(|(lane, part)| *lane == 0 || !part.is_empty());
    if parts.len() > 1 {
        parts.retain(|(_, part)| !part.is_empty());
    }
    parts
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
    fn what_an_instance_wrote_stays_in_one_lane_and_in_order() {
        let all = due(&[(1, 5), (2, 3), (4, 5)]);
        for lanes in 1..8 {
            let parts = dealt(&all, lanes);
            assert!(parts.len() <= lanes && parts.iter().all(|(_, part)| !part.is_empty()));
            assert_eq!(parts.iter().map(|(_, part)| part.len()).sum::<usize>(), all.len());
            for instance in 0..5 {
                let holders = parts.iter().filter(|(_, part)| part.iter().any(|c| c.instance == instance));
                let holders: Vec<_> = holders.collect();
                assert_eq!(holders.len(), 1, "{lanes} lanes, instance {instance}");
                assert!(holders[0].1.is_sorted_by_key(|c| c.checkpoint));
            }
        }
        assert_eq!(dealt(&[], 3).len(), 1);
    }

    #[test]
    fn a_commit_that_is_refused_for_good_needs_a_person_and_one_that_may_yet_work_does_not() {
        for (error, for_good, wanted) in [
            (Error::external("gone"), true, Blame::Job),
            (Error::external("busy"), false, Blame::Outside),
            (Error::job("fenced"), true, Blame::Job),
            (Error::job("no such table"), false, Blame::Job),
            (Error::internal("a bug"), true, Blame::Engine),
        ] {
            assert_eq!(blame(&error, for_good), wanted, "{error}");
        }
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
