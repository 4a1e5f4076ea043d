//! What is frozen is exactly the state at the beginning of the freeze, whatever is written meanwhile.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use staunch_state::{
    AnyTable, Assignment, FreezeMode, Frozen, Groups, SpillShared, Table, TableConfig, hash_key,
};
use std::collections::BTreeMap;

/// The content of frozen sections, deletions applied in order.
fn content(frozen: &Frozen, onto: &mut BTreeMap<u64, u64>) {
    let visit = |_, entries, mut bytes: &[u8]| {
        for _ in 0..entries {
            let ((key, (), value), rest): ((u64, (), Option<u64>), _) =
                postcard::take_from_bytes(bytes).unwrap();
            bytes = rest;
            match value {
                Some(value) => onto.insert(key, value),
                None => onto.remove(&key),
            };
        }
        assert!(bytes.is_empty());
        Ok(())
    };
    frozen.for_each_piece(visit).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn what_is_frozen_is_the_state_at_the_beginning_of_the_freeze(
        rounds in prop::collection::vec(
            (prop::collection::vec((0..300u64, prop::option::of(0..9u64)), 0..400), 1..200usize, prop::bool::ANY),
            1..12,
        ),
        frozen_bytes in prop_oneof![Just(0), 1..3000usize, Just(TableConfig::FROZEN_BYTES)],
    ) {
        let groups = Groups::new(5);
        let folder = tempfile::tempdir().unwrap();
        let mut table: Table<u64, (), u64> = Table::new(TableConfig {
            name: "numbers".to_owned(),
            groups,
            owned: Assignment::even(groups, 1).of_worker(0).collect(),
            memory_budget_bytes: usize::MAX,
            spill_dir: folder.path().to_owned(),
            spill: SpillShared::new(1 << 20, 1 << 20),
            frozen_bytes,
        });
        let (mut now, mut chain) = (BTreeMap::new(), BTreeMap::new());
        for (writes, slice, base) in rounds {
            let at_begin = now.clone();
            table.begin_freeze(if base { FreezeMode::Base } else { FreezeMode::Delta }).unwrap();
            prop_assert!(table.begin_freeze(FreezeMode::Delta).is_err());
            for chunk in writes.chunks(70) {
                let mut items = chunk.to_vec();
                let hashes: Vec<u64> = items.iter().map(|(key, _)| hash_key(key)).collect();
                table
                    .update_batch(&hashes, &mut items, |(key, _)| (key, ()), |(_, new), value| *value = new)
                    .unwrap();
                for (key, new) in chunk {
                    match new {
                        Some(new) => now.insert(*key, *new),
                        None => now.remove(key),
                    };
                }
                table.freeze_slice(slice).unwrap();
            }
            let frozen = table.take_frozen().unwrap();
            if base {
                chain.clear();
            }
            content(&frozen, &mut chain);
            prop_assert_eq!(&chain, &at_begin);
            prop_assert_eq!(table.stats().keys_in_memory, now.len() as u64);
        }
        table.begin_freeze(FreezeMode::Delta).unwrap();
        content(&table.take_frozen().unwrap(), &mut chain);
        prop_assert_eq!(&chain, &now);
    }
}

#[test]
fn a_table_over_its_budget_wants_a_checkpoint_when_all_of_it_is_dirty_and_not_after_one() {
    let (groups, folder) = (Groups::new(5), tempfile::tempdir().unwrap());
    let mut table: Table<u64, (), u64> = Table::new(TableConfig {
        name: "numbers".to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: 10_000,
        spill_dir: folder.path().to_owned(),
        spill: SpillShared::new(1 << 20, 1 << 20),
        frozen_bytes: TableConfig::FROZEN_BYTES,
    });
    let write = |table: &mut Table<u64, (), u64>, keys: std::ops::Range<u64>| {
        let mut items: Vec<u64> = keys.collect();
        let hashes: Vec<u64> = items.iter().map(hash_key).collect();
        table.update_batch(&hashes, &mut items, |key| (key, ()), |key, value| *value = Some(key)).unwrap();
        while table.maintain().unwrap() {}
    };
    write(&mut table, 0..100);
    assert!(!table.wants_checkpoint(), "{:?}", table.stats());
    write(&mut table, 100..1000);
    assert!(table.wants_checkpoint(), "{:?}", table.stats());
    table.begin_freeze(FreezeMode::Delta).unwrap();
    assert!(!table.wants_checkpoint());
    assert_eq!(table.take_frozen().unwrap().entries(), 1000);
    assert!(!table.wants_checkpoint());
}

