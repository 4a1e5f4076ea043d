//! Reading from every position of a file, over random files, and files that change while they are read. In
//! this build a read is 16 bytes and a call 32, so that records lie across reads and calls.

use super::reader::{FileReader, Settings};
use super::{Csv, Format, Json, Text};
use proptest::prelude::*;
use serde::Deserialize;
use staunch_core::background::BlockingReader;
use staunch_core::source::{Progress, Records};
use std::fs::OpenOptions;
use std::io::Write;
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
/// Where a reader stood, each with the number of things that it had handed out.
type Positions = Vec<(usize, super::FilePosition)>;

fn open_as<F: Format>(
    path: &Path,
    format: F,
    follow: bool,
    at: Option<&super::FilePosition>,
) -> staunch_core::Result<FileReader<F>> {
    FileReader::open(path.to_owned(), format, Settings { follow, max_line_bytes: LIMIT }, at)
}

fn open<F: Format>(
    path: &Path,
    format: F,
    at: Option<&super::FilePosition>,
) -> staunch_core::Result<FileReader<F>> {
    open_as(path, format, false, at)
}

/// Reads to the end, up to `limit` records at a time, and notes the position after each call.
fn read<F: Format>(mut reader: FileReader<F>, limit: usize) -> (Seen<F>, Positions)
where
    F::Record: Clone,
{
    let (mut items, mut positions) = (Vec::new(), vec![(0, reader.position())]);
    loop {
        let mut out = Records::with_limit(limit);
        let progress = reader.read(&mut out).unwrap();
        assert!(progress != Progress::Idle && out.records().len() + out.bad_input().len() <= limit);
        items.extend(out.records().iter().cloned().map(Item::Good));
        for bad in out.bad_input() {
            let line = bad.place.rsplit(' ').next().unwrap().parse().unwrap();
            items.push(Item::Bad(line, bad.reason.split([' ', ':']).next().unwrap().to_owned()));
        }
        positions.push((items.len(), reader.position()));
        if progress == Progress::End {
            return (items, positions);
        }
    }
}

/// The good and the bad, each in their order: several that came together do not say how they mix.
fn apart<T>(items: &[Item<T>]) -> (Vec<&Item<T>>, Vec<&Item<T>>) {
    items.iter().partition(|item| matches!(item, Item::Good(_)))
}

