//! What a finished freeze hands over to whoever writes it.

use super::outbox::Piece;
use super::spill::Spill;
use crate::error::StateError;
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
    /// What was serialised, groups ascending.
    pub(crate) pieces: Vec<Piece>,
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
        self.pieces.iter().map(|piece| piece.entries).sum()
    }

    /// Serialised bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.length).sum()
    }

    /// Of these, bytes that are not in memory but in a scratch file, or on their way there.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        self.pieces.iter().filter(|piece| piece.is_spooled()).map(|piece| piece.length).sum()
    }

    /// Visits what was frozen, groups ascending: group, entries, bytes of postcard-encoded `(K, N, Option<V>)`. A group
    /// may come in several pieces.
    ///
    /// # Errors
    /// A scratch file cannot be read, or does not hold what was written to it; and what `visit` returns.
    pub fn for_each_piece(
        &self,
        mut visit: impl FnMut(u16, u64, &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        for piece in &self.pieces {
            visit(piece.group, piece.entries, &piece.bytes()?)?;
        }
        Ok(())
    }

    /// Appends what was frozen after this; the result has this one's mode. A base supersedes all
    /// that was frozen before it.
    pub(crate) fn absorb(&mut self, later: Self) {
        if later.mode == FreezeMode::Base {
            *self = later;
            return;
        }
        self.pieces.extend(later.pieces);
        // Stable: in each group the later ones stay behind.
        self.pieces.sort_by_key(|piece| piece.group);
    }
}
