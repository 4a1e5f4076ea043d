//! Reading from every position of a file, over random files.

use super::{Item, LIMIT, Row, append, from_every_position, open, open_as, read_on, take};
use crate::file::reader::{FileReader, Settings};
use crate::formats::{Csv, Framed, Json, Text};
use proptest::prelude::*;
use staunch_core::background::BlockingReader;
use staunch_core::source::{Progress, Records};

/// A piece of a CSV file: its text without line end, and what must come of it.
#[derive(Clone, Debug)]
enum Piece {
    Row(Row),
    Blank,
    WrongFields,
    WrongType,
    NotUtf8,
    /// A line of so many bytes.
    TooLong(usize),
}

/// Lengths of lines that are too long, some of which are skipped in several calls.
fn too_long() -> impl Strategy<Value = usize> {
    LIMIT + 1..LIMIT * 5
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        6 => ("[a-z,;\"\né ]{0,22}", any::<u32>()).prop_map(|(name, count)| Piece::Row(Row { name, count })),
        1 => Just(Piece::Blank),
        1 => Just(Piece::WrongFields),
        1 => Just(Piece::WrongType),
        1 => Just(Piece::NotUtf8),
        1 => too_long().prop_map(Piece::TooLong),
    ]
}

impl Piece {
    fn text(&self, delimiter: u8) -> Vec<u8> {
        let d = char::from(delimiter);
        match self {
            Piece::Row(Row { name, count }) => {
                format!("\"{}\"{d}{count}", name.replace('"', "\"\"")).into_bytes()
            }
            Piece::Blank => Vec::new(),
            Piece::WrongFields => format!("a{d}b{d}c").into_bytes(),
            Piece::WrongType => format!("a{d}b").into_bytes(),
            Piece::NotUtf8 => [b'\xff', delimiter, b'1'].to_vec(),
            Piece::TooLong(length) => "x".repeat(*length).into_bytes(),
        }
    }

    fn wanted(&self, line: u64) -> Option<Item<Row>> {
        let bad = |reason: &str| Some(Item::Bad(line, reason.to_owned()));
        match self {
            Piece::Row(row) => Some(Item::Good(row.clone())),
            Piece::Blank => None,
            Piece::WrongFields => bad("the"),
            Piece::WrongType => bad("column"),
            Piece::NotUtf8 => bad("not"),
            Piece::TooLong(_) => bad("longer"),
        }
    }
}

