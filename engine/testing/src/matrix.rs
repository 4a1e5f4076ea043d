//! The crash matrix: every crash point x what happens there, on real processes.

use crate::audit::Expected;
use crate::victim::{Life, Victim, wait, wait_stopped, wake};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

/// Longest time that one life may take before it counts as hanging.
const LIFE: Duration = Duration::from_secs(60);
/// Lives that a case may need to complete the job.
const LIVES: u32 = 6;

/// What happens at the point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process is killed.
    Kill,
    /// The process stops, another one takes over and completes the job, then the first one wakes up.
    Zombie,
    /// The operation fails with an I/O error.
    Error,
}

/// One cell of the matrix.
#[derive(Clone, Debug)]
pub struct Case {
    /// The crash point.
    pub point: &'static str,
    /// What happens there.
    pub fault: Fault,
    /// At which hit in the life in which it is armed.
    pub nth: u32,
    /// Number of workers in the armed life; the next lives have others.
    pub workers: u32,
    /// A bug planted in the victim, to see that it is noticed.
    pub bug: Option<&'static str>,
}

/// Points at which an operation can fail; at the others an error has nothing to act on.
const FALLIBLE: &[&str] = &[
    "state.file_written",
    "storage.temporary_written",
    "storage.temporary_synced",
    "storage.visible",
    "sink.preparing",
    "sink.prepared",
    "decision.temporary_synced",
    "decision.visible",
    "commit.some_done",
];

/// The cases. The bounded set has every point with every fault that makes sense there once; the full one
/// several hits and numbers of workers.
pub fn cases(full: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let hits: &[u32] = if full { &[1, 2, 3, 7] } else { &[2] };
    let workers: &[u32] = if full { &[1, 2, 3] } else { &[2] };
    for point in staunch::core::crash::POINTS {
        for fault in [Fault::Kill, Fault::Zombie, Fault::Error] {
            if fault == Fault::Error && !FALLIBLE.contains(point) {
                continue;
            }
            for nth in hits {
                // A start passes each of these once; a life has one start.
                if point.starts_with("recovery.") && *nth > 1 && (full || point.ends_with("claimed")) {
                    if full {
                        continue;
                    }
                    cases.extend(workers.iter().map(|w| Case {
                        point,
                        fault,
                        nth: 1,
                        workers: *w,
                        bug: None,
                    }));
                    continue;
                }
                let nth = if point.starts_with("recovery.") { 1 } else { *nth };
                cases.extend(workers.iter().map(|w| Case { point, fault, nth, workers: *w, bug: None }));
            }
        }
    }
    cases
}

/// Runs one case in an empty directory.
///
/// # Errors
/// The point was never hit, a process hung, or an audit found something; the text says what.
pub fn run(case: &Case, program: &Path, dir: &Path) -> Result<(), String> {
    let expected = Expected { records: 2_500, splits: 4, keys: 97 };
    let mut victim = Victim::new(program, dir, expected);
    victim.bug = case.bug;
    let io = |e: std::io::Error| e.to_string();
    let armed = Life { workers: case.workers, crash: Some(armed(case)) };
    if case.point.starts_with("recovery.") {
        // Something to recover from.
        let before = Life { workers: 2, crash: Some("decision.made:kill:3".into()) };
        let mut child = victim.start(&before).map_err(io)?;
        let status = wait(&mut child, LIFE)?;
        if status.signal() != Some(libc::SIGKILL) {
            return Err(format!("the first life ended with {status}: {}", victim.log()));
        }
    }
    let hits_before = victim.hits(case.point);
    let mut child = victim.start(&armed).map_err(io)?;
    match case.fault {
        Fault::Kill => {
            let status = wait(&mut child, LIFE)?;
            if status.signal() != Some(libc::SIGKILL) {
                return Err(format!("the point was never hit: ended with {status}: {}", victim.log()));
            }
        }
        Fault::Error => {
            wait(&mut child, LIFE)?;
            if victim.hits(case.point) < hits_before + case.nth as usize {
                return Err(format!("the point was never hit: {}", victim.log()));
            }
        }
        Fault::Zombie => {
            if !wait_stopped(&mut child, LIFE)? {
                return Err(format!("the point was never hit: {}", victim.log()));
            }
            victim.break_lock().map_err(io)?;
            let completed = complete(&mut victim, case.workers);
            wake(&child);
            let status = wait(&mut child, LIFE);
            match completed {
                // Stopped inside a transaction, it holds the database's lock, and nobody can take that
                // away: safe, and over as soon as it wakes up or dies.
                Err(why) if why.contains("database is locked") => {}
                other => other?,
            }
            if status?.success() {
                return Err("the zombie claims to have completed the job".into());
            }
        }
    }
    victim.observe()?;
    complete(&mut victim, case.workers)?;
    // Once more: a complete job cleans up after zombies, and changes nothing.
    complete(&mut victim, case.workers)?;
    victim.audit()
}

fn armed(case: &Case) -> String {
    let action = match case.fault {
        Fault::Kill => "kill",
        Fault::Zombie => "stop",
        Fault::Error => "error",
    };
    format!("{}:{action}:{}", case.point, case.nth)
}

/// Runs lives, each on another number of workers, until one completes the job.
fn complete(victim: &mut Victim, workers: u32) -> Result<(), String> {
    for life in 1..=LIVES {
        let plain = Life { workers: (workers + life) % 3 + 1, crash: None };
        let mut child = victim.start(&plain).map_err(|e| e.to_string())?;
        let status = wait(&mut child, LIFE)?;
        victim.observe()?;
        if status.success() {
            return Ok(());
        }
    }
    Err(format!("the job is not complete after {LIVES} lives: {}", victim.log()))
}
