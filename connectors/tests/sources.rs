//! Every source of this crate through the conformance suite: collections, the generator, and files alone, in
//! directories, and followed.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde::Deserialize;
use staunch_connectors::file::{self, Files};
use staunch_connectors::formats::{Csv, Framed, Json, Text};
use staunch_connectors::generator::{self, Sequence};
use staunch_connectors::memory::{Collection, collection};
use staunch_testing::conformance::Can;
use staunch_testing::conformance::source::Input;
use staunch_testing::source_conformance;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tempfile::TempDir;

const DECODED: &str = "records are made in memory, and none can be malformed";
const COMPLETE: &str = "it is complete from the beginning";

/// A collection dealt out to three splits.
struct Dealt(Mutex<Vec<u64>>);

fn dealt() -> Dealt {
    Dealt(Mutex::new((0..500).collect()))
}

impl Input for Dealt {
    type Record = u64;
    type Source = Collection<u64>;

    fn source(&self) -> Collection<u64> {
        collection(self.0.lock().unwrap().clone()).splits(3)
    }

    fn expected(&self) -> Vec<(String, Vec<u64>)> {
        let all = self.0.lock().unwrap();
        (0..3)
            .map(|split| (split.to_string(), all.iter().copied().skip(split).step_by(3).collect()))
            .collect()
    }

    fn grow(&self, _split: &str) -> Can<Vec<u64>> {
        Can::Not(COMPLETE)
    }

    fn add_split(&self) -> Can<(String, Vec<u64>)> {
        Can::Not("with another number of splits records are dealt out anew; that is refused")
    }

    fn lose_positions(&self, _split: &str) -> Can {
        self.0.lock().unwrap().truncate(3);
        Can::Done(())
    }

    fn spoil(&self) -> Can<Vec<(String, usize)>> {
        Can::Not(DECODED)
    }
}

/// A generator, whose program may change between starts.
struct Made {
    count: AtomicU64,
    splits: AtomicU32,
}

fn made() -> Made {
    Made { count: AtomicU64::new(200), splits: AtomicU32::new(2) }
}

fn make(split: u32, index: u64) -> u64 {
    u64::from(split) * 1000 + index
}

impl Made {
    fn records(&self, split: u32) -> Vec<u64> {
        (0..self.count.load(Ordering::Relaxed)).map(|index| make(split, index)).collect()
    }
}

impl Input for Made {
    type Record = u64;
    type Source = Sequence<fn(u32, u64) -> u64>;

    fn source(&self) -> Self::Source {
        let splits = self.splits.load(Ordering::Relaxed);
        generator::sequence(Some(self.count.load(Ordering::Relaxed)), splits, make as fn(u32, u64) -> u64)
    }

    fn expected(&self) -> Vec<(String, Vec<u64>)> {
        let splits = 0..self.splits.load(Ordering::Relaxed);
        splits.map(|split| (split.to_string(), self.records(split))).collect()
    }

    fn grow(&self, _split: &str) -> Can<Vec<u64>> {
        Can::Not(COMPLETE)
    }

    fn add_split(&self) -> Can<(String, Vec<u64>)> {
        let new = self.splits.fetch_add(1, Ordering::Relaxed);
        Can::Done((new.to_string(), self.records(new)))
    }

    fn lose_positions(&self, _split: &str) -> Can {
        self.count.store(3, Ordering::Relaxed);
        Can::Done(())
    }

    fn spoil(&self) -> Can<Vec<(String, usize)>> {
        Can::Not(DECODED)
    }
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
struct Row {
    id: u64,
    text: String,
}

fn row(n: u64) -> Row {
    Row { id: n, text: format!("row {n}\nof \"{}\" words", n % 3) }
}

/// How a format looks in a file.
struct Look<F: Framed> {
    make: fn(&Path) -> Files<F>,
    /// What stands at the beginning of each file.
    head: &'static str,
    line: fn(u64) -> String,
    record: fn(u64) -> F::Record,
    /// Malformed pieces, each a line.
    bad: [&'static [u8]; 2],
}

const LINES: Look<Text> = Look {
    make: |path| file::lines(path),
    head: "",
    line: |n| format!("line {n}{}", if n.is_multiple_of(3) { "\r\n" } else { "\n" }),
    record: |n| format!("line {n}"),
    bad: [b"\xff\n", b"not \xe9 UTF-8\n"],
};

const CSV: Look<Csv<Row>> = Look {
    make: |path| file::rows(path),
    head: "\u{feff}text,id\n",
    line: |n| {
        let blank = if n.is_multiple_of(5) { "\n" } else { "" };
        format!("\"{}\",{n}\n{blank}", row(n).text.replace('"', "\"\""))
    },
    record: row,
    bad: [b"too,many,fields\n", b"text,and no number\n"],
};

const JSON: Look<Json<Row>> = Look {
    make: |path| file::json_rows(path),
    head: "\n",
    line: |n| {
        let blank = if n.is_multiple_of(5) { "  \n" } else { "" };
        format!("{}\n{blank}", serde_json::json!({"id": n, "text": row(n).text}))
    },
    record: row,
    bad: [b"{\"id\": 1}\n", b"nonsense\n"],
};

/// Files in a directory; or one of them, if `only` says which.
struct OnDisk<F: Framed> {
    look: Look<F>,
    only: Option<&'static str>,
    follow: bool,
    dir: TempDir,
    /// The numbers of the records of each file.
    files: Mutex<BTreeMap<String, Vec<u64>>>,
}

fn one<F: Framed>(look: Look<F>, follow: bool) -> OnDisk<F> {
    OnDisk::new(look, Some("b.txt"), follow)
}

fn several<F: Framed>(look: Look<F>, follow: bool) -> OnDisk<F> {
    OnDisk::new(look, None, follow)
}

impl<F: Framed> OnDisk<F> {
    fn new(look: Look<F>, only: Option<&'static str>, follow: bool) -> Self {
        let files = [("b.txt", 0..200), ("c.txt", 200..209), ("d.txt", 0..0)];
        let files = files.map(|(name, numbers)| (name.to_owned(), numbers.collect())).into();
        let input = Self { look, only, follow, dir: TempDir::new().unwrap(), files: Mutex::new(files) };
        input.files.lock().unwrap().iter().for_each(|(name, numbers)| {
            fs::write(input.path(name), input.text(numbers)).unwrap();
        });
        input
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, numbers: &[u64]) -> String {
        self.look.head.to_owned() + &numbers.iter().map(|n| (self.look.line)(*n)).collect::<String>()
    }

