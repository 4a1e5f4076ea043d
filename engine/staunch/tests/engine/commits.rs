//! Phase two: lost answers, slow commits, refusals, sinks that prepare nothing.

use crate::faulty::{Deed, Faulty, Moment, faulty};
use crate::harness::{Fuse, Place, eventually, place};
use crate::topic::Topic;
use staunch::core::{Request, StartFrom};
use staunch::prelude::*;
use staunch_checkpoint::Kind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

fn copy(
    topic: &Topic<u64>,
    sink: &Faulty<u64>,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let (source, sink) = (topic.clone(), sink.clone());
    move |job| {
        job.source("numbers", source.clone()).sink("output", sink.clone());
        Ok(())
    }
}

#[test]
fn a_commit_whose_answer_is_lost_is_asked_for_again_and_published_once() {
    let (place, topic) = (place(), Topic::new(1));
    let odd = AtomicU64::new(0);
    let sink = faulty(move |now| {
        let lost = now == Moment::Committed && odd.fetch_add(1, SeqCst).is_multiple_of(2);
        if lost { Deed::Fail } else { Deed::Go }
    });
    let running = place.start(copy(&topic, &sink));
    for n in 0..10 {
        topic.push(0, [n]);
        eventually("it is published", || sink.committed().len() as u64 == n + 1);
    }
    topic.end(0);
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    assert_eq!(sink.committed(), (0..10).collect::<Vec<_>>());
    assert_eq!(running.metric("staunch_committables_pending", ""), 0.0);
}

#[test]
fn while_a_commit_is_slow_further_checkpoints_are_decided_and_then_committed_together() {
    let (mut place, topic) = (place(), Topic::new(1));
    place.config.retained = 1;
    let (slow, commits) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (gate, count) = (Arc::clone(&slow), Arc::clone(&commits));
    let sink = faulty(move |now| match now {
        Moment::Commit => {
            count.fetch_add(1, SeqCst);
            if gate.load(SeqCst) { Deed::Fail } else { Deed::Go }
        }
        _ => Deed::Go,
    });
    let running = place.start(copy(&topic, &sink));
    for n in 0..8 {
        topic.push(0, [n]);
        let pending = || running.metric("staunch_committables_pending", "") as u64;
        eventually("it is decided", || pending() > n);
    }
    assert!(sink.committed().is_empty());
    // No checkpoint whose output waits is forgotten.
    let manifests = place.manifests();
    assert_eq!(manifests.last().unwrap().sinks["output"].pending.len(), 8);
    slow.store(false, SeqCst);
    eventually("all are published", || sink.committed().len() == 8);
    assert_eq!(running.stop(), Outcome::Stopped);
    assert_eq!(sink.committed(), (0..8).collect::<Vec<_>>());
    place.assert_tidy();
}

#[test]
fn a_stop_waits_for_the_commits_and_a_crash_before_them_is_made_up_for_by_the_next_start() {
    for crash in [false, true] {
        let (mut place, topic) = (place(), Topic::new(1));
        let sink = faulty(|now| if now == Moment::Commit { Deed::Fail } else { Deed::Go });
        let running = place.start(copy(&topic, &sink));
        topic.push(0, 0..3);
        eventually("it is decided", || running.metric("staunch_committables_pending", "") > 0.0);
        running.controls.request(Request::Stop);
        std::thread::sleep(Duration::from_millis(200));
        assert!(!running.has_ended(), "there is output that is not published");
        if crash {
            sink.replace(|now| if now == Moment::Commit { Deed::Refuse } else { Deed::Go });
            assert!(running.wait().is_err());
            assert!(sink.committed().is_empty());
            sink.behave();
            place.config.workers = 3;
            let running = place.start(copy(&topic, &sink));
            eventually("it is published before anything is read", || sink.committed() == [0, 1, 2]);
            topic.push(0, [3]);
            topic.end(0);
            assert_eq!(running.wait().unwrap(), Outcome::Finished);
            assert_eq!(sink.committed(), [0, 1, 2, 3]);
        } else {
            sink.behave();
            assert_eq!(running.wait().unwrap(), Outcome::Stopped);
            assert_eq!(sink.committed(), [0, 1, 2]);
        }
        place.assert_tidy();
    }
}

#[test]
fn a_refused_commit_stops_the_job_and_says_what_is_lost() {
    let (place, topic) = (place(), Topic::new(1));
    let sink = faulty(|now| if now == Moment::Commit { Deed::Refuse } else { Deed::Go });
    topic.push(0, 0..3);
    let error = place.fail(copy(&topic, &sink)).to_string();
    for word in ["output", "will not commit", "of checkpoint", "Commit refused"] {
        assert!(error.contains(word), "no {word:?} in {error:?}");
    }
}

#[test]
fn retries_are_given_up_after_the_commit_timeout_and_go_on_at_the_next_start() {
    let (mut place, topic) = (place(), Topic::new(1));
    place.config.commit_timeout = Duration::from_millis(100);
    let sink = faulty(|now| if now == Moment::Commit { Deed::Fail } else { Deed::Go });
    topic.push(0, 0..3);
    topic.end(0);
    for _ in 0..3 {
        let error = place.fail(copy(&topic, &sink)).to_string();
        assert!(error.contains("gave up after 100ms"), "{error}");
    }
    sink.behave();
    place.run(copy(&topic, &sink)).unwrap();
    assert_eq!(sink.committed(), [0, 1, 2]);
}

