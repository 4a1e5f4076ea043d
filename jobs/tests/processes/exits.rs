//! Exit codes that no ordinary run shows: 3 and 130. (The others: `refusals.rs`, `disk_full.rs`, `signals.rs`.)

use crate::support::{Case, ended, example, signal, wait_for_log};
use std::path::PathBuf;

#[test]
fn a_bug_in_a_connector_ends_the_job_with_3_and_asks_to_be_reported() {
    let Some(example) = example("broken_source") else { return };
    let case = Case::new(example, PathBuf::new()).with_input("lines.txt", "one\ntwo\n");
    for _ in 0..2 {
        case.refused(
            "",
            3,
            &["step `lines`", "cannot be written as JSON", "this is a bug", "please report it"],
        );
        assert!(case.lines().is_empty());
    }
}

/// The stop waits, because its output cannot be published.
#[test]
fn a_second_signal_while_a_job_stops_ends_it_with_130_and_the_rerun_continues() {
    for (first, second) in [(libc::SIGTERM, libc::SIGTERM), (libc::SIGINT, libc::SIGTERM)] {
        let case = Case::flights();
        let mut running = case.start("--workers 2 --rate 3000 --checkpoint-every 100ms");
        case.wait_for_lines(&running, 100);
        let blocked = case.block_commits();
        wait_for_log(&running, "commit failed, trying again");
        let published = case.lines();
        signal(&running, first);
        wait_for_log(&running, "stop requested");
        assert!(running.ended().unwrap().is_none(), "a stop waits until its output is published");
        signal(&running, second);
        let killed = ended(&mut running);
        assert_eq!(killed.code, Some(130), "{}", killed.log);
        assert_eq!(case.lines(), published);

        blocked.end();
        let again = case.complete("--workers 3");
        assert!(again.log.contains("\"restoring"), "it began from nothing: {}", again.log);
        case.assert_batch_result();
    }
}