#[test]
fn of_a_large_freeze_little_is_in_memory_even_if_all_is_written_before_its_turn() {
    const LITTLE: usize = 64 << 10;
    let groups = Groups::new(16);
    let folder = tempfile::tempdir().unwrap();
    let mut table: Table<u64, (), String> = Table::new(TableConfig {
        name: "texts".to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: usize::MAX,
        spill_dir: folder.path().to_owned(),
        spill: SpillShared::new(1 << 20, 1 << 20),
        frozen_bytes: LITTLE,
    });
    let write = |table: &mut Table<u64, (), String>, keys: std::ops::Range<u64>, text: &str| {
        let mut items: Vec<u64> = keys.collect();
        let hashes: Vec<u64> = items.iter().map(hash_key).collect();
        let value = |key| Some(format!("{text} {key} {}", "-".repeat(80)));
        table.update_batch(&hashes, &mut items, |key| (key, ()), |key, slot| *slot = value(key)).unwrap();
    };
    write(&mut table, 0..20_000, "before");
    for mode in [FreezeMode::Base, FreezeMode::Delta] {
        table.begin_freeze(mode).unwrap();
        // From the last key on: writes meet entries that the freeze comes to late.
        for chunk in (0..20).rev() {
            write(&mut table, chunk * 1000..(chunk + 1) * 1000, "after");
            table.freeze_slice(100).unwrap();
        }
        let frozen = table.take_frozen().unwrap();
        assert_eq!(frozen.entries(), 20_000);
        // Four times the limit, where the freeze waits for the disk, and what one more slice adds.
        let (all, in_memory) = (frozen.bytes(), frozen.bytes() - frozen.spooled_bytes());
        assert!(all > 1_700_000 && in_memory <= 5 * LITTLE as u64, "{in_memory} of {all} bytes");
        let (word, mut entries) = (if mode == FreezeMode::Base { "before" } else { "after" }, 0);
        let visit = |_, count, mut bytes: &[u8]| {
            while !bytes.is_empty() {
                let ((key, (), value), rest): ((u64, (), Option<String>), _) =
                    postcard::take_from_bytes(bytes).unwrap();
                assert!(value.unwrap().starts_with(&format!("{word} {key} ")));
                bytes = rest;
            }
            entries += count;
            Ok(())
        };
        frozen.for_each_piece(visit).unwrap();
        assert_eq!(entries, 20_000);
    }
}

#[test]
fn a_slice_of_large_entries_is_as_short_as_one_of_small_ones() {
    const VALUE: usize = 256 << 10;
    let (groups, folder) = (Groups::new(5), tempfile::tempdir().unwrap());
    let mut table: Table<u64, (), Vec<u8>> = Table::new(TableConfig {
        name: "blobs".to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: usize::MAX,
        spill_dir: folder.path().to_owned(),
        spill: SpillShared::new(1 << 20, 1 << 20),
        frozen_bytes: TableConfig::FROZEN_BYTES,
    });
    for mode in [FreezeMode::Delta, FreezeMode::Base] {
        for key in 0..200u64 {
            table.update_one(hash_key(&key), &key, (), |slot| *slot = Some(vec![7; VALUE])).unwrap();
        }
        table.begin_freeze(mode).unwrap();
        let mut slices = 0;
        while !table.freeze_slice(4096).unwrap() {
            slices += 1;
        }
        let frozen = table.take_frozen().unwrap();
        assert_eq!(frozen.entries(), 200);
        // At most about 2 MB each.
        assert!(slices >= 200 * VALUE / (2 << 20), "{slices} slices in {mode:?}");
    }
}

#[test]
fn what_is_written_to_a_table_that_waits_for_its_turn_to_freeze_does_not_heap_up() {
    const LITTLE: usize = 64 << 10;
    let (groups, folder) = (Groups::new(16), tempfile::tempdir().unwrap());
    let mut table: Table<u64, (), String> = Table::new(TableConfig {
        name: "texts".to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: usize::MAX,
        spill_dir: folder.path().to_owned(),
        spill: SpillShared::new(1 << 20, 1 << 20),
        frozen_bytes: LITTLE,
    });
    let write = |table: &mut Table<u64, (), String>, keys: std::ops::Range<u64>| {
        let mut items: Vec<u64> = keys.collect();
        let hashes: Vec<u64> = items.iter().map(hash_key).collect();
        let value = |key| Some(format!("{key:0100}"));
        table.update_batch(&hashes, &mut items, |key| (key, ()), |key, slot| *slot = value(key)).unwrap();
    };
    write(&mut table, 0..20_000);
    table.begin_freeze(FreezeMode::Base).unwrap();
    for chunk in 0..20 {
        write(&mut table, chunk * 1_000..(chunk + 1) * 1_000);
        // Another table has its turn.
        AnyTable::freeze_slice(&mut table, &mut 0).unwrap();
    }
    let frozen = table.take_frozen().unwrap();
    assert_eq!(frozen.entries(), 20_000);
    let in_memory = frozen.bytes() - frozen.spooled_bytes();
    assert!(in_memory <= 5 * LITTLE as u64, "{in_memory} of {} bytes", frozen.bytes());
}
