//! Requests and their answers, events, and what a run says of itself.

use crate::harness::{LIMIT, eventually, place};
use crate::topic::Topic;
use staunch::core::error::Kind;
use staunch::core::{CheckpointKind, Events, JobEvent, Request, run};
use staunch::memory::{Collected, collect};
use staunch::prelude::*;
use staunch::{discard, generator};

fn copy(
    topic: &Topic<u64>,
    output: &Collected<u64>,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let (source, sink) = (topic.clone(), output.clone());
    move |job| {
        job.source("numbers", source.clone()).sink("output", sink.clone());
        Ok(())
    }
}

#[test]
fn a_request_is_answered_with_the_checkpoint_that_was_taken_for_it() {
    let (place, topic, output) = (place().only_the_last_checkpoint(), Topic::new(1), collect());
    let running = place.start(copy(&topic, &output));
    topic.push(0, [1, 2, 3]);
    let savepoint = running.controls.savepoint("lunch").wait(LIMIT).unwrap();
    let checkpoint = running.controls.checkpoint().wait(LIMIT).unwrap();
    let stop = running.controls.stop();
    assert_eq!(running.wait().unwrap(), Outcome::Stopped);
    let last = stop.wait(LIMIT).unwrap();
    assert!(savepoint < checkpoint && checkpoint < last);
    let of = |id| place.manifests().into_iter().find(|m| m.checkpoint == id).unwrap().kind;
    assert_eq!(of(savepoint), CheckpointKind::Savepoint { name: "lunch".into() });
    assert_eq!(of(checkpoint), CheckpointKind::Periodic);
    assert_eq!(of(last), CheckpointKind::Stop);

    let running = place.start(copy(&topic, &output));
    let drained = running.controls.drain();
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    assert_eq!(of(drained.wait(LIMIT).unwrap()), CheckpointKind::Final);
}

#[test]
fn a_request_that_is_not_carried_out_says_why() {
    let (place, topic, output) = (place().only_the_last_checkpoint(), Topic::new(1), collect());
    let running = place.start(copy(&topic, &output));
    let asked = [Request::Drain, Request::Stop, Request::Checkpoint, Request::Savepoint("late".into())];
    let [drain, stop, checkpoint, savepoint] = asked.map(|request| running.controls.ask(request));
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    drain.wait(LIMIT).unwrap();
    for (refused, why) in
        [(stop, "the job is already ending"), (checkpoint, "the job is ending"), (savepoint, "draining")]
    {
        let error = refused.wait(LIMIT).unwrap_err().to_string();
        assert!(error.contains("not carried out") && error.contains(why), "{error}");
    }
}

#[test]
fn whoever_waits_for_an_answer_of_a_run_that_fails_gets_its_error() {
    let place = place().only_the_last_checkpoint();
    let running = place.start(|job| {
        let numbers = job.source("numbers", generator::sequence(None, 1, |_, n| n));
        numbers.inspect(|n| assert!(*n < 10_000, "too many")).sink("output", discard::sink());
        Ok(())
    });
    let answer = running.controls.drain();
    let failed = running.wait();
    // It is drained before it comes so far, or fails; both is told.
    match (failed, answer.wait(LIMIT)) {
        (Ok(outcome), answered) => assert!(outcome == Outcome::Finished && answered.is_ok()),
        (Err(error), answered) => {
            let told = answered.unwrap_err();
            assert_eq!(told.kind(), error.kind());
            assert!(told.to_string().contains("too many"), "{told}");
        }
    }
}

fn all(events: &Events) -> Vec<JobEvent> {
    std::iter::from_fn(|| events.next(Duration::ZERO)).collect()
}

#[test]
fn a_supervisor_hears_of_starts_checkpoints_commits_and_the_end() {
    let (place, topic, output) = (place(), Topic::new(1), collect());
    let running = place.start(copy(&topic, &output));
    let heard = running.controls.events();
    topic.push(0, [1, 2, 3]);
    eventually("the output", || output.committed().len() == 3);
    running.stop();
    let heard = all(&heard);
    assert!(heard.iter().any(|event| matches!(event, JobEvent::Committed { sink, .. } if sink == "output")));
    let stops = |event: &&JobEvent| matches!(event, JobEvent::Checkpoint { kind: CheckpointKind::Stop, .. });
    assert_eq!(heard.iter().filter(stops).count(), 1);
    assert_eq!(heard.last(), Some(&JobEvent::Ended { outcome: Outcome::Stopped }));

    let controls = Controls::default();
    let heard = controls.events();
    topic.end_all();
    let metrics = staunch::core::Metrics::new("test");
    run(copy(&topic, &output), place.config.clone(), controls, metrics).unwrap();
    let heard = all(&heard);
    let JobEvent::Started { generation, restored } = &heard[0] else { panic!("{heard:?}") };
    assert!(generation.0 == 2 && restored.is_some(), "{heard:?}");
    assert_eq!(heard.last(), Some(&JobEvent::Ended { outcome: Outcome::Finished }));
}

#[test]
fn the_event_of_a_failure_has_kind_step_and_text() {
    let place = place();
    let controls = Controls::default();
    let heard = controls.events();
    let build = |job: &Job<'_>| {
        let numbers = job.source("numbers", generator::sequence(None, 1, |_, n| n)).key_by(|n| *n);
        let count = |count: &mut u64, n: u64| {
            assert!(n < 10_000, "a bad day");
            *count += 1;
        };
        numbers.fold("all", count).sink("output", discard::sink());
        Ok(())
    };
    let metrics = staunch::core::Metrics::new("test");
    let error = run(build, place.config.clone(), controls, metrics).unwrap_err();
    let Some(JobEvent::Failed { kind, step, text }) = all(&heard).pop() else { panic!("no event") };
    assert_eq!((kind, step.as_deref()), (Kind::Job, Some("all")));
    assert_eq!(text, error.to_string());
}

#[test]
fn a_run_with_defaults_says_what_it_did() {
    let place = tempfile::tempdir().unwrap();
    let output = collect::<u64>();
    let (sink, build) = (output.clone(), |sink: &Collected<u64>, job: &Job<'_>| {
        let numbers = job.source("numbers", generator::sequence(Some(1000), 1, |_, n| n));
        numbers.clone().sink("all", discard::sink());
        numbers.filter(|n| n % 10 == 0).sink("tens", sink.clone());
        Ok(())
    });
    let summary = Run::new("numbers", place.path()).workers(2).run(move |job| build(&sink, job)).unwrap();
    assert_eq!((summary.outcome, summary.records_read), (Outcome::Finished, 1000));
    let published: Vec<_> =
        summary.published.iter().map(|(sink, records)| (sink.as_str(), *records)).collect();
    assert_eq!(published, [("all", 1000), ("tens", 100)]);
    assert_eq!((summary.late, summary.dead_letters, summary.restarts), (0, 0, 0));
    assert!(summary.checkpoints >= 1 && summary.checkpoints_failed == 0);
    let text = summary.to_string();
    assert!(text.starts_with("complete\n") && text.contains("100 by tens"), "{text}");
    let sink = output.clone();
    let again = Run::new("numbers", place.path()).run(move |job| build(&sink, job)).unwrap();
    assert_eq!((again.outcome, again.records_read, again.restarts), (Outcome::AlreadyFinished, 0, 1));
}
