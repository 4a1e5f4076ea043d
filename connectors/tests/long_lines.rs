//! A line of 100 MB is bad input, is said so, and is never held.
//!
//! How much is held is counted by the allocator of this program. Its tests run one after the other, so that nothing
//! else is in the figures.
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;

use by_hand::{read_all, run};
use serde::Deserialize;
use staunch_connectors::file::{self, Files};
use staunch_connectors::formats::Framed;
use staunch_connectors::memory::collect;
use staunch_core::error::Kind;
use staunch_core::source::{BadInput, DeadLetter};
use staunch_core::{Controls, Job, Metrics, Outcome, Result, RunConfig, SourceExt};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// Length of the line.
const LINE: usize = 100_000_000;
/// The limit of a source that is not told one.
const DEFAULT_LIMIT: usize = 16 << 20;
/// A limit that a source is told.
const LIMIT: usize = 1 << 20;
/// For all else: the dead letter, batches on their way, a job around the reader.
const BESIDES: usize = 8 << 20;

/// Most memory that a reader with this limit may take. It reads up to twice the limit before it gives the line up;
/// and when it makes that room, the half of it that it had before is there as well.
fn bound(limit: usize) -> usize {
    3 * limit + BESIDES
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn taken(bytes: usize) {
    let held = HELD.fetch_add(bytes, SeqCst) + bytes;
    MOST.fetch_max(held, SeqCst);
}

// SAFETY: everything is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while the bytes are moved.
        taken(size);
        HELD.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Each test holds this to its end.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of some work, and the most memory that was in use during it, beyond what was before.
fn peak<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let before = HELD.load(SeqCst);
    MOST.store(before, SeqCst);
    let result = work();
    (result, MOST.load(SeqCst).saturating_sub(before))
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
struct Flight {
    carrier: String,
    flight: u32,
}

fn flight(carrier: &str, flight: u32) -> Flight {
    Flight { carrier: carrier.to_owned(), flight }
}

/// A file with a long line. But for its length the line is a good one.
struct Shape {
    name: &'static str,
    /// What comes before the line.
    before: &'static str,
    /// How the line begins and ends.
    line: (&'static str, &'static str),
    /// What comes after the line.
    after: &'static str,
    /// Number of the line.
    number: u64,
}

const LINES: Shape =
    Shape { name: "long.txt", before: "before\n", line: ("", ""), after: "after\n", number: 2 };
const CSV: Shape = Shape {
    name: "long.csv",
    before: "carrier,flight\nbefore,1\n",
    line: ("", ",2"),
    after: "after,3\n",
    number: 3,
};
const JSON: Shape = Shape {
    name: "long.jsonl",
    before: "{\"carrier\":\"before\",\"flight\":1}\n",
    line: ("{\"carrier\":\"", "\",\"flight\":2}"),
    after: "{\"carrier\":\"after\",\"flight\":3}\n",
    number: 2,
};

impl Shape {
    /// Writes the file, with a line of so many bytes.
    fn write(&self, dir: &Path, length: usize) -> PathBuf {
        let path = dir.join(self.name);
        let mut out = File::create(&path).unwrap();
        let (start, end) = self.line;
        write!(out, "{}{start}", self.before).unwrap();
        let (chunk, mut left) = (vec![b'x'; 1 << 20], length - start.len() - end.len());
        while left > 0 {
            let some = left.min(chunk.len());
            out.write_all(&chunk[..some]).unwrap();
            left -= some;
        }
        write!(out, "{end}\n{}", self.after).unwrap();
        path
    }

    /// Checks what became of the line.
    fn check_letter(&self, letter: &DeadLetter, limit: usize) {
        assert_eq!(letter.place, format!("{} line {}", self.name, self.number));
        let reason = format!("longer than {limit} bytes (the limit of max_line_bytes)");
        assert_eq!(letter.reason, reason, "{}", self.name);
        let start = self.line.0;
        let raw = format!("{start}{}", "x".repeat(DeadLetter::MAX_RAW - start.len()));
        assert!(letter.raw == raw, "{}: {} bytes of it are kept", self.name, letter.raw.len());
    }
}

/// Reads the file with the default limit and with a small one. Returns the most memory that each took.
fn read_by_hand<F: Framed>(
    shape: &Shape,
    source: impl Fn(PathBuf) -> Files<F>,
    good: &[F::Record],
) -> [usize; 2]
where
    F::Record: Clone + PartialEq + Debug,
{
    let dir = TempDir::new().unwrap();
    let path = shape.write(dir.path(), LINE);
    let sources =
        [(DEFAULT_LIMIT, source(path.clone())), (LIMIT, source(path.clone()).max_line_bytes(LIMIT))];
    sources.map(|(limit, source)| {
        let (mut read, held) = peak(|| run(read_all(&source)).unwrap());
        let (_, records, bad) = read.remove(0);
        assert!(held < bound(limit), "{}, limit {limit}: {held} bytes were held", shape.name);
        assert_eq!(records, good, "{}, limit {limit}", shape.name);
        assert_eq!(bad.len(), 1, "{}, limit {limit}", shape.name);
        shape.check_letter(&bad[0], limit);
        held
    })
}

#[test]
fn a_long_line_is_passed_over_without_being_held() {
    let _alone = alone();
    let text = ["before", "after"].map(str::to_owned);
    let flights = [flight("before", 1), flight("after", 3)];
    let held = [
        read_by_hand(&LINES, file::lines, &text),
        read_by_hand(&CSV, file::rows::<Flight>, &flights),
        read_by_hand(&JSON, file::json_rows::<Flight>, &flights),
    ];
    let most = |at: usize| held.iter().map(|held| held[at]).max().unwrap_or(0) as f64 / 1e6;
    println!(
        "MEASURED: a line of 100 MB takes at most {:.1} MB of memory; with max_line_bytes of 1 MiB {:.1} MB",
        most(0),
        most(1)
    );
}

/// The same shapes in shorter: they are good lines, and what is held is counted.
#[test]
fn a_line_within_the_limit_is_held_and_counted() {
    fn check<F: Framed>(
        shape: &Shape,
        source: impl Fn(PathBuf) -> Files<F>,
        length: impl Fn(&F::Record) -> usize,
    ) where
        F::Record: Clone + Debug,
    {
        let dir = TempDir::new().unwrap();
        let path = shape.write(dir.path(), 8_000_000);
        let (mut read, held) = peak(|| run(read_all(&source(path))).unwrap());
        let (_, records, bad) = read.remove(0);
        assert_eq!((records.len(), bad.len()), (3, 0), "{}", shape.name);
        assert_eq!(length(&records[1]), 8_000_000 - shape.line.0.len() - shape.line.1.len());
        assert!(held > 8_000_000, "{}: only {held} bytes were counted", shape.name);
    }
    let _alone = alone();
    check(&LINES, file::lines, String::len);
    check(&CSV, file::rows::<Flight>, |row: &Flight| row.carrier.len());
    check(&JSON, file::json_rows::<Flight>, |row: &Flight| row.carrier.len());
}

#[test]
fn a_long_last_line_without_line_end_is_passed_over_without_being_held() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let path = LINES.write(dir.path(), LINE);
    let all = fs::metadata(&path).unwrap().len();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(all - LINES.after.len() as u64 - 1).unwrap();
    let (mut read, held) = peak(|| run(read_all(&file::lines(&path))).unwrap());
    let (_, lines, bad) = read.remove(0);
    assert!(held < bound(DEFAULT_LIMIT), "{held} bytes were held");
    assert_eq!((lines, bad.len()), (vec!["before".to_owned()], 1));
    LINES.check_letter(&bad[0], DEFAULT_LIMIT);
}

