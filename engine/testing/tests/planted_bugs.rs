//! The proof is tested: each planted bug is noticed by the crash matrix.

use staunch_testing::matrix::{Case, Fault, run};
use std::path::Path;

/// What the checks say of a victim with this bug when the faults come at the `nth` hit of their points.
fn noticed(bug: &'static str, nth: u32, cases: &[(&'static str, Fault)]) -> Vec<String> {
    let victim = Path::new(env!("CARGO_BIN_EXE_victim"));
    let run = |(point, fault): &(&'static str, Fault)| {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let case = Case { point, fault: *fault, nth, workers: 2, bug: Some(bug) };
        run(&case, victim, dir.path()).err()
    };
    cases.iter().filter_map(run).collect()
}

#[test]
fn a_restart_that_does_not_publish_what_its_checkpoint_lists_is_noticed() {
    let found = noticed("recommit_skipped", 3, &[("decision.made", Fault::Kill)]);
    assert!(found.iter().any(|why| why.contains("missing")), "{found:?}");
}

#[test]
fn positions_that_are_one_barrier_late_are_noticed() {
    let found = noticed("positions_late", 3, &[("commit.done", Fault::Kill)]);
    assert!(found.iter().any(|why| why.contains("doubled")), "{found:?}");
}

#[test]
fn records_that_pass_a_barrier_are_noticed() {
    let cases = ["decision.made", "commit.done", "commit.due", "expire.some_deleted"];
    let found = noticed("stash_off", 3, &cases.map(|point| (point, Fault::Kill)));
    assert!(found.iter().any(|why| why.contains("doubled") || why.contains("wrong_prefix")), "{found:?}");
}

#[test]
fn a_deleted_file_that_a_checkpoint_needs_is_noticed() {
    let found = noticed("shared_file_deleted", 8, &[("decision.due", Fault::Kill)]);
    assert!(found.iter().any(|why| why.contains("not complete")), "{found:?}");
}
