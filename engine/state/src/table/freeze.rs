//! Serialising a consistent state in slices, while writes go on.

use super::part::{NONE, NUMBER, RECENT};
use super::{Capture, FreezeMode, Frozen, Table, proof};
use crate::codec::{self, append_entry};
use crate::error::{Problem, StateError};
use crate::key::{Namespace, StateKey, StateValue};
use std::sync::Arc;

/// Dirty entries whose cache lines are fetched ahead of the one being serialised.
const AHEAD: usize = 16;

/// Where the freeze in progress stands.
pub(super) struct Progress {
    mode: FreezeMode,
    /// Position in the list of owned groups.
    group: usize,
    /// Position in the group's dirty list, or its place in a base.
    at: usize,
}

impl<K: StateKey, N: Namespace, V: StateValue> Table<K, N, V> {
    /// Starts a freeze of the state as it is now; costs a few operations a group. Carry it out with
    /// [`Table::freeze_slice`] between batches, and collect it with [`Table::take_frozen`].
    ///
    /// # Errors
    /// [`StateError::Internal`]: the freeze before it was not taken yet.
    pub fn begin_freeze(&mut self, mode: FreezeMode) -> Result<(), StateError> {
        if self.freeze.is_some() {
            let problem = "a freeze began before the one before it was taken";
            return Err(StateError::internal(&self.config.name, problem));
        }
        for group in &self.owned {
            let part = &mut self.parts[usize::from(*group)];
            match mode {
                FreezeMode::Delta => std::mem::swap(&mut part.dirty, &mut part.freezing),
                FreezeMode::Base => {
                    part.dirty.clear();
                    part.base_from = 0;
                }
            }
        }
        self.now = self.now % NUMBER + 1;
        self.freeze = Some(Progress { mode, group: 0, at: 0 });
        Ok(())
    }

    /// True from [`Table::begin_freeze`] until [`Table::take_frozen`].
    #[must_use]
    pub fn is_freezing(&self) -> bool {
        self.freeze.is_some()
    }

    /// Serialises up to `max_entries` entries of the freeze in progress. True when nothing is left to
    /// do (or no freeze is in progress): then call [`Table::take_frozen`].
    ///
    /// # Errors
    /// An entry could not be serialised. The freeze cannot be completed.
    pub fn freeze_slice(&mut self, max_entries: usize) -> Result<bool, StateError> {
        self.freeze_some(&mut max_entries.max(1))
    }

    /// [`Table::freeze_slice`], with what is left of the budget.
    pub(super) fn freeze_some(&mut self, budget: &mut usize) -> Result<bool, StateError> {
        let Some(mut progress) = self.freeze.take() else { return Ok(true) };
        let mut outcome = Ok(());
        while outcome.is_ok() && *budget > 0 && progress.group < self.owned.len() {
            let group = usize::from(self.owned[progress.group]);
            let done = match progress.mode {
                FreezeMode::Delta => self.slice_of_delta(group, &mut progress.at, budget),
                FreezeMode::Base => self.slice_of_base(group, &mut progress.at, budget),
            };
            match done {
                Ok(true) => (progress.group, progress.at) = (progress.group + 1, 0),
                Ok(false) => {}
                Err(error) => outcome = Err(error),
            }
        }
        let finished = progress.group == self.owned.len();
        self.freeze = Some(progress);
        outcome.map(|()| finished).map_err(StateError::codec(&self.config.name, "freeze an entry"))
    }

