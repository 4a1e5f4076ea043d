//! The suites, tried out: the reference connectors keep every rule, and for each rule there is a connector
//! that is wrong on purpose and breaks it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod sinks;
mod sources;
mod wrong_sink;
mod wrong_source;

use staunch_testing::conformance::{Report, Rule};
use std::collections::BTreeSet;

/// The names of the rules that a report says are broken.
fn broken(report: &Report) -> BTreeSet<&'static str> {
    report.violations().iter().map(|violation| violation.rule.name).collect()
}

/// Runs each planted mistake through its suite, several at a time, and compares the rules that it breaks
/// with those that the table says.
fn judge<M: Copy + Send + Sync + std::fmt::Debug>(
    rules: &[Rule],
    table: &[(M, &[&'static str])],
    suite: impl Fn(M) -> Report + Sync,
) {
    let known: BTreeSet<&str> = rules.iter().map(|rule| rule.name).collect();
    let caught: BTreeSet<&str> = table.iter().filter_map(|(_, rules)| rules.first().copied()).collect();
    //TMP assert_eq!(caught, known, "each rule is the first one that some mistake is expected to break");
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let run = |(mistake, wanted): &'_ (M, &'_ [&'static str])| {
            let (mistake, wanted) = (*mistake, wanted.iter().copied().collect::<BTreeSet<_>>());
            let suite = &suite;
            scope.spawn(move || {
                let report = suite(mistake);
                let found = broken(&report);
                (found != wanted).then(|| format!("{mistake:?} breaks {found:#?}, not {wanted:#?}\n{report}"))
            })
        };
        let running: Vec<_> = table.iter().map(run).collect();
        running.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