/// Its output was prepared and not published, and the start that went back removed it.
#[test]
fn a_checkpoint_that_a_later_start_went_back_behind_cannot_be_started_from() {
    let (mut place, topic) = (place().only_the_last_checkpoint(), Topic::new(1));
    place.config.retained = 10;
    let sink = faulty::<u64>(|_| Deed::Go);
    let read_one = |place: &Place| {
        let running = place.start(copy(&topic, &sink));
        eventually("it is read", || running.metric("staunch_records_in_total", "numbers") == 1.0);
        running
    };
    let newest = |place: &Place| place.manifests().last().unwrap().checkpoint;
    topic.push(0, [1]);
    assert_eq!(read_one(&place).stop(), Outcome::Stopped);
    let older = newest(&place);
    topic.push(0, [2]);
    let running = read_one(&place);
    sink.replace(|now| if now == Moment::Commit { Deed::Refuse } else { Deed::Go });
    running.controls.request(Request::Stop);
    let error = running.wait().unwrap_err().to_string();
    assert!(error.contains("Commit refused"), "{error}");
    let abandoned = newest(&place);
    assert!(abandoned > older && sink.inner.prepared_parts() == 1, "it is decided and not published");
    sink.behave();
    place.config.from = StartFrom::Checkpoint(older);
    assert_eq!(read_one(&place).stop(), Outcome::Stopped);
    assert_eq!((sink.committed(), sink.inner.prepared_parts()), (vec![1, 2], 0));

    let log = place.log();
    place.config.from = StartFrom::Checkpoint(abandoned);
    let error = place.fail(copy(&topic, &sink));
    assert_eq!(error.kind(), staunch::core::error::Kind::Job);
    let (error, which) = (error.to_string(), format!("checkpoint {abandoned} lists output"));
    for word in [which.as_str(), "may not be published yet", "went back behind it", "Start from the newest"] {
        assert!(error.contains(word), "no {word:?} in {error:?}");
    }
    assert_eq!(place.log(), log, "the refusal leaves a trace");
    place.config.from = StartFrom::Latest;
    topic.end(0);
    place.finish(copy(&topic, &sink));
    assert_eq!(sink.committed(), [1, 2]);
}

#[test]
fn a_sink_that_has_nothing_votes_all_the_same() {
    let (place, topic) = (place().workers(3), Topic::new(1));
    let (busy, quiet) = (faulty(|_| Deed::Go), faulty::<u64>(|_| Deed::Go));
    let prepares = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&prepares);
    quiet.replace(move |now| {
        count.fetch_add(u64::from(now == Moment::Prepare), SeqCst);
        Deed::Go
    });
    let (source, one, other) = (topic.clone(), busy.clone(), quiet.clone());
    let running = place.start(move |job| {
        let stream = job.source("numbers", source.clone());
        stream.clone().sink("busy", one.clone());
        stream.filter(|_| false).sink("quiet", other.clone());
        Ok(())
    });
    for n in 0..5 {
        topic.push(0, [n]);
        eventually("it is published", || busy.committed().len() as u64 == n + 1);
    }
    assert!(prepares.load(SeqCst) >= 15, "{} votes of 3 instances", prepares.load(SeqCst));
    assert_eq!(running.stop(), Outcome::Stopped);
    assert!(place.manifests().iter().all(|m| m.sinks["quiet"].pending.is_empty()));
    assert!(quiet.committed().is_empty());
}

#[test]
fn a_checkpoint_that_takes_too_long_is_abandoned_and_its_output_is_in_the_next() {
    let (mut place, topic) = (place().workers(2), Topic::new(2));
    // On a busy machine others than the slow one may take too long.
    (place.config.checkpoint_timeout, place.config.tolerated_failures) = (Duration::from_millis(80), 1000);
    // The third prepare is slow.
    let fuse = Fuse::at(3);
    let slow = Duration::from_secs(1);
    let sink =
        faulty(move |now| if now == Moment::Prepare && fuse.burn() { Deed::Wait(slow) } else { Deed::Go });
    let running = place.start(copy(&topic, &sink));
    for n in 0..100 {
        topic.push((n % 2) as u32, [n]);
        std::thread::sleep(Duration::from_millis(5));
    }
    topic.end_all();
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    assert!(running.metric("staunch_checkpoints_failed_total", "") >= 1.0, "nothing was abandoned");
    let mut committed = sink.committed();
    committed.sort();
    assert_eq!(committed, (0..100).collect::<Vec<_>>());
    place.assert_tidy();
}

#[test]
fn checkpoints_that_fail_again_and_again_end_the_job_and_nothing_is_lost() {
    let (mut place, topic) = (place(), Topic::new(1));
    (place.config.checkpoint_timeout, place.config.tolerated_failures) = (Duration::from_millis(300), 2);
    let sink = faulty(|now| if now == Moment::Prepare { Deed::Hang } else { Deed::Go });
    topic.push(0, 0..3);
    topic.end(0);
    let error = place.fail(copy(&topic, &sink)).to_string();
    for word in ["3 attempts", "timed out waiting for sink `output` instance 0"] {
        assert!(error.contains(word), "no {word:?} in {error:?}");
    }
    sink.behave();
    place.config.checkpoint_timeout = Duration::from_secs(10);
    place.finish(copy(&topic, &sink));
    assert_eq!(sink.committed(), [0, 1, 2]);
    assert_eq!(place.manifests().last().unwrap().kind, Kind::Final);
}
