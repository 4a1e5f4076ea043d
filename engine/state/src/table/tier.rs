//! What the hash table and the ordered table have in common: how a freeze goes through the key groups, when entries
//! move to RocksDB, and the figures. The rules are told in the [module](super) above.

use super::outbox::{Outbox, PIECE_BYTES};
use super::part::{Bytes, NUMBER};
use super::{Capture, FreezeMode, Frozen, Spill, TableConfig};
use crate::error::{Problem, StateError};
use std::sync::Arc;

/// Entries serialised between two looks at what became of them: a fraction of the bytes that go out together.
const STRIDE: usize = 1_024;
/// Bytes that count as one entry: a slice of large entries has fewer of them, so that it takes no longer and adds little.
const ENTRY_BYTES: usize = 256;
/// Groups looked at in a slice for what writes have serialised ahead of it.
const SWEEP: usize = 64;

/// The freeze in progress.
struct Progress {
    mode: FreezeMode,
    /// Position in the list of owned groups.
    group: usize,
    /// How far it is in the group: a position in the dirty list, or a place in a base.
    at: usize,
}

/// One key group, as a freeze sees it.
pub(super) trait Freezing {
    /// Fixes what is to be frozen: what the group holds now, or of it what is dirty.
    fn begin(&mut self, mode: FreezeMode);

    /// Serialises some of it; true when the group is done.
    fn slice(&mut self, mode: FreezeMode, slice: &mut Slice<'_>) -> Result<bool, Problem>;

    /// Forgets what is dirty: a base is next, which takes all that is there.
    fn forget_dirty(&mut self);

    /// What has been serialised, by slices and by writes ahead of them.
    fn section(&mut self) -> &mut Bytes;

    /// Entries in memory, tombstones included.
    fn used(&self) -> usize;

    /// Sees whether the entry at the front of a section comes back as it is; returns the rest.
    fn read_back(bytes: &[u8]) -> Result<&[u8], Problem>;

    /// The types of the entries, for messages.
    fn types() -> &'static str;
}

/// What one call of [`Freezing::slice`] may do.
pub(super) struct Slice<'a> {
    /// How far the group is; counted up.
    pub(super) at: &'a mut usize,
    /// Entries that may still be serialised; counted down.
    pub(super) budget: usize,
    /// So long may the section get.
    pub(super) full: usize,
    /// The freeze that comes next: what has its number was written since this one began.
    pub(super) now: u32,
    /// About how long an entry gets.
    pub(super) entry_bytes: usize,
}

/// See the module.
pub(super) struct Tier {
    pub(super) config: TableConfig,
    /// The groups of this table, ascending.
    pub(super) owned: Vec<u16>,
    /// Number of the freeze that comes next: what becomes dirty now.
    pub(super) now: u32,
    freeze: Option<Progress>,
    outbox: Outbox,
    /// The group at which the sweep stands.
    swept: usize,
    pub(super) spill: Option<Arc<Spill>>,
    /// More than one reference: a base is still to be hard-linked, so nothing may be evicted.
    gate: Arc<()>,
    /// Entries in memory, tombstones included.
    pub(super) entries: usize,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) eviction: Eviction,
    /// Serialised bytes and entries seen, for the estimate of what entries own on the heap.
    pub(super) coded: (u64, u64),
    /// Until the next freeze begins, entries move that are dirty.
    dirty_moves: bool,
    /// Some did: the next freeze must be a base.
    pub(super) needs_base: bool,
}

impl Tier {
    pub(super) fn new(config: TableConfig) -> Self {
        let mut owned = config.owned.clone();
        owned.sort_unstable();
        owned.dedup();
        owned.retain(|group| *group < config.groups.count());
        Self {
            outbox: Outbox::new(config.frozen_bytes),
            config,
            owned,
            now: 1,
            freeze: None,
            swept: 0,
            spill: None,
            gate: Arc::new(()),
            entries: 0,
            hits: 0,
            misses: 0,
            eviction: Eviction::default(),
            coded: (0, 0),
            dirty_moves: false,
            needs_base: false,
        }
    }

    pub(super) fn owns(&self, group: u16) -> bool {
        self.owned.binary_search(&group).is_ok()
    }

