//! A short soak; the long one is the binary of the same name.

use staunch_testing::soak::{Deed, Goal, Schedule, soak};
use std::collections::BTreeSet;
use std::path::Path;

/// Its schedule does everything there is within its first steps.
const SEED: u64 = 13_669;

#[test]
fn a_job_that_is_killed_at_random_moments_loses_and_doubles_nothing() {
    let goal = Goal {
        kills: 12,
        records: 0,
        time: None,
        seed: SEED,
        job: Goal::job_of(400_000),
        // Long enough a job for most of the kills, without many records.
        rate: Some(100_000),
        at_least_once: false,
    };
    let deeds: BTreeSet<Deed> = Schedule::new(SEED).take(10).map(|step| step.deed).collect();
    assert_eq!(deeds, BTreeSet::from(Deed::ALL));
    let tally = soak(&goal, Path::new(env!("CARGO_BIN_EXE_victim")), &|_| {});
    let tally = tally.unwrap_or_else(|broken| panic!("{broken}"));
    assert!(tally.kills >= 12 && tally.jobs >= 1, "{tally:?}");
    assert!(tally.in_doubt > 0, "no start said how much it found in doubt: {tally:?}");
    println!("MEASURED: soak, {}", tally.line());
}
