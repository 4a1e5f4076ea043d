//! Merging small deltas, so that a chain stays short without rewriting large state.
//!
//! Sixteen trailing deltas of one level become one of the next level: each byte is rewritten once per
//! level, and a chain has at most fifteen files of each. The entries themselves are not decoded: the
//! sections of a group are put one after another, and loading lets later entries win.

use super::ShardIdentity;
use crate::error::StateError;
use crate::snapshot::{Head, Output, Snapshot, Writer};
use crate::storage::Storage;
use staunch_checkpoint::{CheckpointId, FileKind, FileRef};
use std::path::Path;

/// Files that become one.
const WIDTH: usize = 16;
/// A merged file is not larger than this; bounds the delay of the next checkpoint.
const LIMIT_BYTES: u64 = 1 << 30;

/// Merges the end of a chain as far as it goes. On an error the chain is as before.
pub(super) fn merge(
    storage: &dyn Storage,
    identity: &ShardIdentity,
    head: &Head,
    scratch: &Path,
    files: &mut Vec<FileRef>,
) -> Result<(), StateError> {
    while let Some(from) = mergeable(files) {
        let run = &files[from..];
        let next = level(&run[0].name) + 1;
        let bytes = run.iter().map(|file| file.bytes).sum();
        let mut writer = Writer::new(Output::sized(bytes, scratch)?, head)?;
        let mut parts = Vec::with_capacity(WIDTH);
        for file in run {
            parts.push(Snapshot::open(storage, file)?);
        }
        for group in 0..head.groups.count() {
            for part in &parts {
                part.read(
                    |one| one == group,
                    |section, bytes| writer.section(group, section.entries, bytes),
                )?;
            }
        }
        let name = identity.file(CheckpointId(head.checkpoint), &format!("-m{next}.delta"));
        let merged = writer.finish(storage, name, FileKind::Delta)?;
        drop(parts);
        files.truncate(from);
        files.push(merged);
    }
    Ok(())
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
