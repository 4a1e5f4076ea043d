//! Runs many cases side by side, and makes a table of what came out.

use super::cases::{Case, Fault};
use super::run::{Setting, run};
use crate::oracle::{Evidence, Failure, Oracle};
use crate::victim::Sinks;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// What came out of all cases.
#[derive(Debug, Default)]
pub struct Results {
    /// In the order in which they ended.
    pub ended: Vec<(Case, Result<Evidence, Failure>)>,
    /// How long all of it took.
    pub took: Duration,
}

/// Runs the cases, `at_once` of them at a time; `progress` is told after each.
pub fn run_all(
    cases: Vec<Case>,
    at_once: usize,
    victim: &Path,
    progress: impl Fn(usize, &Case, Option<&Failure>) + Sync,
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
                    let outcome = one(&case, victim);
                    let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
                    progress(ended.len() + 1, &case, outcome.as_ref().err());
                    ended.push((case, outcome));
                }
            });
        }
    });
    Results { ended: ended.into_inner().unwrap_or_else(PoisonError::into_inner), took: began.elapsed() }
}

fn one(case: &Case, victim: &Path) -> Result<Evidence, Failure> {
    let dir = tempfile::tempdir().map_err(Failure::trouble)?;
    let outcome = run(case, &Setting::USUAL, victim, dir.path());
    if outcome.is_err() {
        eprintln!("{case:?}: what it left behind is kept in {}", dir.keep().display());
    }
    outcome
}

impl Results {
    /// Those that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&Case, &Failure)> {
        self.ended.iter().filter_map(|(case, outcome)| Some((case, outcome.as_ref().err()?)))
    }

    /// As Markdown: totals, the oracles, the choices of sinks, a row for each point with each of these.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        let failed = self.failures().count();
        let never = self.failures().filter(|(_, failure)| matches!(failure, Failure::NeverHit(_))).count();
        let evidence = || self.ended.iter().filter_map(|(_, outcome)| outcome.as_ref().ok());
        let rows: u64 = evidence().map(|e| e.rows).sum();
        let looks: u64 = evidence().map(|e| e.looks).sum();
        let lost: usize = evidence().map(|e| e.lost).sum();
        let cuts = self.ended.iter().filter(|(case, _)| case.fault == Fault::PowerCut);
        let cuts = cuts.filter(|(_, outcome)| outcome.as_ref().is_ok_and(|e| e.lost > 0)).count();
        let locked_out = evidence().filter(|e| e.locked_out).count();
        let mut recovery: Vec<Duration> = evidence().map(|e| e.recovery).collect();
        recovery.sort_unstable();
        let at = |percent| crate::figures::percentile(&recovery, percent);
        let seconds = self.took.as_secs();
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{} cases in {seconds} s: {} passed, {failed} failed, {never} of them never hit their point.\n",
            self.ended.len(),
            self.ended.len() - failed
        );
        let _ = writeln!(text, "| oracle | looked at | violations |\n|---|---|---|");
        for oracle in Oracle::ALL {
            let looked = match oracle {
                Oracle::Identity | Oracle::PrefixSums => format!("{rows} rows"),
                Oracle::Observer => format!("{looks} looks at all outputs while processes died and woke"),
                Oracle::Quiescence => format!("{} complete jobs", self.ended.len() - failed),
                Oracle::Liveness => format!(
                    "from the first start after the fault to new output: p50 {:?}, p99 {:?}, longest {:?}",
                    at(50),
                    at(99),
                    at(100)
                ),
                // Not among those that judge the matrix.
                Oracle::Ending => continue,
            };
            let violations = self.failures().filter(|(_, f)| f.oracle() == Some(oracle)).count();
            let _ = writeln!(text, "| {oracle} | {looked} | {violations} |");
        }
        let _ = writeln!(
            text,
            "\nPower cuts that took something away: {cuts}, {lost} names and contents together. Zombies that nobody \
             could replace while they slept, because they held the lock of the database: {locked_out}.\n"
        );
        text.push_str(&self.by_sinks());
        text.push_str(&self.by_point());
        for (case, failure) in self.failures() {
            let _ = writeln!(text, "\nFAILED {case:?}: {failure}");
        }
        text
    }

    fn by_sinks(&self) -> String {
        let mut text = "| sinks | cases | passed | rows | looks |\n|---|---|---|---|---|\n".to_owned();
        for sinks in Sinks::ALL {
            let of: Vec<_> = self.ended.iter().filter(|(case, _)| case.sinks == sinks).collect();
            let passed: Vec<&Evidence> = of.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).collect();
            let rows: u64 = passed.iter().map(|e| e.rows).sum();
            let looks: u64 = passed.iter().map(|e| e.looks).sum();
            // Writing into a string cannot fail.
            let _ = writeln!(text, "| {sinks} | {} | {} | {rows} | {looks} |", of.len(), passed.len());
        }
        text.push('\n');
        text
    }

    fn by_point(&self) -> String {
        let mut cells: BTreeMap<(&str, Sinks, Fault), (u32, u32)> = BTreeMap::new();
        for (case, outcome) in &self.ended {
            let cell = cells.entry((case.point, case.sinks, case.fault)).or_default();
            cell.0 += u32::from(outcome.is_ok());
            cell.1 += 1;
        }
        let mut text = "Passed of run, by point, sinks and fault:\n\n| crash point | sinks |".to_owned();
        for fault in Fault::ALL {
            let _ = write!(text, " {} |", title(fault));
        }
        text.push_str("\n|---|---|---|---|---|---|---|---|---|---|\n");
        let points = staunch::core::crash::POINTS.iter();
        for (point, sinks) in points.flat_map(|point| Sinks::ALL.map(|sinks| (*point, sinks))) {
            if !cells.keys().any(|(of, with, _)| (*of, *with) == (point, sinks)) {
                continue;
            }
            let _ = write!(text, "| `{point}` | {sinks} |");
            for fault in Fault::ALL {
                let _ = match cells.get(&(point, sinks, fault)) {
                    Some((passed, of)) => write!(text, " {passed}/{of} |"),
                    None => write!(text, " |"),
                };
            }
            text.push('\n');
        }
        text
    }
}

fn title(fault: Fault) -> &'static str {
    match fault {
        Fault::Kill => "kill",
        Fault::PowerCut => "power cut",
        Fault::Zombie => "zombie, wakes beside",
        Fault::LateZombie => "zombie, wakes after",
        Fault::Error => "I/O error",
        Fault::Lost => "lost",
        Fault::Doubled => "doubled",
        Fault::Delayed => "delayed",
    }
}
