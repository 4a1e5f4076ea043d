//! Inputs in other shapes, and other intervals: the same result.

use crate::support::{Case, data_text, wait_for_log};
use std::time::Duration;

#[test]
fn several_files_on_three_workers_give_the_same_result() {
    // One after the other in time.
    let case = Case::flights_in_files(5, |row, rows| row * 5 / rows);
    case.complete("--workers 3");
    case.assert_batch_result();
    let whole = jobs::batch::flight_delays(&crate::support::data()).unwrap();
    crate::support::assert_same(&whole.lines, &case.lines());
}

#[test]
fn line_ends_of_windows_give_the_same_result() {
    let case = Case::flights_in(&data_text().replace('\n', "\r\n"));
    case.complete("--workers 2");
    let whole = jobs::batch::flight_delays(&crate::support::data()).unwrap();
    crate::support::assert_same(&whole.lines, &case.lines());
}

#[test]
fn a_checkpoint_every_ten_milliseconds_changes_nothing() {
    let case = Case::flights();
    case.complete("--workers 3 --checkpoint-every 10ms --rate 7000");
    case.assert_batch_result();
    // Hundreds of checkpoints, or a few on a slow disk.
    let files = jobs::output::committed(&case.output()).unwrap();
    assert!(files.len() > 20, "only {} files in four seconds", files.len());
}

#[test]
fn with_checkpoints_off_everything_is_published_at_the_end() {
    let case = Case::flights();
    let mut running = case.start("--checkpoint-every off --rate 5000");
    wait_for_log(&running, "running");
    std::thread::sleep(Duration::from_millis(700));
    assert!(running.ended().unwrap().is_none(), "it still runs");
    assert!(case.lines().is_empty(), "something was published without a checkpoint");
    let ended = crate::support::ended(&mut running);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    case.assert_batch_result();
}

#[test]
fn a_smaller_lateness_drops_late_flights_and_never_doubles_a_window() {
    let case = Case::flights();
    case.complete("--workers 2 --lateness 1h --checkpoint-every 50ms");
    let mut keys: Vec<String> =
        case.lines().iter().map(|l| crate::support::observer::airport_and_hour(l)).collect();
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), all, "a window was published twice");
}

#[test]
fn an_input_without_flights_gives_no_result() {
    let header = data_text().lines().next().unwrap();
    for text in [format!("{header}\n"), header.to_owned(), String::new()] {
        let case = Case::flights_in(&text);
        case.complete("--workers 2");
        assert!(case.lines().is_empty());
    }
}
