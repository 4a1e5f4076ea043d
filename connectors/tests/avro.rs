//! Avro: bytes as the specification shows them, schemas that change, and bytes that are none.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use staunch_connectors::formats::{
    Avro, Decoder, Destination, Encoder, Encoding, Format, NotDecoded, Undecodable,
};
use std::collections::BTreeMap;

fn encode<T: Serialize + DeserializeOwned + Send + 'static>(
    schema: &Value,
    record: &T,
) -> staunch_core::Result<Vec<u8>> {
    let (format, mut out) = (Avro::<T>::written_with(schema.to_string()), Vec::new());
    let mut encoder = format.encoder(&Destination::value("t"))?;
    encoder.encode(record, &mut out).map(|()| out)
}

fn decode<T: DeserializeOwned + Send + 'static>(schema: &Value, bytes: &[u8]) -> Result<T, Undecodable> {
    let mut decoder = Avro::<T>::written_with(schema.to_string()).decoder().unwrap();
    decoder.decode(bytes).map(Option::unwrap).map_err(NotDecoded::into_bad)
}

/// Writes `value` by one schema, and reads it by another.
fn evolve<W, R>(writer: &Value, value: &W, reader: &Value) -> Result<R, String>
where
    W: Serialize + DeserializeOwned + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    let bytes = encode(writer, value).unwrap();
    let format = Avro::<R>::written_with(writer.to_string()).read_as(reader.to_string());
    let mut decoder = format.decoder().map_err(|e| e.to_string())?;
    decoder.decode(&bytes).map(Option::unwrap).map_err(|e| e.into_bad().to_string())
}

