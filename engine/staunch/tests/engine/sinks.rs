//! Sinks in whole jobs: what their halves learn of each other, and what they do beside each other.

use crate::faulty::{Deed, Moment, faulty};
use crate::harness::{eventually, place};
use crate::topic::Topic;
use staunch::core::error::Kind;
use staunch::core::sink::{CommitError, Committer, OPEN_CUTS, Prepared, Sink, SinkContext, SinkWriter};
use staunch::core::{CheckpointId, Committable, Request};
use staunch::memory::{self, Collected, collect};
use staunch::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::sync::{Barrier, watch};

#[cfg(feature = "sqlite")]
mod a_table {
    use super::*;
    use serde::Serialize;

    #[derive(Clone, Serialize)]
    struct Reading {
        sensor: u64,
        value: f64,
    }

    /// What a job says that writes readings into such a table; nothing of it may be decided.
    fn refusal(columns: &str, value: f64) -> String {
        let place = place().workers(2);
        let path = place.config.checkpoints.with_extension("db");
        let (create, target) = (format!("CREATE TABLE IF NOT EXISTS readings ({columns})"), path.clone());
        let error = place.fail(move |job| {
            let readings =
                memory::collection([Reading { sensor: 1, value: 0.5 }, Reading { sensor: 2, value }]);
            let table = staunch::sqlite::table(&target, "readings").create(create.clone());
            job.source("sensors", readings).sink("readings", table);
            Ok(())
        });
        assert_eq!((error.kind(), error.step()), (Kind::Job, Some("readings")), "{error}");
        assert!(place.manifests().is_empty(), "nothing is decided: {error}");
        error.to_string()
    }

    #[test]
    fn with_a_wrong_column_is_refused_in_a_job_before_anything_is_decided() {
        let why = refusal("sensor INTEGER, reading REAL", 1.0);
        assert!(why.contains("has no column `value`; its columns are sensor, reading"), "{why}");
    }

    #[test]
    fn that_would_change_a_value_is_refused_in_a_job_before_anything_is_decided() {
        let why = refusal("sensor TEXT, value REAL", 1.0);
        assert!(why.contains("column `sensor` TEXT: it would become text"), "{why}");
        let why = refusal("sensor INTEGER, value REAL", f64::NAN);
        assert!(why.contains("would be written as null"), "{why}");
    }
}

/// Where a [`Rough`] sink does something of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Committer,
    Recover,
    Writer,
    Commit,
}

/// The reference sink, but that it blocks its thread for ever at one place, or commits in lanes that wait for each other.
#[derive(Clone)]
struct Rough {
    inner: Collected<u64>,
    blocks: Option<At>,
    lanes: usize,
    meeting: Option<Arc<Barrier>>,
}

fn rough(blocks: Option<At>) -> Rough {
    Rough { inner: collect(), blocks, lanes: 1, meeting: None }
}

impl Rough {
    fn pass(&self, at: At) {
        while self.blocks == Some(at) {
            std::thread::park();
        }
    }
}

struct RoughCommitter {
    sink: Rough,
    inner: <Collected<u64> as Sink>::Committer,
}

impl Sink for Rough {
    type Record = u64;
    type Writer = <Collected<u64> as Sink>::Writer;
    type Committer = RoughCommitter;

    async fn writer(&self, context: &SinkContext) -> Result<Self::Writer> {
        self.pass(At::Writer);
        self.inner.writer(context).await
    }

    async fn committer(&self, context: &SinkContext) -> Result<RoughCommitter> {
        self.pass(At::Committer);
        Ok(RoughCommitter { sink: self.clone(), inner: self.inner.committer(context).await? })
    }

    fn commit_lanes(&self) -> usize {
        self.lanes
    }
}

impl Committer for RoughCommitter {
    async fn recover(&mut self, listed: &[Committable]) -> Result<Vec<String>> {
        self.sink.pass(At::Recover);
        self.inner.recover(listed).await
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        self.sink.pass(At::Commit);
        if let Some(meeting) = &self.sink.meeting {
            meeting.wait().await;
        }
        self.inner.commit(committables).await
    }
}

#[test]
fn of_three_sinks_of_which_two_block_for_ever_the_third_commits_and_the_job_ends_with_a_name() {
    let (mut place, topic) = (place(), Topic::new(1));
    place.config.commit_timeout = Duration::from_secs(4);
    let [one, two, three] = [Some(At::Commit), Some(At::Commit), None].map(rough);
    let (source, third) = (topic.clone(), three.inner.clone());
    let running = place.start(move |job| {
        let numbers = job.source("numbers", source.clone());
        numbers.clone().sink("one", one.clone());
        numbers.clone().sink("two", two.clone());
        numbers.sink("three", three.clone());
        Ok(())
    });
    topic.push(0, [7]);
    eventually("the third commits", || third.committed() == [7]);
    running.controls.request(Request::Stop);
    let error = running.wait().unwrap_err();
    let said = error.to_string();
    assert!(said.contains("`one`") || said.contains("`two`"), "{said}");
    assert!(said.contains("no answer within 4s"), "{said}");
    assert_eq!(error.kind(), Kind::External, "{said}");
}

#[test]
fn a_sink_that_blocks_while_it_is_opened_ends_the_job_with_its_name_and_what_it_was_doing() {
    for (at, doing) in [
        (At::Committer, "checking its target"),
        (At::Recover, "taking its target over"),
        (At::Writer, "opening its writer"),
    ] {
        let mut place = place();
        place.config.open_timeout = Duration::from_millis(300);
        let sink = rough(Some(at));
        let error = place.fail(move |job| {
            job.source("numbers", memory::collection([1])).sink("output", sink.clone());
            Ok(())
        });
        let said = error.to_string();
        assert!(said.contains(&format!("{doing} has given no answer within 300ms")), "{at:?}: {said}");
        assert_eq!((error.kind(), error.step()), (Kind::External, Some("output")), "{said}");
    }
}

