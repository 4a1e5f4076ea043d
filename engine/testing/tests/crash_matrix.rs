//! The bounded crash matrix: every crash point, with most faults that make sense there, once; and where output is half
//! prepared, half published or half removed, with each sink alone, too.

use staunch_testing::matrix::{cases, run_all};
use std::path::Path;

#[test]
fn no_record_is_lost_or_doubled_whatever_happens_at_any_crash_point() {
    let victim = Path::new(env!("CARGO_BIN_EXE_victim"));
    let results = run_all(cases(false), 4, victim, |_, _, _| {});
    let failures: Vec<String> =
        results.failures().map(|(case, failure)| format!("{case:?}: {failure}")).collect();
    let total = results.ended.len();
    assert!(failures.is_empty(), "{} of {total} cases failed:\n{}", failures.len(), failures.join("\n"));
    println!("MEASURED: crash matrix, {total} cases in {} s, all passed", results.took.as_secs());
}