    fn records(&self, numbers: &[u64]) -> Vec<F::Record> {
        numbers.iter().map(|n| (self.look.record)(*n)).collect()
    }
}

impl<F: Framed<Record: Clone + PartialEq + Debug>> Input for OnDisk<F> {
    type Record = F::Record;
    type Source = Files<F>;

    fn source(&self) -> Files<F> {
        let path = self.only.map_or_else(|| self.dir.path().to_owned(), |name| self.path(name));
        (self.look.make)(&path).follow(self.follow)
    }

    fn expected(&self) -> Vec<(String, Vec<F::Record>)> {
        let files = self.files.lock().unwrap();
        let read = files.iter().filter(|(name, _)| self.only.is_none_or(|only| only == *name));
        read.map(|(name, numbers)| (name.clone(), self.records(numbers))).collect()
    }

    fn end(&self) -> Can {
        if self.follow {
            Can::Not("a followed file waits for more for as long as it exists")
        } else {
            Can::Done(())
        }
    }

    fn grow(&self, split: &str) -> Can<Vec<F::Record>> {
        if !self.follow {
            return Can::Not("a file that is not followed is read to the end that it had");
        }
        let mut files = self.files.lock().unwrap();
        let known = files.get_mut(split).unwrap();
        let more: Vec<u64> = (1000..1003).map(|n| n + known.len() as u64).collect();
        known.extend(&more);
        let text: String = more.iter().map(|n| (self.look.line)(*n)).collect();
        // In two portions, as a writer's buffer is flushed: not at the end of a record.
        let mut file = OpenOptions::new().append(true).open(self.path(split)).unwrap();
        let (first, second) = text.as_bytes().split_at(text.len() / 2 + 1);
        file.write_all(first).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        file.write_all(second).unwrap();
        Can::Done(self.records(&more))
    }

    fn add_split(&self) -> Can<(String, Vec<F::Record>)> {
        if self.only.is_some() {
            return Can::Not("one file is one split");
        }
        // Before the others by name.
        let numbers = vec![7, 8, 9];
        fs::write(self.path("a.txt"), self.text(&numbers)).unwrap();
        let records = self.records(&numbers);
        self.files.lock().unwrap().insert("a.txt".into(), numbers);
        Can::Done(("a.txt".into(), records))
    }

    fn lose_positions(&self, split: &str) -> Can {
        fs::write(self.path(split), self.text(&[1])).unwrap();
        Can::Done(())
    }

    fn spoil(&self) -> Can<Vec<(String, usize)>> {
        let numbers = self.files.lock().unwrap()["b.txt"].clone();
        let mut bytes = self.look.head.as_bytes().to_vec();
        let mut pieces = 0;
        for n in numbers {
            if n.is_multiple_of(50) {
                self.look.bad.iter().for_each(|bad| bytes.extend_from_slice(bad));
                pieces += self.look.bad.len();
            }
            bytes.extend((self.look.line)(n).into_bytes());
        }
        bytes.extend_from_slice(self.look.bad[0]);
        fs::write(self.path("b.txt"), bytes).unwrap();
        Can::Done(vec![("b.txt".into(), pieces + 1)])
    }
}

mod collections {
    super::source_conformance!(super::dealt());
}

mod generators {
    super::source_conformance!(super::made());
}

mod a_file_of_lines {
    super::source_conformance!(super::one(super::LINES, false));
}

mod a_file_of_csv {
    super::source_conformance!(super::one(super::CSV, false));
}

mod a_file_of_json {
    super::source_conformance!(super::one(super::JSON, false));
}

mod a_directory_of_lines {
    super::source_conformance!(super::several(super::LINES, false));
}

mod a_directory_of_csv {
    super::source_conformance!(super::several(super::CSV, false));
}

mod a_followed_file_of_lines {
    super::source_conformance!(super::one(super::LINES, true));
}

mod a_followed_file_of_csv {
    super::source_conformance!(super::one(super::CSV, true));
}

mod a_followed_directory_of_json {
    super::source_conformance!(super::several(super::JSON, true));
}
