//! Merging small deltas, so that a chain stays short without rewriting large state.
//!
//! Sixteen trailing deltas of one level become one of the next level: each byte is rewritten once per
//! level, and a chain has at most fifteen files of each. The entries themselves are not decoded: the
//! sections of a group are put one after another, and loading lets later entries win. What the states of a worker
//! merge for one level goes into one file.

use super::ShardIdentity;
use super::chain::Chain;
use crate::error::StateError;
use crate::snapshot::{Bundle, Extent, Head, Output, Snapshot};
use crate::storage::Storage;
use staunch_checkpoint::{CheckpointId, FileKind, FileRef};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Deltas that become one.
const WIDTH: usize = 16;
/// What one state merges at a time is not larger than this; bounds the delay of the next checkpoint.
const LIMIT_BYTES: u64 = 1 << 30;

/// Merges the ends of chains as far as it goes. On an error the chains are as before, or some levels are merged. `names`
/// gets the names of the files that this may have made.
pub(super) fn merge(
    storage: &dyn Storage,
    identity: &ShardIdentity,
    checkpoint: CheckpointId,
    chains: &mut [Chain],
    names: &mut BTreeSet<String>,
) -> Result<(), StateError> {
    let levels = |chains: &[Chain]| -> Vec<Option<u32>> {
        let next = |chain: &Chain| Some(level(&chain.files[mergeable(&chain.files)?].name) + 1);
        chains.iter().map(|chain| chain.head.as_ref().and_then(|_| next(chain))).collect()
    };
    loop {
        let found = levels(chains);
        // Ascending, so that no name comes twice.
        let Some(next) = found.iter().flatten().min().copied() else { return Ok(()) };
        let due = || (0..found.len()).filter(|at| found[*at] == Some(next));
        let run = |chain: &Chain| chain.files[chain.files.len() - WIDTH..].to_vec();
        let bytes = due().flat_map(|at| run(&chains[at])).map(|file| file.bytes).sum();
        let scratch: PathBuf = due().find_map(|at| chains[at].scratch()).map(Into::into).unwrap_or_default();
        let mut bundle = Bundle::new(Output::sized(bytes, &scratch)?);
        let mut merged: Vec<(usize, Extent)> = Vec::new();
        for at in due() {
            if let Some((head, _)) = &chains[at].head {
                merged.push((at, merge_one(storage, &mut bundle, head, &run(&chains[at]))?));
            }
        }
        let name = identity.file(checkpoint, &format!("-m{next}.delta"));
        names.insert(name.clone());
        bundle.put(storage, &name)?;
        for (at, extent) in merged {
            let files = &mut chains[at].files;
            files.truncate(files.len() - WIDTH);
            files.push(extent.in_file(&name, FileKind::Delta));
        }
    }
}

fn merge_one(
    storage: &dyn Storage,
    bundle: &mut Bundle,
    head: &Head,
    run: &[FileRef],
) -> Result<Extent, StateError> {
    let mut writer = bundle.begin(head)?;
    let mut parts = Vec::with_capacity(WIDTH);
    for file in run {
        parts.push(Snapshot::open(storage, file)?);
    }
    for group in 0..head.groups.count() {
        for part in &parts {
            part.read(|one| one == group, |section, bytes| writer.section(group, section.entries, bytes))?;
        }
    }
    writer.finish()
}

/// Where the run to be merged starts, if there is one.
fn mergeable(files: &[FileRef]) -> Option<usize> {
    let from = files.len().checked_sub(WIDTH)?;
    let run = &files[from..];
    let same = |file: &FileRef| file.kind == FileKind::Delta && level(&file.name) == level(&run[0].name);
    let small = run.iter().map(|file| file.bytes).sum::<u64>() <= LIMIT_BYTES;
    (small && run.iter().all(same)).then_some(from)
}

/// How often the contents of a delta were merged, from its name.
fn level(name: &str) -> u32 {
    let stem = name.strip_suffix(".delta").unwrap_or(name);
    let level = stem.rsplit_once("-m").and_then(|(_, level)| level.parse().ok());
    level.unwrap_or(0)
}