/// Checks that every position leads to exactly what was read after it, however many records are read at a
/// time, and returns all.
fn from_every_position<F: Format>(bytes: &[u8], format: F) -> Seen<F>
where
    F::Record: Clone + PartialEq + std::fmt::Debug,
{
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let (all, _) = read(open(file.path(), format.clone(), None).unwrap(), 1);
    for limit in [1, 3, 1000] {
        let (_, positions) = read(open(file.path(), format.clone(), None).unwrap(), limit);
        for (count, position) in positions {
            let text = serde_json::to_string(&position).unwrap();
            let position = serde_json::from_str(&text).unwrap();
            let (rest, _) = read(open(file.path(), format.clone(), Some(&position)).unwrap(), limit);
            assert_eq!(apart(&rest), apart(&all[count..]), "from {text}, {limit} at a time");
            assert!(limit > 1 || rest == all[count..], "{rest:?} from {text}, not {:?}", &all[count..]);
        }
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
fn a_changed_file_is_an_error_and_never_read_from_the_wrong_place() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let row = |i| format!("name-{i:03},{i}\n");
    let text = |rows: std::ops::Range<u32>| "name,count\n".to_owned() + &rows.map(row).collect::<String>();
    let original = text(0..200);
    std::fs::write(file.path(), &original).unwrap();
    let (_, positions) = read(open(file.path(), Csv::<Row>::new(), None).unwrap(), 1);
    let (_, at) = positions.iter().find(|(count, _)| *count == 150).unwrap();
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

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Reads one record at a time until it has so many.
fn take(reader: &mut FileReader<Text>, count: usize) -> Vec<String> {
    let mut records = Vec::new();
    while records.len() < count {
        let mut out = Records::with_limit(1);
        assert_eq!(reader.read(&mut out).unwrap(), Progress::Ready);
        records.extend_from_slice(out.records());
    }
    records
}

/// Reads until the reader has nothing more to give, and says why.
fn read_on(reader: &mut FileReader<Text>, limit: usize) -> (Vec<String>, staunch_core::Result<Progress>) {
    let mut records = Vec::new();
    loop {
        let mut out = Records::with_limit(limit);
        let progress = reader.read(&mut out);
        assert!(out.bad_input().is_empty(), "{:?}", out.bad_input());
        records.extend_from_slice(out.records());
        if !matches!(progress, Ok(Progress::Ready)) {
            return (records, progress);
        }
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
    fn check<F: Format>(format: F, head: &str, long: &str, short: &str)
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
fn what_is_appended_to_a_last_line_without_line_end_is_never_read() {
    for deleted in [false, true] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "1\n12").unwrap();
        let mut writer = OpenOptions::new().append(true).open(file.path()).unwrap();
        let mut reader = open_as(file.path(), Text, deleted, None).unwrap();
        if deleted {
            std::fs::remove_file(file.path()).unwrap();
        }
        assert_eq!(take(&mut reader, 2), ["1", "12"]);
        writer.write_all(b"34\n").unwrap();
        let (records, progress) = read_on(&mut reader, 10);
        assert_eq!((records, progress.unwrap()), (Vec::new(), Progress::End));
        assert!(reader.position().offset == 4 && reader.position().unterminated);
    }
}

#[test]
fn what_is_appended_to_a_header_or_a_long_line_without_line_end_is_never_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "name,cou").unwrap();
    let reader = open(file.path(), Csv::<Row>::new(), None).unwrap();
    append(file.path(), "nt\na,1\n");
    let (items, _) = read(reader, 10);
    assert!(items.is_empty(), "{items:?}");
    std::fs::write(file.path(), "x".repeat(LIMIT * 3)).unwrap();
    let mut reader = open(file.path(), Text, None).unwrap();
    loop {
        let mut out = Records::with_limit(1);
        assert_eq!(reader.read(&mut out).unwrap(), Progress::Ready);
        if !out.bad_input().is_empty() {
            break;
        }
    }
    append(file.path(), "x\ny\n");
    let (records, progress) = read_on(&mut reader, 10);
    assert_eq!((records, progress.unwrap()), (Vec::new(), Progress::End));
}

/// The last line was read without its line end, because nobody followed the file; now somebody does.
#[test]
fn a_followed_file_must_not_go_on_behind_a_last_line_that_was_read_without_its_end() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "1\n12").unwrap();
    let mut reader = open(file.path(), Text, None).unwrap();
    assert_eq!(read_on(&mut reader, 10).0, ["1", "12"]);
    let mut reader = open_as(file.path(), Text, true, Some(&reader.position())).unwrap();
    assert_eq!(read_on(&mut reader, 10).1.unwrap(), Progress::Idle);
    append(file.path(), "34\n");
    let (records, progress) = read_on(&mut reader, 10);
    assert_eq!(records, Vec::<String>::new());
    let error = progress.unwrap_err().to_string();
    assert!(error.contains("now goes on"), "{error}");
}

#[test]
fn a_file_that_was_cut_is_an_error_also_if_it_has_grown_again() {
    let original: String = (0..200).map(|n| format!("line {n}\n")).collect();
    let lines: Vec<&str> = original.lines().collect();
    let other = "another line\n".repeat(300);
    // Records read before the change, all of them or so many that the reader stands in the middle; the new text.
    let changes = [
        (20, String::new()),
        (20, original[..20].to_owned()),
        (20, other.clone()),
        (20, original.replacen("line 0", "LINE 0", 1)),
        (190, original[..1100].to_owned()),
        (190, original[..1100].to_owned() + &other),
        (200, String::new()),
        (200, original[..1100].to_owned()),
        (200, other.clone()),
        (200, original[..1100].to_owned() + &other),
    ];
    for (read, new) in changes {
        for follow in [false, true] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &original).unwrap();
            let mut reader = open_as(file.path(), Text, follow, None).unwrap();
            assert_eq!(take(&mut reader, read), lines[..read]);
            if follow && read == lines.len() {
                assert_eq!(read_on(&mut reader, 1).1.unwrap(), Progress::Idle);
            }
            std::fs::write(file.path(), &new).unwrap();
            let (records, progress) = read_on(&mut reader, 1);
            assert_eq!(records, lines[read..read + records.len()], "nothing of the new text");
            let error = progress.unwrap_err().to_string();
            let why = if follow { "while it was followed" } else { "while it was read" };
            assert!(error.contains("was cut") && error.contains(why), "{error}");
        }
    }
}