/// A line of JSON, and what must come of it: a row, nothing, or bad input for this reason.
type JsonLine = (String, Option<Result<Row, &'static str>>);

fn json_line() -> impl Strategy<Value = JsonLine> {
    let row = ("[a-z]{0,28}", any::<u32>()).prop_map(|(name, count)| -> JsonLine {
        let text = serde_json::json!({"name": name, "count": count}).to_string();
        (text, Some(Ok(Row { name, count })))
    });
    let long = too_long().prop_map(|length| -> JsonLine { ("1".repeat(length), Some(Err("longer"))) });
    prop_oneof![
        6 => row,
        1 => Just::<JsonLine>((" ".to_owned(), None)),
        1 => Just::<JsonLine>(("{\"name\":1}".to_owned(), Some(Err("invalid")))),
        1 => long,
    ]
}

/// A line of text.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-zé\r]{0,40}", 1 => "[a-zé\r]{30,70}", 1 => "[a-z]{61,300}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn csv_is_read_from_every_position(
        pieces in prop::collection::vec(piece(), 0..12), crlf: bool, last: bool, mark: bool, semicolon: bool,
    ) {
        let end: &[u8] = if crlf { b"\r\n" } else { b"\n" };
        let mut format = Csv::<Row>::new();
        format.delimiter = if semicolon { b';' } else { b',' };
        let mut bytes = if mark { "\u{feff}".as_bytes().to_vec() } else { Vec::new() };
        bytes.extend([b"name".as_slice(), &[format.delimiter], b"count", end].concat());
        let (mut wanted, mut line) = (Vec::new(), 2);
        for piece in &pieces {
            let text = piece.text(format.delimiter);
            wanted.extend(piece.wanted(line));
            line += 1 + text.iter().filter(|byte| **byte == b'\n').count() as u64;
            bytes.extend_from_slice(&text);
            bytes.extend_from_slice(end);
        }
        if last {
            bytes.truncate(bytes.len() - end.len());
        }
        prop_assert_eq!(from_every_position(&bytes, format), wanted);
    }

    #[test]
    fn lines_are_read_from_every_position(lines in prop::collection::vec(line(), 0..12), last: bool) {
        let text = lines.join("\n") + if last || lines.is_empty() { "" } else { "\n" };
        let wanted: Vec<Item<String>> = text.split_inclusive('\n').zip(1..).map(|(line, number)| {
            if line.len() > LIMIT {
                return Item::Bad(number, "longer".to_owned());
            }
            if !text.contains('\n') && text.contains('\r') {
                return Item::Bad(number, "it".to_owned());
            }
            Item::Good(line.lines().next().unwrap_or_default().to_owned())
        }).collect();
        prop_assert_eq!(from_every_position(text.as_bytes(), Text), wanted);
    }

    #[test]
    fn json_is_read_from_every_position(lines in prop::collection::vec(json_line(), 0..12), last: bool) {
        let texts: Vec<&str> = lines.iter().map(|(text, _)| text.as_str()).collect();
        let text = texts.join("\n") + if last || lines.is_empty() { "" } else { "\n" };
        let wanted: Vec<Item<Row>> = lines.iter().zip(1..).filter_map(|((_, wanted), number)| {
            Some(match wanted.as_ref()? {
                Ok(row) => Item::Good(row.clone()),
                Err(reason) => Item::Bad(number, (*reason).to_owned()),
            })
        }).collect();
        prop_assert_eq!(from_every_position(text.as_bytes(), Json::<Row>::new()), wanted);
    }

    #[test]
    fn a_followed_file_is_read_as_it_grows(
        pieces in prop::collection::vec(("([a-z]{0,20}\n){0,3}[a-z]{0,5}", any::<bool>()), 0..8),
    ) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut reader = open_as(file.path(), Text, true, None).unwrap();
        let (mut text, mut lines) = (String::new(), Vec::new());
        for (piece, again) in pieces {
            append(file.path(), &piece);
            text.push_str(&piece);
            let (more, progress) = read_on(&mut reader, 2);
            prop_assert_eq!(progress.unwrap(), Progress::Idle);
            lines.extend(more);
            if again {
                reader = open_as(file.path(), Text, true, Some(&reader.position())).unwrap();
            }
        }
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        prop_assert_eq!(lines, whole.lines().collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(prop::sample::select(&b"a,\"\n\r\xff\xef\xbb\xbf"[..]), 0..200)) {
        from_every_position(&bytes, Text);
        from_every_position(&bytes, Json::<u32>::new());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        if open(file.path(), Csv::<Row>::new(), None).is_ok() {
            from_every_position(&bytes, Csv::<Row>::new());
        }
    }
}

#[test]
fn json_lines_are_read_and_bad_ones_reported() {
    let text = "{\"name\":\"a\",\"count\":1}\n\n{\"name\":1}\n{\"name\":\"b\",\"count\":2}";
    let row = |name: &str, count| Item::Good(Row { name: name.into(), count });
    let all = from_every_position(text.as_bytes(), Json::<Row>::new());
    assert_eq!(all, [row("a", 1), Item::Bad(3, "invalid".into()), row("b", 2)]);
}

#[test]
fn a_quote_too_many_costs_one_line_and_not_the_rest_of_the_file() {
    let long = format!("name,count\na,1\n\"b,2\n{}", "c,3\n".repeat(40));
    let short = "name,count\na,1\n\"b,2\nc,3\nc,3\n";
    for (text, rest) in [(long.as_str(), 40), (short, 2)] {
        let all = from_every_position(text.as_bytes(), Csv::<Row>::new());
        assert_eq!(all.len(), 2 + rest, "{all:?}");
        assert_eq!(all[1], Item::Bad(3, "a".into()));
        assert_eq!(all[2], Item::Good(Row { name: "c".into(), count: 3 }));
    }
}

