//! One key group of an ordered table: what is there, what is deleted, what is dirty.

use super::key::Key;
use crate::codec;
use crate::error::Problem;
use crate::key::StateValue;
use crate::table::part::Bytes;
use std::collections::BTreeMap;

/// Bits of a meta with the freeze in which an entry became dirty; 0 = clean. Only two numbers are in use at
/// a time.
pub(super) const NUMBER: u32 = (1 << 30) - 1;
/// Bit of a clean entry: the RocksDB tier holds the same value.
pub(super) const STORED: u32 = 1 << 30;
/// Bit of a dirty entry: neither a frozen section nor RocksDB has anything of its key, so that it needs no
/// tombstone. A timer that is set and deleted again between two checkpoints leaves nothing.
pub(super) const FRESH: u32 = 1 << 31;

/// The list of dirty keys is cleared of those that left nothing when there are more of them than half and this.
const MANY_DROPPED: usize = 64;

pub(super) struct Entry<V> {
    /// None only while it is being changed.
    pub(super) value: Option<V>,
    pub(super) meta: u32,
}

/// What a base has not come to yet.
#[derive(Default)]
pub(super) enum Pending {
    /// Nothing, or there is no base.
    #[default]
    None,
    /// The whole group.
    All,
    /// Entries behind this key.
    After(Key),
}

impl Pending {
    fn has(&self, key: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::After(last) => key > last.bytes(),
        }
    }
}

pub(super) struct Part<V> {
    pub(super) live: BTreeMap<Key, Entry<V>>,
    /// Tombstones, with their metas. Apart from what is there, so that nothing that reads in order passes them.
    pub(super) gone: BTreeMap<Key, u32>,
    /// Keys that became dirty since the last freeze began.
    pub(super) dirty: Vec<Key>,
    /// How many of these left nothing.
    pub(super) dropped: usize,
    /// The dirty list of the freeze in progress; of a base, what is left to be dropped of it.
    pub(super) freezing: Vec<Key>,
    pub(super) pending: Pending,
    /// A base has not come to the tombstones yet.
    pub(super) gone_pending: bool,
    /// What the freeze in progress has serialised.
    pub(super) section: Bytes,
    pub(super) owned: bool,
    /// RocksDB may hold entries of this group.
    pub(super) spilled: bool,
    /// RocksDB holds nothing before this key that is still there.
    pub(super) floor: Option<Key>,
    /// Where the eviction stands: it goes through the tombstones, and then from the last key to the first.
    pub(super) hand: Option<Key>,
    /// Where it stands in the tombstones, from the first to the last; and whether it has passed them.
    pub(super) gone_hand: Option<Key>,
    pub(super) gone_passed: bool,
}

impl<V: StateValue> Part<V> {
    pub(super) fn new(owned: bool) -> Self {
        Self {
            live: BTreeMap::new(),
            gone: BTreeMap::new(),
            dirty: Vec::new(),
            dropped: 0,
            freezing: Vec::new(),
            pending: Pending::None,
            gone_pending: false,
            section: Bytes::default(),
            owned,
            spilled: false,
            floor: None,
            hand: None,
            gone_hand: None,
            gone_passed: false,
        }
    }

    /// Entries and tombstones.
    pub(super) fn used(&self) -> usize {
        self.live.len() + self.gone.len()
    }

    /// Changes the value of a key that has one in memory; gives `f` back if it has none. The old value is serialised
    /// first if the freeze in progress still needs it.
    pub(super) fn change<R, F: FnOnce(&mut Option<V>) -> R>(
        &mut self,
        key: &[u8],
        now: u32,
        f: F,
    ) -> Result<Result<R, F>, Problem> {
        let Some(entry) = self.live.get_mut(key) else { return Ok(Err(f)) };
        let number = entry.meta & NUMBER;
        if number != now {
            if number != 0 || self.pending.has(key) {
                append_entry(key, &entry.value, &mut self.section)?;
            }
            entry.meta = now;
            self.dirty.push(Key::new(key));
        }
        let out = f(&mut entry.value);
        if entry.value.is_none() {
            let fresh = entry.meta & FRESH != 0;
            if let Some((key, _)) = self.live.remove_entry(key)
                && !fresh
            {
                self.gone.insert(key, now);
            } else {
                self.drop_one(now);
            }
        }
        Ok(Ok(out))
    }

    /// A dirty entry left nothing.
    fn drop_one(&mut self, now: u32) {
        self.dropped += 1;
        if self.dropped > MANY_DROPPED && self.dropped > self.dirty.len() / 2 {
            self.dropped = 0;
            self.dirty.sort_unstable();
            self.dirty.dedup();
            let (live, gone) = (&self.live, &self.gone);
            self.dirty.retain(|key| {
                let meta = live.get(key).map(|entry| entry.meta).or_else(|| gone.get(key).copied());
                meta.is_some_and(|meta| meta & NUMBER == now)
            });
        }
    }

    /// Gives a key that has no value in memory a value, or a tombstone. `stored`: RocksDB has a value of it that
    /// counts.
    pub(super) fn set(
        &mut self,
        key: &[u8],
        value: Option<V>,
        stored: bool,
        now: u32,
    ) -> Result<(), Problem> {
        let tombstone = self.gone.get(key).copied();
        match (value, tombstone) {
            (None, None) if stored => {
                self.gone.insert(Key::new(key), now);
                self.dirty.push(Key::new(key));
            }
            (None, _) => {}
            (value, None) => {
                let meta = if stored { now } else { now | FRESH };
                self.live.insert(Key::new(key), Entry { value, meta });
                self.dirty.push(Key::new(key));
            }
            (value, Some(meta)) => {
                if meta != now {
                    if meta != 0 || self.gone_pending {
                        append_entry::<V>(key, &None, &mut self.section)?;
                    }
                    self.dirty.push(Key::new(key));
                }
                self.gone.remove(key);
                self.live.insert(Key::new(key), Entry { value, meta: now });
            }
        }
        Ok(())
    }
}

/// Appends an entry of a section: the length of the key, the key, the value.
pub(super) fn append_entry<V: StateValue>(
    key: &[u8],
    value: &Option<V>,
    section: &mut Bytes,
) -> Result<(), Problem> {
    let before = section.bytes.len();
    codec::append(&(key.len() as u64), &mut section.bytes)?;
    section.bytes.extend_from_slice(key);
    if let Err(error) = codec::append(value, &mut section.bytes) {
        section.bytes.truncate(before);
        return Err(error);
    }
    section.entries += 1;
    Ok(())
}

/// Takes an entry off the front of a section; returns the key, the value and the rest.
pub(super) fn take_entry<V: StateValue>(bytes: &[u8]) -> postcard::Result<(&[u8], Option<V>, &[u8])> {
    let (length, rest): (u64, &[u8]) = postcard::take_from_bytes(bytes)?;
    let length = usize::try_from(length).map_err(|_| postcard::Error::DeserializeUnexpectedEnd)?;
    let (key, rest) = rest.split_at_checked(length).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
    let (value, rest) = postcard::take_from_bytes(rest)?;
    Ok((key, value, rest))
}
