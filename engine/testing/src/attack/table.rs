//! Runs many cases side by side, and makes a table of what came out.

use super::cases::Case;
use super::fault::Fault;
use super::run::{Ended, Outcome, place, run};
use super::storms::{Storm, storm};
use crate::figures::percentile;
use crate::oracle::{Evidence, Failure, Oracle};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Builds everything that the attack needs, and runs it; followed by its options.
const RUN: &str = "cargo build --release -p staunch-testing --features crash-points --bins && \
                   cargo run --release -p staunch-testing --features crash-points --bin attack --";

/// A case that failed.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What is wrong.
    pub failure: Failure,
    /// What it left behind, with the logs of all lives; nobody removes it.
    pub dir: Option<PathBuf>,
    /// What to type to run it again, alone.
    pub command: String,
}

/// What came out of all cases.
#[derive(Debug, Default)]
pub struct Results {
    /// In the order in which they ended.
    pub ended: Vec<(Case, Result<Outcome, Broken>)>,
    /// The storms, with their seeds.
    pub storms: Vec<(Storm, u64, Result<Evidence, Broken>)>,
    /// How long all of it took.
    pub took: Duration,
}

/// Runs the cases, `at_once` of them at a time; `progress` is told after each.
pub fn run_all(
    cases: Vec<Case>,
    at_once: usize,
    program: &Path,
    progress: impl Fn(usize, &Case, Option<&Broken>) + Sync,
) -> Results {
    let began = Instant::now();
    // From the end: the next one is taken by popping.
    let waiting: Mutex<Vec<Case>> = Mutex::new(cases.into_iter().rev().collect());
    let ended = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(case) = next else { return };
                    let (case, outcome) = struck(case, program);
                    let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
                    progress(ended.len() + 1, &case, outcome.as_ref().err());
                    ended.push((case, outcome));
                }
            });
        }
    });
    let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    Results { ended, storms: Vec::new(), took: began.elapsed() }
}

/// Carries storms out, one after the other: each has all of the machine. They are told as they end.
pub fn weather(
    storms: impl Iterator<Item = (Storm, u64)>,
    program: &Path,
    progress: impl Fn(Storm, u64, Option<&Broken>),
) -> Vec<(Storm, u64, Result<Evidence, Broken>)> {
    let one = |(which, seed): (Storm, u64)| {
        let command = format!("{RUN} --storm {} --seed {seed}", which.name());
        let outcome = in_a_directory(command, |dir| storm(which, seed, program, dir));
        progress(which, seed, outcome.as_ref().err());
        (which, seed, outcome)
    };
    storms.map(one).collect()
}

/// Runs a case. If the process did not do that much, an earlier operation of the sort is struck, and at last the first
/// one of its name, wherever it goes to: one that is there.
fn struck(mut case: Case, program: &Path) -> (Case, Result<Outcome, Broken>) {
    loop {
        let outcome = one(&case, program);
        let never = matches!(&outcome, Err(Broken { failure: Failure::NeverHit(_), .. }));
        match case.strikes.first_mut().filter(|_| never) {
            Some(first) if first.nth > 1 => first.nth /= 2,
            Some(first) if !first.place.is_empty() => first.place.clear(),
            _ => return (case, outcome),
        }
    }
}

fn one(case: &Case, program: &Path) -> Result<Outcome, Broken> {
    in_a_directory(format!("{RUN} {}", case.options()), |dir| run(case, program, dir))
}

/// Does something in a new directory, which is kept if that fails.
fn in_a_directory<T>(command: String, act: impl FnOnce(&Path) -> Result<T, Failure>) -> Result<T, Broken> {
    let dir = tempfile::Builder::new().prefix("staunch-attack-").tempdir();
    let acted = match &dir {
        Ok(dir) => act(dir.path()),
        Err(error) => Err(Failure::trouble(error)),
    };
    acted.map_err(|failure| {
        // One that was not struck is struck again.
        let keep = !matches!(failure, Failure::NeverHit(_));
        Broken { failure, dir: dir.ok().filter(|_| keep).map(TempDir::keep), command }
    })
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.failure)?;
        if let Some(dir) = &self.dir {
            writeln!(f, "What it left behind is kept, with all logs: {}", dir.display())?;
        }
        write!(f, "To run it again, alone:\n  {}", self.command)
    }
}

