//! Types that serde can write and postcard cannot read again are told from those that come back as they were.

#![allow(dead_code, reason = "what is read and not used is what these types are about")]

use super::*;
use serde::{Deserialize, Deserializer, Serializer};
use std::collections::{BTreeMap, HashMap};

fn refused<T: Serialize + DeserializeOwned>(expected: &str) {
    let (rust, problem) =
        unfit::<T>().unwrap_or_else(|| panic!("{} is accepted", std::any::type_name::<T>()));
    let text = format!("{rust} {problem}");
    assert!(text.contains(expected), "{text}");
}

fn accepted<T: Serialize + DeserializeOwned>() {
    assert_eq!(unfit::<T>(), None, "{}", std::any::type_name::<T>());
}

#[derive(Serialize, Deserialize)]
struct Plain {
    a: u8,
    b: Option<String>,
    c: Vec<(i64, f64)>,
    d: HashMap<String, u32>,
}

#[derive(Serialize, Deserialize)]
struct Sparse {
    k: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<i64>,
    w: i64,
}

#[derive(Serialize, Deserialize)]
struct Tree {
    branches: Vec<Tree>,
    named: HashMap<u8, Tree>,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

#[derive(Serialize, Deserialize)]
struct WithoutZero {
    #[serde(skip_serializing_if = "is_zero", default)]
    n: u32,
    after: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[derive(Serialize, Deserialize)]
enum SparseVariant {
    Nothing,
    Something {
        #[serde(skip_serializing_if = "String::is_empty", default)]
        name: String,
        at: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Skipped {
    a: u64,
    #[serde(skip)]
    cache: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct SkippedPair(u8, #[serde(skip)] u64, u8);

#[derive(Serialize, Deserialize)]
struct NotWritten {
    #[serde(skip_serializing, default)]
    a: u32,
    b: u32,
}

#[derive(Serialize, Deserialize)]
struct NotRead {
    #[serde(skip_deserializing)]
    a: u32,
    b: u32,
}

#[derive(Serialize, Deserialize)]
struct Inner {
    x: u32,
}

#[derive(Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    inner: Inner,
    y: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    A { x: u8 },
    B { y: u8 },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
enum Adjacent {
    A(u8),
    B,
}

#[derive(Serialize, Deserialize)]
enum LostVariant {
    A,
    #[serde(skip_deserializing)]
    B,
    C(u8),
}

#[derive(Serialize, Deserialize)]
struct Lopsided {
    #[serde(serialize_with = "as_text")]
    number: u64,
    after: u8,
}

fn as_text<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(number)
}

#[derive(Serialize, Deserialize)]
struct Matched {
    #[serde(with = "text")]
    number: u64,
}

mod text {
    pub(super) use super::as_text as serialize;
    use super::*;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
#[derive(Clone)]
struct MadeAnew {
    stored: u64,
    doubled: u64,
}

impl From<u64> for MadeAnew {
    fn from(stored: u64) -> Self {
        Self { stored, doubled: 2 * stored }
    }
}

impl From<MadeAnew> for u64 {
    fn from(from: MadeAnew) -> Self {
        from.doubled - from.stored
    }
}

#[derive(Serialize, Deserialize)]
#[repr(C)]
struct WithRoom {
    a: u8,
    b: u64,
    c: u8,
}

#[derive(Serialize, Deserialize)]
#[repr(C, align(128))]
struct Aligned {
    a: u8,
}

#[test]
fn a_field_that_may_be_left_out_is_refused_whatever_it_is_left_out_for() {
    refused::<Sparse>("`Sparse` leaves out its field `v`");
    refused::<Vec<Option<Sparse>>>("`Sparse` leaves out its field `v`");
    refused::<BTreeMap<u8, (u8, Option<Vec<Sparse>>)>>("`Sparse` leaves out its field `v`");
    refused::<Tree>("`Tree` leaves out its field `name`");
    refused::<WithoutZero>("`WithoutZero` leaves out its field `n`");
    refused::<SparseVariant>("`Something` leaves out its field `name`");
}

#[test]
fn a_field_that_is_not_stored_is_refused_where_the_size_of_its_struct_shows_it() {
    refused::<Skipped>("`Skipped` has a field that is not stored");
    refused::<BTreeMap<u8, SkippedPair>>("`SkippedPair` has a field that is not stored");
}

#[test]
fn fields_that_are_written_and_not_read_or_read_and_not_written_are_refused() {
    refused::<NotWritten>("skip_serializing");
    refused::<NotRead>("NotRead");
    refused::<LostVariant>("LostVariant");
    refused::<Lopsided>("#[serde(with)]");
}

#[test]
fn types_that_only_a_self_describing_format_can_read_are_refused_by_name() {
    refused::<serde_json::Value>("`serde_json::Value` can be read only from a format that describes itself");
    refused::<BTreeMap<String, serde_json::Value>>("`serde_json::Value`");
    refused::<(String, Untagged)>("Untagged `#[serde(untagged)]`");
    refused::<Option<Tagged>>("(`#[serde(tag = ..)]`)");
    refused::<Flat>("Flat `#[serde(flatten)]`");
    let adjacent = postcard::to_stdvec(&Adjacent::A(1)).unwrap();
    assert!(postcard::from_bytes::<Adjacent>(&adjacent).is_err());
    refused::<Adjacent>("unfit_tests::Adjacent `#[serde(flatten)]`, or an enum with its tag in a field");
}

#[test]
fn types_that_come_back_as_they_were_are_accepted() {
    accepted::<Plain>();
    accepted::<Vec<Plain>>();
    accepted::<Matched>();
    accepted::<MadeAnew>();
    accepted::<WithRoom>();
    accepted::<Aligned>();
    accepted::<(std::net::IpAddr, std::time::Duration, std::num::NonZeroU8, [u8; 32], char)>();
    accepted::<Box<[Option<Box<str>>]>>();
    accepted::<std::time::SystemTime>();
    accepted::<Result<u8, String>>();
    accepted::<std::ops::Range<std::cmp::Reverse<u8>>>();
}