/// In this build a process may have 64 files open.
#[test]
fn many_quiet_followed_files_are_let_go_and_what_happens_to_them_is_noticed_all_the_same() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = |n: usize| dir.path().join(format!("{n:03}"));
    let open_here = || {
        let links =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fd.ok()?.path().read_link().ok());
        links.filter(|file| file.starts_with(dir.path())).count()
    };
    let mut readers: Vec<FileReader<Text>> = (0..200)
        .map(|n| {
            std::fs::write(path(n), format!("{n}\n")).unwrap();
            let mut reader = open_as(&path(n), Text, true, None).unwrap();
            let (lines, progress) = read_on(&mut reader, 10);
            assert_eq!((lines, progress.unwrap()), (vec![n.to_string()], Progress::Idle));
            reader
        })
        .collect();
    assert!(open_here() <= 64, "{} are open", open_here());
    for (reader, n) in readers.iter_mut().zip(0..) {
        append(&path(n), "more\npart");
        assert_eq!(read_on(reader, 10).0, ["more"], "{n}");
        append(&path(n), "ly\n");
        assert_eq!(read_on(reader, 10).0, ["partly"], "{n}");
        assert_eq!(read_on(reader, 10).1.unwrap(), Progress::Idle);
    }
    let mut change = |n: usize, change: &dyn Fn(&Path)| {
        change(&path(n));
        read_on(&mut readers[n], 10)
    };
    let (lines, progress) = change(199, &|path| std::fs::remove_file(path).unwrap());
    assert_eq!((lines.len(), progress.unwrap()), (0, Progress::End));
    let (_, progress) = change(198, &|path| append(path, "last"));
    assert_eq!(progress.unwrap(), Progress::Idle);
    let (lines, progress) = change(198, &|path| std::fs::remove_file(path).unwrap());
    assert_eq!((lines, progress.unwrap()), (vec!["last".to_owned()], Progress::End));
    let replace = |path: &Path| {
        std::fs::write(path.with_extension("new"), "198\nmore\npartly\n").unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    for (n, what, why) in [
        (197, &replace as &dyn Fn(&Path), "replaced"),
        (196, &|path| std::fs::write(path, "196\n").unwrap(), "was cut"),
        (195, &|path| std::fs::write(path, "195\nless\npartly\nand more\n").unwrap(), "was cut"),
    ] {
        let error = change(n, what).1.unwrap_err().to_string();
        assert!(error.contains(why), "{n}: {error}");
    }
}

#[test]
fn a_file_that_was_read_to_its_end_may_be_gone_and_no_other_one() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("a.log");
    for (text, follow, whole) in
        [("1\n2\n", true, true), ("1\n2", true, false), ("1\n2", false, true), ("", true, true)]
    {
        std::fs::write(&path, text).unwrap();
        let mut reader = open_as(&path, Text, follow, None).unwrap();
        let _ = read_on(&mut reader, 1);
        let (at, begin) = (reader.position(), open_as(&path, Text, follow, None).unwrap().position());
        std::fs::remove_file(&path).unwrap();
        match open_as(&path, Text, follow, Some(&at)) {
            Ok(mut gone) => {
                assert!(whole, "{text:?}: a line of it was not read");
                let (lines, progress) = read_on(&mut gone, 10);
                assert_eq!((lines.len(), progress.unwrap()), (0, Progress::End));
                assert_eq!(gone.position(), at);
            }
            Err(error) => assert!(!whole && error.to_string().contains("not read to its end"), "{error}"),
        }
        assert!(text.is_empty() || open_as(&path, Text, follow, Some(&begin)).is_err());
    }
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
