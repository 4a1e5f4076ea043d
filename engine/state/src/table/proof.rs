//! Reading back some of what was frozen, before a checkpoint relies on it: of the first freeze many entries, of
//! later ones a few, from one group after another.

use super::outbox::Piece;
use crate::error::Problem;

/// Entries that are read back of the first freeze that has any.
const FIRST: u64 = 1024;
/// And of each later one.
const LATER: u64 = 16;

/// What is to be read back of the freeze in progress.
#[derive(Default)]
pub(super) struct Proof {
    /// Freezes that had something.
    freezes: usize,
    /// Position of the first group to look at.
    from: usize,
    /// Entries still to be read.
    left: u64,
    has_read: bool,
}

impl Proof {
    pub(super) fn begin(&mut self, groups: usize) {
        self.left = if self.freezes == 0 { FIRST } else { LATER };
        self.from = self.freezes % groups.max(1);
        self.has_read = false;
    }

    /// Reads entries of a piece back, if any are to be. `at` is the position of its group; `read` reads the entry at
    /// the front back and returns the rest.
    pub(super) fn look_at(
        &mut self,
        at: usize,
        bytes: &[u8],
        entries: u64,
        read: impl Fn(&[u8]) -> Result<&[u8], Problem>,
    ) -> Result<(), Problem> {
        if at < self.from || self.left == 0 {
            return Ok(());
        }
        let count = entries.min(self.left);
        let mut rest = bytes;
        for _ in 0..count {
            rest = read(rest)?;
        }
        if count == entries && !rest.is_empty() {
            return Err(Problem::Differs);
        }
        (self.left, self.has_read) = (self.left - count, true);
        Ok(())
    }

    /// The freeze is complete: if it had nothing in the groups that were to be looked at, another one is.
    pub(super) fn end(
        &mut self,
        pieces: &[Piece],
        read: impl Fn(&[u8]) -> Result<&[u8], Problem>,
    ) -> Result<(), Problem> {
        let in_memory = pieces.iter().rev().find(|piece| !piece.is_spooled());
        if !self.has_read
            && let Some(piece) = in_memory
            // What is in memory can be read.
            && let Ok(bytes) = piece.bytes()
        {
            self.from = 0;
            self.look_at(0, &bytes, piece.entries, read)?;
        }
        self.freezes += usize::from(!pieces.is_empty());
        Ok(())
    }
}
