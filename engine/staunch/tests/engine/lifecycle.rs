//! Starts, stops, savepoints, retention, and two runs at a time.

use crate::harness::{eventually, place};
use crate::topic::Topic;
use staunch::core::{CheckpointId, Request, StartFrom};
use staunch::memory::{Collected, collect};
use staunch::prelude::*;
use staunch_checkpoint::{Kind, Record};
use std::time::Instant;

type Count = (u64, u64);

/// Counts what is in the topic.
fn counts(
    topic: &Topic<u64>,
    output: &Collected<Count>,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let (source, sink) = (topic.clone(), output.clone());
    move |job| {
        job.source("numbers", source.clone()).key_by(|n| *n).count("counts").sink("output", sink.clone());
        Ok(())
    }
}

#[test]
fn a_complete_job_has_nothing_to_do_when_it_is_run_again() {
    let (place, topic, output) = (place(), Topic::new(2), collect());
    topic.push(0, [1, 1, 1]);
    topic.end_all();
    place.finish(counts(&topic, &output));
    for _ in 0..3 {
        assert_eq!(place.run(counts(&topic, &output)).unwrap(), Outcome::AlreadyFinished);
        place.assert_tidy();
    }
    assert_eq!(output.committed(), [(1, 1), (1, 2), (1, 3)]);
}

#[test]
fn a_second_run_on_the_same_directory_is_refused_while_one_is_running() {
    let (place, topic, output) = (place(), Topic::new(1), collect());
    let running = place.start(counts(&topic, &output));
    topic.push(0, [7]);
    eventually("the first output", || output.committed().len() == 1);
    let error = place.fail(counts(&topic, &output)).to_string();
    assert!(error.contains("already running") && error.contains(&std::process::id().to_string()), "{error}");
    topic.push(0, [7]);
    eventually("the first goes on", || output.committed().len() == 2);
    assert_eq!(running.stop(), Outcome::Stopped);
    topic.end(0);
    place.finish(counts(&topic, &output));
    assert_eq!(output.committed(), [(7, 1), (7, 2)]);
}

#[test]
fn another_job_on_the_same_directory_is_refused() {
    let (mut place, topic, output) = (place(), Topic::new(1), collect());
    topic.end(0);
    place.finish(counts(&topic, &output));
    place.config.job = "other".into();
    let error = place.fail(counts(&topic, &output)).to_string();
    assert!(
        error.contains("belongs to job \"test\"") && error.contains("another checkpoint directory"),
        "{error}"
    );
}

#[test]
fn a_stop_is_prompt_and_an_idle_job_takes_no_checkpoints() {
    let (place, topic, output) = (place().workers(2), Topic::new(3), collect());
    let running = place.start(counts(&topic, &output));
    topic.push(1, [1, 2, 3]);
    eventually("the output", || output.committed().len() == 3);
    // One more may be under way. The quiet is longer than a checkpoint on a slow disk takes.
    let completed = || running.metric("staunch_checkpoints_completed_total", "");
    let (mut known, mut since) = (completed(), Instant::now());
    eventually("no further checkpoint is taken for a second", || {
        let now = completed();
        if now != known {
            (known, since) = (now, Instant::now());
        }
        since.elapsed() >= Duration::from_secs(1)
    });
    let began = Instant::now();
    assert_eq!(running.stop(), Outcome::Stopped);
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    place.assert_tidy();
}

#[test]
fn requests_before_the_start_and_at_every_moment_of_it_are_answered() {
    let output = collect();
    let topic = Topic::new(3);
    topic.push(0, 0..1000);
    let place = place().workers(3);
    for micros in (0..60_000).step_by(3_000) {
        let running = place.start(counts(&topic, &output));
        std::thread::sleep(Duration::from_micros(micros));
        running.controls.request(Request::Savepoint(format!("at-{micros}")));
        running.controls.request(Request::Stop);
        assert_eq!(running.wait().unwrap(), Outcome::Stopped);
        place.assert_tidy();
    }
    topic.end_all();
    place.finish(counts(&topic, &output));
    assert_eq!(output.committed().len(), 1000);
}

#[test]
fn savepoints_are_kept_by_name_and_can_be_started_from() {
    let (mut place, topic, output) = (place(), Topic::new(1), collect());
    place.config.retained = 2;
    let running = place.start(counts(&topic, &output));
    topic.push(0, [5]);
    eventually("the first output", || output.committed().len() == 1);
    running.controls.request(Request::Savepoint("before-noon".into()));
    let named = |m: &staunch_checkpoint::Manifest| m.kind == Kind::Savepoint { name: "before-noon".into() };
    eventually("the savepoint", || place.manifests().iter().any(named));
    for n in 0..20 {
        topic.push(0, [5]);
        eventually("more output", || output.committed().len() == n + 2);
    }
    assert_eq!(running.stop(), Outcome::Stopped);
    let manifests = place.manifests();
    let savepoint = manifests.iter().find(|m| named(m)).expect("it is kept").checkpoint;
    place.assert_tidy();
    // Everything after it again, into another place.
    let again = collect();
    place.config.from = StartFrom::Checkpoint(savepoint);
    topic.end(0);
    place.finish(counts(&topic, &again));
    assert_eq!(again.committed(), (2..=21).map(|n| (5, n)).collect::<Vec<_>>());
    assert!(place.manifests().iter().any(named), "it is still kept");
}

