//! One checkpoint between its barrier and its decision, and the manifest that comes of it.

use super::message::{Part, Parts, Report};
use super::output::Reported;
use crate::book::{self, Book, SegmentFile};
use crate::ids::{CheckpointId, Slot};
use crate::manifest::{Kind, Manifest, SplitPart, StatePart};
use std::collections::{BTreeMap, BTreeSet};

/// The one undecided checkpoint.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Attempt {
    pub(super) checkpoint: CheckpointId,
    pub(super) kind: Kind,
    pub(super) taken_at_ms: u64,
    /// The acknowledgements so far; the key makes a second one of a part impossible.
    pub(super) reports: BTreeMap<Part, Report>,
    /// Set once the manifest is on its way; from then on nothing but the log decides.
    pub(super) publication: Option<Publication>,
}

/// A manifest on its way into the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Publication {
    pub(super) slot: Slot,
    pub(super) manifest: Box<Manifest>,
    /// What the manifest names and is to be stored before it.
    pub(super) segments: Vec<SegmentFile>,
    /// The book of splits once this is decided.
    pub(super) book: Book,
    /// Answers that did not tell the outcome. Once there was one, "failed" does not tell it either: the
    /// first try may yet arrive.
    pub(super) unknown: u32,
}

impl Attempt {
    /// What the sinks reported, by sink.
    pub(super) fn reported(&self) -> Reported {
        let mut reported = Reported::new();
        for (part, report) in &self.reports {
            if let (Part::Sink { name, .. }, Report::Sink(committables)) = (part, report) {
                reported.entry(name.clone()).or_default().extend(committables.iter().cloned());
            }
        }
        reported
    }

    /// The sink instances of `all` that have not answered.
    pub(super) fn silent_sinks(&self, all: &BTreeSet<Part>) -> BTreeSet<(String, u32)> {
        let silent = all.iter().filter(|part| !self.reports.contains_key(*part));
        silent
            .filter_map(|part| match part {
                Part::Sink { name, instance } => Some((name.clone(), *instance)),
                Part::Source { .. } | Part::State { .. } => None,
            })
            .collect()
    }

    /// Names of the files that it has made so far.
    pub(super) fn files(&self) -> impl Iterator<Item = &String> {
        let segments = self.publication.iter().flat_map(|publication| &publication.segments);
        let state = self
            .reports
            .values()
            .flat_map(|report| match report {
                Report::State(shard) => shard.files.as_slice(),
                Report::Source(_) | Report::Sink(_) => &[],
            })
            .map(|file| &file.name);
        state.chain(segments.map(|file| &file.name))
    }

    /// The state part of the manifest.
    pub(super) fn states(&self, parts: &Parts) -> BTreeMap<String, StatePart> {
        let mut states: BTreeMap<String, StatePart> =
            parts.states.iter().map(|(name, said, _)| (name.clone(), said.clone())).collect();
        for (part, report) in &self.reports {
            if let (Part::State { name, .. }, Report::State(shard)) = (part, report) {
                states.entry(name.clone()).or_default().shards.push(shard.clone());
            }
        }
        states
    }

    /// What the sources reported. Each instance reports the splits that have changed since the last decision.
    ///
    /// # Errors
    /// Two instances report the same split differently.
    pub(super) fn splits(&self) -> Result<book::Reported<'_>, String> {
        let mut splits = book::Reported::new();
        for (part, report) in &self.reports {
            let (Part::Source { name, .. }, Report::Source(reported)) = (part, report) else { continue };
            let of_source = splits.entry(name).or_default();
            for split in reported {
                if let Some(other) = of_source.insert(&split.id, split)
                    && other != split
                {
                    return Err(format!("source `{name}`: split {:?} has two positions", split.id));
                }
            }
        }
        Ok(splits)
    }

    /// The splits whose end was reported, by source.
    pub(super) fn finished(&self) -> BTreeMap<String, Vec<SplitPart>> {
        let mut finished: BTreeMap<String, Vec<SplitPart>> = BTreeMap::new();
        for (part, report) in &self.reports {
            let (Part::Source { name, .. }, Report::Source(reported)) = (part, report) else { continue };
            for split in reported.iter().filter(|split| split.finished) {
                finished.entry(name.clone()).or_default().push(split.clone());
            }
        }
        finished
    }
}