/// A record type with one field `x`.
fn with_x(schema: Value) -> Value {
    json!({"type": "record", "name": "r", "fields": [{"name": "x", "type": schema}]})
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct X<T> {
    x: T,
}

#[test]
fn the_examples_of_the_specification_are_these_bytes() {
    #[derive(PartialEq, Debug, Serialize, Deserialize)]
    struct Test {
        a: i64,
        b: String,
    }
    let schema = json!({"type": "record", "name": "test",
        "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "string"}]});
    let (record, bytes) = (Test { a: 27, b: "foo".into() }, [0x36, 0x06, 0x66, 0x6f, 0x6f]);
    assert_eq!(encode(&schema, &record).unwrap(), bytes);
    assert_eq!(decode::<Test>(&schema, &bytes).unwrap(), record);
    let longs = json!({"type": "array", "items": "long"});
    assert_eq!(decode::<Vec<i64>>(&longs, &[0x04, 0x06, 0x36, 0x00]).unwrap(), [3, 27]);
    // The same as a block that says its size in bytes.
    assert_eq!(decode::<Vec<i64>>(&longs, &[0x03, 0x04, 0x06, 0x36, 0x00]).unwrap(), [3, 27]);
    let union = json!(["null", "string"]);
    assert_eq!(decode::<Option<String>>(&union, &[0x00]).unwrap(), None);
    assert_eq!(decode::<Option<String>>(&union, &[0x02, 0x02, 0x61]).unwrap(), Some("a".into()));
    for (number, bytes) in
        [(0, vec![0]), (-1, vec![1]), (1, vec![2]), (-2, vec![3]), (-64, vec![0x7f]), (64, vec![0x80, 0x01])]
    {
        assert_eq!(decode::<i32>(&json!("int"), &bytes).unwrap(), number);
    }
}

#[test]
fn logical_types_are_what_they_stand_for() {
    let decimal = json!({"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2});
    for (bytes, text) in [
        (vec![0x04, 0x04, 0xd2], "12.34"),
        (vec![0x02, 0xff], "-0.01"),
        (vec![0x02, 0x05], "0.05"),
        (vec![0x00], "0.00"),
        (vec![0x04, 0x80, 0x00], "-327.68"),
    ] {
        assert_eq!(decode::<String>(&decimal, &bytes).unwrap(), text);
    }
    let moment = json!({"type": "long", "logicalType": "timestamp-millis"});
    assert_eq!(decode::<i64>(&moment, &[0x02]).unwrap(), 1);
    let uuid = json!({"type": "string", "logicalType": "uuid"});
    let text = "fdda1a08-2b1b-4d3e-8a0b-5b3c2d1e0f9a";
    assert_eq!(decode::<String>(&uuid, &[&[72], text.as_bytes()].concat()).unwrap(), text);
}

#[test]
fn schemas_change_by_the_rules_of_the_specification() {
    #[derive(PartialEq, Debug, Deserialize)]
    struct New {
        total: f64,
        added: String,
        raw: Vec<u8>,
        maybe: Option<i32>,
    }
    let writer = json!({"type": "record", "name": "Old", "fields": [
        {"name": "removed", "type": {"type": "array", "items": "string"}}, {"name": "sum", "type": "int"}]});
    let reader = json!({"type": "record", "name": "New", "aliases": ["Old"], "fields": [
        {"name": "total", "type": "double", "aliases": ["sum"]},
        {"name": "added", "type": "string", "default": "none"},
        {"name": "raw", "type": "bytes", "default": "\u{ff}"},
        {"name": "maybe", "type": ["null", "int"], "default": null}]});
    #[derive(Serialize, Deserialize)]
    struct Old {
        removed: Vec<String>,
        sum: i32,
    }
    let old = Old { removed: vec!["a".into(), "b".into()], sum: 7 };
    let new = New { total: 7.0, added: "none".into(), raw: vec![255], maybe: None };
    assert_eq!(evolve::<_, New>(&writer, &old, &reader), Ok(new));
    let other = json!({"type": "record", "name": "Other", "fields": []});
    assert!(
        evolve::<_, Value>(&writer, &old, &other)
            .unwrap_err()
            .contains("Old was written, and Other is expected")
    );
    let more = json!({"type": "record", "name": "Old", "fields": [{"name": "new", "type": "int"}]});
    assert!(
        evolve::<_, Value>(&writer, &old, &more)
            .unwrap_err()
            .contains("field `new`: it was not written, and has no default")
    );
}

#[test]
fn numbers_are_promoted_and_never_rounded_or_narrowed() {
    let types = ["int", "long", "float", "double"];
    for (from, writer) in types.iter().enumerate() {
        for (to, reader) in types.iter().enumerate() {
            let (writer, reader) = (with_x(json!(writer)), with_x(json!(reader)));
            let read = match from {
                0 => evolve::<_, X<f64>>(&writer, &X { x: 5_i32 }, &reader),
                1 => evolve::<_, X<f64>>(&writer, &X { x: 5_i64 }, &reader),
                2 => evolve::<_, X<f64>>(&writer, &X { x: 5_f32 }, &reader),
                _ => evolve::<_, X<f64>>(&writer, &X { x: 5_f64 }, &reader),
            };
            match from <= to {
                true => assert_eq!(read, Ok(X { x: 5.0 })),
                false => assert!(read.unwrap_err().contains("is expected")),
            }
        }
    }
    let (long, double) = (with_x(json!("long")), with_x(json!("double")));
    assert_eq!(evolve(&long, &X { x: 1_i64 << 53 }, &double), Ok(X { x: 9_007_199_254_740_992.0 }));
    let inexact = evolve::<_, X<f64>>(&long, &X { x: (1_i64 << 53) + 1 }, &double).unwrap_err();
    assert!(
        inexact.contains("9007199254740993 was written, and no double is exactly that, in field `x`"),
        "{inexact}"
    );
    let (millis, micros) = (
        json!({"type": "long", "logicalType": "timestamp-millis"}),
        json!({"type": "long", "logicalType": "timestamp-micros"}),
    );
    assert!(
        evolve::<_, X<i64>>(&with_x(millis), &X { x: 1_i64 }, &with_x(micros)).is_err(),
        "another moment"
    );
}

#[test]
fn symbols_and_unions_change_or_are_refused_when_they_come() {
    let suit = |symbols: Value| with_x(json!({"type": "enum", "name": "suit", "symbols": symbols}));
    let (old, new) = (suit(json!(["spades", "hearts"])), suit(json!(["hearts", "clubs"])));
    #[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Suit {
        Spades,
        Hearts,
    }
    assert_eq!(evolve(&old, &X { x: Suit::Hearts }, &new), Ok(X { x: Suit::Hearts }));
    let gone = evolve::<_, X<String>>(&old, &X { x: Suit::Spades }, &new).unwrap_err();
    assert!(gone.contains("`spades` was written, and the reader has hearts, clubs and no default"), "{gone}");
    let default = with_x(json!({"type": "enum", "name": "suit", "symbols": ["clubs"], "default": "clubs"}));
    assert_eq!(evolve(&old, &X { x: Suit::Spades }, &default), Ok(X { x: "clubs".to_owned() }));
    // Optional, and not any more; and the other way.
    let (plain, optional) = (with_x(json!("int")), with_x(json!(["null", "long"])));
    assert_eq!(evolve(&plain, &X { x: 3_i32 }, &optional), Ok(X { x: Some(3_i64) }));
    let (optional, plain) = (with_x(json!(["null", "int"])), with_x(json!("long")));
    assert_eq!(evolve(&optional, &X { x: Some(3_i32) }, &plain), Ok(X { x: 3_i64 }));
    let null = evolve::<_, X<i64>>(&optional, &X { x: None::<i32> }, &plain).unwrap_err();
    assert!(null.contains("null was written, and long is expected"), "{null}");
    #[derive(PartialEq, Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Either {
        Int(i32),
        String(String),
    }
    let union = with_x(json!(["int", "string"]));
    assert_eq!(decode::<X<Either>>(&union, &[0x02, 0x02, 0x61]).unwrap().x, Either::String("a".into()));
    assert_eq!(decode::<X<Either>>(&union, &[0x00, 0x02]).unwrap().x, Either::Int(1));
}

#[test]
fn types_that_contain_themselves_are_read() {
    #[derive(PartialEq, Debug, Serialize, Deserialize)]
    struct List {
        value: i64,
        next: Option<Box<List>>,
    }
    let schema = json!({"type": "record", "name": "List", "fields": [
        {"name": "value", "type": "long"}, {"name": "next", "type": ["null", "List"]}]});
    let list = List { value: 1, next: Some(Box::new(List { value: 2, next: None })) };
    let bytes = [2, 2, 4, 0];
    assert_eq!(decode::<List>(&schema, &bytes).unwrap(), list);
    // One inside the other without end is refused before the stack is used up.
    let deep = [2_u8; 10_000];
    assert!(decode::<List>(&schema, &deep).unwrap_err().reason.contains("within each other"));
}

#[test]
fn wrong_bytes_say_what_was_expected_and_where() {
    let text = with_x(json!("string"));
    for (schema, bytes, why) in [
        (
            &text,
            vec![0x06, b'a'],
            "the bytes end: 3 more are expected, and 1 are there, in field `x`, at byte 1",
        ),
        (&text, vec![0x02, b'a', 9], "1 bytes behind the record"),
        (&text, vec![0x02, 0xff], "not UTF-8"),
        (&text, vec![0x01], "-1 is no length"),
        (&text, vec![0xff; 12], "more than 64 bits"),
        (&text, vec![], "the bytes end"),
        (&with_x(json!("boolean")), vec![2], "byte 2 is no boolean"),
        (&with_x(json!(["null", "int"])), vec![6], "branch 3 of a union that has 2"),
        (
            &with_x(json!({"type": "array", "items": "null"})),
            [vec![0xfe, 0xff, 0xff, 0xff, 0x0f], vec![0]].concat(),
            "take no bytes",
        ),
        (
            &with_x(json!({"type": "enum", "name": "e", "symbols": ["a"]})),
            vec![2],
            "symbol 1 of an enum that has 1",
        ),
        (
            &with_x(json!({"type": "array", "items": {"type": "map", "values": "int"}})),
            vec![2, 2, 2, b'k'],
            "in field `x.[0].[0]`",
        ),
    ] {
        let bad = decode::<serde::de::IgnoredAny>(schema, &bytes).unwrap_err();
        assert!(bad.reason.contains(why), "{schema} {bytes:?}: {bad}");
    }
    let bad = decode::<X<u32>>(&with_x(json!("long")), &[0x01]).unwrap_err();
    assert!(bad.reason.contains("invalid value: integer `-1`, expected u32, in field `x`"), "{bad}");
    let error = Avro::<u32>::written_with("{\"type\":\"nothing\"}").check().unwrap_err();
    assert_eq!(error.kind(), staunch_core::error::Kind::Job, "{error}");
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct All {
    truth: bool,
    int: i32,
    long: i64,
    float: f32,
    double: f64,
    text: String,
    list: Vec<i64>,
    map: BTreeMap<String, i32>,
    option: Option<String>,
}

fn all_schema() -> Value {
    json!({"type": "record", "name": "All", "fields": [
        {"name": "truth", "type": "boolean"}, {"name": "int", "type": "int"}, {"name": "long", "type": "long"},
        {"name": "float", "type": "float"}, {"name": "double", "type": "double"}, {"name": "text", "type": "string"},
        {"name": "list", "type": {"type": "array", "items": "long"}},
        {"name": "map", "type": {"type": "map", "values": "int"}},
        {"name": "option", "type": ["null", "string"]}]})
}

prop_compose! {
    fn all()(
        truth: bool, int: i32, long: i64, float in any::<f32>(), double in any::<f64>(), text: String,
        list in prop::collection::vec(any::<i64>(), 0..5), map in prop::collection::btree_map(any::<String>(), any::<i32>(), 0..4),
        option: Option<String>,
    ) -> All {
        All { truth, int, long, float, double, text, list, map, option }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_written_is_read(all in all()) {
        let bytes = encode(&all_schema(), &all).unwrap();
        prop_assert_eq!(decode::<All>(&all_schema(), &bytes).unwrap(), all);
    }

    /// Also every prefix of good bytes, and good bytes with one that is another.
    #[test]
    fn any_bytes_are_decoded_or_refused_without_a_panic(all in all(), noise: Vec<u8>, at: prop::sample::Index, byte: u8) {
        let _ = decode::<All>(&all_schema(), &noise);
        let mut bytes = encode(&all_schema(), &all).unwrap();
        let at = at.index(bytes.len());
        prop_assert!(decode::<All>(&all_schema(), &bytes[..at]).is_err());
        bytes[at] = byte;
        let _ = decode::<All>(&all_schema(), &bytes);
    }
}

#[test]
fn a_record_that_does_not_fit_its_schema_is_a_mistake_of_the_job() {
    let int = with_x(json!("int"));
    for error in [
        encode(&int, &X { x: i64::MAX }).unwrap_err(),
        encode(&int, &X { x: "text".to_owned() }).unwrap_err(),
        encode(&int, &X { x: 0.5 }).unwrap_err(),
        encode(&json!({"type": "record", "name": "r", "fields": []}), &X { x: 1 }).unwrap_err(),
    ] {
        assert_eq!(error.kind(), staunch_core::error::Kind::Job, "{error}");
    }
}

#[test]
fn a_rust_type_that_would_not_hold_a_number_exactly_is_bad_input_and_no_rounding() {
    let (long, double, maybe) = (json!("long"), json!("double"), json!(["null", "long"]));
    let bytes = |schema: &Value, x: i64| encode(&with_x(schema.clone()), &X { x }).unwrap();
    let (exact, odd) = (1_i64 << 53, (1_i64 << 53) + 1);
    assert_eq!(
        decode::<X<f64>>(&with_x(long.clone()), &bytes(&long, exact)).unwrap().x,
        9_007_199_254_740_992.0
    );
    assert!(decode::<X<f64>>(&with_x(long.clone()), &bytes(&long, odd)).is_err());
    assert!(decode::<X<f32>>(&with_x(long.clone()), &bytes(&long, (1 << 24) + 1)).is_err());
    let some = encode(&with_x(maybe.clone()), &X { x: Some(odd) }).unwrap();
    assert!(decode::<X<Option<f64>>>(&with_x(maybe), &some).is_err());
    for (written, fits) in [(0.5_f64, true), (0.1, false), (1e39, false), (f64::INFINITY, true)] {
        let bytes = encode(&with_x(double.clone()), &X { x: written }).unwrap();
        let read = decode::<X<f32>>(&with_x(double.clone()), &bytes);
        assert_eq!(read.is_ok(), fits, "{written}: {read:?}");
        assert_eq!(decode::<X<f64>>(&with_x(double.clone()), &bytes).unwrap().x, written);
    }
}

#[test]
fn a_list_of_fixed_length_takes_exactly_that_many_items_and_shifts_nothing() {
    #[derive(PartialEq, Debug, Serialize, Deserialize)]
    struct Pair {
        p: (i64, i64),
        s: String,
    }
    assert!(decode::<X<[u8; 2]>>(&with_x(json!("bytes")), &[0x06, 1, 2, 3]).is_err());
    assert_eq!(decode::<X<[u8; 2]>>(&with_x(json!("bytes")), &[0x04, 1, 2]).unwrap().x, [1, 2]);
    let schema = json!({"type": "record", "name": "r", "fields": [
        {"name": "p", "type": {"type": "array", "items": "long"}}, {"name": "s", "type": "string"}]});
    let three = [0x06, 0x02, 0x04, 0x08, 0x00, 0x04, 0x68, 0x69];
    let wrong = decode::<Pair>(&schema, &three).unwrap_err().to_string();
    assert!(wrong.contains("more than the 2 items"), "{wrong}");
    let two = [0x04, 0x02, 0x04, 0x00, 0x04, 0x68, 0x69];
    assert_eq!(decode::<Pair>(&schema, &two).unwrap(), Pair { p: (1, 2), s: "hi".into() });
}
