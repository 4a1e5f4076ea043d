//! A small attack; the large one is the binary of the same name.

use staunch_testing::attack::{Case, Fault, Life, SKIPPED, Storm, cases, learn, run_all, some, weather};
use std::collections::BTreeSet;
use std::path::Path;

/// Chosen anew with another one; `STAUNCH_ATTACK_CASES` widens it.
const SEED: u64 = 9;
const CASES: usize = 56;

#[test]
fn no_record_is_lost_or_doubled_whatever_is_done_to_the_nth_file_operation() {
    if let Some(why) = SKIPPED {
        println!("SKIPPED: {why}");
        return;
    }
    let victim = Path::new(env!("CARGO_BIN_EXE_victim"));
    let learned =
        [Life::First, Life::Later].map(|life| learn(life, 2, victim).unwrap_or_else(|why| panic!("{why}")));
    let wanted = std::env::var("STAUNCH_ATTACK_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let chosen = some(&cases(&learned, 20), wanted, SEED);
    let faults: BTreeSet<Fault> =
        chosen.iter().flat_map(|case| &case.strikes).map(|strike| strike.fault).collect();
    assert_eq!(faults, BTreeSet::from(Fault::ALL), "every fault is there");
    let results = run_all(chosen, 4, victim, |_, _, _| {});
    let failures: Vec<String> =
        results.failures().map(|(case, broken)| format!("{}: {broken}", case.options())).collect();
    assert!(failures.is_empty(), "{} of {wanted} cases failed:\n{}", failures.len(), failures.join("\n\n"));
    assert!(results.struck() >= wanted, "a case that passed was struck");
    println!("MEASURED: attack, {wanted} cases in {} s, all passed", results.took.as_secs());
}

/// Where a server of files or a disk that does not answer is felt most: the log, state on its way there, output, a database.
const PLACES: [&str; 6] = [
    "link:checkpoints/log",
    "sync:checkpoints/log",
    "sync:checkpoints/.tmp",
    "sync:checkpoints/state",
    "output/parts/.pending",
    "rows.db-wal",
];

#[test]
fn a_process_ends_when_it_is_asked_to_though_its_storage_or_target_never_answers() {
    if let Some(why) = SKIPPED {
        println!("SKIPPED: {why}");
        return;
    }
    let victim = Path::new(env!("CARGO_BIN_EXE_victim"));
    let learned = [learn(Life::Later, 2, victim).unwrap_or_else(|why| panic!("{why}"))];
    let all = cases(&learned, 1_000_000);
    let hangs = |place: &str| {
        let here = |case: &&Case| {
            let strike = case.strikes[0].to_string();
            strike.starts_with("hang:") && strike.ends_with(place)
        };
        all.iter().find(here).unwrap_or_else(|| panic!("{place} is used")).clone()
    };
    let results = run_all(PLACES.map(hangs).to_vec(), PLACES.len(), victim, |_, _, _| {});
    let failures: Vec<String> =
        results.failures().map(|(case, broken)| format!("{}: {broken}", case.options())).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert_eq!(results.struck(), PLACES.len(), "each was struck");
}

fn weathered(storms: &[Storm]) {
    if let Some(why) = SKIPPED {
        println!("SKIPPED: {why}");
        return;
    }
    let victim = Path::new(env!("CARGO_BIN_EXE_victim"));
    for (storm, seed, outcome) in weather(storms.iter().map(|storm| (*storm, SEED)), victim, |_, _, _| {}) {
        let evidence = outcome.unwrap_or_else(|broken| panic!("{storm}, seed {seed}: {broken}"));
        assert!(evidence.rows > 0, "{storm}: {evidence:?}");
    }
}

#[test]
fn seven_copies_at_once_lose_and_double_nothing_with_and_without_a_lock() {
    weathered(&[Storm::Copies, Storm::CopiesWithoutLock]);
}

#[test]
fn restarts_that_come_to_nothing_lose_and_double_nothing() {
    weathered(&[Storm::Restarts]);
}

#[test]
fn a_start_from_a_checkpoint_may_die_as_often_as_it_likes() {
    weathered(&[Storm::From, Storm::FromOlder]);
}
