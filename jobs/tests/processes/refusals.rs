//! What a job refuses, and how it says so.

use crate::support::{Case, data_text, signal};
use std::fs;

const SLOWLY: &str = "--rate 3000 --checkpoint-every 100ms";

/// A case with a run that was stopped half-way.
fn half_way() -> Case {
    let case = Case::flights();
    let mut running = case.start(SLOWLY);
    case.wait_for_lines(&running, 100);
    signal(&running, libc::SIGTERM);
    assert!(running.wait(crate::support::LONGEST).unwrap().success());
    case
}

#[test]
fn from_none_is_refused_while_the_output_of_the_old_run_is_there() {
    let case = half_way();
    let before = case.lines();
    case.refused("--from none", 2, &["another output directory"]);
    assert_eq!(case.lines(), before, "the refused start changed the output");
}

#[test]
fn after_a_refused_from_none_the_old_run_can_continue() {
    let case = half_way();
    case.refused("--from none", 2, &["another output directory"]);
    case.complete("");
    case.assert_batch_result();
}

#[test]
fn from_none_with_another_output_directory_starts_anew() {
    let case = half_way();
    case.complete("--from none --output elsewhere");
    let found = jobs::output::committed_lines(&case.path("elsewhere")).unwrap();
    let expected = jobs::batch::flight_delays(&case.input).unwrap().lines;
    crate::support::assert_same(&expected, &found);
}

#[test]
fn the_output_directory_of_another_run_is_refused() {
    let case = half_way();
    let before = case.lines();
    case.refused("--checkpoints other", 2, &["output", "another run"]);
    assert_eq!(case.lines(), before);
    case.complete("");
    case.assert_batch_result();
}

#[test]
fn the_checkpoints_of_another_job_are_refused() {
    let case = half_way();
    let words = Case::words("a b a");
    let checkpoints = case.checkpoints();
    words.refused(&format!("--checkpoints {}", checkpoints.display()), 2, &["flight_delays", "word_count"]);
    case.complete("");
    case.assert_batch_result();
}

#[test]
fn a_window_of_another_length_is_refused_with_both_lengths() {
    let case = half_way();
    let before = case.lines();
    case.refused("--window 2h", 2, &["step `delays`", "window: was 3600s, is 7200s", "change it back"]);
    case.refused("--window 2h --accept-change delays", 2, &["window: was 3600s, is 7200s"]);
    assert_eq!(case.lines(), before);
    case.complete("");
    case.assert_batch_result();
}

#[test]
fn a_complete_job_is_not_run_again() {
    let case = Case::flights();
    case.complete("--workers 2");
    let files = jobs::output::committed(&case.output()).unwrap();
    let again = case.complete("--workers 3");
    assert!(again.log.contains("already complete"), "{}", again.log);
    assert_eq!(jobs::output::committed(&case.output()).unwrap(), files);
}

#[test]
fn a_missing_input_is_named() {
    let case = Case::flights();
    case.refused("--input /no/such/file.csv", 2, &["/no/such/file.csv", "does not exist"]);
    case.complete("");
    case.assert_batch_result();
}

#[test]
fn an_output_directory_that_cannot_be_made_is_named() {
    let case = Case::flights();
    fs::write(case.path("file"), "not a directory").unwrap();
    let output = case.path("file/output");
    let ended = case.run(&format!("--output {}", output.display()));
    assert!(matches!(ended.code, Some(1 | 2)), "{:?}", ended.code);
    assert!(ended.log.contains(&output.display().to_string()), "{}", ended.log);
    assert!(ended.log.contains("Not a directory"), "{}", ended.log);
}

#[test]
fn a_checkpoint_directory_that_cannot_be_made_is_named() {
    let case = Case::flights();
    fs::write(case.path("file"), "not a directory").unwrap();
    let checkpoints = case.path("file/checkpoints");
    let ended = case.run(&format!("--checkpoints {}", checkpoints.display()));
    assert!(matches!(ended.code, Some(1 | 2)), "{:?}", ended.code);
    assert!(ended.log.contains(&checkpoints.display().to_string()), "{}", ended.log);
}

#[test]
fn a_malformed_line_is_named_and_once_it_is_corrected_the_job_continues() {
    let row = 20_000;
    let mut lines: Vec<String> = data_text().lines().map(str::to_owned).collect();
    let good = lines[row].clone();
    lines[row] = {
        let mut fields: Vec<&str> = good.split(',').collect();
        fields[5] = "soon";
        fields.join(",")
    };
    let case = Case::flights_in(&(lines.join("\n") + "\n"));
    let place = format!("line {}", row + 1);
    case.refused("--workers 2 --rate 15000 --checkpoint-every 100ms", 2, &["flights.csv", &place, "soon"]);
    let before = case.lines();
    assert!(!before.is_empty(), "nothing was published before the bad line");
    // The same again: running it again changes nothing.
    case.refused("--workers 3", 2, &["flights.csv", &place, "soon"]);

    lines[row] = good;
    fs::write(&case.input, lines.join("\n") + "\n").unwrap();
    case.complete("");
    case.assert_batch_result();
}

#[test]
fn a_line_with_too_few_fields_is_named() {
    let mut lines: Vec<&str> = data_text().lines().take(100).collect();
    lines[41] = "2013,1,1,517";
    Case::flights_in(&lines.join("\n")).refused("", 2, &["flights.csv", "line 42"]);
}

#[test]
fn wrong_arguments_are_refused_and_leave_no_trace() {
    let case = Case::flights();
    for arguments in [
        "--workers many",
        "--workers 0",
        "--workers 1000",
        "--checkpoint-every 0s",
        "--checkpoint-every soon",
        "--from yesterday",
        "--lateness long",
        "--rate -1",
        "--state-memory 1bunch",
        "--no-such-flag",
    ] {
        let error = case.refused(arguments, 2, &["error"]);
        let word = arguments.split(' ').nth(1).unwrap_or(arguments);
        assert!(error.contains(word), "{arguments}: the error does not repeat {word:?}: {error}");
        assert!(!case.output().exists(), "{arguments} wrote output");
        let slots = case.checkpoints().join("log").read_dir().map_or(0, Iterator::count);
        assert_eq!(slots, 0, "{arguments} wrote into the log of checkpoints");
    }
}
