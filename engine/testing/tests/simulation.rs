//! The simulator over a bounded number of seeds; `simulate` runs as many as one likes.

use staunch_testing::simulation::{run, stay_on_one_core};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Seeds that every change has to pass.
const SEEDS: u64 = 4_000;
/// Seeds that once found a bug, with the bug: they stay.
const REGRESSIONS: &[(u64, &str)] = &[
    (57, "a start beside a living process takes its newest output for lost records"),
    (1_042_375, "the simulator did not know that a commit can fail until its time is over"),
];

#[test]
fn no_promise_is_broken_in_any_of_many_simulated_lives() {
    let next = AtomicU64::new(0);
    let [crashes, turns, unions, late, spilling] = [const { AtomicU64::new(0) }; 5];
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (next, crashes, turns, unions) = (&next, &crashes, &turns, &unions);
            let (late, spilling) = (&late, &spilling);
            scope.spawn(move || {
                stay_on_one_core(thread);
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= SEEDS {
                        return;
                    }
                    let report = run(seed, false).unwrap_or_else(|violation| panic!("{violation}"));
                    crashes.fetch_add(u64::from(report.crashes), SeqCst);
                    turns.fetch_add(u64::from(report.turns), SeqCst);
                    unions.fetch_add(u64::from(report.unions), SeqCst);
                    late.fetch_add(report.late, SeqCst);
                    spilling.fetch_add(u64::from(report.spilled > 0), SeqCst);
                }
            });
        }
    });
    let crashes = crashes.into_inner();
    assert!(crashes > SEEDS / 3, "only {crashes} crashes: the simulator has become tame");
    let (turns, unions, late) = (turns.into_inner(), unions.into_inner(), late.into_inner());
    assert!(turns > SEEDS / 400, "only {turns} processes went back to an older checkpoint");
    assert!(unions > SEEDS / 10, "only {unions} jobs have two sources");
    assert!(late > SEEDS / 10, "only {late} records came too late");
    let spilling = spilling.into_inner();
    assert!(spilling > SEEDS / 10, "state exceeded its memory in {spilling} jobs only");
    println!("MEASURED: {SEEDS} simulated jobs with {crashes} crashes, none of them with a violation");
}

#[test]
fn the_same_seed_goes_the_same_way_and_others_do_not() {
    let fingerprints = |seeds: std::ops::Range<u64>| -> Vec<u64> {
        seeds.map(|seed| run(seed, false).unwrap_or_else(|v| panic!("{v}")).fingerprint).collect()
    };
    let first = fingerprints(0..60);
    assert_eq!(first, fingerprints(0..60));
    let mut different = first.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), first.len(), "each seed is a run of its own");
}

#[test]
fn a_seed_is_replayed_by_a_command() {
    let replay = || {
        let run = std::process::Command::new(env!("CARGO_BIN_EXE_simulate")).args(["--seed", "57"]).output();
        String::from_utf8(run.unwrap().stdout).unwrap()
    };
    let shown = replay();
    assert!(shown.lines().count() > 100, "{shown}");
    assert_eq!(shown, replay(), "two processes show the same run");
    let fingerprint = run(57, false).unwrap_or_else(|v| panic!("{v}")).fingerprint;
    assert!(shown.contains(&format!("fingerprint: {fingerprint}")), "{shown}");
}

/// The proof is tested: with each of these bugs in the engine some seed breaks a promise. (Folders that are
/// not synced cannot be seen here: no file system is simulated.)
#[test]
fn every_planted_bug_is_found_by_some_seed() {
    // Each is to be caught by what it does; one of these is in what is said of it.
    let signs = [
        ("committed_before_decision", &["of which the checkpoint directory knows nothing"][..]),
        ("recommit_skipped", &["rows of", "rows of its key", "late records included, not to"]),
        (
            "fencing_skipped",
            &[
                "that was replaced said",
                "doubled: ",
                "rows of its key",
                "acknowledged and gone",
                "rows are visible of checkpoints after",
            ],
        ),
        ("positions_late", &["doubled: ", "rows of its key", "are acknowledged at the end"]),
        (
            "acknowledgement_counted_twice",
            &["at the end", "rows of its key", "late records included, not to"],
        ),
        ("shared_file_deleted", &["though the checkpoint lists it"]),
        ("stash_off", &["doubled: ", "rows of its key", " was expected: "]),
    ];
    let bugs = staunch::core::crash::BUGS.iter().filter(|bug| **bug != "folder_sync_skipped");
    assert_eq!(bugs.clone().count(), signs.len());
    for bug in bugs {
        let sign = signs.iter().find(|(name, _)| name == bug);
        let (_, sign) = sign.unwrap_or_else(|| panic!("nobody says how {bug} is caught"));
        let mut simulate = std::process::Command::new(env!("CARGO_BIN_EXE_simulate"));
        let run = simulate.args(["--seeds", "8000"]).env("STAUNCH_BUG", bug).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(
            !run.status.success()
                && said.contains("replay it with: STAUNCH_BUG=")
                && said.contains("--bin simulate -- --seed"),
            "{bug}: {said}"
        );
        assert!(sign.iter().any(|sign| said.contains(sign)), "{bug} is not caught by {sign:?}: {said}");
        println!("{bug}: {}", said.lines().next().unwrap_or_default());
    }
}

#[test]
fn seeds_that_once_found_a_bug_find_none() {
    for (seed, bug) in REGRESSIONS {
        if let Err(violation) = run(*seed, false) {
            panic!("{bug} is back: {violation}");
        }
    }
    assert!(REGRESSIONS.iter().all(|(_, bug)| !bug.is_empty()), "a regression says what it was");
}