#[test]
fn a_long_header_is_refused_without_being_held() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let path = Shape { before: "", line: ("", ",flight"), ..CSV }.write(dir.path(), LINE);
    let (read, held) = peak(|| run(read_all(&file::rows::<Flight>(&path))));
    assert!(held < bound(DEFAULT_LIMIT), "{held} bytes were held");
    let error = read.unwrap_err();
    assert_eq!(error.kind(), Kind::Job);
    let error = error.to_string();
    assert!(error.contains("long.csv: the header is longer than 16777216 bytes"), "{error}");
}

/// All that follows is inside of the quotes, as far as anybody knows who has not read to the end.
#[test]
fn a_quote_that_stays_open_before_a_long_line_costs_two_lines_and_no_memory() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let shape = Shape { before: "carrier,flight\nbefore,1\n\"open,2\n", number: 4, ..CSV };
    let path = shape.write(dir.path(), LINE);
    let (mut read, held) = peak(|| run(read_all(&file::rows::<Flight>(&path))).unwrap());
    let (_, rows, bad) = read.remove(0);
    assert!(held < bound(DEFAULT_LIMIT), "{held} bytes were held");
    assert_eq!(rows, [flight("before", 1), flight("after", 3)]);
    assert_eq!((bad.len(), bad[0].place.as_str(), bad[0].raw.as_str()), (2, "long.csv line 3", "\"open,2"));
    assert!(bad[0].reason.contains("a quote is not closed within"), "{}", bad[0].reason);
    shape.check_letter(&bad[1], DEFAULT_LIMIT);
}

