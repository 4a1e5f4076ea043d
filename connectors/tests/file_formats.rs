//! What a reader of a format might take silently for something else: other line ends, other encodings, headers
//! that are none, numbers that change.
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;

use by_hand::{read_all, run};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use staunch_connectors::file::{self, Files};
use staunch_connectors::formats::Framed;
use staunch_core::Result;
use staunch_core::source::DeadLetter;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// What one file with these bytes comes to: records and bad input, or the error.
fn read<F: Framed>(
    bytes: impl AsRef<[u8]>,
    source: fn(PathBuf) -> Files<F>,
) -> Result<(Vec<F::Record>, Vec<DeadLetter>)>
where
    F::Record: Clone,
{
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("in");
    fs::write(&path, bytes).unwrap();
    let (_, records, bad) = run(async { read_all(&source(path)).await })?.remove(0);
    Ok((records, bad))
}

type Map = BTreeMap<String, String>;

/// Rows as `name=value name=value`, and the reasons of bad input.
fn csv(bytes: impl AsRef<[u8]>) -> (Vec<String>, Vec<String>) {
    let (rows, bad) = read(bytes, file::rows::<Map>).unwrap();
    let text =
        |row: &Map| row.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
    (rows.iter().map(text).collect(), bad.into_iter().map(|bad| bad.reason).collect())
}

fn refused(bytes: impl AsRef<[u8]>) -> String {
    read(bytes, file::rows::<Map>).unwrap_err().to_string()
}

fn json<T: DeserializeOwned + Clone + Send + 'static>(text: &str) -> std::result::Result<T, String> {
    let (mut records, mut bad) = read(text, file::json_rows::<T>).unwrap();
    assert_eq!(records.len() + bad.len(), 1, "{text}");
    records.pop().ok_or_else(|| bad.remove(0).reason)
}

#[test]
fn a_file_whose_lines_end_in_carriage_returns_only_is_refused_and_never_one_line() {
    for text in ["id,name\r1,a\r2,b\r", "id,name\r1,a\r2,b", "id,name\r", "id\r\r1\r"] {
        assert!(refused(text).contains("no line feed"), "{text:?}: {}", refused(text));
    }
    for text in ["a\rb\rc\r", "a\rb", "a\r"] {
        let (lines, bad) = read(text, file::lines).unwrap();
        assert!(lines.is_empty() && bad.len() == 1, "{text:?}: {lines:?}");
        assert!(bad[0].reason.contains("no line feed"), "{:?}", bad[0]);
    }
    assert!(json::<u32>("1\r2\r").is_err());
}

#[test]
fn mixed_line_ends_of_csv_give_the_same_rows_or_bad_input() {
    let (rows, bad) = csv("id,x\r\n1,a\n2,b\r\n3,c");
    assert_eq!((rows.join(" "), bad.len()), ("id=1 x=a id=2 x=b id=3 x=c".to_owned(), 0));
    for text in ["id\n1\r2\n", "id,x\n1,a\r2,b\r", "id\n1\r\r\n", "id,x\n\"1\",a\r\"2\",b\n"] {
        let (rows, bad) = csv(text);
        assert!(
            rows.is_empty() && bad.len() == 1 && bad[0].contains("carriage return"),
            "{text:?}: {rows:?} {bad:?}"
        );
    }
    let (rows, bad) = csv("id,x\n1,\"a\rb\"\n");
    assert_eq!((rows.join(" "), bad.len()), ("id=1 x=a\rb".to_owned(), 0), "quoted, it is a value");
}

#[test]
fn empty_lines_before_a_csv_header_are_passed_over() {
    for before in ["\n", "\n\n\r\n", "\u{feff}\n", "\u{feff}", "\u{feff}\r\n\n"] {
        for rows in ["v\n1\n2\n", "v\n\n1\n\n2"] {
            let (rows, bad) = csv(format!("{before}{rows}"));
            assert_eq!((rows.join(" "), bad.len()), ("v=1 v=2".to_owned(), 0), "{before:?}");
        }
        let (_, bad) = csv(format!("{before}a,b\n1,2\n3\n"));
        assert_eq!(bad.len(), 1);
    }
    for text in ["", "\n", "\n\n\r\n", "\u{feff}", "\u{feff}\n", "a,b", "a,b\n"] {
        assert_eq!(csv(text), (vec![], vec![]), "{text:?}");
    }
}

