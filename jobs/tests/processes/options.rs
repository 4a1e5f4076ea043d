//! What the options of a job do that other tests here do not use.

use crate::support::{Case, LONGEST, ended, signal};
use jobs::running::{Running, until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const SLOWLY: &str = "--rate 3000 --checkpoint-every 100ms";

/// The number of the newest record in the log.
fn newest_record(case: &Case) -> u64 {
    let entries = fs::read_dir(case.checkpoints().join("log")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).max().unwrap_or(0)
}

/// The checkpoints in the log of a job that does not run, oldest first.
fn checkpoints(case: &Case) -> Vec<Value> {
    let entries = fs::read_dir(case.checkpoints().join("log")).unwrap();
    let mut records: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    records.sort();
    let checkpoint = |record: &PathBuf| {
        let text = fs::read_to_string(record).unwrap();
        let (_, body) = text.split_once('\n').expect("the body comes after the first line");
        serde_json::from_str::<Value>(body).unwrap().get("checkpoint").cloned()
    };
    records.iter().filter_map(checkpoint).collect()
}

fn stop(running: &mut Running) {
    signal(running, libc::SIGTERM);
    let stopped = ended(running);
    assert_eq!(stopped.code, Some(0), "{}", stopped.log);
}

#[test]
fn as_many_checkpoints_are_kept_as_retain_says() {
    for (option, kept) in [("", 3), ("--retain 2", 2), ("--retain 6", 6), ("--retain 0", 1)] {
        let case = Case::flights();
        let mut running = case.start(&format!("{SLOWLY} {option}"));
        // The first record is the fence.
        let enough = || (newest_record(&case) > 10).then_some(());
        assert!(until(LONGEST, enough).is_some(), "no checkpoints:\n{}", running.log().join("\n"));
        stop(&mut running);
        let ids: Vec<u64> =
            checkpoints(&case).iter().map(|checkpoint| checkpoint["checkpoint"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), kept, "{option:?}: {ids:?}");
        // The newest ones, and they can be gone on from.
        assert!(ids.is_sorted() && ids[0] > 4, "{option:?}: {ids:?}");
        case.complete(option);
        case.assert_batch_result();
    }
}

#[test]
fn the_first_start_fixes_the_max_parallelism_and_more_workers_are_refused() {
    let case = Case::flights();
    case.refused("--max-parallelism 2 --workers 3", 2, &["3 workers", "from 1 to 2", "--max-parallelism"]);
    let mut running = case.start(&format!("{SLOWLY} --max-parallelism 4 --workers 2"));
    case.wait_for_lines(&running, 100);
    stop(&mut running);
    let groups = || checkpoints(&case).iter().map(|c| c["groups"].as_u64().unwrap()).collect::<Vec<_>>();
    assert!(!groups().is_empty() && groups().iter().all(|groups| *groups == 4), "{:?}", groups());

    // What a later start says about it does not count.
    let words = ["5 workers", "from 1 to 4", "when it first started"];
    case.refused("--max-parallelism 64 --workers 5", 2, &words);
    case.refused("--workers 5", 2, &words);
    case.complete("--max-parallelism 2 --workers 4");
    assert_eq!(groups().last(), Some(&4));
    case.assert_batch_result();
}

#[test]
fn a_job_whose_output_cannot_be_published_ends_after_the_commit_timeout_and_the_rerun_publishes_it() {
    let case = Case::flights();
    let mut running = case.start(&format!("{SLOWLY} --workers 2 --commit-timeout 700ms"));
    case.wait_for_lines(&running, 100);
    let blocked = case.block_commits();
    let failed = ended(&mut running);
    let published = case.lines();
    assert_eq!(failed.code, Some(1), "{}", failed.log);
    assert!(failed.log.contains("commit failed, trying again"), "it was not tried again: {}", failed.log);
    let error = failed.log.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    for word in ["output", "700ms (--commit-timeout)"] {
        assert!(error.contains(word), "no {word:?} in the error: {error}");
    }

    blocked.end();
    let again = case.complete("");
    assert!(again.log.contains("output of the checkpoint is published"), "{}", again.log);
    assert!(published.len() < case.lines().len());
    case.assert_batch_result();
}

/// Whether the state of a running job has gone to disk.
fn spills(case: &Case) -> bool {
    let find = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let steps = find(&case.checkpoints().join("work")).into_iter().flat_map(|start| find(&start));
    steps.flat_map(|step| find(&step)).any(|database| database.join("CURRENT").exists())
}

#[test]
fn state_that_exceeds_the_state_memory_goes_to_disk_and_the_result_is_the_same() {
    let case = Case::flights();
    let mut running = case.start(SLOWLY);
    case.wait_for_lines(&running, 100);
    assert!(!spills(&case), "state of some windows exceeds 1 GiB");
    running.kill().unwrap();

    let mut running = case.start(&format!("{SLOWLY} --state-memory 1KiB"));
    let spilled = || spills(&case).then_some(());
    assert!(until(LONGEST, spilled).is_some(), "nothing is on disk:\n{}", running.log().join("\n"));
    let lines = case.lines().len();
    case.wait_for_lines(&running, lines + 100);
    running.kill().unwrap();

    case.complete("--state-memory 1KiB --workers 2 --rate 10000 --checkpoint-every 50ms");
    case.assert_batch_result();
    assert!(!case.checkpoints().join("work").exists(), "what was on disk is left behind");
}

#[test]
fn a_wrong_value_of_an_option_is_refused_with_what_is_wrong_with_it() {
    let case = Case::flights();
    for (arguments, words) in [
        ("--retain few", ["--retain", "few"]),
        ("--max-parallelism 65536", ["--max-parallelism", "65536"]),
        ("--max-parallelism 0", ["--max-parallelism", "0 is not in 1"]),
        ("--commit-timeout soon", ["--commit-timeout", "write it like 100ms"]),
        ("--commit-timeout 0s", ["--commit-timeout", "in no time"]),
        ("--checkpoint-timeout 0ms", ["--checkpoint-timeout", "in no time"]),
        ("--state-memory GiB", ["--state-memory", "write it like 512MiB"]),
        ("--state-memory 5TiB", ["--state-memory", "use KiB, MiB or GiB"]),
        ("--state-memory 99999999999GiB", ["--state-memory", "too much"]),
        ("--metrics nowhere", ["--metrics", "nowhere"]),
    ] {
        case.refused(arguments, 2, &words);
        assert!(!case.output().exists(), "{arguments} wrote output");
        assert_eq!(newest_record(&case), 0, "{arguments} wrote into the log of checkpoints");
    }
}
