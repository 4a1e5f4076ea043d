//! Which cases there are: crash points x faults x victims x hits x numbers of workers x sinks.

use crate::victim::Sinks;

/// What happens at the point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// The process is killed.
    Kill,
    /// It is killed, and everything that it did not sync is lost.
    PowerCut,
    /// The process stops, another one takes over, and the first wakes up beside it after twice the
    /// checkpoint timeout.
    Zombie,
    /// The same, but it wakes up when the other one has completed the job.
    LateZombie,
    /// The operation fails with an I/O error.
    Error,
    /// The message is lost.
    Lost,
    /// The message comes twice.
    Doubled,
    /// The message comes two checkpoints later.
    Delayed,
}

impl Fault {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Fault; 8] = [
        Fault::Kill,
        Fault::PowerCut,
        Fault::Zombie,
        Fault::LateZombie,
        Fault::Error,
        Fault::Lost,
        Fault::Doubled,
        Fault::Delayed,
    ];

    pub(super) fn action(self) -> &'static str {
        match self {
            Fault::Kill | Fault::PowerCut => "kill",
            Fault::Zombie | Fault::LateZombie => "stop",
            Fault::Error => "error",
            Fault::Lost => "drop",
            Fault::Doubled => "double",
            Fault::Delayed => "delay",
        }
    }
}

/// One cell of the matrix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// The crash point.
    pub point: &'static str,
    /// What happens there.
    pub fault: Fault,
    /// Whose point: that of one worker, or of nobody in particular (the coordinator, a committer).
    pub worker: Option<u32>,
    /// At which hit in the life in which it is armed.
    pub nth: u32,
    /// Number of workers in the armed life; the next lives have others.
    pub workers: u32,
    /// Where the victim writes to, in all lives.
    pub sinks: Sinks,
    /// What is armed in the lives before, one after the other.
    pub before: Vec<&'static str>,
    /// What else is armed in the same life, so that the point is reached.
    pub with: Option<&'static str>,
}

impl Case {
    /// A case with nothing special, into files and SQLite.
    #[must_use]
    pub fn new(point: &'static str, fault: Fault, nth: u32, workers: u32) -> Self {
        let (worker, sinks) = (None, Sinks::Both);
        Case { point, fault, worker, nth, workers, sinks, before: before(point), with: with(point) }
    }
}

/// Points at which an operation can fail; at the others an error has nothing to act on.
const FALLIBLE: &[&str] = &[
    "state.file_written",
    "storage.temporary_torn",
    "storage.temporary_written",
    "storage.temporary_synced",
    "storage.visible",
    "sink.preparing",
    "sink.cut",
    "sink.half_flushed",
    "sink.prepared",
    "splits.stored",
    "decision.torn",
    "decision.temporary_written",
    "decision.temporary_synced",
    "decision.visible",
    "commit.some_done",
    "commit.at_target",
    "expire.some_deleted",
    "recovery.sink_fenced",
    "recovery.some_orphans_removed",
    "recovery.file_loaded",
];

/// Points of single workers.
const OF_WORKERS: &[&str] = &[
    "source.positions_captured",
    "step.some_inputs_aligned",
    "state.aligned",
    "state.frozen",
    "state.file_written",
    "sink.preparing",
    "sink.cut",
    "sink.half_flushed",
    "sink.prepared",
    "ack.source",
    "ack.state",
    "ack.sink",
    "recovery.file_loaded",
    "recovery.state_loaded",
    "recovery.half_redistributed",
    "recovery.split_opened",
];

/// Points at which it matters what sort of sink there is, because of what is durable then, or is done next.
/// With two sinks nobody knows whose hit it was, and one of them may hide what the other one does wrong; so
/// these are passed with each sink alone, too.
const OF_SINKS: &[&str] = &[
    "sink.preparing",
    "sink.cut",
    "sink.half_flushed",
    "sink.prepared",
    "ack.sink",
    "decision.due",
    "decision.while_pending",
    "decision.made",
    "decision.some_told",
    "commit.due",
    "commit.again",
    "commit.some_done",
    "commit.at_target",
    "commit.done",
    "commit.all_done",
    "recovery.sink_fenced",
    "recovery.some_orphans_removed",
    "recovery.some_recommitted",
    "recovery.recommitted",
];

/// Those of them that are in the bounded matrix: output that is half prepared, half published, half removed.
const OF_SINKS_BOUNDED: &[&str] = &["sink.half_flushed", "commit.some_done", "recovery.some_orphans_removed"];

/// Points that a life passes once or twice.
fn is_rare(point: &str) -> bool {
    point.starts_with("recovery.") || point == "commit.again" || point == "decision.while_pending"
}

/// What makes a point reachable in a later life.
fn before(point: &str) -> Vec<&'static str> {
    match point {
        // Output that is prepared, and that no checkpoint lists.
        "recovery.some_orphans_removed" => vec!["decision.due:kill:3"],
        // Output that is listed, and that is not published.
        _ if point.starts_with("recovery.") => vec!["decision.made:kill:3"],
        _ => vec![],
    }
}

/// What makes a point reachable in the same life.
fn with(point: &str) -> Option<&'static str> {
    match point {
        "decision.while_pending" => Some("commit.due:sleep:3"),
        "commit.again" => Some("commit.some_done:error:3"),
        _ => None,
    }
}

