//! The sinks that promise least: what is printed, and what is thrown away.

use crate::support::{Case, LONGEST, ended, example, signal};
use jobs::running::{Metrics, Running, free_address, until};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const NEVER: &str = "--checkpoint-every off";

fn three_sinks() -> Option<Case> {
    Some(Case::new(example("three_sinks")?, PathBuf::new()))
}

/// Starts the job; what it prints is appended to a file.
fn start(case: &Case, printed: &Path, arguments: &str) -> Running {
    let job = case.command(arguments);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" >>\"$PRINTED\""]).arg(job.get_program()).args(job.get_args());
    shell.env("PRINTED", printed).env_remove("RUST_LOG").current_dir(case.path(""));
    Running::start(&mut shell).expect("the job can be started")
}

fn printed(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Waits until the job has printed this, and nothing else.
fn wait_for_printed(running: &Running, path: &Path, text: &str) {
    let all = until(LONGEST, || (printed(path) == text).then_some(()));
    assert!(all.is_some(), "printed is {:?}, not {text:?}:\n{}", printed(path), running.log().join("\n"));
}

fn stop(running: &mut Running) {
    signal(running, libc::SIGTERM);
    let stopped = ended(running);
    assert_eq!(stopped.code, Some(0), "{}", stopped.log);
}

#[test]
fn a_line_is_printed_at_once_and_again_after_a_crash_but_not_after_a_checkpoint() {
    let Some(case) = three_sinks() else { return };
    let case = case.with_input("lines.txt", "one\ntwo\n");
    let append = |text: &str| {
        let mut file = fs::File::options().append(true).open(&case.input).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let [first, second, third] = ["first", "second", "third"].map(|name| case.path(name));

    let mut running = start(&case, &first, NEVER);
    wait_for_printed(&running, &first, "one\ntwo\n");
    append("three\n");
    wait_for_printed(&running, &first, "one\ntwo\nthree\n");
    assert!(case.lines().is_empty(), "there was no checkpoint yet");
    running.kill().unwrap();

    let mut running = start(&case, &second, NEVER);
    wait_for_printed(&running, &second, "one\ntwo\nthree\n");
    stop(&mut running);
    let copied = ["\"one\"", "\"three\"", "\"two\""];
    assert_eq!(case.lines(), copied, "exactly once, beside a sink that is not");

    let mut running = start(&case, &third, NEVER);
    append("four\n");
    wait_for_printed(&running, &third, "four\n");
    stop(&mut running);
    assert_eq!(printed(&third), "four\n");
    assert_eq!(printed(&second), "one\ntwo\nthree\n");
}

/// Lines of different lengths, some with what JSON must escape.
fn lines_of(file: usize) -> Vec<String> {
    (0..3000).map(|n| format!("{file} {n} \"{}\\", "x".repeat(n * 7 % 300))).collect()
}

/// A case with two files, for two workers; and the lines, sorted.
fn two_files() -> Option<(Case, Vec<String>)> {
    let mut case = three_sinks()?;
    case.input = case.path("input");
    fs::create_dir(&case.input).unwrap();
    let mut all = Vec::new();
    for file in 0..2 {
        let lines = lines_of(file);
        fs::write(case.input.join(format!("{file}.txt")), lines.join("\n") + "\n").unwrap();
        all.extend(lines);
    }
    all.sort_unstable();
    Some((case, all))
}

#[test]
fn two_workers_print_whole_lines_as_text_and_as_json() {
    for json in [false, true] {
        let Some((case, expected)) = two_files() else { return };
        let path = case.path("printed");
        let options = if json { "--workers 2 --print-json" } else { "--workers 2" };
        let mut running = start(&case, &path, options);
        let enough = || (printed(&path).matches('\n').count() >= expected.len()).then_some(());
        assert!(until(LONGEST, enough).is_some(), "not all is printed:\n{}", running.log().join("\n"));
        stop(&mut running);
        let text = printed(&path);
        let read = |line: &str| if json { serde_json::from_str(line).unwrap() } else { line.to_owned() };
        let mut lines: Vec<String> = text.lines().map(read).collect();
        lines.sort_unstable();
        assert!(lines == expected, "{} lines, not the {} of the input", lines.len(), expected.len());
    }
}

#[test]
fn a_job_that_cannot_print_ends_with_1_and_the_rerun_prints() {
    let Some(case) = three_sinks() else { return };
    let case = case.with_input("lines.txt", "one\n");
    let failed = ended(&mut start(&case, Path::new("/dev/full"), NEVER));
    assert_eq!(failed.code, Some(1), "{}", failed.log);
    for word in ["step `printed`", "cannot print to standard output", "No space left"] {
        assert!(failed.log.contains(word), "no {word:?}: {}", failed.log);
    }
    assert!(!failed.log.contains("panicked"), "{}", failed.log);

    let path = case.path("printed");
    let mut running = start(&case, &path, NEVER);
    wait_for_printed(&running, &path, "one\n");
    stop(&mut running);
}

#[test]
fn the_plan_says_which_sinks_show_a_record_more_than_once() {
    let Some(program) = example("three_sinks") else { return };
    let mut command = Command::new(program);
    let output = command.args(["plan", "--input", "lines", "--output", "copies"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |sink: &str| {
        let line = text.lines().find(|line| line.contains(&format!("sink `{sink}`")));
        line.unwrap_or_else(|| panic!("no sink {sink} in:\n{text}"))
    };
    for (sink, repeats) in [("printed", true), ("thrown_away", true), ("copied", false)] {
        assert_eq!(line(sink).contains("(at least once)"), repeats, "{text}");
    }
}

#[test]
fn discard_takes_every_record_and_leaves_nothing_to_commit() {
    let Some((case, expected)) = two_files() else { return };
    let address = free_address().unwrap();
    let options = format!("--workers 2 --checkpoint-every 50ms --metrics {address}");
    let mut running = start(&case, Path::new("/dev/null"), &options);
    let taken = |metrics: &Metrics| metrics.sum("staunch_records_in_total", &["step=\"thrown_away\""]);
    let commits =
        |metrics: &Metrics, sink: &str| metrics.sum("staunch_commits_total", &[&format!("sink=\"{sink}\"")]);
    case.wait_for_lines(&running, expected.len());
    let done = || {
        let metrics = Metrics::of(address)?;
        (taken(&metrics) >= expected.len() as f64 && commits(&metrics, "copied") > 0.0).then_some(metrics)
    };
    let metrics = until(LONGEST, done);
    let metrics = metrics.unwrap_or_else(|| panic!("it does not take all:\n{}", running.log().join("\n")));
    assert_eq!(taken(&metrics), expected.len() as f64);
    assert_eq!((commits(&metrics, "thrown_away"), commits(&metrics, "printed")), (0.0, 0.0));
    stop(&mut running);
    assert_eq!(case.lines().len(), expected.len(), "the sink beside it is not disturbed");
}
