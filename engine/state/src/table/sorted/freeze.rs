//! Serialising a key group in slices, while writes go on.

use super::part::{NUMBER, Part, Pending, append_entry};
use crate::codec;
use crate::error::Problem;
use crate::key::StateValue;
use crate::table::FreezeMode;
use crate::table::part::Bytes;
use crate::table::tier::{Freezing, Slice};
use std::ops::Bound;

impl<V: StateValue> Freezing for Part<V> {
    fn begin(&mut self, mode: FreezeMode) {
        self.dropped = 0;
        match mode {
            FreezeMode::Delta => std::mem::swap(&mut self.dirty, &mut self.freezing),
            FreezeMode::Base => {
                // A base does not need the list. Dropping it takes as long as it is: that is done in slices.
                std::mem::swap(&mut self.dirty, &mut self.freezing);
                (self.pending, self.gone_pending) = (Pending::All, true);
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
        self.dropped = 0;
    }

    fn section(&mut self) -> &mut Bytes {
        &mut self.section
    }

    fn used(&self) -> usize {
        Part::used(self)
    }

    fn read_back(bytes: &[u8]) -> Result<&[u8], Problem> {
        let (length, rest): (u64, &[u8]) = postcard::take_from_bytes(bytes)?;
        let length = usize::try_from(length).map_err(|_| Problem::Differs)?;
        let (_, rest) = rest.split_at_checked(length).ok_or(Problem::Differs)?;
        codec::read_back::<Option<V>>(rest)
    }

    fn types() -> &'static str {
        std::any::type_name::<V>()
    }
}

impl<V: StateValue> Part<V> {
    /// Some of the dirty list.
    fn slice_of_delta(&mut self, slice: &mut Slice<'_>) -> Result<bool, Problem> {
        let list = std::mem::take(&mut self.freezing);
        let (from, end) = (*slice.at, list.len().min(slice.at.saturating_add(slice.budget)));
        let (now, mut reached) = (slice.now, from);
        for key in &list[from..end] {
            reached += 1;
            // Otherwise it was written since, or is listed twice.
            let is_due = |meta: u32| meta & NUMBER != 0 && meta & NUMBER != now;
            if let Some(entry) = self.live.get_mut(key) {
                if is_due(entry.meta) {
                    append_entry(key.bytes(), &entry.value, &mut self.section)?;
                    entry.meta = 0;
                }
            } else if let Some(meta) = self.gone.get_mut(key)
                && is_due(*meta)
            {
                append_entry::<V>(key.bytes(), &None, &mut self.section)?;
                *meta = 0;
                if !self.spilled {
                    self.gone.remove(key);
                }
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

    /// Some of the keys, in order, the tombstones before all of them.
    fn slice_of_base(&mut self, slice: &mut Slice<'_>) -> Result<bool, Problem> {
        let dropped = self.freezing.len().min(slice.budget);
        self.freezing.truncate(self.freezing.len() - dropped);
        slice.budget -= dropped;
        if slice.budget == 0 {
            return Ok(false);
        }
        if std::mem::take(&mut self.gone_pending) {
            slice.budget = slice.budget.saturating_sub(self.gone.len()).max(1);
            self.tombstones_of_base(slice.now)?;
        }
        let from = match std::mem::take(&mut self.pending) {
            Pending::After(last) => Bound::Excluded(last),
            Pending::All | Pending::None => Bound::Unbounded,
        };
        let mut last = None;
        for (key, entry) in self.live.range_mut((from, Bound::Unbounded)) {
            if slice.budget == 0 || (last.is_some() && self.section.bytes.len() >= slice.full) {
                self.pending = last.map_or(Pending::All, Pending::After);
                return Ok(false);
            }
            if entry.meta & NUMBER != slice.now {
                append_entry(key.bytes(), &entry.value, &mut self.section)?;
                entry.meta = if entry.meta & NUMBER == 0 { entry.meta } else { 0 };
            }
            slice.budget -= 1;
            last = Some(key.clone());
        }
        Ok(true)
    }

    /// Tombstones hide spilled values; a base without spilled values needs none.
    fn tombstones_of_base(&mut self, now: u32) -> Result<(), Problem> {
        let spilled = self.spilled;
        for (key, meta) in &mut self.gone {
            if *meta != now && spilled {
                append_entry::<V>(key.bytes(), &None, &mut self.section)?;
                *meta = 0;
            }
        }
        if !spilled {
            self.gone.retain(|_, meta| *meta == now);
        }
        Ok(())
    }
}