impl Results {
    /// Cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&Case, &Broken)> {
        self.ended.iter().filter_map(|(case, outcome)| Some((case, outcome.as_ref().err()?)))
    }

    /// Storms that failed.
    pub fn disasters(&self) -> impl Iterator<Item = (Storm, &Broken)> {
        self.storms.iter().filter_map(|(storm, _, outcome)| Some((*storm, outcome.as_ref().err()?)))
    }

    /// Lives that were struck.
    #[must_use]
    pub fn struck(&self) -> usize {
        self.outcomes().map(|outcome| outcome.struck.len()).sum()
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.ended.iter().filter_map(|(_, outcome)| outcome.as_ref().ok())
    }

    /// As Markdown: totals, how struck lives ended, operations and places.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let (cases, failed) = (self.ended.len(), self.failures().count());
        let rows: u64 = self.outcomes().map(|o| o.evidence.rows).sum();
        let looks: u64 = self.outcomes().map(|o| o.evidence.looks).sum();
        let mut recoveries: Vec<Duration> = self.outcomes().map(|o| o.evidence.recovery).collect();
        recoveries.sort_unstable();
        let [p50, p99] = [50, 99].map(|p| percentile(&recoveries, p).as_millis());
        let mut text = format!(
            "{cases} cases, {} passed, {failed} failed, in {} s; {} lives struck.\n\n{rows} rows compared, {looks} looks of \
             the observer. The next start, to the end of the job: p50 {p50} ms, p99 {p99} ms.\n\n",
            cases - failed,
            self.took.as_secs(),
            self.struck(),
        );
        text.push_str("| oracle | violations |\n|---|--:|\n");
        for oracle in Oracle::ALL.into_iter().chain([Oracle::Ending]) {
            let violations =
                self.failures().filter(|(_, broken)| broken.failure.oracle() == Some(oracle)).count();
            // Writing into a string cannot fail.
            let _ = writeln!(text, "| {oracle} | {violations} |");
        }
        text.push('\n');
        text.push_str(&self.by_fault());
        text.push_str(&self.by_sort());
        text.push_str(&self.by_storm());
        for (case, broken) in self.failures() {
            let _ = writeln!(text, "\nFAILED {}: {}", case.options(), broken.failure);
        }
        for (storm, broken) in self.disasters() {
            let _ = writeln!(text, "\nFAILED {storm}: {}", broken.failure);
        }
        text
    }

    fn by_fault(&self) -> String {
        let mut text = "How the struck lives ended, by fault:\n\n| fault | cases | passed | killed | with an error | well |\n\
                        |---|--:|--:|--:|--:|--:|\n"
            .to_owned();
        for fault in Fault::ALL {
            let of = || {
                self.ended.iter().filter(|(case, _)| case.strikes.first().is_some_and(|s| s.fault == fault))
            };
            let passed: Vec<&Outcome> = of().filter_map(|(_, outcome)| outcome.as_ref().ok()).collect();
            let count = |how| {
                passed.iter().filter(|o| o.struck.first().is_some_and(|(_, ended)| *ended == how)).count()
            };
            let [killed, error, well] = [Ended::Killed, Ended::Error, Ended::Well].map(count);
            let (cases, passed) = (of().count(), passed.len());
            let _ = writeln!(text, "| {fault} | {cases} | {passed} | {killed} | {error} | {well} |");
        }
        text.push('\n');
        text
    }

    fn by_storm(&self) -> String {
        if self.storms.is_empty() {
            return String::new();
        }
        let mut text = "\n| storm | seeds | passed | rows |\n|---|--:|--:|--:|\n".to_owned();
        for storm in Storm::ALL {
            let of = || self.storms.iter().filter(|(which, ..)| *which == storm);
            let passed: Vec<u64> =
                of().filter_map(|(.., outcome)| Some(outcome.as_ref().ok()?.rows)).collect();
            let _ = writeln!(
                text,
                "| {storm} | {} | {} | {} |",
                of().count(),
                passed.len(),
                passed.iter().sum::<u64>()
            );
        }
        text
    }

    fn by_sort(&self) -> String {
        let mut sorts: BTreeMap<(String, String), u32> = BTreeMap::new();
        for (what, _) in self.outcomes().flat_map(|outcome| &outcome.struck) {
            let (_, what) = what.split_once(", ").unwrap_or_default();
            let (operation, path) = what.split_once(' ').unwrap_or((what, ""));
            *sorts.entry((place(path).to_owned(), operation.to_owned())).or_default() += 1;
        }
        let mut text =
            "What was struck, by place and operation:\n\n| place | operations |\n|---|---|\n".to_owned();
        let places: std::collections::BTreeSet<&String> = sorts.keys().map(|(place, _)| place).collect();
        for place in places {
            let of = sorts.iter().filter(|((at, _), _)| at == place);
            let of: Vec<String> = of.map(|((_, operation), count)| format!("{operation} {count}")).collect();
            let shown = if place.is_empty() { "the folder itself" } else { place };
            let _ = writeln!(text, "| `{shown}` | {} |", of.join(", "));
        }
        text
    }
}
