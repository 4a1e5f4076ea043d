//! The suites, tried out: the reference connectors keep every rule, and for each rule there is a connector
//! that is wrong on purpose and breaks it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod sinks;
mod sources;
mod wrong_sink;
mod wrong_source;

use staunch_testing::conformance::{Report, Rule};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Mistakes tried at a time; they wait more than they compute.
const AT_ONCE: usize = 8;

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
    assert_eq!(caught, known, "each rule is the first one that some mistake is expected to break");
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((mistake, wanted)) = table.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = suite(*mistake);
            let (found, wanted) = (broken(&report), wanted.iter().copied().collect::<BTreeSet<_>>());
            if found != wanted {
                let text = format!("{mistake:?} breaks {found:#?}, not {wanted:#?}\n{report}");
                wrong.lock().unwrap().push(text);
            }
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
