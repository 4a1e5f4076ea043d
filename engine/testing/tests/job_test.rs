//! `JobTest` itself: it runs what the script says, and notices what it should.

use staunch::core::crash::POINTS;
use staunch::prelude::*;
use staunch_testing::{Crash, JobTest, Script, script};
use std::path::Path;

/// Running totals by key, into two sinks; the second one by event-time windows of 10 ms.
fn totals(job: &Job, keys: &u64) -> Result<()> {
    let keys = *keys;
    let numbers = staunch::generator::sequence(Some(1), 1, |_, _| 0_u64)
        .event_time(|number: &u64| Timestamp::from_millis(*number as i64), Duration::from_millis(5));
    let numbers = job.source("numbers", numbers);
    numbers
        .clone()
        .key_by(move |number| number % keys)
        .fold("totals", |total: &mut u64, number: u64| *total += number)
        .sink("totals-out", staunch::discard::sink());
    numbers
        .key_by(|_| 0_u64)
        .window(Tumbling::of(Duration::from_millis(10)))
        .count("windows")
        .map(|result| (result.window.start.as_millis(), result.value))
        .sink("windows-out", staunch::discard::sink());
    Ok(())
}

fn expected_totals(numbers: u64, keys: u64) -> Vec<(u64, u64)> {
    let mut sums = vec![0; keys as usize];
    let mut rows = Vec::new();
    for number in 0..numbers {
        let key = number % keys;
        sums[key as usize] += number;
        rows.push((key, sums[key as usize]));
    }
    rows.sort_unstable();
    rows
}

/// Runs the script, whose records must be 0..40, and compares.
fn check(script: Script<u64>, workers: usize, seed: u64) {
    let mut test = JobTest::new(totals, 3).feed("numbers", script).workers(workers).seed(seed);
    let (totals, windows) =
        (test.collect::<(u64, u64)>("totals-out"), test.collect::<(i64, u64)>("windows-out"));
    test.run_to_end().expect("the job becomes complete");
    let mut rows = totals.committed();
    rows.sort_unstable();
    assert_eq!(rows, expected_totals(40, 3));
    let mut rows = windows.committed();
    rows.sort_unstable();
    assert_eq!(rows, [(0, 10), (10, 10), (20, 10), (30, 10)]);
    assert_eq!((totals.leftovers(), windows.leftovers()), (0, 0));
}

/// A test that does not look at what comes out: the job throws it away.
fn without_output() -> JobTest {
    JobTest::new(totals, 3).real_sink("totals-out").real_sink("windows-out")
}

#[test]
fn a_job_without_any_trouble_puts_out_what_it_should() {
    check(script().records(0..40).end(), 1, 0);
    check(script().records(0..40), 3, 1);
}

#[test]
fn a_crash_at_every_point_of_the_protocol_changes_nothing() {
    let crashes = [
        Crash::Now,
        Crash::AfterPositions,
        Crash::AfterFreeze,
        Crash::BeforePrepare,
        Crash::AfterPrepare,
        Crash::BeforeDecision,
        Crash::AfterDecision,
        Crash::BeforeCommit,
        Crash::MidCommit,
        Crash::AfterCommit,
        Crash::InRecovery,
        Crash::AfterRecommit,
        Crash::At("state.aligned"),
    ];
    for crash in crashes {
        for (workers, seed) in [(1, 0), (2, 1), (3, 2)] {
            let before = script().records(0..13).barrier().records(13..20);
            check(before.barrier().crash(crash).records(20..40).end(), workers, seed);
        }
    }
}

#[test]
fn a_crash_of_any_worker_changes_nothing() {
    for crash in [Crash::AfterPositions, Crash::AfterFreeze, Crash::BeforePrepare, Crash::AfterPrepare] {
        for worker in 0..3 {
            let script = script().records(0..20).barrier().crash_on_worker(crash, worker).records(20..40);
            check(script, 3, u64::from(worker));
        }
    }
}

#[test]
fn crashes_stops_and_other_numbers_of_workers_follow_one_another() {
    let script = script()
        .records(0..10)
        .workers(3)
        .records(10..15)
        .barrier()
        .crash(Crash::AfterDecision)
        .crash(Crash::InRecovery)
        .records(15..30)
        .crash(Crash::Now)
        .workers(2)
        .records(30..40)
        .barrier()
        .barrier()
        .end();
    for seed in 0..5 {
        check(script.clone(), 1, seed);
    }
}

#[test]
fn what_is_not_decided_is_not_published_and_what_is_decided_is() {
    let published_after = |crash| {
        let script = script().records(0..10_u64).barrier().crash(crash).crash(Crash::Now).records(10..12);
        let mut test = JobTest::new(totals, 3).feed("numbers", script);
        let totals = test.collect::<(u64, u64)>("totals-out");
        let _windows = test.collect::<(i64, u64)>("windows-out");
        test.run_to_end().unwrap();
        totals.pieces().iter().map(Vec::len).collect::<Vec<_>>()
    };
    // What was decided is published by the next life, before that reads anything.
    assert_eq!(published_after(Crash::AfterDecision), [10, 2]);
    // What was not decided is gone, and read again.
    assert_eq!(published_after(Crash::BeforeDecision), [12]);
}

/// Where the totals of [`totals_into_files`] go.
struct Output(PathBuf);

