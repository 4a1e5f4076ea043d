//! Change events, as the documentation of Debezium's PostgreSQL connector shows them.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde::Deserialize;
use serde_json::{Value, json};
use staunch_connectors::formats::{Change, Debezium, Decoder, Event, Format, NotDecoded, Undecodable};

#[derive(Clone, PartialEq, Debug, Deserialize)]
struct Customer {
    id: i32,
    first_name: Option<String>,
    email: Option<String>,
}

fn decode(event: &Value) -> Result<Option<Event<Customer>>, Undecodable> {
    let mut decoder = Debezium::json().decoder().unwrap();
    decoder.decode(event.to_string().as_bytes()).map_err(NotDecoded::into_bad)
}

fn customer(email: &str) -> Customer {
    Customer { id: 1, first_name: Some("Anne".into()), email: Some(email.into()) }
}

fn row(email: &str) -> Value {
    json!({"id": 1, "first_name": "Anne", "last_name": "Marie", "email": email})
}

/// An event with all that Debezium writes around the rows.
fn event(op: &str, before: Value, after: Value) -> Value {
    json!({
        "before": before,
        "after": after,
        "source": {
            "version": "3.3.1.Final", "connector": "postgresql", "name": "PostgreSQL_server", "ts_ms": 1_559_033_904_863_i64,
            "ts_us": 1_559_033_904_863_123_i64, "snapshot": true, "db": "postgres", "sequence": "[\"24023119\",\"24023128\"]",
            "schema": "public", "table": "customers", "txId": 555, "lsn": 24_023_128, "xmin": null
        },
        "transaction": null,
        "op": op,
        "ts_ms": 1_559_033_904_863_i64
    })
}

#[test]
fn each_operation_is_the_change_that_it_says() {
    let change = |op, before, after| decode(&event(op, before, after)).unwrap().map(|event| event.change);
    let (old, new) = (customer("annek@noanswer.org"), customer("anne@example.com"));
    let (old_row, new_row) = (row("annek@noanswer.org"), row("anne@example.com"));
    for op in ["c", "r"] {
        assert_eq!(change(op, Value::Null, new_row.clone()), Some(Change::Insert(new.clone())));
    }
    let update = Change::Update { before: Some(old.clone()), after: new.clone() };
    assert_eq!(change("u", old_row.clone(), new_row.clone()), Some(update));
    assert_eq!(change("u", Value::Null, new_row), Some(Change::Update { before: None, after: new }));
    assert_eq!(change("d", old_row, Value::Null), Some(Change::Delete(old)));
    assert_eq!(change("t", Value::Null, Value::Null), Some(Change::Truncate));
    assert_eq!(change("m", Value::Null, Value::Null), None);
}

#[test]
fn an_event_says_where_in_the_log_it_was_with_the_schema_beside_it_or_without() {
    let plain = event("c", Value::Null, row("a"));
    let wrapped = json!({"schema": {"type": "struct", "fields": [], "optional": false}, "payload": plain});
    let event = decode(&wrapped).unwrap().unwrap();
    assert_eq!(Some(&event), decode(&plain).unwrap().as_ref());
    let origin = event.origin;
    assert_eq!(
        (origin.lsn, origin.transaction, origin.table.as_deref()),
        (Some(24_023_128), Some(555), Some("customers"))
    );
    assert_eq!((origin.ts_ms, origin.snapshot.as_deref()), (Some(1_559_033_904_863), Some("true")));
}

#[test]
fn an_event_that_cannot_be_what_it_says_is_bad_input() {
    let unwrapped = row("a");
    for (event, field, why) in [
        (event("c", Value::Null, Value::Null), Some("after"), "op `c` has no `after`"),
        (event("u", row("a"), Value::Null), Some("after"), "op `u` has no `after`"),
        (event("d", Value::Null, Value::Null), Some("before"), "REPLICA IDENTITY FULL"),
        (event("x", Value::Null, row("a")), Some("op"), "`x` is no operation"),
        (event("u", Value::Null, row("__debezium_unavailable_value")), None, "the database did not send it"),
        (event("u", Value::Null, row("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==")), None, "did not send it"),
        (event("u", Value::Null, json!({"id": "one"})), None, "expected i32"),
        (unwrapped, None, "no `op`"),
        (json!({"schema": {}, "payload": {"op": "c"}}), Some("after"), "has no `after`"),
        (json!([1]), None, "invalid"),
    ] {
        let bad = decode(&event).unwrap_err();
        assert!(bad.reason.contains(why), "{event}: {bad}");
        assert_eq!(bad.field.as_deref(), field, "{event}");
    }
    let text = row("an email with __debezium_unavailable_value in it");
    assert!(decode(&event("c", Value::Null, text)).is_ok(), "that is text of somebody's");
}

#[test]
fn the_message_without_a_value_behind_a_delete_says_nothing_new() {
    let mut decoder = Debezium::<staunch_connectors::formats::Json<_>>::json().decoder().unwrap();
    let nothing: Option<Event<Customer>> = decoder.decode_deletion(Some(b"{\"id\":1}")).unwrap();
    assert_eq!(nothing, None);
}