#[test]
fn instances_are_committed_at_once_by_a_sink_with_two_lanes() {
    let place = place().workers(2).only_the_last_checkpoint();
    let sink = Rough { lanes: 2, meeting: Some(Arc::new(Barrier::new(2))), ..rough(None) };
    let seen = sink.inner.clone();
    // Each lane waits for the other: one after the other they would never be done.
    place.finish(move |job| {
        let numbers = memory::collection((0..20).collect::<Vec<u64>>()).splits(2);
        job.source("numbers", numbers).sink("output", sink.clone());
        Ok(())
    });
    let mut seen = seen.committed();
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

#[test]
fn a_commit_that_is_refused_for_good_is_an_error_of_the_job_and_one_that_may_yet_work_is_not() {
    for (deed, kind) in [(Deed::Refuse, Kind::Job), (Deed::Fail, Kind::External)] {
        let mut place = place();
        place.config.commit_timeout = Duration::from_millis(100);
        let sink = faulty(move |now| if now == Moment::Commit { deed } else { Deed::Go });
        let error = place.fail(move |job| {
            job.source("numbers", memory::collection([1, 2, 3])).sink("output", sink.clone());
            Ok(())
        });
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("`output`"), "{error}");
    }
}

/// The reference sink with cuts that are done when the test says so.
#[derive(Clone)]
struct Held {
    inner: Collected<u64>,
    /// Cuts with a lower number than this may be done.
    released: Arc<watch::Sender<usize>>,
    cuts: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    most_open: Arc<AtomicUsize>,
}

fn held() -> Held {
    let (released, zero) = (Arc::new(watch::channel(0).0), Arc::<AtomicUsize>::default);
    Held { inner: collect(), released, cuts: zero(), written: zero(), open: zero(), most_open: zero() }
}

struct HeldWriter {
    sink: Held,
    inner: <Collected<u64> as Sink>::Writer,
}

impl Sink for Held {
    type Record = u64;
    type Writer = HeldWriter;
    type Committer = <Collected<u64> as Sink>::Committer;

    async fn writer(&self, context: &SinkContext) -> Result<HeldWriter> {
        Ok(HeldWriter { sink: self.clone(), inner: self.inner.writer(context).await? })
    }

    async fn committer(&self, context: &SinkContext) -> Result<Self::Committer> {
        self.inner.committer(context).await
    }
}

impl SinkWriter for HeldWriter {
    type Record = u64;

    async fn write(&mut self, records: Vec<u64>) -> Result<()> {
        self.sink.written.fetch_add(records.len(), SeqCst);
        self.inner.write(records).await
    }

    fn cut(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        let (sink, inner) = (self.sink.clone(), self.inner.cut(checkpoint)?);
        let (number, mut released) = (sink.cuts.fetch_add(1, SeqCst), sink.released.subscribe());
        sink.most_open.fetch_max(sink.open.fetch_add(1, SeqCst) + 1, SeqCst);
        Ok(async move {
            let gone = || Error::internal("the test is over");
            released.wait_for(|upto| number < *upto).await.map_err(|_| gone())?;
            sink.open.fetch_sub(1, SeqCst);
            inner.await
        })
    }
}

#[test]
fn a_writer_goes_on_while_a_cut_is_open_and_later_records_belong_to_the_next_checkpoint() {
    let (place, topic, sink) = (place(), Topic::new(1), held());
    let (source, output) = (topic.clone(), sink.clone());
    let running = place.start(move |job| {
        job.source("numbers", source.clone()).sink("output", output.clone());
        Ok(())
    });
    topic.push(0, [1]);
    eventually("a cut is open", || sink.open.load(SeqCst) == 1);
    for n in 2..100 {
        topic.push(0, [n]);
        eventually("it is written", || sink.written.load(SeqCst) == n as usize);
    }
    assert!(sink.inner.committed().is_empty(), "nothing is decided while the cut is open");
    sink.released.send_replace(1);
    eventually("the epoch of the cut is published", || !sink.inner.committed().is_empty());
    assert_eq!(sink.inner.committed(), [1]);
    sink.released.send_replace(usize::MAX);
    topic.end(0);
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    assert_eq!(sink.inner.committed(), (1..100).collect::<Vec<_>>());
}

#[test]
fn so_many_cuts_are_open_at_most_and_their_answers_come_in_order() {
    let (mut place, topic, sink) = (place(), Topic::new(1), held());
    place.config.checkpoint_timeout = Duration::from_millis(50);
    place.config.tolerated_failures = 1000;
    let (source, output) = (topic.clone(), sink.clone());
    let running = place.start(move |job| {
        job.source("numbers", source.clone()).sink("output", output.clone());
        Ok(())
    });
    let given_up = || running.metric("staunch_checkpoints_failed_total", "");
    for n in 0..5 {
        let before = given_up();
        topic.push(0, [n]);
        eventually("a checkpoint is given up", || given_up() > before);
    }
    assert_eq!(sink.most_open.load(SeqCst), OPEN_CUTS);
    sink.released.send_replace(usize::MAX);
    topic.end(0);
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    assert_eq!(sink.inner.committed(), (0..5).collect::<Vec<_>>());
}
