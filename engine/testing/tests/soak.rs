//! A short soak; the long one is the binary of the same name.

use staunch_testing::audit::Expected;
use staunch_testing::soak::{Goal, soak};
use std::path::Path;

#[test]
fn a_job_that_is_killed_at_random_moments_loses_and_doubles_nothing() {
    let goal = Goal {
        kills: 10,
        records: 0,
        time: None,
        seed: 20,
        job: Expected { records: 500_000, splits: 4, keys: 10_007 },
        at_least_once: false,
    };
    let tally = soak(&goal, Path::new(env!("CARGO_BIN_EXE_victim")), &|_| {}).unwrap();
    assert!(tally.kills >= 10 && tally.jobs >= 1, "{tally:?}");
    println!("MEASURED: soak, {}", tally.line());
}
