//! A snapshot, one base or delta of one state: sections of entries by key group, every byte under a checksum.
//!
//! A file holds the snapshots of several states, one after another and with nothing in between: the manifest says
//! where each begins. Offsets in a snapshot count from its own beginning.
//!
//! ```text
//! head     magic "STAUNCH\x01" | version u32 | length u32 | Head as JSON | crc32c of all before
//! sections the bytes of each group's entries, groups ascending
//! table    per section: group u16 | entries u64 | offset u64 | length u64 | crc32c u32
//! tail     sections u32 | offset of the table u64 | crc32c of table and tail u32 | magic "STAUNEND"
//! ```
//!
//! Integers are little endian. A reader needs no more than the head, the table and the sections that
//! it owns: the checksum of the whole snapshot, known from the manifest, is compared with the one that
//! the parts' checksums combine to, and each section is checked when it is read. So nothing is used
//! before it is verified, and a rescaled worker does not read what belongs to others.

mod read;
mod write;

pub use read::Snapshot;
pub(crate) use write::{Bundle, Extent, Output};

use crate::group::Groups;
use serde::{Deserialize, Serialize};

/// The version of the format. Version 1, of before the first release, had a file for each state.
pub const VERSION: u32 = 2;

const MAGIC: [u8; 8] = *b"STAUNCH\x01";
const END: [u8; 8] = *b"STAUNEND";
/// Magic, version, length of the JSON.
const HEAD_START: u64 = 16;
/// No head is longer; guards against reading by a damaged length.
const HEAD_LIMIT: u64 = 1 << 20;
const ROW: u64 = 30;
const TAIL: u64 = 24;

/// Who wrote a file, when, and of what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Name of the job.
    pub job: String,
    /// Identity of the job's run of checkpoints.
    pub lineage: String,
    /// Name of the step.
    pub step: String,
    /// The worker.
    pub worker: u32,
    /// The checkpoint for which it was written.
    pub checkpoint: u32,
    /// The generation that wrote it.
    pub generation: u64,
    /// Number of key groups of the job.
    pub groups: Groups,
    /// Groups that the worker owned, as ranges `first..=last`.
    pub owned: Vec<(u16, u16)>,
}

/// One group's part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    /// The key group.
    pub group: u16,
    /// Entries in it, deletions included.
    pub entries: u64,
    /// Where it starts in the file.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// Its CRC-32C.
    pub crc32c: u32,
}

/// Ascending group numbers as ranges.
pub(crate) fn ranges(owned: &[u16]) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for group in owned {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*group) => *last = *group,
            _ => ranges.push((*group, *group)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests;
