//! Reading from every position of a file, over random files; in this build a read is 16 bytes, so that
//! records lie across reads.

use super::reader::{FileReader, Settings};
use super::{Csv, Format, Json, Text};
use proptest::prelude::*;
use serde::Deserialize;
use staunch_core::background::BlockingReader;
use staunch_core::source::{Progress, Records};
use std::path::Path;

const LIMIT: usize = 60;

/// One thing that a reader handed out.
#[derive(Clone, PartialEq, Debug)]
enum Item<T> {
    Good(T),
    /// Bad input: its line, and the beginning of the reason.
    Bad(u64, String),
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
struct Row {
    name: String,
    count: u32,
}

type Seen<F> = Vec<Item<<F as Format>::Record>>;
type Positions = Vec<super::FilePosition>;

fn open<F: Format>(
    path: &Path,
    format: F,
    at: Option<&super::FilePosition>,
) -> staunch_core::Result<FileReader<F>> {
    FileReader::open(path.to_owned(), format, Settings { follow: false, max_line_bytes: LIMIT }, at)
}

/// Reads to the end, one record at a time, and notes the position before each.
fn read<F: Format>(mut reader: FileReader<F>) -> (Seen<F>, Positions)
where
    F::Record: Clone,
{
    let (mut items, mut positions) = (Vec::new(), vec![reader.position()]);
    loop {
        let mut out = Records::with_limit(1);
        let progress = reader.read(&mut out).unwrap();
        assert!(progress != Progress::Idle && out.records().len() + out.bad_input().len() <= 1);
        items.extend(out.records().iter().cloned().map(Item::Good));
        for bad in out.bad_input() {
            let line = bad.place.rsplit(' ').next().unwrap().parse().unwrap();
            items.push(Item::Bad(line, bad.reason.split([' ', ':']).next().unwrap().to_owned()));
        }
        if progress == Progress::End {
            return (items, positions);
        }
        if items.len() == positions.len() {
            positions.push(reader.position());
        }
    }
}

/// Checks that every position leads to exactly what was read after it, and returns all.
fn from_every_position<F: Format>(bytes: &[u8], format: F) -> Seen<F>
where
    F::Record: Clone + PartialEq + std::fmt::Debug,
{
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let (all, positions) = read(open(file.path(), format.clone(), None).unwrap());
    for (index, position) in positions.iter().enumerate() {
        let text = serde_json::to_string(position).unwrap();
        let position = serde_json::from_str(&text).unwrap();
        let (rest, _) = read(open(file.path(), format.clone(), Some(&position)).unwrap());
        assert_eq!(rest, all[index.min(all.len())..], "from {text}");
    }
    all
}

/// A piece of a CSV file: its text without line end, and what must come of it.
#[derive(Clone, Debug)]
enum Piece {
    Row(Row),
    Blank,
    WrongFields,
    WrongType,
    NotUtf8,
    TooLong,
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        6 => ("[a-z,;\"\né ]{0,12}", any::<u32>()).prop_map(|(name, count)| Piece::Row(Row { name, count })),
        1 => Just(Piece::Blank),
        1 => Just(Piece::WrongFields),
        1 => Just(Piece::WrongType),
        1 => Just(Piece::NotUtf8),
        1 => Just(Piece::TooLong),
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
            Piece::TooLong => "x".repeat(LIMIT + 1).into_bytes(),
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
            Piece::TooLong => bad("longer"),
        }
    }
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
    fn lines_are_read_from_every_position(lines in prop::collection::vec("[a-zé\r]{0,70}", 0..12), last: bool) {
        let text = lines.join("\n") + if last || lines.is_empty() { "" } else { "\n" };
        let wanted: Vec<Item<String>> = text.split_inclusive('\n').zip(1..).map(|(line, number)| {
            if line.len() > LIMIT {
                return Item::Bad(number, "longer".to_owned());
            }
            Item::Good(line.lines().next().unwrap_or_default().to_owned())
        }).collect();
        prop_assert_eq!(from_every_position(text.as_bytes(), Text), wanted);
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
fn a_changed_file_is_an_error_and_never_read_from_the_wrong_place() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let row = |i| format!("name-{i:03},{i}\n");
    let text = |rows: std::ops::Range<u32>| "name,count\n".to_owned() + &rows.map(row).collect::<String>();
    let original = text(0..200);
    std::fs::write(file.path(), &original).unwrap();
    let (_, positions) = read(open(file.path(), Csv::<Row>::new(), None).unwrap());
    let at = &positions[150];
    let refused = |new: &str| {
        std::fs::write(file.path(), new).unwrap();
        open(file.path(), Csv::<Row>::new(), Some(at)).err().map(|e| e.to_string())
    };
    assert_eq!(refused(&original), None);
    assert_eq!(refused(&text(0..500)), None, "a file may grow");
    for (new, why) in [
        (&original[..100], "it has 100 bytes"),
        ("", "it has 0 bytes"),
        (&original.replace("name,count", "name,total"), "header"),
        (&original.replace("name-007,7", "name-007,8"), "beginning"),
        (&original.replace("name-149,149", "name-149,148"), "64 bytes before"),
        (&text(1..300), "beginning"),
    ] {
        let error = refused(new).unwrap_or_else(|| panic!("{why}: not refused"));
        assert!(error.contains(why) && error.contains("Put the original back"), "{error}");
    }
}

#[test]
fn a_last_line_that_was_read_without_its_end_must_not_go_on() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a\nb").unwrap();
    let mut reader = open(file.path(), Text, None).unwrap();
    let mut out = Records::with_limit(10);
    while reader.read(&mut out).unwrap() != Progress::End {}
    let at = reader.position();
    assert!(open(file.path(), Text, Some(&at)).is_ok());
    std::fs::write(file.path(), "a\nbc\n").unwrap();
    let error = open(file.path(), Text, Some(&at)).unwrap_err().to_string();
    assert!(error.contains("now goes on"), "{error}");
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
