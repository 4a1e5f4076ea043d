//! Values in columns of all types, as the server shows them; and what is refused, all of it at once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde::Serialize;
use staunch_core::CheckpointId;
use staunch_core::error::Kind;
use staunch_core::sink::{Committer, Sink, SinkContext, SinkWriter};
use staunch_testing::conformance::sink::committable;
use staunch_testing::servers;
use support::{Schema, run};

/// Writes one record and commits it.
async fn write<T: Serialize + Send + 'static>(schema: &Schema, record: T) -> Result<(), String> {
    let context = SinkContext::alone("out");
    let sink = staunch_postgres::table::<T>(&schema.url, schema.table("t"));
    let mut committer = sink.committer(&context).await.unwrap();
    committer.recover(&[]).await.map_err(|e| e.to_string())?;
    let mut writer = sink.writer(&context).await.unwrap();
    if let Err(error) = writer.write(vec![record]).await {
        assert_eq!(error.kind(), Kind::Job);
        return Err(error.to_string());
    }
    let prepared = writer.cut(CheckpointId(1)).unwrap().await.unwrap().remove(0);
    committer.commit(&[committable(1, 0, 1, &prepared).unwrap()]).await.map_err(|e| e.to_string())
}

#[derive(Serialize)]
struct One<V> {
    c: V,
}

/// What the server shows of a value in a column of a type; or why it is refused.
fn held<V: Serialize + Send + 'static>(url: &str, declared: &str, value: V) -> Result<String, String> {
    let schema = Schema::new(url);
    schema.run("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN euro AS numeric(10,2)");
    schema.run(&format!("CREATE TABLE t (c {declared})"));
    run(write(&schema, One { c: value }))?;
    Ok(schema.text("SELECT c::text FROM t"))
}

macro_rules! held {
    ($url:expr, $($declared:literal $value:expr => $shown:literal;)*) => {
        $(assert_eq!(held($url, $declared, $value).as_deref(), Ok($shown), "{} {}", $declared, stringify!($value));)*
    };
}

macro_rules! refused {
    ($url:expr, $($declared:literal $value:expr => $why:literal;)*) => {
        $(let why = held($url, $declared, $value).unwrap_err();
        assert!(why.contains($why) && why.contains("column `c`"), "{} {}: {why}", $declared, stringify!($value));)*
    };
}

#[test]
fn values_are_held_as_they_are() {
    let Some(url) = servers::address("STAUNCH_POSTGRES") else { return };
    held! { &url,
        "boolean" true => "true";
        "smallint" -32768_i64 => "-32768";
        "bigint" i64::MAX => "9223372036854775807";
        "real" 1.5_f32 => "1.5";
        "double precision" f64::NAN => "NaN";
        "numeric" "123456789012345678901234567890.000123" => "123456789012345678901234567890.000123";
        "numeric" "-0.00001234" => "-0.00001234";
        "numeric" u128::MAX => "340282366920938463463374607431768211455";
        "numeric(10,2)" "12345678.90" => "12345678.90";
        "numeric(10,2)" 0.25 => "0.25";
        "euro" 7 => "7.00";
        "numeric" "1e5" => "100000";
        "numeric" 10000 => "10000";
        "varchar(3)" "äöü" => "äöü";
        "char(2)" "DE" => "DE";
        "mood" "happy" => "happy";
        "bytea" vec![0_u8, 255] => "\\x00ff";
        "uuid" "f81d4fae-7dec-11d0-a765-00a0c91e6bf6" => "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        "jsonb" vec![Some(1), None] => "[1, null]";
        "json" One { c: "\"" } => "{\"c\":\"\\\"\"}";
        "date" "1999-12-31" => "1999-12-31";
        "date" "2000-03-01" => "2000-03-01";
        "time" "23:59:59.999999" => "23:59:59.999999";
        "timestamp" "2026-01-31T12:00:00.000001" => "2026-01-31 12:00:00.000001";
        "timestamp(0)" "1969-12-31T23:59:59" => "1969-12-31 23:59:59";
        "integer[]" vec![1, 2, 3] => "{1,2,3}";
        "integer[]" vec![vec![1, 2], vec![3, 4]] => "{{1,2},{3,4}}";
        "text[]" vec![Some("a,b"), None] => "{\"a,b\",NULL}";
        "text[]" Vec::<String>::new() => "{}";
        "bytea[]" vec![vec![1_u8]] => "{\"\\\\x01\"}";
        "text" Option::<String>::None => "";
    }
    let shown = held(&url, "timestamptz", "2026-01-31T12:00:00.5+02:00").unwrap();
    assert!(shown.contains(":00:00.5"), "{shown}");
    assert_eq!(shown, held(&url, "timestamptz", 1_769_853_600_500_i64).unwrap(), "milliseconds since 1970");
}