#[test]
fn the_line_of_a_row_behind_empty_lines_and_header_is_its_line_in_the_file() {
    let (_, bad) = read("\n\n\"a\",b\n\n1,2\n3\n", file::rows::<Map>).unwrap();
    assert_eq!(bad[0].place, "in line 6");
}

#[test]
fn a_header_with_a_name_twice_or_without_names_is_refused_with_the_name() {
    for (text, word) in [
        ("id,name,name\n1,a,b\n", "`name`"),
        ("id,\"name\",name\n1,a,b\n", "column 2 and column 3"),
        ("   \na\n", "no name for column 1"),
        ("\"\"\na\n", "no name for column 1"),
        ("a,, \n1,2,3\n", "no name for column 2, 3"),
        ("\t\n", "no name"),
        ("a\0,b\n1,2\n", "zero byte"),
        ("a,\"b\n1,2\n", "not closed"),
    ] {
        let error = refused(text);
        assert!(error.contains(word) && error.contains("header"), "{text:?}: {error}");
    }
    // The index of a table is often written without a name; names that differ are different columns.
    let (rows, _) = csv(",x, x,X\n0,1,2,3\n");
    assert_eq!(rows, ["=0  x=2 X=3 x=1"]);
}

#[test]
fn rows_of_another_length_than_the_header_are_bad_input() {
    let (rows, bad) = csv("a,b\n1\n1,2,3\n1,2,\n1,2\n");
    assert_eq!((rows.len(), bad.len()), (1, 3), "{bad:?}");
}

#[test]
fn text_in_utf_16_is_refused_whatever_the_format() {
    let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    for text in ["id,name\n1,a\n", "\u{feff}id,name\n1,a\n", "\u{feff}12"] {
        for bytes in [little(text), big(text)] {
            let errors = [
                refused(&bytes),
                read(&bytes, file::lines).unwrap_err().to_string(),
                read(&bytes, file::json_rows::<u32>).unwrap_err().to_string(),
            ];
            for error in errors {
                assert!(error.contains("UTF-16") && error.contains("UTF-8"), "{text:?}: {error}");
            }
        }
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_bad_input_and_zero_bytes_are_kept() {
    let (lines, bad) = read(b"a\n\xe9\nb\0c\n", file::lines).unwrap();
    assert_eq!((lines, bad.len()), (vec!["a".to_owned(), "b\0c".to_owned()], 1));
    let (rows, bad) = csv(b"x\n\xe9\nb\0c\n");
    assert_eq!((rows.join(" "), bad.len()), ("x=b\0c".to_owned(), 1));
}

/// Each text is the shortest one of its own double, so that the nearest double has this text again.
#[test]
fn a_number_in_json_is_the_nearest_double_as_in_csv() {
    #[derive(Clone, Deserialize)]
    struct Row {
        x: f64,
    }
    let mut seed = 1_u64;
    for _ in 0..2000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = f64::from_bits(seed);
        if !number.is_finite() {
            continue;
        }
        let text = format!("{number:e}");
        assert_eq!(json::<f64>(&text).unwrap().to_bits(), number.to_bits(), "{text}");
        let inside =
            json::<Vec<BTreeMap<String, serde_json::Value>>>(&format!("[{{\"x\":{text}}}]")).unwrap();
        assert_eq!(inside[0]["x"].as_f64(), Some(number), "{text}");
        let (rows, _) = read(format!("x\n{text}\n"), file::rows::<Row>).unwrap();
        assert_eq!(rows[0].x.to_bits(), number.to_bits(), "{text}");
    }
}

#[test]
fn numbers_that_do_not_fit_their_type_are_bad_input() {
    assert_eq!(json::<u64>("18446744073709551615").unwrap(), u64::MAX);
    assert_eq!(json::<f64>("1e3").unwrap(), 1000.0);
    for text in ["18446744073709551616", "-1", "1.0", "1e3", "NaN"] {
        assert!(json::<u64>(text).is_err(), "{text}");
    }
    for text in ["NaN", "Infinity", "1e400", "01", "+1", "1 2", "{\"a\":1", "\"\\ud800\""] {
        assert!(json::<serde_json::Value>(text).is_err(), "{text}");
    }
    assert!(json::<serde_json::Value>(&"[".repeat(100_000)).is_err(), "deep, and no overflow of the stack");
    #[derive(Clone, Deserialize, Debug)]
    struct Row {
        #[allow(dead_code)]
        a: u32,
    }
    assert!(json::<Row>("{\"a\":1,\"a\":2}").unwrap_err().contains("duplicate"));
}
