//! Which cases there are: crash points x faults x victims x hits x numbers of workers.

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
    /// What is armed in the lives before, one after the other.
    pub before: Vec<&'static str>,
    /// What else is armed in the same life, so that the point is reached.
    pub with: Option<&'static str>,
}

impl Case {
    /// A case with nothing special.
    #[must_use]
    pub fn new(point: &'static str, fault: Fault, nth: u32, workers: u32) -> Self {
        Case { point, fault, worker: None, nth, workers, before: before(point), with: with(point) }
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
    "sink.half_flushed",
    "sink.prepared",
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
/// has them all at several hits, on several numbers of workers, and for several victims.
#[must_use]
pub fn cases(full: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let workers: &[u32] = if full { &[1, 3] } else { &[2] };
    for point in staunch::core::crash::POINTS {
        let hits: &[u32] = match (full, is_rare(point)) {
            (_, true) => &[1],
            (true, false) => &[1, 2, 4],
            (false, false) => &[2],
        };
        for fault in faults(point, full) {
            for nth in hits {
                for workers in workers {
                    // With one worker there is only one input.
                    let workers =
                        if *point == "step.some_inputs_aligned" { (*workers).max(2) } else { *workers };
                    let case = Case::new(point, fault, *nth, workers);
                    for worker in victims(point, workers, full) {
                        cases.push(Case { worker, ..case.clone() });
                    }
                }
            }
        }
    }
    cases.dedup();
    cases.extend(three_deep());
    cases
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
    fn every_named_point_exists() {
        for point in OF_WORKERS.iter().chain(FALLIBLE) {
            assert!(staunch::core::crash::POINTS.contains(point), "{point}");
        }
    }
}