#[test]
fn values_that_would_be_changed_are_refused_before_they_are_staged() {
    let Some(url) = servers::address("STAUNCH_POSTGRES") else { return };
    refused! { &url,
        "smallint" 32768 => "its range is -32768 to 32767";
        "integer" 1.0 => "floating-point";
        "integer" "1" => "it is a text";
        "bigint" u64::MAX => "its range";
        "real" 0.1 => "rounded";
        "real" 16_777_217 => "rounded";
        "double precision" (1_i64 << 53) + 1 => "rounded";
        "numeric(4,2)" "1.234" => "rounded";
        "numeric(4,2)" "100.00" => "too large";
        "numeric" f64::NAN => "no such value";
        "numeric" "1,5" => "no decimal number";
        "varchar(3)" "abcd" => "too long";
        "char(3)" "ab" => "exactly their length";
        "text" "a\0b" => "character 0";
        "text" 1 => "whole number";
        "mood" "angry" => "its values are sad, happy";
        "uuid" "f81d4fae" => "no UUID";
        "date" "2026-02-30" => "give a date";
        "timestamp" "2026-01-01T00:00:00Z" => "without a zone";
        "timestamptz" "2026-01-01T00:00:00" => "with its zone";
        "timestamptz(3)" "2026-01-01T00:00:00.0001Z" => "would be rounded";
        "timestamp" "2026-01-01T00:00:00.0000001" => "would be rounded";
        "integer[]" vec![vec![1], vec![2, 3]] => "several lengths";
        "jsonb" "a\0" => "character 0";
        "jsonb" f64::INFINITY => "no such number";
        "money" 1 => "cannot fill";
        "text NOT NULL" Option::<String>::None => "must have a value";
    }
}

#[test]
fn all_that_is_wrong_with_a_record_is_in_one_message() {
    #[derive(Serialize)]
    struct Order {
        id: i32,
        #[serde(rename = "Total")]
        total: f64,
        label: &'static str,
        doubled: i32,
        number: i32,
    }
    let Some(url) = servers::address("STAUNCH_POSTGRES") else { return };
    let schema = Schema::new(&url);
    schema.run(
        "CREATE TABLE t (id bigint, total numeric, label varchar(3), doubled int GENERATED ALWAYS AS (1) STORED,
                         number int GENERATED ALWAYS AS IDENTITY, needed text NOT NULL, filled text NOT NULL DEFAULT 'x')",
    );
    let record = Order { id: 1, total: 1.0, label: "long", doubled: 2, number: 3 };
    let why = run(write(&schema, record)).unwrap_err();
    for part in [
        "`Total`, but `total`",
        "too long",
        "`doubled` is GENERATED",
        "`number` is GENERATED ALWAYS AS IDENTITY",
        "`needed` must have a value",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(!why.contains("filled"), "{why}");
}

#[test]
fn tables_that_cannot_hold_output_are_refused_at_the_start() {
    let Some(url) = servers::address("STAUNCH_POSTGRES") else { return };
    let schema = Schema::new(&url);
    for (sql, wanted) in [
        ("CREATE UNLOGGED TABLE t (c int)", "UNLOGGED"),
        ("DROP TABLE t; CREATE VIEW t AS SELECT 1 AS c", "is a view"),
        ("DROP VIEW t", "does not exist"),
    ] {
        schema.run(sql);
        let why = run(write(&schema, One { c: 1 })).unwrap_err();
        assert!(why.contains(wanted), "{sql}: {why}");
    }
}
