//! A reader of files by hand. In this build a read is 16 bytes and a call 32, so that records lie across reads and calls.

mod changes;
mod positions;

use super::reader::{FileReader, Settings};
use crate::formats::{Framed, Text};
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

type Seen<F> = Vec<Item<<F as crate::formats::Format>::Record>>;
/// Where a reader stood, each with the number of things that it had handed out.
type Positions = Vec<(usize, super::FilePosition)>;

fn open_as<F: Framed>(
    path: &Path,
    format: F,
    follow: bool,
    at: Option<&super::FilePosition>,
) -> staunch_core::Result<FileReader<F>> {
    FileReader::open(path.to_owned(), format, Settings { follow, max_line_bytes: LIMIT }, at)
}

fn open<F: Framed>(
    path: &Path,
    format: F,
    at: Option<&super::FilePosition>,
) -> staunch_core::Result<FileReader<F>> {
    open_as(path, format, false, at)
}

/// Reads to the end, up to `limit` records at a time, and notes the position after each call.
fn read<F: Framed>(mut reader: FileReader<F>, limit: usize) -> (Seen<F>, Positions)
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
fn from_every_position<F: Framed>(bytes: &[u8], format: F) -> Seen<F>
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
