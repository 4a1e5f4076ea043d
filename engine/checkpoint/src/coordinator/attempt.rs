//! One checkpoint between its barrier and its decision, and the manifest that comes of it.

use super::message::{Part, Parts, Report};
use super::output::Reported;
use crate::ids::{CheckpointId, Slot};
use crate::manifest::{Kind, Manifest, SourcePart, SplitPart, StatePart};
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

    /// Names of the state files reported so far.
    pub(super) fn files(&self) -> impl Iterator<Item = &String> {
        self.reports
            .values()
            .flat_map(|report| match report {
                Report::State(shard) => shard.files.as_slice(),
                Report::Source(_) | Report::Sink(_) => &[],
            })
            .map(|file| &file.name)
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

    /// The source part of the manifest: what was reported, and of splits that nobody reported what was
    /// `known` before, since a lost position is a split read twice.
    ///
    /// # Errors
    /// Two instances report the same split differently.
    pub(super) fn sources(
        &self,
        parts: &Parts,
        known: &BTreeMap<String, SourcePart>,
    ) -> Result<BTreeMap<String, SourcePart>, String> {
        let mut splits: BTreeMap<String, BTreeMap<&str, &SplitPart>> =
            parts.sources.iter().map(|(name, _)| (name.clone(), BTreeMap::new())).collect();
        for (part, report) in &self.reports {
            let (Part::Source { name, .. }, Report::Source(reported)) = (part, report) else { continue };
            let of_source = splits.entry(name.clone()).or_default();
            for split in reported {
                if let Some(other) = of_source.insert(&split.id, split)
                    && other != split
                {
                    return Err(format!("source {name:?}: split {:?} has two positions", split.id));
                }
            }
        }
        for (name, part) in known {
            let of_source = splits.entry(name.clone()).or_default();
            for split in &part.splits {
                of_source.entry(&split.id).or_insert(split);
            }
        }
        let part = |splits: BTreeMap<&str, &SplitPart>| SourcePart {
            splits: splits.into_values().cloned().collect(),
        };
        Ok(splits.into_iter().map(|(name, splits)| (name, part(splits))).collect())
    }
}