#[test]
fn a_checkpoint_that_is_gone_cannot_be_started_from_and_the_others_are_named() {
    let (mut place, topic, output) = (place(), Topic::new(1), collect());
    topic.push(0, [1]);
    topic.end(0);
    place.finish(counts(&topic, &output));
    let ids: Vec<String> = place.manifests().iter().map(|m| m.checkpoint.to_string()).collect();
    place.config.from = StartFrom::Checkpoint(CheckpointId(999));
    let error = place.fail(counts(&topic, &output)).to_string();
    assert!(error.contains("checkpoint 999 is not in the log") && error.contains(&ids.join(", ")), "{error}");
}

#[test]
fn from_nothing_begins_a_new_life_and_the_output_of_the_old_one_is_not_mixed_with_it() {
    let (mut place, topic, output) = (place(), Topic::new(1), collect());
    topic.push(0, [1]);
    topic.end(0);
    place.finish(counts(&topic, &output));
    place.config.from = StartFrom::Nothing;
    let error = place.fail(counts(&topic, &output)).to_string();
    assert!(error.contains("another run"), "{error}");
    let fresh = collect();
    place.finish(counts(&topic, &fresh));
    assert_eq!(fresh.committed(), [(1, 1)]);
    place.config.from = StartFrom::Latest;
    assert_eq!(place.run(counts(&topic, &fresh)).unwrap(), Outcome::AlreadyFinished);
}

#[test]
fn a_start_removes_the_working_directories_of_older_starts_of_the_job_and_no_others() {
    let (mut place, topic, output) = (place(), Topic::new(1), collect());
    let folder = tempfile::tempdir().unwrap();
    // Several jobs share it.
    let work = folder.path().join("work");
    place.config.state_dir = Some(work.clone());
    let names = || {
        let entries = work.read_dir().unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let file_of = |name: &str| work.join(name).join("counts-0").join("file");
    let leave = |name: &str| {
        std::fs::create_dir_all(file_of(name).parent().unwrap()).unwrap();
        std::fs::write(file_of(name), "state").unwrap();
    };
    let running = place.start(counts(&topic, &output));
    topic.push(0, [7]);
    eventually("the first output", || output.committed().len() == 1);
    let [first] = &names()[..] else { panic!("{:?}", names()) };
    let own = first.strip_suffix("-g1").unwrap();
    assert!(own.starts_with("test-"), "{own}");
    let [second, third, ninth] = ["g2", "g3", "g9"].map(|generation| format!("{own}-{generation}"));
    assert_eq!(running.stop(), Outcome::Stopped);
    assert!(!work.exists(), "the working directory is left");

    // As if the first start had been killed. The others are those of jobs with other names or other checkpoints, and
    // of a newer start that this one does not know of.
    let others = [&own.replace("test-", "other-"), "test-00000000", "test-2-00000000", &format!("{own}-g1")];
    let mut others: Vec<String> = others.map(|other| format!("{other}-g1")).into();
    others.push(ninth);
    others.sort();
    leave(first);
    others.iter().for_each(|name| leave(name));
    let running = place.start(counts(&topic, &output));
    topic.push(0, [7]);
    eventually("the next output", || output.committed().len() == 2);
    let mut all = others.clone();
    all.push(second);
    all.sort();
    assert_eq!(names(), all);
    assert_eq!(running.stop(), Outcome::Stopped);
    assert_eq!(names(), others);

    // The last one was killed after the end of the job.
    topic.end(0);
    place.finish(counts(&topic, &output));
    leave(&third);
    assert_eq!(place.run(counts(&topic, &output)).unwrap(), Outcome::AlreadyFinished);
    assert_eq!(names(), others);
    assert!(others.iter().all(|name| file_of(name).exists()), "what is in them is gone");
}

#[test]
fn only_the_retained_checkpoints_and_their_files_are_kept_while_the_job_runs() {
    let (mut place, topic, output) = (place().every_ms(2), Topic::new(1), collect());
    let mut pushed = 0;
    let mut push = |records: u64| {
        topic.push(0, 0..records);
        pushed += records as usize;
        pushed
    };
    for retained in [0, 1, 4] {
        place.config.retained = retained;
        let running = place.start(counts(&topic, &output));
        for _ in 0..60 {
            let all = push(50);
            eventually("output", || output.committed().len() == all);
        }
        // The newest is kept in any case; deleting may lag a little behind, and goes with checkpoints.
        eventually("old checkpoints are gone", || {
            let all = push(1);
            eventually("output", || output.committed().len() == all);
            place.manifests().len() <= retained.max(1) + 1
        });
        eventually("their files are gone", || place.state_files().len() < 60);
        assert_eq!(running.stop(), Outcome::Stopped);
        place.config.retained = retained.max(1);
        place.assert_tidy();
    }
    let fences = place.log().into_iter().filter(|record| matches!(record, Record::Fence(_))).count();
    assert_eq!(fences, 3);
}
