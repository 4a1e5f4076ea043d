//! Which places of a group hold the entries of which namespace: what a walk through one window goes by. Which groups have
//! any, the table knows ([`super::walk`]).
//!
//! A number a place, four bytes: the keys are in the entries alone. Places that hold the namespace no more are not searched
//! for at once; when they are half of a list it is made anew.

use super::part::NONE;
use crate::key::Namespace;
use std::collections::BTreeMap;

/// Memory of an entry's place in a list, growth included, in bytes.
pub(super) const LISTED_BYTES: usize = 6;
/// Lists shorter than this are not made anew.
const SHORT: usize = 16;

/// See the module.
pub(super) struct Members<N> {
    lists: BTreeMap<N, List>,
    /// Namespaces whose last entry in memory is no more: perhaps the group has none of them, spilled ones included.
    emptied: Vec<N>,
}

#[derive(Default)]
struct List {
    places: Vec<u32>,
    /// How many of them hold the namespace no more, or stand twice in the list.
    stale: usize,
    /// A walk is under way: positions keep their meaning.
    pinned: bool,
}

impl List {
    fn renew(&mut self, holds: impl Fn(u32) -> bool) {
        self.places.sort_unstable();
        self.places.dedup();
        self.places.retain(|place| holds(*place));
        self.places.shrink_to(self.places.len() * 2);
        self.stale = 0;
    }
}

impl<N: Namespace> Members<N> {
    pub(super) fn new() -> Self {
        Self { lists: BTreeMap::new(), emptied: Vec::new() }
    }

    /// A place has got an entry of a namespace; true if it is the first.
    #[inline]
    pub(super) fn add(&mut self, ns: N, place: u32) -> bool {
        if !N::LISTED {
            return false;
        }
        let list = self.lists.entry(ns).or_default();
        list.places.push(place);
        list.places.len() == 1
    }

    /// A place has lost its entry, which stays elsewhere or is no more. `holds` tells whether a place holds an entry of the
    /// namespace.
    pub(super) fn forget(&mut self, ns: N, stays: bool, holds: impl Fn(u32) -> bool) {
        if !N::LISTED {
            return;
        }
        let Some(list) = self.lists.get_mut(&ns) else { return };
        list.stale += 1;
        self.tidy(ns, stays, holds);
    }

    fn tidy(&mut self, ns: N, stays: bool, holds: impl Fn(u32) -> bool) {
        let Some(list) = self.lists.get_mut(&ns).filter(|list| !list.pinned) else { return };
        if list.stale >= list.places.len() {
            self.lists.remove(&ns);
            if !stays {
                self.emptied.push(ns);
            }
        } else if list.stale > SHORT && list.stale > list.places.len() / 2 {
            list.renew(holds);
        }
    }

    /// Namespaces that have lost their last entry in memory since the last call, and have none now.
    pub(super) fn take_emptied(&mut self) -> Vec<N> {
        let mut emptied = std::mem::take(&mut self.emptied);
        emptied.retain(|ns| !self.lists.contains_key(ns));
        emptied
    }

    /// Begins a walk: until [`Members::unpin`] positions keep their meaning, and each entry stands once.
    pub(super) fn pin(&mut self, ns: N, holds: impl Fn(u32) -> bool) {
        if let Some(list) = self.lists.get_mut(&ns) {
            if list.stale > 0 {
                list.renew(holds);
            }
            list.pinned = true;
        }
    }

    pub(super) fn unpin(&mut self, ns: N, holds: impl Fn(u32) -> bool) {
        if let Some(list) = self.lists.get_mut(&ns) {
            list.pinned = false;
            self.tidy(ns, false, holds);
        }
    }

    /// The place at a position, or [`NONE`].
    #[inline]
    pub(super) fn place(&self, ns: N, at: usize) -> u32 {
        self.lists.get(&ns).and_then(|list| list.places.get(at)).copied().unwrap_or(NONE)
    }
}
