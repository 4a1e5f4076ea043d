//! Fuzzing on a stable compiler: mutations of valid bytes and pure noise, from a seed, with a limit of time,
//! and an allocator that notices a length field which was believed.
//!
//! Included by the fuzz tests of other crates, too. A failure prints the input. Two variables change a run:
//!
//! - `STAUNCH_FUZZ_SECONDS=600` gives each test 600 seconds in place of one, from another seed each time.
//! - `STAUNCH_FUZZ_RESULT=/path/FILE` has each test that passes add a row to a Markdown table in that file:
//!   `| crate | decoder | inputs | seconds | inputs a second |`. The path begins with `/`, because the tests of
//!   each crate run in that crate's folder. Who wants a head for the table writes it.
//!
//! `make proof` sets both: a minute for each test. To do it by hand, from the root:
//!
//! ```text
//! STAUNCH_FUZZ_SECONDS=60 STAUNCH_FUZZ_RESULT=$PWD/target/rows.md cargo test --release --workspace \
//!     --features staunch-testing/crash-points --no-fail-fast --test fuzz -- --show-output
//! ```

// Not every includer needs all of it.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

/// Iterations that each decoder gets at least, however slow the machine.
const LEAST: u64 = 2_000;
/// No decoder may ask for more at once, whatever a length field says; inputs are far smaller.
const MOST_BYTES: usize = 16 << 20;

/// Remembers the largest single allocation.
pub struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Pseudo-random numbers.
pub struct Dice(u64);

impl Dice {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        // Lengths and counts are often most interesting at their ends.
        match self.below(4) {
            0 => [0, 1, 0x7f, 0x80, 0xfe, 0xff][self.below(6)],
            _ => self.below(256) as u8,
        }
    }

    /// Noise, or one of `corpus` after one to four changes.
    pub fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        if self.below(10) == 0 {
            return (0..self.below(200)).map(|_| self.byte()).collect();
        }
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..1 + self.below(4) {
            let (at, other) = (self.below(bytes.len()), self.below(bytes.len()));
            match self.below(8) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.byte(),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.byte()),
                4 if !bytes.is_empty() => drop(bytes.drain(at.min(other)..at.max(other))),
                5 => bytes.extend_from_within(at.min(other)..at.max(other).min(at.min(other) + 64)),
                6 => {
                    // A length or an offset: four or eight bytes at once.
                    let width = [4, 8][self.below(2)];
                    for place in at..(at + width).min(bytes.len()) {
                        bytes[place] = self.byte();
                    }
                }
                _ => {
                    let from = &corpus[self.below(corpus.len())];
                    let cut = self.below(from.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&from[cut..]);
                }
            }
            bytes.truncate(1 << 20);
        }
        bytes
    }
}

/// Feeds mutations of `corpus` to `decode`, which checks what it can; says how many, and writes it down if that is
/// asked for.
pub fn fuzz(what: &str, corpus: &[Vec<u8>], mut decode: impl FnMut(&mut Dice, &[u8])) {
    let asked = std::env::var("STAUNCH_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let limit = Duration::from_secs(asked.unwrap_or(1));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut dice = Dice(if asked.is_some() { now << 1 | 1 } else { 0x9e37_79b9_7f4a_7c15 });
    let (began, mut count) = (Instant::now(), 0_u64);
    while count < LEAST || began.elapsed() < limit {
        let input = dice.input(corpus);
        LARGEST.store(0, Relaxed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| decode(&mut dice, &input))) {
            eprintln!("{what}, input {count}: {input:?}");
            resume_unwind(panic);
        }
        let largest = LARGEST.load(Relaxed);
        assert!(largest <= MOST_BYTES, "{what} asks for {largest} bytes at once, for {input:?}");
        count += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("MEASURED: fuzz {what}: {count} inputs in {seconds:.1} s");
    write_down(what, count, seconds);
}

/// Adds a row to the table in the file that `STAUNCH_FUZZ_RESULT` names.
fn write_down(what: &str, count: u64, seconds: f64) {
    let path = PathBuf::from(std::env::var_os("STAUNCH_FUZZ_RESULT").unwrap_or_default());
    if path.as_os_str().is_empty() {
        return;
    }
    let name = path.display();
    assert!(path.is_absolute(), "STAUNCH_FUZZ_RESULT is {name}: give a path that begins with /");
    let (tested, rate) = (env!("CARGO_PKG_NAME"), count as f64 / seconds);
    let row = format!("| {tested} | {what} | {count} | {seconds:.0} | {rate:.0} |\n");
    // Appended by one write, so that rows of tests that end at the same time stay whole.
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(row.as_bytes()));
    assert!(written.is_ok(), "a row cannot be added to {name}: {written:?}");
}
