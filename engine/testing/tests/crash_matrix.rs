//! The bounded crash matrix: every crash point with every fault that makes sense there, once.

use staunch_testing::matrix::{cases, run};
use std::path::Path;
use std::sync::Mutex;

#[test]
fn no_record_is_lost_or_doubled_whatever_happens_at_any_crash_point() {
    let victim = Path::new(env!("CARGO_BIN_EXE_victim"));
    let cases = Mutex::new(cases(false));
    let total = cases.lock().unwrap().len();
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(case) = cases.lock().unwrap().pop() else { return };
                    let dir = tempfile::tempdir().unwrap();
                    if let Err(why) = run(&case, victim, dir.path()) {
                        failures.lock().unwrap().push(format!("{case:?}: {why}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {total} cases failed:\n{}", failures.len(), failures.join("\n"));
    println!("{total} cases of the crash matrix passed");
}
