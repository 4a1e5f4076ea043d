//! Walking through one namespace: the window that fires, and that goes.
//!
//! What is in memory is found by the lists of [`Members`](super::members::Members), what is spilled is one range of a group.
//! A walk goes in slices, between which the worker does other things; the table remembers where it stands. While one is
//! under way nothing is evicted, or it would be passed twice.

use super::members;
use super::part::NONE;
use super::sorted::behind;
use super::{Table, Visit};
use crate::codec;
use crate::error::StateError;
use crate::key::{Namespace, StateKey, StateValue, hash_key};
use std::ops::ControlFlow;

/// Entries looked at in one slice, those included that are deleted.
const LOOK: usize = 16_384;
/// Entries whose cache lines are fetched ahead of the one being visited.
const AHEAD: usize = 16;

/// Where a walk stands.
pub(super) struct Walk<N> {
    ns: N,
    /// The group that it is at: those of the namespace before it are done.
    group: u16,
    /// Position in the group's list; none: the group is still to be begun.
    at: Option<usize>,
    /// The last spilled key that was passed, in stored form.
    passed: Option<Vec<u8>>,
}

/// What a slice has left to look at.
struct Left(usize);

impl Left {
    fn take_one(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

impl<K: StateKey, N: Namespace, V: StateValue> Table<K, N, V> {
    /// Visits entries of a namespace, in no order, until `visit` breaks or has seen enough for one turn; the next call goes
    /// on behind them. True when all were visited, each once. Between the calls of one walk the table must not be used in
    /// another way, except by the engine.
    ///
    /// # Errors
    /// The RocksDB tier failed, or holds something that does not decode; or another walk is under way.
    pub fn visit_namespace(
        &mut self,
        ns: N,
        visit: impl FnMut(&K, &V) -> ControlFlow<()>,
    ) -> Result<bool, StateError> {
        self.walk_on(ns, false, visit)
    }

    /// As [`Table::visit_namespace`], and deletes what was visited.
    ///
    /// # Errors
    /// As [`Table::visit_namespace`], and as [`Table::update_batch`].
    pub fn take_namespace(
        &mut self,
        ns: N,
        visit: impl FnMut(&K, &V) -> ControlFlow<()>,
    ) -> Result<bool, StateError> {
        self.walk_on(ns, true, visit)
    }

    /// The namespaces that have entries, ascending; there may be some among them whose entries are deleted.
    pub fn namespaces(&self) -> impl Iterator<Item = N> {
        self.listed.keys().copied()
    }

    /// Lists what the RocksDB tier holds, which was filled from a checkpoint.
    pub(super) fn list_spilled(&mut self) -> Result<(), StateError> {
        let Some(spill) = self.tier.spill.as_ref().filter(|_| N::LISTED) else { return Ok(()) };
        for group in &self.tier.owned {
            let to = group.checked_add(1).map(u16::to_be_bytes);
            let to = to.as_ref().map(|to| &to[..]);
            let mut from = Some(group.to_be_bytes().to_vec());
            // One look at each namespace, and then behind it.
            while let Some(begin) = from.take() {
                spill.range(&begin, to, false, |key, _| {
                    let (ns, _) = codec::read_spill_key::<K, N>(key)
                        .map_err(StateError::codec(&self.tier.config.name, "read a spilled key"))?;
                    self.listed.entry(ns).or_default().insert(*group);
                    from = behind(&prefix(&self.tier.config.name, *group, ns)?);
                    Ok(Visit::Stop)
                })?;
            }
        }
        Ok(())
    }

    /// Takes namespaces off the list that have lost their last entry in a group.
    pub(super) fn unlist(&mut self, group: u16) -> Result<(), StateError> {
        let part = &mut self.parts[usize::from(group)];
        for ns in part.members.take_emptied() {
            let mut any = false;
            if let Some(spill) = self.tier.spill.as_ref().filter(|_| part.spilled) {
                let prefix = prefix(&self.tier.config.name, group, ns)?;
                spill.range(&prefix, behind(&prefix).as_deref(), false, |_, _| {
                    any = true;
                    Ok(Visit::Stop)
                })?;
            }
            if !any && let Some(groups) = self.listed.get_mut(&ns) {
                groups.remove(&group);
                if groups.is_empty() {
                    self.listed.remove(&ns);
                }
            }
        }
        Ok(())
    }

    fn walk_on(
        &mut self,
        ns: N,
        take: bool,
        mut visit: impl FnMut(&K, &V) -> ControlFlow<()>,
    ) -> Result<bool, StateError> {
        let begin = || Walk { ns, group: 0, at: None, passed: None };
        let mut walk = self.walk.take().unwrap_or_else(begin);
        if walk.ns != ns {
            let problem = format!("a walk through {ns:?} while one through {:?} is under way", walk.ns);
            return Err(StateError::internal(&self.tier.config.name, problem));
        }
        let mut left = Left(LOOK);
        while let Some(group) = self.next_group(ns, walk.group) {
            if group != walk.group {
                walk = Walk { group, ..begin() };
            }
            if !self.walk_memory(group, &mut walk, &mut left, take, &mut visit)?
                || !self.walk_spilled(group, &mut walk, &mut left, take, &mut visit)?
            {
                self.walk = Some(walk);
                return Ok(false);
            }
            self.parts[usize::from(group)].unpin(ns);
            let Some(next) = group.checked_add(1) else { break };
            walk = Walk { group: next, ..begin() };
        }
        Ok(true)
    }

    /// The first group from this one on that may have entries of a namespace.
    fn next_group(&self, ns: N, from: u16) -> Option<u16> {
        self.listed.get(&ns)?.range(from..).next().copied()
    }

    /// What a group has in memory; true when that is done.
    fn walk_memory(
        &mut self,
        group: u16,
        walk: &mut Walk<N>,
        left: &mut Left,
        take: bool,
        visit: &mut impl FnMut(&K, &V) -> ControlFlow<()>,
    ) -> Result<bool, StateError> {
        let ns = walk.ns;
        if walk.at.is_none() {
            self.parts[usize::from(group)].pin(ns);
        }
        let at = walk.at.get_or_insert(0);
        if walk.passed.is_some() {
            return Ok(true);
        }
        loop {
            let part = &self.parts[usize::from(group)];
            let place = part.members.place(ns, *at);
            if place == NONE {
                return Ok(true);
            }
            let ahead = part.members.place(ns, *at + AHEAD);
            if ahead != NONE {
                part.prefetch_entry(ahead);
            }
            *at += 1;
            let more = left.take_one();
            let Some(entry) = part.get(place).filter(|entry| entry.ns == ns) else { continue };
            let mut go_on = more;
            if let Some(value) = &entry.value {
                go_on &= visit(&entry.key, value).is_continue();
                if take {
                    self.change(group, place, |value| *value = None)?;
                }
            }
            if !go_on {
                return Ok(false);
            }
        }
    }

    /// What a group has spilled, and nothing newer of in memory; true when that is done.
    fn walk_spilled(
        &mut self,
        group: u16,
        walk: &mut Walk<N>,
        left: &mut Left,
        take: bool,
        visit: &mut impl FnMut(&K, &V) -> ControlFlow<()>,
    ) -> Result<bool, StateError> {
        let ns = walk.ns;
        let part = &self.parts[usize::from(group)];
        let Some(spill) = self.tier.spill.as_ref().filter(|_| part.spilled) else { return Ok(true) };
        let prefix = prefix(&self.tier.config.name, group, ns)?;
        let from = walk.passed.as_ref().map_or_else(|| prefix.clone(), |passed| [&passed[..], &[0]].concat());
        let (mut taken, mut done) = (Vec::new(), true);
        spill.range(&from, behind(&prefix).as_deref(), false, |stored, bytes| {
            let decode = "read a spilled entry";
            let (_, key): (N, K) =
                codec::read_spill_key(stored).map_err(StateError::codec(&self.tier.config.name, decode))?;
            let index_hash = ns.index_hash(hash_key(&key));
            walk.passed = Some([&group.to_be_bytes()[..], stored].concat());
            let mut go_on = left.take_one();
            if part.find(index_hash, &key, ns) == NONE {
                let value: V =
                    postcard::from_bytes(bytes).map_err(StateError::codec(&self.tier.config.name, decode))?;
                go_on &= visit(&key, &value).is_continue();
                if take {
                    taken.push((index_hash, key));
                }
            }
            done = go_on;
            Ok(if go_on { Visit::More } else { Visit::Stop })
        })?;
        for (index_hash, key) in taken {
            self.add(group, index_hash, key, ns, None, self.tier.now)?;
        }
        Ok(done)
    }
}

impl<K: StateKey, N: Namespace, V: StateValue> super::Part<K, N, V> {
    fn pin(&mut self, ns: N) {
        let Self { members, slab, .. } = self;
        members.pin(ns, |place| slab.get(place).is_some_and(|entry| entry.ns == ns));
    }

    fn unpin(&mut self, ns: N) {
        let Self { members, slab, .. } = self;
        members.unpin(ns, |place| slab.get(place).is_some_and(|entry| entry.ns == ns));
    }
}

/// What the stored keys of a namespace begin with.
fn prefix<N: Namespace>(step: &str, group: u16, ns: N) -> Result<Vec<u8>, StateError> {
    let mut prefix = group.to_be_bytes().to_vec();
    codec::append(&ns, &mut prefix).map_err(StateError::codec(step, "write a namespace"))?;
    Ok(prefix)
}

/// Memory of an entry in the lists, in bytes.
pub(super) const fn listed_bytes<N: Namespace>() -> usize {
    if N::LISTED { members::LISTED_BYTES } else { 0 }
}
