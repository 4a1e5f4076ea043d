//! Two of the bugs that are planted to test the proof, where planting takes more than a condition.
//!
//! In ordinary builds [`crash::bug`] is never true, and nothing of this is left.

use crate::crash;
use staunch_checkpoint::{Committable, Event, Manifest, Part, Report};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Bug `committed_before_decision`: has the output of a checkpoint published that is not decided.
pub(crate) fn commit_early(
    manifest: &Manifest,
    committers: &HashMap<String, UnboundedSender<Vec<Committable>>>,
) {
    if !crash::bug("committed_before_decision") {
        return;
    }
    for (sink, part) in &manifest.sinks {
        if let Some(committer) = committers.get(sink) {
            // A committer that is gone has told the coordinator why.
            let _ = committer.send(part.pending.clone());
        }
    }
    // Time for the committers; a simulation has its own.
    if !crate::runtime::process::wall_clock::is_simulated() {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Bug `acknowledgement_counted_twice`: what the first instance of a sink says is taken for the word of the
/// second one too.
pub(crate) fn counted_twice(event: &Event, workers: u32) -> Option<Event> {
    if workers < 2 || !crash::bug("acknowledgement_counted_twice") {
        return None;
    }
    let Event::Ack { part: Part::Sink { name, instance: 0 }, checkpoint, .. } = event else { return None };
    let part = Part::Sink { name: name.clone(), instance: 1 };
    Some(Event::Ack { part, checkpoint: *checkpoint, report: Report::Sink(Vec::new()) })
}
