//! What a sink was given is in its target exactly as it was given: read back by others than those who wrote it, a reader
//! of CSV by the letter of RFC 4180 and SQLite's own reader of JSON.
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;

use by_hand::run;
use serde::Serialize;
use staunch_connectors::{file, sqlite};
use staunch_core::error::Kind;
use staunch_core::sink::Sink;
use staunch_testing::conformance::sink::{Life, Target};
use std::path::PathBuf;
use tempfile::TempDir;

/// Texts that formats need quoting for, take for numbers, for the end of something, or for nothing.
const TEXTS: &[&str] = &[
    "plain",
    "",
    " ",
    " both ",
    "a,b",
    "\"",
    "\"\"",
    "a\"b",
    "line\nbreak",
    "carriage\rreturn",
    "both\r\n",
    "\n",
    "\r",
    "tab\t",
    "NULL",
    "null",
    "\\N",
    "=1+1",
    "1e3",
    "007",
    "-0",
    "9223372036854775808",
    "NaN",
    "true",
    "'",
    "';--",
    "nul\0in",
    "\0",
    "x\u{feff}",
    "e\u{301}",
    "\u{1F600}",
    "\u{2028}",
    "\u{85}",
    "#",
    "a;b",
    "{}",
    "[1]",
    "\\",
    "\\n",
    "\u{7f}",
];

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Kept {
    number: i64,
    real: f64,
    text: String,
    maybe: Option<String>,
}

fn kept() -> Vec<Kept> {
    let numbers = [0, -1, i64::MAX, i64::MIN, (1 << 53) + 1];
    let reals = [0.5, 0.1 + 0.2, 1e300, 5e-324, -123.0, 1e15];
    let texts = TEXTS.iter().enumerate();
    texts
        .map(|(n, text)| Kept {
            number: numbers[n % numbers.len()],
            real: reals[n % reals.len()],
            text: (*text).to_owned(),
            maybe: (n % 2 == 0 && !text.is_empty()).then(|| (*text).to_owned()),
        })
        .collect()
}

/// A target of which the tests read everything themselves.
struct Plain<S> {
    dir: TempDir,
    sink: fn(PathBuf) -> S,
}

impl<S: Sink<Record = Kept>> Target for Plain<S> {
    type Record = Kept;
    type Sink = S;

    fn sink(&self) -> S {
        (self.sink)(self.dir.path().join("out"))
    }

    fn record(&self, n: u64) -> Kept {
        kept().swap_remove(n as usize % TEXTS.len())
    }

    fn visible(&self) -> Vec<Kept> {
        Vec::new()
    }
}

/// A life with one instance, in which these records were written and committed.
fn after<S: Sink<Record = Kept>>(sink: fn(PathBuf) -> S) -> Life<Plain<S>> {
    run(async {
        let mut life = Life::new(Plain { dir: TempDir::new().unwrap(), sink });
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        start.write(kept()).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        start.commit(&listed).await.unwrap();
        drop(start);
        life
    })
}

/// Records of CSV by the letter of RFC 4180: fields in quotes may hold anything, others neither quotes nor breaks.
fn read_csv(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => loop {
                match chars.next().expect("a quote is closed") {
                    '"' if chars.peek() == Some(&'"') => field.push(chars.next().unwrap()),
                    '"' => break,
                    other => field.push(other),
                }
            },
            ',' => record.push(std::mem::take(&mut field)),
            '\n' => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            '\r' => panic!("a carriage return outside of quotes"),
            other => field.push(other),
        }
    }
    assert!(record.is_empty() && field.is_empty(), "the last record has its line end");
    records
}

#[test]
fn csv_that_a_stranger_reads_is_what_was_written() {
    let life = after(file::csv::<Kept>);
    let text = std::fs::read_to_string(life.target.dir.path().join("out/part-0000000001-0000.csv")).unwrap();
    let mut records = read_csv(&text);
    assert_eq!(records.remove(0), ["number", "real", "text", "maybe"]);
    assert_eq!(records.len(), kept().len());
    for (fields, kept) in records.iter().zip(kept()) {
        assert_eq!(fields[0].parse::<i64>().unwrap(), kept.number);
        assert_eq!(fields[1].parse::<f64>().unwrap(), kept.real);
        assert_eq!(fields[2], kept.text);
        assert_eq!(fields[3], kept.maybe.unwrap_or_default());
    }
}

#[test]
fn json_that_a_stranger_reads_is_what_was_written() {
    let life = after(file::json_lines::<Kept>);
    let text =
        std::fs::read_to_string(life.target.dir.path().join("out/part-0000000001-0000.jsonl")).unwrap();
    let lines: Vec<&str> = text.split_terminator('\n').collect();
    assert_eq!(lines.len(), kept().len());
    let stranger = rusqlite::Connection::open_in_memory().unwrap();
    let read = "SELECT ?1 ->> 'number', ?1 ->> 'real', ?1 ->> 'text', ?1 ->> 'maybe'";
    for (line, kept) in lines.iter().zip(kept()) {
        // SQLite's texts of JSON end at the first NUL; such lines have it escaped.
        assert!(!line.contains('\0'), "{line}");
        let seen: (i64, f64, String, Option<String>) = stranger
            .query_row(read, [line], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap();
        assert_eq!((seen.0, seen.1), (kept.number, kept.real), "{line}");
        assert_eq!((seen.2, seen.3), (kept.text, kept.maybe), "{line}");
    }
}

#[test]
fn a_table_holds_what_was_written() {
    let life = after(|path| {
        sqlite::table::<Kept>(path, "rows")
            .create("CREATE TABLE IF NOT EXISTS rows (number INTEGER, real REAL, text TEXT, maybe)")
    });
    let database = rusqlite::Connection::open(life.target.dir.path().join("out")).unwrap();
    let mut rows =
        database.prepare("SELECT number, real, text, maybe, typeof(text) FROM rows ORDER BY rowid").unwrap();
    let rows = rows.query_map([], |row| {
        assert_eq!(row.get::<_, String>(4)?, "text");
        Ok(Kept { number: row.get(0)?, real: row.get(1)?, text: row.get(2)?, maybe: row.get(3)? })
    });
    let rows: Vec<Kept> = rows.unwrap().map(Result::unwrap).collect();
    assert_eq!(rows, kept());
}

#[test]
fn a_value_that_the_table_would_change_is_refused_before_anything_is_decided() {
    let tables: [(&str, &str); 6] = [
        ("number TEXT, real, text, maybe", "column `number` TEXT: it would become text"),
        ("number REAL, real, text, maybe", "column `number` REAL: it would be rounded"),
        ("number, real TEXT, text, maybe", "column `real` TEXT: it would become text"),
        ("number, real, text NUMERIC, maybe", "column `text` NUMERIC: it would become a number"),
        ("number, real, text, maybe TEXT NOT NULL", "column `maybe` TEXT: it must have a value"),
        ("number, real, text", "has no column `maybe`"),
    ];
    for (columns, wanted) in tables {
        run(async {
            let dir = TempDir::new().unwrap();
            let sink = |path: PathBuf| sqlite::table::<Kept>(path, "rows");
            let create = format!("CREATE TABLE rows ({columns})");
            rusqlite::Connection::open(dir.path().join("out")).unwrap().execute_batch(&create).unwrap();
            let mut life = Life::new(Plain { dir, sink });
            let mut start = life.start(&[]).await.unwrap();
            let error = start.write(kept()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Job, "{error}");
            assert!(error.to_string().contains(wanted), "{columns}: {error}");
        });
    }
}