    /// Ends the freeze in progress (carrying out what is left of it) and returns what was frozen. Give
    /// it to [`Persister::persist`](crate::Persister::persist), whatever happens. Without a freeze in
    /// progress the result is an empty delta.
    ///
    /// # Errors
    /// As [`Table::freeze_slice`].
    pub fn take_frozen(&mut self) -> Result<Frozen, StateError> {
        while !self.freeze_slice(usize::MAX)? {}
        let mode = self.freeze.take().map_or(FreezeMode::Delta, |progress| progress.mode);
        let mut sections = Vec::new();
        for group in &self.owned {
            let section = std::mem::take(&mut self.parts[usize::from(*group)].section);
            if section.entries > 0 {
                self.coded.0 += section.bytes.len() as u64;
                self.coded.1 += section.entries;
                sections.push((*group, section));
            }
        }
        proof::prove(&mut self.proofs, &sections, codec::read_back::<(K, N, Option<V>)>).map_err(
            |problem| {
                let (step, rust) = (self.config.name.clone(), std::any::type_name::<(K, N, V)>().to_owned());
                StateError::Unfit { step, role: "state", rust, problem }
            },
        )?;
        self.eviction.retry();
        let capture = self.spill.as_ref().filter(|_| mode == FreezeMode::Base);
        Ok(Frozen {
            mode,
            groups: self.config.groups,
            owned: self.owned.clone(),
            sections,
            spill: capture.map(|spill| Capture { spill: spill.clone(), _gate: self.gate.clone() }),
            scratch: self.config.spill_dir.clone(),
        })
    }

    /// True while a base is being frozen or waits for its hard links: evicting now could put values
    /// into the base that are newer than it.
    pub(super) fn base_in_progress(&self) -> bool {
        let freezing = self.freeze.as_ref().is_some_and(|freeze| freeze.mode == FreezeMode::Base);
        freezing || Arc::strong_count(&self.gate) > 1
    }

    /// One group's dirty list; true when it is done.
    fn slice_of_delta(&mut self, group: usize, at: &mut usize, budget: &mut usize) -> Result<bool, Problem> {
        let (part, now) = (&mut self.parts[group], self.now);
        let list = std::mem::take(&mut part.freezing);
        let end = list.len().min(at.saturating_add(*budget));
        if *at == 0 {
            let average = self.coded.0 / self.coded.1.max(1) + 8;
            part.section.bytes.reserve(list.len() * average as usize);
            list.iter().take(AHEAD).for_each(|place| part.prefetch_entry(*place));
        }
        for position in *at..end {
            if let Some(next) = list.get(position + AHEAD) {
                part.prefetch_entry(*next);
            }
            let place = list[position];
            let Some(entry) = part.get(place) else { continue };
            // Written since the freeze began: serialised then.
            if entry.meta & NUMBER == now {
                continue;
            }
            let tombstone = entry.value.is_none();
            part.serialise(place)?;
            if tombstone && !part.spilled {
                part.forget(place);
                self.entries -= 1;
            }
        }
        *budget -= end - *at;
        *at = end;
        let done = end == list.len();
        part.freezing = list;
        if done {
            part.freezing.clear();
        }
        Ok(done)
    }

    /// One group's places in order; true when it is done.
    fn slice_of_base(&mut self, group: usize, at: &mut usize, budget: &mut usize) -> Result<bool, Problem> {
        let (part, now) = (&mut self.parts[group], self.now);
        let end = (part.length() as usize).min(at.saturating_add(*budget));
        if *at == 0 {
            let average = self.coded.0 / self.coded.1.max(1) + 8;
            part.section.bytes.reserve(part.used() * average as usize);
        }
        for place in *at as u32..end as u32 {
            part.base_from = place + 1;
            let Some(entry) = part.get(place) else { continue };
            if entry.meta & NUMBER == now {
                continue;
            }
            // A tombstone hides a spilled value; a base without spilled values needs none.
            if entry.value.is_none() && !part.spilled {
                part.forget(place);
                self.entries -= 1;
            } else {
                part.serialise(place)?;
            }
        }
        *budget -= end - *at;
        *at = end;
        let done = end == part.length() as usize;
        if done {
            part.base_from = NONE;
        }
        Ok(done)
    }
}

impl<K: StateKey, N: Namespace, V: StateValue> super::Part<K, N, V> {
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