/// Runs a job to its end. Returns how it ended, how many dead letters it counted, and the most memory it took.
fn run_job<B>(build: B) -> (Result<Outcome>, Option<String>, usize)
where
    B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
{
    let checkpoints = TempDir::new().unwrap();
    let metrics = Metrics::new("long-lines");
    let config = RunConfig::new("long-lines", checkpoints.path());
    let (ended, held) = peak(|| staunch_core::run(build, config, Controls::default(), metrics.clone()));
    let text = metrics.render().unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("staunch_dead_letter_records_total{"));
    let letters = lines.find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        series.contains("step=\"lines\"").then(|| value.to_owned())
    });
    (ended, letters, held)
}

fn run_under_every_policy<F: Framed>(shape: &Shape, source: impl Fn(PathBuf) -> Files<F>, good: &[F::Record])
where
    F::Record: Clone + PartialEq + Debug,
{
    let dir = TempDir::new().unwrap();
    let source = source(shape.write(dir.path(), LINE));
    let name = shape.name;
    let check_memory = |policy: &str, held: usize| {
        assert!(held < bound(DEFAULT_LIMIT), "{name}, {policy}: {held} bytes were held");
    };

    let (input, output) = (source.clone(), collect::<F::Record>());
    let (ended, _, held) = run_job(move |job: &Job<'_>| {
        job.source("lines", input.clone()).sink("output", output.clone());
        Ok(())
    });
    check_memory("fail", held);
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), Kind::Job, "{name}");
    let (error, place) = (error.to_string(), format!("{name} line {}", shape.number));
    assert!(error.contains(&place) && error.contains("max_line_bytes"), "{error}");
    assert!(error.len() < 1000, "{name}: the error shows {} bytes", error.len());

    let (input, output) = (source.clone(), collect::<F::Record>());
    let sink = output.clone();
    let (ended, letters, held) = run_job(move |job: &Job<'_>| {
        job.source("lines", input.clone().on_bad_input(BadInput::Skip)).sink("output", sink.clone());
        Ok(())
    });
    check_memory("skip", held);
    assert_eq!((ended.unwrap(), letters.as_deref()), (Outcome::Finished, Some("1")), "{name}");
    assert_eq!(output.committed(), good, "{name}");

    let (output, bad) = (collect::<F::Record>(), collect::<DeadLetter>());
    let sinks = (output.clone(), bad.clone());
    let (ended, letters, held) = run_job(move |job: &Job<'_>| {
        let (records, letters) = job.source_with_dead_letters("lines", source.clone());
        records.sink("output", sinks.0.clone());
        letters.sink("bad", sinks.1.clone());
        Ok(())
    });
    check_memory("dead letter", held);
    assert_eq!((ended.unwrap(), letters.as_deref()), (Outcome::Finished, Some("1")), "{name}");
    assert_eq!((output.committed().as_slice(), bad.committed().len()), (good, 1), "{name}");
    shape.check_letter(&bad.committed()[0], DEFAULT_LIMIT);
}

#[test]
fn a_job_fails_at_a_long_line_or_skips_it_or_sets_it_aside_as_its_policy_says_without_holding_it() {
    let _alone = alone();
    let text = ["before", "after"].map(str::to_owned);
    let flights = [flight("before", 1), flight("after", 3)];
    run_under_every_policy(&LINES, file::lines, &text);
    run_under_every_policy(&CSV, file::rows::<Flight>, &flights);
    run_under_every_policy(&JSON, file::json_rows::<Flight>, &flights);
}