fn faults(point: &str, full: bool) -> Vec<Fault> {
    let mut faults = vec![Fault::Kill, Fault::PowerCut, Fault::Zombie, Fault::LateZombie];
    if FALLIBLE.contains(&point) {
        faults.push(Fault::Error);
    }
    if point.starts_with("ack.") {
        faults.extend([Fault::Lost, Fault::Doubled, Fault::Delayed]);
    }
    if !full {
        // Of the zombies, those that wake up later, and each at every third point: they take long.
        let number = staunch::core::crash::POINTS.iter().position(|p| *p == point).unwrap_or(0);
        faults.retain(|fault| match fault {
            Fault::Zombie => number % 3 == 0,
            Fault::LateZombie => number % 3 == 1,
            Fault::PowerCut => number % 3 == 2,
            _ => true,
        });
    }
    faults
}

/// The cases. The bounded set has every point, with most faults that make sense there, once; the full one
/// has them all at several hits, on several numbers of workers, and for several victims. All are there with
/// both sinks; points that depend on the sort of sink are there with each of them alone, too.
#[must_use]
pub fn cases(full: bool) -> Vec<Case> {
    let alone = if full { OF_SINKS } else { OF_SINKS_BOUNDED };
    let mut cases = Vec::new();
    for point in staunch::core::crash::POINTS {
        for sinks in Sinks::ALL {
            if sinks == Sinks::Both || alone.contains(point) {
                cases.extend(of_point(point, sinks, full));
            }
        }
    }
    cases.dedup();
    cases.extend(three_deep());
    cases
}

fn of_point(point: &'static str, sinks: Sinks, full: bool) -> Vec<Case> {
    let numbers: &[u32] = if full { &[1, 3] } else { &[2] };
    let mut cases = Vec::new();
    for fault in faults(point, full) {
        for nth in hits(point, sinks, full) {
            for workers in numbers {
                // With one worker there is only one input.
                let workers = if point == "step.some_inputs_aligned" { (*workers).max(2) } else { *workers };
                let case = Case { sinks, ..Case::new(point, fault, *nth, workers) };
                for worker in victims(point, workers, full) {
                    cases.push(Case { worker, ..case.clone() });
                }
            }
        }
    }
    cases
}

/// At which hits a point is armed. One sink alone is hit before anything of it is published, and afterwards.
fn hits(point: &str, sinks: Sinks, full: bool) -> &'static [u32] {
    match (is_rare(point), full, sinks) {
        (true, _, _) => &[1],
        (false, false, _) => &[2],
        (false, true, Sinks::Both) => &[1, 2, 4],
        (false, true, Sinks::Files | Sinks::Table) => &[1, 4],
    }
}

/// Whose point is armed: nobody's in particular, or the first worker's, and the last one's.
fn victims(point: &str, workers: u32, full: bool) -> Vec<Option<u32>> {
    match (OF_WORKERS.contains(&point), full && workers > 1) {
        (false, _) => vec![None],
        (true, false) => vec![Some(workers - 1)],
        (true, true) => vec![Some(0), Some(workers - 1)],
    }
}

/// Crashes inside the recovery of a crash inside the recovery of a crash.
fn three_deep() -> Vec<Case> {
    let deep = |before: [&'static str; 3], point| Case {
        before: before.to_vec(),
        ..Case::new(point, Fault::Kill, 1, 2)
    };
    vec![
        deep(
            ["decision.made:kill:3", "recovery.sink_fenced:kill", "recovery.claimed:kill"],
            "recovery.claimed",
        ),
        deep(
            ["decision.made:kill:3", "recovery.some_recommitted:kill", "recovery.state_loaded:kill"],
            "recovery.split_opened",
        ),
        deep(
            ["decision.due:kill:3", "recovery.some_orphans_removed:kill", "recovery.recommitted:kill"],
            "recovery.half_redistributed",
        ),
        deep(
            ["decision.due:kill:3", "recovery.file_loaded:kill", "barrier.sent:kill"],
            "recovery.sink_fenced",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crash_point_is_in_the_bounded_and_in_the_full_matrix() {
        for full in [false, true] {
            let cases = cases(full);
            for point in staunch::core::crash::POINTS {
                assert!(cases.iter().any(|case| case.point == *point), "{point} (full: {full})");
            }
        }
    }

    #[test]
    fn where_the_sort_of_sink_matters_each_is_killed_replaced_and_failed_alone() {
        let cases = cases(true);
        for sinks in [Sinks::Files, Sinks::Table] {
            for point in OF_SINKS {
                let of_workers = OF_WORKERS.contains(point);
                let victims = if of_workers { vec![Some(0), Some(2)] } else { vec![None] };
                let error = FALLIBLE.contains(point).then_some(Fault::Error);
                for fault in [Fault::Kill, Fault::Zombie].into_iter().chain(error) {
                    let here = |case: &&Case| (case.point, case.sinks, case.fault) == (*point, sinks, fault);
                    let hit: Vec<_> = cases.iter().filter(here).map(|case| case.worker).collect();
                    assert!(victims.iter().all(|victim| hit.contains(victim)), "{point} {fault:?} {sinks}");
                }
            }
        }
    }

    #[test]
    fn each_sink_is_alone_in_some_cases_of_the_bounded_matrix() {
        let cases = cases(false);
        for sinks in [Sinks::Files, Sinks::Table] {
            for point in OF_SINKS_BOUNDED {
                let here = |case: &Case| (case.point, case.sinks) == (*point, sinks);
                assert!(cases.iter().any(here), "{point} {sinks}");
            }
        }
    }

    #[test]
    fn every_named_point_exists() {
        for point in [OF_WORKERS, FALLIBLE, OF_SINKS, OF_SINKS_BOUNDED].into_iter().flatten() {
            assert!(staunch::core::crash::POINTS.contains(point), "{point}");
        }
    }
}