    /// Average serialised size of an entry; 0 before any was seen.
    pub(super) fn coded_bytes(&self) -> usize {
        (self.coded.0 / self.coded.1.max(1)) as usize
    }

    /// Refuses what a section of a group has no business in here.
    pub(super) fn check_owned(&self, group: u16) -> Result<(), StateError> {
        if self.owns(group) {
            return Ok(());
        }
        Err(StateError::internal(&self.config.name, format!("key group {group} is not owned")))
    }

    /// Refuses a restored key that does not belong to the group that it was stored in.
    pub(super) fn check_group(&self, stored: u16, hash: u64) -> Result<(), StateError> {
        let now = self.config.groups.of(hash);
        if now == stored {
            return Ok(());
        }
        Err(StateError::KeyHashing { step: self.config.name.clone(), stored, now })
    }

    pub(super) fn begin_freeze<P: Freezing>(
        &mut self,
        parts: &mut [P],
        mode: FreezeMode,
    ) -> Result<(), StateError> {
        if self.freeze.is_some() {
            let problem = "a freeze began before the one before it was taken";
            return Err(StateError::internal(&self.config.name, problem));
        }
        if self.needs_base && mode == FreezeMode::Delta {
            let problem = "a delta began though changes have moved to RocksDB that are in no file";
            return Err(StateError::internal(&self.config.name, problem));
        }
        (self.needs_base, self.dirty_moves) = (false, false);
        for group in &self.owned {
            parts[usize::from(*group)].begin(mode);
        }
        self.now = self.now % NUMBER + 1;
        self.freeze = Some(Progress { mode, group: 0, at: 0 });
        self.outbox.begin(self.owned.len());
        Ok(())
    }

    pub(super) fn is_freezing(&self) -> bool {
        self.freeze.is_some()
    }

    /// Serialises up to `budget` entries, and takes them off it; true when nothing is left to do.
    pub(super) fn freeze_some<P: Freezing>(
        &mut self,
        parts: &mut [P],
        budget: &mut usize,
    ) -> Result<bool, StateError> {
        let Some(mut progress) = self.freeze.take() else { return Ok(true) };
        let outcome = self.go_on(parts, &mut progress, budget);
        let finished = progress.group == self.owned.len();
        self.freeze = Some(progress);
        outcome.map(|()| finished)
    }

    fn go_on<P: Freezing>(
        &mut self,
        parts: &mut [P],
        progress: &mut Progress,
        budget: &mut usize,
    ) -> Result<(), StateError> {
        while *budget > 0 && progress.group < self.owned.len() {
            if self.outbox.is_full(&self.config.spill_dir) {
                break;
            }
            let part = &mut parts[usize::from(self.owned[progress.group])];
            let (before, some) = (part.used(), STRIDE.min(*budget));
            let (entry_bytes, bytes) = (self.coded_bytes() + 8, part.section().bytes.len());
            let full = PIECE_BYTES.max(bytes);
            let mut slice = Slice { at: &mut progress.at, budget: some, full, now: self.now, entry_bytes };
            let done = part.slice(progress.mode, &mut slice);
            let entries = some - slice.budget;
            let bytes = part.section().bytes.len() - bytes;
            *budget = budget.saturating_sub(entries.max(bytes / ENTRY_BYTES));
            self.entries = self.entries + part.used() - before;
            let done = done.map_err(StateError::codec(&self.config.name, "freeze an entry"))?;
            self.take_section(parts, progress.group, done)?;
            if done {
                (progress.group, progress.at) = (progress.group + 1, 0);
            }
        }
        // What is written ahead of the freeze is serialised too, and must not heap up.
        for _ in 0..SWEEP.min(self.owned.len()) {
            self.swept = (self.swept + 1) % self.owned.len();
            self.take_section(parts, self.swept, false)?;
        }
        Ok(())
    }

    fn take_section<P: Freezing>(
        &mut self,
        parts: &mut [P],
        at: usize,
        done: bool,
    ) -> Result<(), StateError> {
        let group = self.owned[at];
        let section = parts[usize::from(group)].section();
        let taken = self.outbox.take_from((at, group), section, done, &self.config.spill_dir, P::read_back);
        taken.map_err(|problem| self.unfit::<P>(problem))
    }

