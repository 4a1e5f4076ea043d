//! The proof is tested: each of the eight planted bugs is caught, by an oracle that is named here.

use staunch_testing::matrix::{Case, Fault, Setting, run};
use staunch_testing::oracle::{Failure, Oracle};
use staunch_testing::victim::Sinks;
use std::path::Path;

/// What the oracles say of a victim with this bug.
fn judged(bug: &'static str, sinks: Sinks, case: &Case) -> Result<(), Failure> {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let setting = Setting { bug: Some(bug), ..Setting::USUAL };
    let case = Case { sinks, ..case.clone() };
    run(&case, &setting, Path::new(env!("CARGO_BIN_EXE_victim")), dir.path()).map(drop)
}

/// Requires that one of these oracles catches the bug in one of the cases.
fn caught_by(oracles: &[Oracle], bug: &'static str, sinks: Sinks, cases: &[Case]) -> String {
    let mut said = Vec::new();
    for case in cases {
        match judged(bug, sinks, case) {
            Err(Failure::Violation(oracle, what)) if oracles.contains(&oracle) => return what,
            other => said.push(format!("{}: {other:?}", case.point)),
        }
    }
    panic!("{bug} was not caught by {oracles:?}: {said:?}");
}

fn kills(points: &[&'static str], nth: u32) -> Vec<Case> {
    points.iter().map(|point| Case::new(point, Fault::Kill, nth, 2)).collect()
}

#[test]
fn output_that_is_committed_before_the_decision_is_caught_by_liveness() {
    // The table refuses the start that would double it: it holds a checkpoint that was never decided.
    let cases = kills(&["decision.temporary_synced"], 3);
    let what = caught_by(&[Oracle::Liveness], "committed_before_decision", Sinks::Table, &cases);
    assert!(what.contains("of which the checkpoint directory knows nothing"), "{what}");
}

#[test]
fn a_restart_that_does_not_publish_what_its_checkpoint_lists_is_caught_by_the_identity_audit() {
    let cases = kills(&["decision.made"], 3);
    // With each sink alone, too: what judges one of them does not lean on the other.
    for sinks in Sinks::ALL {
        let what = caught_by(&[Oracle::Identity], "recommit_skipped", sinks, &cases);
        assert!(!what.contains(" 0 missing"), "{sinks}: {what}");
    }
}

#[test]
fn a_start_that_fences_nobody_is_caught_by_the_observer() {
    let zombie = Case { nth: 4, ..Case::new("barrier.due", Fault::Zombie, 4, 3) };
    let late = Case { fault: Fault::LateZombie, ..zombie.clone() };
    let caught = [Oracle::Observer, Oracle::Identity];
    caught_by(&caught, "fencing_skipped", Sinks::Table, &[zombie, late]);
}

#[test]
fn a_folder_that_is_not_synced_is_caught_by_liveness_after_a_power_cut() {
    let case = Case::new("commit.done", Fault::PowerCut, 5, 2);
    let what = caught_by(&[Oracle::Liveness], "folder_sync_skipped", Sinks::Both, &[case]);
    assert!(what.contains("output of another run"), "{what}");
}

#[test]
fn positions_that_are_one_barrier_late_are_caught_by_the_observer() {
    let cases = kills(&["commit.done"], 3);
    caught_by(&[Oracle::Observer, Oracle::Identity], "positions_late", Sinks::Both, &cases);
}

#[test]
fn an_acknowledgement_that_counts_twice_is_caught_by_the_identity_audit() {
    // It loses something only if the second instance is later than the first one at some barrier: nearly always.
    let cases = [3, 5, 7].map(|nth| kills(&["commit.done", "decision.made"], nth)).concat();
    caught_by(&[Oracle::Identity], "acknowledgement_counted_twice", Sinks::Both, &cases);
}

#[test]
fn a_deleted_file_that_a_checkpoint_needs_is_caught_by_liveness() {
    let cases = kills(&["decision.due"], 8);
    let what = caught_by(&[Oracle::Liveness], "shared_file_deleted", Sinks::Both, &cases);
    assert!(what.contains("though the checkpoint lists it"), "{what}");
}

#[test]
fn records_that_pass_a_barrier_are_caught_by_the_observer_or_the_prefix_sums() {
    let cases = kills(&["decision.made", "commit.done", "commit.due", "expire.some_deleted"], 3);
    let caught = [Oracle::Observer, Oracle::Identity, Oracle::PrefixSums];
    caught_by(&caught, "stash_off", Sinks::Both, &cases);
}
