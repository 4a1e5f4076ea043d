//! Reading in order: memory and RocksDB as one.

use super::key::Key;
use super::{Sorted, stored_key};
use crate::error::StateError;
use crate::key::StateValue;
use crate::table::Visit;
use std::ops::{Bound, ControlFlow};

/// Encoded keys from the first, included, to the second, excluded; none: to the end.
#[derive(Clone, Debug)]
pub(in super::super) struct Range {
    pub(in super::super) from: Vec<u8>,
    pub(in super::super) to: Option<Vec<u8>>,
}

impl Range {
    fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Included(&self.from), self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }
}

/// What is read, and whether to go on.
type Look<'a, V> = &'a mut dyn FnMut(&[u8], &V) -> Result<ControlFlow<()>, StateError>;

impl<V: StateValue> Sorted<V> {
    /// Visits what a group has in a range, from the first or from the last on, until it is told to stop.
    pub(in super::super) fn scan(
        &self,
        group: u16,
        range: &Range,
        backwards: bool,
        look: Look<'_, V>,
    ) -> Result<(), StateError> {
        if range.is_empty() {
            return Ok(());
        }
        let part = &self.parts[usize::from(group)];
        let live = part.live.range::<[u8], _>(range.bounds());
        let live = live.filter_map(|(key, entry)| Some((key.bytes(), entry.value.as_ref()?)));
        let mut live: Box<dyn Iterator<Item = (&[u8], &V)>> =
            if backwards { Box::new(live.rev()) } else { Box::new(live) };
        let Some(spill) = self.tier.spill.as_ref().filter(|_| part.spilled) else {
            for (key, value) in live {
                if look(key, value)?.is_break() {
                    break;
                }
            }
            return Ok(());
        };
        let from = part.floor.as_ref().map_or(&range.from[..], |floor| floor.bytes().max(&range.from));
        let to = match &range.to {
            Some(to) => Some(stored_key(group, to)),
            None => group.checked_add(1).map(|next| next.to_be_bytes().to_vec()),
        };
        let mut next = live.next();
        let mut stopped = false;
        spill.range(&stored_key(group, from), to.as_deref(), backwards, |key, bytes| {
            while let Some((before, value)) =
                next.filter(|(live, _)| (*live < key) != backwards && *live != key)
            {
                if look(before, value)?.is_break() {
                    stopped = true;
                    return Ok(Visit::Stop);
                }
                next = live.next();
            }
            // Memory shadows RocksDB.
            if next.is_some_and(|(live, _)| live == key) || part.gone.contains_key(key) {
                return Ok(Visit::More);
            }
            let value: V = postcard::from_bytes(bytes)
                .map_err(StateError::codec(&self.tier.config.name, "read a spilled value"))?;
            stopped = look(key, &value)?.is_break();
            Ok(if stopped { Visit::Stop } else { Visit::More })
        })?;
        while let Some((key, value)) = next.filter(|_| !stopped) {
            stopped = look(key, value)?.is_break();
            next = live.next();
        }
        Ok(())
    }

    /// Removes the first `limit` entries of a range, and returns them.
    pub(in super::super) fn take(
        &mut self,
        group: u16,
        range: &Range,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, V)>, StateError> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        if limit > 0 {
            self.scan(group, range, false, &mut |key, _| {
                keys.push(key.to_vec());
                Ok(if keys.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
        }
        // All before this is out of the range, or taken.
        let mut passed = range.to.clone().filter(|_| keys.len() < limit);
        let mut taken = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(value) = self.update(group, &key, Option::take)? {
                taken.push((key, value));
            }
        }
        // RocksDB still has what was taken from it: nobody is to pass it again.
        let part = &mut self.parts[usize::from(group)];
        passed = passed.or_else(|| taken.last().map(|(last, _)| [&last[..], &[0]].concat()));
        if let Some(passed) = passed
            && part.spilled
            && part.floor.as_ref().is_none_or(|floor| *range.from <= *floor.bytes())
            && (part.floor.is_some() || range.from.is_empty())
            && part.floor.as_ref().is_none_or(|floor| *passed > *floor.bytes())
        {
            part.floor = Some(Key::new(&passed));
        }
        Ok(taken)
    }
}