    fn unfit<P: Freezing>(&self, problem: Problem) -> StateError {
        let (step, rust) = (self.config.name.clone(), P::types().to_owned());
        StateError::Unfit { step, role: "state", rust, problem }
    }

    pub(super) fn take_frozen<P: Freezing>(&mut self, parts: &mut [P]) -> Result<Frozen, StateError> {
        while !self.freeze_some(parts, &mut { usize::MAX })? {}
        let mode = self.freeze.take().map_or(FreezeMode::Delta, |progress| progress.mode);
        // What was written behind the slice of its group's end, but before this.
        let pieces = self.outbox.finish(P::read_back).map_err(|problem| self.unfit::<P>(problem))?;
        for piece in &pieces {
            self.coded.0 += piece.length;
            self.coded.1 += piece.entries;
        }
        self.eviction.retry();
        let capture = self.spill.as_ref().filter(|_| mode == FreezeMode::Base);
        Ok(Frozen {
            mode,
            groups: self.config.groups,
            owned: self.owned.clone(),
            pieces,
            spill: capture.map(|spill| Capture { spill: Arc::clone(spill), _gate: Arc::clone(&self.gate) }),
            scratch: self.config.spill_dir.clone(),
        })
    }

    /// True while a base is being frozen or waits for its hard links: evicting now could put values
    /// into the base that are newer than it.
    fn base_in_progress(&self) -> bool {
        let freezing = self.freeze.as_ref().is_some_and(|freeze| freeze.mode == FreezeMode::Base);
        freezing || Arc::strong_count(&self.gate) > 1
    }

    /// The RocksDB tier, opened empty if it is not there yet.
    pub(super) fn open_spill(&mut self) -> Result<Arc<Spill>, StateError> {
        if let Some(spill) = &self.spill {
            return Ok(Arc::clone(spill));
        }
        let folder = self.config.spill_dir.join("live");
        let spill = Arc::new(Spill::create(&folder, &self.config.spill, &self.config.name)?);
        self.spill = Some(Arc::clone(&spill));
        Ok(spill)
    }
}

/// Where the eviction stands.
#[derive(Default)]
pub(super) struct Eviction {
    /// Position in the list of owned groups.
    pub(super) group: usize,
    /// The budget was exceeded, and nine tenths of it are not reached yet.
    active: bool,
    /// Places looked at since the last one that could move.
    pub(super) fruitless: usize,
    /// All is dirty: wait for the next freeze.
    blocked: bool,
}

impl Eviction {
    /// Some entries became clean.
    pub(super) fn retry(&mut self) {
        (self.fruitless, self.blocked) = (0, false);
    }
}

/// Memory at which an eviction ends: nine tenths of the budget.
fn target(budget: usize) -> usize {
    budget - budget / 10
}

impl Tier {
    /// Bytes to be moved to RocksDB, if there are any and they may be moved now.
    pub(super) fn excess(&mut self, entry_bytes: usize) -> Option<usize> {
        let (memory, budget) = (self.entries * entry_bytes, self.config.memory_budget_bytes);
        self.eviction.active = memory > if self.eviction.active { target(budget) } else { budget };
        let may_move = self.eviction.active && !self.eviction.blocked && !self.base_in_progress();
        may_move.then(|| memory - target(budget))
    }

    /// Whether an entry may move that became dirty in this freeze, or is clean (0).
    pub(super) fn may_move(&self, number: u32) -> bool {
        number == 0 || (self.dirty_moves && self.freeze.is_none())
    }

    /// From now until the next freeze begins, entries may move that are dirty.
    pub(super) fn let_dirty_move(&mut self) {
        if !self.is_freezing() {
            self.dirty_moves = true;
            self.eviction.retry();
        }
    }

    /// Some of the excess was moved, or nothing was found to move in `places`; true if more is to be moved now.
    pub(super) fn moved(&mut self, places: usize, entry_bytes: usize) -> bool {
        self.eviction.blocked = self.eviction.fruitless > 2 * places;
        !self.eviction.blocked && self.entries * entry_bytes > target(self.config.memory_budget_bytes)
    }

    /// Whether the budget is exceeded and only a freeze can help, because all that is in memory is dirty.
    pub(super) fn wants_checkpoint(&self) -> bool {
        self.eviction.active && self.eviction.blocked && !self.is_freezing()
    }
}
