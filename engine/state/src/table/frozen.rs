//! What a finished freeze hands over to whoever writes it.

use super::part::Bytes;
use super::spill::Spill;
use crate::group::Groups;
use std::path::PathBuf;
use std::sync::Arc;

/// What a freeze covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreezeMode {
    /// Entries that changed since the last freeze began.
    Delta,
    /// All entries of the memory tier; the persister adds the RocksDB tier.
    Base,
}

/// The state of a table as of the start of one freeze, serialised. It must reach
/// [`Persister::persist`](crate::Persister::persist): its entries count as clean from now on, so the
/// chain of files would have a hole without it.
#[must_use = "a frozen part that is not persisted is a hole in the chain of snapshot files"]
pub struct Frozen {
    pub(crate) mode: FreezeMode,
    pub(crate) groups: Groups,
    /// Groups that the table owns, ascending.
    pub(crate) owned: Vec<u16>,
    /// Non-empty sections in ascending order of their groups.
    pub(crate) sections: Vec<(u16, Bytes)>,
    /// Of a base: the RocksDB tier, to be hard-linked as it is now.
    pub(crate) spill: Option<Capture>,
    /// Folder for temporary files, on the disk of the RocksDB tier.
    pub(crate) scratch: PathBuf,
}

/// The RocksDB tier as of a base; while this exists, the table evicts nothing into it.
pub(crate) struct Capture {
    pub(crate) spill: Arc<Spill>,
    /// Its reference count is what the table looks at.
    pub(crate) _gate: Arc<()>,
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frozen")
            .field("mode", &self.mode)
            .field("entries", &self.entries())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl Frozen {
    /// Whether it is a base or a delta.
    #[must_use]
    pub fn mode(&self) -> FreezeMode {
        self.mode
    }

    /// Serialised entries, deletions included. A key can count twice in a base.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.sections.iter().map(|(_, section)| section.entries).sum()
    }

    /// Serialised bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sections.iter().map(|(_, section)| section.bytes.len() as u64).sum()
    }

    /// The sections: group, entries, bytes of postcard-encoded `(K, N, Option<V>)`.
    pub fn sections(&self) -> impl Iterator<Item = (u16, u64, &[u8])> {
        self.sections.iter().map(|(group, section)| (*group, section.entries, &section.bytes[..]))
    }

    /// Appends what was frozen after this; the result has this one's mode. A base supersedes all
    /// that was frozen before it.
    pub(crate) fn absorb(&mut self, later: Self) {
        if later.mode == FreezeMode::Base {
            *self = later;
            return;
        }
        for (group, section) in later.sections {
            match self.sections.binary_search_by_key(&group, |(group, _)| *group) {
                Ok(at) => {
                    let mine = &mut self.sections[at].1;
                    mine.bytes.extend_from_slice(&section.bytes);
                    mine.entries += section.entries;
                }
                Err(at) => self.sections.insert(at, (group, section)),
            }
        }
    }
}