fn totals_into_files(job: &Job, Output(output): &Output) -> Result<()> {
    job.source("numbers", staunch::generator::sequence(Some(1), 1, |_, _| 0_u64))
        .key_by(|number| number % 7)
        .fold("totals", |total: &mut u64, number: u64| *total += number)
        .sink("out", staunch::file::json_lines(output));
    Ok(())
}

/// The rows in all part files of a directory, sorted.
fn rows_in(output: &Path) -> Vec<(u64, u64)> {
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(output).expect("there is output") {
        let path = entry.expect("the directory can be read").path();
        if path.extension().is_some() {
            let text = std::fs::read_to_string(path).expect("a part can be read");
            rows.extend(
                text.lines().map(|line| serde_json::from_str::<(u64, u64)>(line).expect("a line is a row")),
            );
        }
    }
    rows.sort_unstable();
    rows
}

#[test]
fn a_real_sink_of_files_has_every_row_once_wherever_it_dies() {
    let points = [
        "sink.preparing",
        "sink.cut",
        "sink.half_flushed",
        "sink.prepared",
        "decision.made",
        "commit.due",
        "commit.some_done",
        "commit.at_target",
        "commit.done",
        "recovery.claimed",
        "recovery.sink_fenced",
        "recovery.recommitted",
    ];
    for point in points {
        for (workers, seed) in [(1, 0), (3, 1)] {
            let dir = tempfile::tempdir().unwrap();
            let output = dir.path().join("out");
            let before = script().records(0..13_u64).barrier().records(13..20).barrier();
            let script = before.crash(Crash::At(point)).records(20..40).end();
            let mut test = JobTest::new(totals_into_files, Output(output.clone())).feed("numbers", script);
            test = test.real_sink("out").workers(workers).seed(seed);
            test.run_to_end().unwrap_or_else(|failed| panic!("{point}, {workers} workers: {failed}"));
            assert_eq!(rows_in(&output), expected_totals(40, 7), "{point}, {workers} workers");
            let pending = std::fs::read_dir(output.join(".pending")).unwrap().count();
            assert_eq!(pending, 0, "{point}, {workers} workers: nothing prepared is left over");
        }
    }
}

#[test]
fn a_sink_writes_for_real_only_if_the_test_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let test =
        || JobTest::new(totals_into_files, Output(output.clone())).feed("numbers", script().records([1_u64]));
    let failed = test().run_to_end().unwrap_err().to_string();
    assert!(failed.contains("sink `out` would write for real"), "{failed}");
    let failed = test().real_sink("out").real_sink("nowhere").run_to_end().unwrap_err().to_string();
    assert!(failed.contains("`nowhere`, which this job does not have"), "{failed}");
    let mut both = test().real_sink("out");
    let _collected = both.collect::<(u64, u64)>("out");
    let failed = both.run_to_end().unwrap_err().to_string();
    assert!(failed.contains("not both"), "{failed}");
    assert!(!output.exists());
}

#[test]
fn a_point_that_is_never_passed_fails_the_test() {
    let script = script().records(0..3_u64).barrier().crash(Crash::At("decision.visible")).end();
    let mut test = without_output().feed("numbers", script);
    let failed = test.run_to_end().unwrap_err().to_string();
    assert!(failed.contains("never passed") && failed.contains("numbers"), "{failed}");
    assert!(POINTS.contains(&"decision.visible"));
}

#[test]
fn a_double_for_a_step_that_is_not_there_or_has_other_records_is_refused() {
    let mut test = without_output().feed("numbers", script().records([1_u64]));
    let _nowhere = test.collect::<(u64, u64)>("nowhere");
    let failed = test.run_to_end().unwrap_err().to_string();
    assert!(failed.contains("stands in for a sink `nowhere`"), "{failed}");

    let mut test = without_output().feed("numbers", script().records(["text"]));
    let failed = test.run_to_end().unwrap_err().to_string();
    assert!(failed.contains("&str") && failed.contains("u64"), "{failed}");
}

#[test]
fn an_error_of_the_job_fails_the_test_with_its_text() {
    fn refusing(_: &Job, (): &()) -> Result<()> {
        Err(Error::job("the arguments make no sense"))
    }
    let failed = JobTest::new(refusing, ()).run_to_end().unwrap_err().to_string();
    assert!(failed.contains("the arguments make no sense"), "{failed}");
}

#[test]
fn a_bug_in_a_job_shows_only_where_it_crashes() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    /// Numbers its records outside of its state: after a crash the numbers go on instead of going back.
    fn forgetful(job: &Job, counter: &Arc<AtomicU64>) -> Result<()> {
        let counter = Arc::clone(counter);
        job.source("numbers", staunch::generator::sequence(Some(1), 1, |_, _| 0_u64))
            .map(move |number| (number, counter.fetch_add(1, SeqCst)))
            .sink("out", staunch::discard::sink());
        Ok(())
    }
    let run = |script: Script<u64>| {
        let mut test = JobTest::new(forgetful, Arc::default()).feed("numbers", script);
        let out = test.collect::<(u64, u64)>("out");
        test.run_to_end().unwrap();
        out.committed()
    };
    assert_eq!(run(script().records(0..4_u64).end()), [(0, 0), (1, 1), (2, 2), (3, 3)]);
    let crashed = run(script().records(0..2).crash(Crash::Now).records(2..4).end());
    assert_ne!(crashed, [(0, 0), (1, 1), (2, 2), (3, 3)], "the crash shows the bug");
}