#[test]
fn a_header_that_cannot_be_read_is_an_error_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (text, why) in [
        (b"\xff,b\n1,2\n".as_slice(), "not UTF-8"),
        (b"\"a,b\n", "not closed"),
        ("x,".repeat(LIMIT).as_bytes(), "longer than"),
    ] {
        std::fs::write(file.path(), text).unwrap();
        let error = open(file.path(), Csv::<Row>::new(), None).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("header"), "{error}");
    }
}

#[test]
fn a_quote_that_is_never_closed_in_a_followed_file_costs_one_line_once_there_are_too_many() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "name,count\na,1\n\"b,2\n").unwrap();
    let mut format = Csv::<Row>::new();
    format.max_lines = 4;
    let settings = Settings { follow: true, max_line_bytes: 1000 };
    let mut reader = FileReader::open(file.path().to_owned(), format, settings, None).unwrap();
    let mut seen = (0, Vec::new());
    for count in 0..6 {
        let mut out = Records::with_limit(100);
        while reader.read(&mut out).unwrap() == Progress::Ready {}
        seen.0 += out.records().len();
        seen.1.extend(out.bad_input().iter().map(|bad| (bad.place.clone(), bad.reason.clone())));
        // The quote hides its own line end and those of the rows behind it.
        assert_eq!(seen.0, if count < 3 { 1 } else { 1 + count }, "{count} rows behind");
        append(file.path(), "c,3\n");
    }
    let [(place, reason)] = &seen.1[..] else { panic!("{:?}", seen.1) };
    assert!(place.ends_with("line 3") && reason.contains("within 4 lines"), "{place}: {reason}");
}

/// One long line and short ones: the call is over behind the long one, and the window has the rest of the file.
#[test]
fn short_records_behind_one_that_fills_a_call_stay_apart() {
    fn check<F: Framed>(format: F, head: &str, long: &str, short: &str)
    where
        F::Record: Clone + PartialEq + std::fmt::Debug,
    {
        for count in [2, 4, 9] {
            let text = format!("{head}{long}\n{}", format!("{short}\n").repeat(count));
            let all = from_every_position(text.as_bytes(), format.clone());
            let good = all.iter().all(|item| matches!(item, Item::Good(_)));
            assert!(good && all.len() == 1 + count, "{all:?} of {text:?}");
        }
    }
    for length in (20..50).step_by(3) {
        let long = "x".repeat(length);
        check(Text, "", &long, "y");
        check(Json::<String>::new(), "", &format!("\"{long}\""), "\"y\"");
        check(Csv::<Row>::new(), "name,count\n", &format!("{long},1"), "y,2");
    }
}

#[test]
fn a_position_on_the_way_through_a_long_line_leads_on() {
    let text = format!("a\n{}\nb\n{}", "x".repeat(LIMIT * 5), "y".repeat(LIMIT * 5));
    let good = |text: &str| Item::Good(text.to_owned());
    let long = |line| Item::Bad(line, "longer".to_owned());
    assert_eq!(from_every_position(text.as_bytes(), Text), [good("a"), long(2), good("b"), long(4)]);
}

#[test]
fn a_drain_reads_the_last_line_and_nothing_that_lies_behind_lines_that_were_not_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let drain = |reader: &mut FileReader<Text>| {
        let mut out = Records::with_limit(100);
        reader.drain(&mut out).unwrap();
        out.records().to_vec()
    };
    std::fs::write(file.path(), "1\n2\n3").unwrap();
    let mut reader = open_as(file.path(), Text, true, None).unwrap();
    assert_eq!(take(&mut reader, 1), ["1"]);
    assert!(drain(&mut reader).is_empty(), "the second line is not read");
    let mut reader = open_as(file.path(), Text, true, None).unwrap();
    assert_eq!(read_on(&mut reader, 10).0, ["1", "2"]);
    assert_eq!(drain(&mut reader), ["3"]);
    let mut reader = open_as(file.path(), Text, true, None).unwrap();
    assert_eq!(read_on(&mut reader, 10).0, ["1", "2"]);
    append(file.path(), "\n4\n");
    assert!(drain(&mut reader).is_empty(), "it is not the last line any more");
    let mut csv = open_as(file.path(), Csv::<Row>::new(), true, None).unwrap();
    assert_eq!(csv.drain(&mut Records::with_limit(9)).map_err(|e| e.to_string()), Ok(()));
}
