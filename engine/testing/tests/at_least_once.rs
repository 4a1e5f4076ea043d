//! The control run: the faults that exactly-once withstands do double records when steps do not wait for
//! barriers. Otherwise the crash matrix would prove nothing.

use staunch_testing::audit::Expected;
use staunch_testing::matrix::{Case, Fault, Setting, run_unjudged};
use staunch_testing::process::wait;
use staunch_testing::victim::{Life, Victim};
use std::path::Path;
use std::time::Duration;

const LIFE: Duration = Duration::from_secs(60);

/// Crashes shortly after a decision: what was processed ahead of the barrier is read again.
const POINTS: [&str; 4] = ["decision.made", "commit.done", "commit.all_done", "barrier.sent"];

#[test]
fn the_same_faults_in_at_least_once_mode_double_records_and_lose_none() {
    let victim = Path::new(env!("CARGO_BIN_EXE_victim"));
    let setting = Setting { at_least_once: true, ..Setting::USUAL };
    let (mut runs, mut doubled, mut missing, mut foreign) = (0, 0, 0, 0);
    for (nth, point) in [3, 5, 7].into_iter().flat_map(|nth| POINTS.map(|point| (nth, point))) {
        // A crash doubles something only if a step was ahead at that moment: most do.
        if runs >= POINTS.len() && doubled > 0 {
            break;
        }
        runs += 1;
        let dir = tempfile::tempdir().unwrap();
        let case = Case::new(point, Fault::Kill, nth, 3);
        let broken = run_unjudged(&case, &setting, victim, dir.path()).unwrap();
        for (_, findings) in broken.findings().unwrap().0 {
            doubled += findings.doubled;
            missing += findings.missing;
            foreign += findings.foreign;
        }
    }
    assert!(doubled > 0, "no fault showed that the guarantee is weaker");
    assert_eq!((missing, foreign), (0, 0), "at least once loses nothing and invents nothing");
    println!("MEASURED: at least once, {runs} of the same faults doubled {doubled} rows and lost none");
}

#[test]
fn a_checkpoint_taken_at_least_once_is_refused_by_a_run_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let expected = Expected { records: 2_500, splits: 4, keys: 97 };
    let mut victim = Victim::new(Path::new(env!("CARGO_BIN_EXE_victim")), dir.path(), expected);
    victim.at_least_once = true;
    let armed = Life { workers: 2, crash: Some("commit.done:kill:3".into()), ..Life::default() };
    assert!(!wait(&mut victim.start(&armed).unwrap(), LIFE).unwrap().success());
    victim.at_least_once = false;
    let plain = Life { workers: 2, ..Life::default() };
    let status = wait(&mut victim.start(&plain).unwrap(), LIFE).unwrap();
    assert_eq!(status.code(), Some(2), "{}", victim.last_log());
    assert!(victim.last_log().contains("was taken at least once"), "{}", victim.last_log());
    victim.at_least_once = true;
    assert!(wait(&mut victim.start(&plain).unwrap(), LIFE).unwrap().success(), "{}", victim.last_log());
}
