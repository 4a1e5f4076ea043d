//! Signals: stop, drain, savepoint; and a second copy of a running job.

use crate::support::{Case, LONGEST, assert_same, data_text, ended, signal};
use jobs::running::{Metrics, free_address, until};
use jobs::{batch, output};
use std::fs;

const SLOWLY: &str = "--rate 3000 --checkpoint-every 100ms";

#[test]
fn sigterm_takes_a_last_checkpoint_and_the_rerun_continues() {
    for stop in [libc::SIGTERM, libc::SIGINT] {
        let case = Case::flights();
        let mut running = case.start(&format!("{SLOWLY} --workers 2"));
        case.wait_for_lines(&running, 100);
        signal(&running, stop);
        let stopped = ended(&mut running);
        assert_eq!(stopped.code, Some(0), "{}", stopped.log);
        assert!(output::pending(&case.output()).unwrap().is_empty(), "something was left pending");
        let so_far = case.lines();

        case.complete("--workers 3");
        case.assert_batch_result();
        assert!(so_far.len() < case.lines().len(), "it was stopped half-way");
    }
}

#[test]
fn a_stop_between_periodic_checkpoints_keeps_everything_that_was_read() {
    let case = Case::flights();
    let address = free_address().unwrap();
    let mut running = case.start(&format!("--rate 5000 --checkpoint-every 1h --metrics {address}"));
    // Some days of flights, so that there are windows that are over; and far from all.
    let enough = || {
        let read = Metrics::of(address)?.sum("staunch_records_in_total", &["step=\"flights\""]);
        (read >= 5000.0).then_some(())
    };
    assert!(until(LONGEST, enough).is_some(), "it does not read:\n{}", running.log().join("\n"));
    signal(&running, libc::SIGTERM);
    assert_eq!(ended(&mut running).code, Some(0));
    assert!(!case.lines().is_empty(), "the last checkpoint publishes what was ready");
    let again = case.complete("--workers 2");
    assert!(again.log.contains("\"continuing\""), "the rerun began from nothing: {}", again.log);
    case.assert_batch_result();
}

#[test]
fn a_second_copy_is_refused_and_the_first_goes_on() {
    let case = Case::flights();
    let mut first = case.start(SLOWLY);
    case.wait_for_lines(&first, 1);
    let pid = first.id().to_string();
    let error = case.run("--workers 2");
    assert!(matches!(error.code, Some(1 | 2)), "{:?} {}", error.code, error.log);
    assert!(error.log.contains(&pid), "the error does not name the running process {pid}: {}", error.log);
    assert_eq!(ended(&mut first).code, Some(0));
    case.assert_batch_result();
}

#[test]
fn a_drain_publishes_the_open_windows_and_completes_the_job() {
    let case = Case::flights();
    let mut running = case.start(&format!("{SLOWLY} --workers 2"));
    case.wait_for_lines(&running, 100);
    signal(&running, libc::SIGUSR2);
    let drained = ended(&mut running);
    assert_eq!(drained.code, Some(0), "{}", drained.log);

    // What is published must be the batch result of the flights read until then, wherever that was.
    let lines = case.lines();
    let scheduled = |line: &String| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["scheduled"].as_u64().unwrap()
    };
    let flights: u64 = lines.iter().map(scheduled).sum();
    assert!(flights > 0 && flights < 27_004, "{flights} flights");
    let read: Vec<&str> = data_text().lines().take(1 + flights as usize).collect();
    let part = case.path("read.csv");
    fs::write(&part, read.join("\n")).unwrap();
    assert_same(&batch::flight_delays(&part).unwrap().lines, &lines);

    let again = case.complete("");
    assert!(again.log.contains("already complete"), "{}", again.log);
    assert_eq!(case.lines(), lines);
}

#[test]
fn a_job_continues_from_a_savepoint_that_is_named() {
    let case = Case::flights();
    let mut running = case.start(&format!("{SLOWLY} --workers 2"));
    case.wait_for_lines(&running, 50);
    signal(&running, libc::SIGUSR1);
    let entry = until(LONGEST, || {
        running
            .log()
            .iter()
            .find(|line| line.contains("Savepoint") && line.contains("checkpoint complete"))
            .cloned()
    });
    let entry: serde_json::Value =
        serde_json::from_str(&entry.expect("the log says that the savepoint is complete")).unwrap();
    let savepoint = entry["fields"]["checkpoint"].as_u64().expect("the log names the savepoint");
    // Long enough for an ordinary checkpoint of the same age to be gone.
    let lines = case.lines().len();
    case.wait_for_lines(&running, lines + 300);
    running.kill().unwrap();

    let refused = case.refused("--from 999999", 2, &["999999", &savepoint.to_string()]);
    assert!(refused.contains("is not in the log"), "{refused}");

    // Who goes back takes back what was published since.
    for name in output::committed(&case.output()).unwrap().into_keys() {
        if output::checkpoint_of(&name).unwrap() > savepoint {
            fs::remove_file(case.output().join(name)).unwrap();
        }
    }
    case.complete(&format!("--from {savepoint} --workers 1"));
    case.assert_batch_result();
}
