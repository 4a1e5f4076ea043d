//! Values that cannot be read again end the first freeze, and not the first restore.

use serde::{Deserialize, Serialize};
use staunch_state::{
    Assignment, ErrorKind, FreezeMode, Groups, Problem, SpillShared, StateError, StateValue, Table,
    TableConfig, hash_key,
};
use std::collections::HashMap;

fn frozen<V: StateValue>(values: Vec<V>) -> Result<(), StateError> {
    let mut table: Table<u64, (), V> = Table::new(TableConfig {
        name: "last".into(),
        groups: Groups::default(),
        owned: Assignment::even(Groups::default(), 1).of_worker(0).collect(),
        memory_budget_bytes: 1 << 30,
        spill_dir: std::env::temp_dir().join("staunch-test-unfit"),
        spill: SpillShared::with_defaults(),
        frozen_bytes: TableConfig::FROZEN_BYTES,
    });
    let mut items: Vec<(u64, V)> = (0..).zip(values).collect();
    let hashes: Vec<u64> = items.iter().map(|(key, _)| hash_key(key)).collect();
    table.update_batch(&hashes, &mut items, |item| (&item.0, ()), |item, value| *value = Some(item.1))?;
    table.begin_freeze(FreezeMode::Base)?;
    table.take_frozen().map(drop)
}

/// Only seven will do, so that no made-up value shows what is wrong.
#[derive(Serialize)]
struct Picky {
    seven: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<u8>,
    twice: u16,
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (seven, more, half) = <(u8, Option<u8>, u16)>::deserialize(from)?;
        if seven != 7 {
            return Err(serde::de::Error::custom("only seven will do"));
        }
        Ok(Self { seven, more, twice: half * 2 })
    }
}

#[test]
fn a_field_that_is_left_out_ends_the_first_freeze_by_name() {
    let error = frozen(vec![Picky { seven: 7, more: None, twice: 0 }]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Job);
    assert!(error.to_string().contains("step last"), "{error}");
    assert!(error.to_string().contains("`Picky` leaves out its field `more`"), "{error}");
}

#[test]
fn a_value_that_comes_back_as_another_ends_the_first_freeze_with_its_type() {
    let error = frozen(vec![Picky { seven: 7, more: Some(1), twice: 4 }]).unwrap_err();
    assert!(matches!(&error, StateError::Unfit { problem: Problem::Differs, .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Job);
    assert!(error.to_string().contains("Picky"), "{error}");
}

/// Says that it has one element more than it has.
struct Boastful;

impl Serialize for Boastful {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        let mut list = to.serialize_seq(Some(2))?;
        list.serialize_element(&7u8)?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Boastful {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(from).map(|_| Self)
    }
}

#[test]
fn a_list_of_another_length_than_it_says_ends_the_first_freeze() {
    let error = frozen(vec![Boastful]).unwrap_err();
    assert!(error.to_string().contains("another number of elements"), "{error}");
}

#[test]
fn maps_that_hash_are_not_taken_for_changed_because_their_order_is_another() {
    let map = |from: u32| (from..from + 200).map(|n| (n, n.to_string())).collect::<HashMap<u32, String>>();
    frozen((0..50).map(map).collect()).unwrap();
}
