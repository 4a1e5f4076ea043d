//! Serialising a consistent state in slices, while writes go on.

use super::Sorted;
use super::part::{self, NUMBER};
use crate::error::StateError;
use crate::key::StateValue;
use crate::table::{Capture, FreezeMode, Frozen, proof};
use std::sync::Arc;

/// Where the freeze in progress stands.
pub(super) struct Progress {
    mode: FreezeMode,
    /// Position in the list of owned groups.
    group: usize,
    /// Position in the group's dirty list.
    at: usize,
}

impl<V: StateValue> Sorted<V> {
    pub(in super::super) fn begin_freeze(&mut self, mode: FreezeMode) -> Result<(), StateError> {
        if self.freeze.is_some() {
            let problem = "a freeze began before the one before it was taken";
            return Err(StateError::internal(&self.config.name, problem));
        }
        for group in &self.owned {
            self.parts[usize::from(*group)].begin(mode == FreezeMode::Base);
        }
        self.now = self.now % NUMBER + 1;
        self.freeze = Some(Progress { mode, group: 0, at: 0 });
        Ok(())
    }

    pub(in super::super) fn is_freezing(&self) -> bool {
        self.freeze.is_some()
    }

    pub(in super::super) fn freeze_some(&mut self, budget: &mut usize) -> Result<bool, StateError> {
        let Some(mut progress) = self.freeze.take() else { return Ok(true) };
        let mut outcome = Ok(());
        while outcome.is_ok() && *budget > 0 && progress.group < self.owned.len() {
            let part = &mut self.parts[usize::from(self.owned[progress.group])];
            let before = part.used();
            let done = match progress.mode {
                FreezeMode::Delta => part.slice_of_delta(&mut progress.at, budget, self.now),
                FreezeMode::Base => part.slice_of_base(budget, self.now),
            };
            self.entries = self.entries + part.used() - before;
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

    pub(in super::super) fn take_frozen(&mut self) -> Result<Frozen, StateError> {
        let mut all = usize::MAX;
        while !self.freeze_some(&mut all)? {}
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
        proof::prove(&mut self.proofs, &sections, part::read_back::<V>).map_err(|problem| {
            let (step, rust) = (self.config.name.clone(), std::any::type_name::<V>().to_owned());
            StateError::Unfit { step, role: "state", rust, problem }
        })?;
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

    /// True while a base is being frozen or waits for its hard links: evicting now could put values into the base
    /// that are newer than it.
    pub(super) fn base_in_progress(&self) -> bool {
        let freezing = self.freeze.as_ref().is_some_and(|freeze| freeze.mode == FreezeMode::Base);
        freezing || Arc::strong_count(&self.gate) > 1
    }
}
