//! Serialising a key group in slices, while writes go on.

use super::outbox::PIECE_BYTES;
use super::part::{Bytes, NONE, NUMBER, Part, RECENT};
use super::tier::{Freezing, Slice};
use super::{FreezeMode, Frozen, Table};
use crate::codec::{self, append_entry};
use crate::error::{Problem, StateError};
use crate::key::{Namespace, StateKey, StateValue};

/// Dirty entries whose cache lines are fetched ahead of the one being serialised.
const AHEAD: usize = 16;

impl<K: StateKey, N: Namespace, V: StateValue> Table<K, N, V> {
    /// Starts a freeze of the state as it is now; costs a few operations a group. Carry it out with
    /// [`Table::freeze_slice`] between batches, and collect it with [`Table::take_frozen`].
    ///
    /// # Errors
    /// [`StateError::Internal`]: the freeze before it was not taken yet.
    pub fn begin_freeze(&mut self, mode: FreezeMode) -> Result<(), StateError> {
        self.tier.begin_freeze(&mut self.parts, mode)
    }

    /// True from [`Table::begin_freeze`] until [`Table::take_frozen`].
    #[must_use]
    pub fn is_freezing(&self) -> bool {
        self.tier.is_freezing()
    }

    /// Serialises up to `max_entries` entries of the freeze in progress; fewer if they are large, or, after a millisecond,
    /// if much was serialised that the disk has not taken yet. True when nothing is left to do (or no freeze is in progress):
    /// then call [`Table::take_frozen`].
    ///
    /// # Errors
    /// An entry could not be serialised, or does not come back as it was. The freeze cannot be completed.
    pub fn freeze_slice(&mut self, max_entries: usize) -> Result<bool, StateError> {
        self.tier.freeze_some(&mut self.parts, &mut max_entries.max(1))
    }

    /// Ends the freeze in progress (carrying out what is left of it) and returns what was frozen. Give
    /// it to [`Persister::persist`](crate::Persister::persist), whatever happens. Without a freeze in
    /// progress the result is an empty delta.
    ///
    /// # Errors
    /// As [`Table::freeze_slice`].
    pub fn take_frozen(&mut self) -> Result<Frozen, StateError> {
        let frozen = self.tier.take_frozen(&mut self.parts)?;
        for at in 0..self.tier.owned.len() {
            self.unlist(self.tier.owned[at])?;
        }
        Ok(frozen)
    }
}

impl<K: StateKey, N: Namespace, V: StateValue> Freezing for Part<K, N, V> {
    fn begin(&mut self, mode: FreezeMode) {
        match mode {
            FreezeMode::Delta => std::mem::swap(&mut self.dirty, &mut self.freezing),
            FreezeMode::Base => {
                self.dirty.clear();
                self.base_from = 0;
            }
        }
    }

    fn slice(&mut self, mode: FreezeMode, slice: &mut Slice<'_>) -> Result<bool, Problem> {
        match mode {
            FreezeMode::Delta => self.slice_of_delta(slice),
            FreezeMode::Base => self.slice_of_base(slice),
        }
    }

    fn forget_dirty(&mut self) {
        self.dirty.clear();
    }

    fn section(&mut self) -> &mut Bytes {
        &mut self.section
    }

    fn used(&self) -> usize {
        Part::used(self)
    }

    fn read_back(bytes: &[u8]) -> Result<&[u8], Problem> {
        codec::read_back::<(K, N, Option<V>)>(bytes)
    }

    fn types() -> &'static str {
        std::any::type_name::<(K, N, V)>()
    }
}

impl<K: StateKey, N: Namespace, V: StateValue> Part<K, N, V> {
    /// Some of the dirty list.
    fn slice_of_delta(&mut self, slice: &mut Slice<'_>) -> Result<bool, Problem> {
        let list = std::mem::take(&mut self.freezing);
        let (from, end) = (*slice.at, list.len().min(slice.at.saturating_add(slice.budget)));
        self.reserve(from == 0, list.len() - from, slice.entry_bytes);
        let mut reached = from;
        if from == 0 {
            list.iter().take(AHEAD).for_each(|place| self.prefetch_entry(*place));
        }
        for position in from..end {
            if let Some(next) = list.get(position + AHEAD) {
                self.prefetch_entry(*next);
            }
            reached = position + 1;
            let place = list[position];
            let Some(entry) = self.get(place) else { continue };
            // Written since the freeze began: serialised then.
            if entry.meta & NUMBER == slice.now {
                continue;
            }
            let tombstone = entry.value.is_none();
            self.serialise(place)?;
            if tombstone && !self.spilled {
                self.forget(place);
            }
            if self.section.bytes.len() >= slice.full {
                break;
            }
        }
        slice.budget -= reached - from;
        *slice.at = reached;
        let done = reached == list.len();
        self.freezing = list;
        if done {
            self.freezing.clear();
        }
        Ok(done)
    }

    /// Some of the places, in order.
    fn slice_of_base(&mut self, slice: &mut Slice<'_>) -> Result<bool, Problem> {
        let (from, length) = (*slice.at, self.length() as usize);
        let end = length.min(from.saturating_add(slice.budget));
        self.reserve(from == 0, self.used().min(length - from), slice.entry_bytes);
        let mut reached = from;
        for place in from as u32..end as u32 {
            self.base_from = place + 1;
            reached = self.base_from as usize;
            let Some(entry) = self.get(place) else { continue };
            if entry.meta & NUMBER == slice.now {
                continue;
            }
            // A tombstone hides a spilled value; a base without spilled values needs none.
            if entry.value.is_none() && !self.spilled {
                self.forget(place);
            } else {
                self.serialise(place)?;
            }
            if self.section.bytes.len() >= slice.full {
                break;
            }
        }
        slice.budget -= reached - from;
        *slice.at = reached;
        let done = reached == length;
        if done {
            self.base_from = NONE;
        }
        Ok(done)
    }

    /// Makes room for what follows in the section, if it is a new one or the first slice of the group, ahead of which
    /// writes may have begun it.
    fn reserve(&mut self, first: bool, entries: usize, entry_bytes: usize) {
        if first || self.section.bytes.is_empty() {
            let room = entries.saturating_mul(entry_bytes).min(PIECE_BYTES + PIECE_BYTES / 4);
            self.section.bytes.reserve(room.saturating_sub(self.section.bytes.len()));
        }
    }

    /// Appends the entry at a place to the section; it is clean afterwards.
    #[inline]
    fn serialise(&mut self, place: u32) -> Result<(), Problem> {
        let mut section = std::mem::take(&mut self.section);
        let mut outcome = Ok(());
        if let Some(entry) = self.get_mut(place) {
            outcome = append_entry(&entry.key, entry.ns, &entry.value, &mut section.bytes);
            entry.meta = RECENT;
            section.entries += 1;
        }
        self.section = section;
        outcome
    }
}
