//! What the reader sees: numbers, and a line that says how far the job is.

use crate::life::Seen;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Prints a line.
macro_rules! say {
    ($($text:tt)*) => { println!($($text)*) };
}
pub(crate) use say;

/// How often the line changes on a terminal, and how often there is a new one elsewhere.
const ON_TERMINAL: Duration = Duration::from_millis(100);
const ELSEWHERE: Duration = Duration::from_millis(500);
const BAR: u64 = 24;

/// The progress of a run: one changing line on a terminal, a line each half second elsewhere.
pub(crate) struct Progress {
    flights: u64,
    terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    pub fn of(flights: u64) -> Self {
        Self { flights, terminal: std::io::stdout().is_terminal(), shown: None }
    }

    /// Shows it, if it is time again.
    pub fn show(&mut self, seen: &Seen) {
        let pause = if self.terminal { ON_TERMINAL } else { ELSEWHERE };
        if seen.read == 0 || self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = self.line(seen);
        if !self.terminal {
            say!("{line}");
            return;
        }
        print!("\r{line}\x1b[K");
        // A terminal that is gone shows nothing anyway.
        let _ = std::io::stdout().flush();
    }

    /// Shows it for the last time.
    pub fn last(&self, seen: &Seen) {
        let line = self.line(seen);
        if self.terminal { say!("\r{line}\x1b[K") } else { say!("{line}") }
    }

    fn line(&self, seen: &Seen) -> String {
        let done = (seen.read.min(self.flights) * BAR / self.flights.max(1)) as usize;
        let bar = format!("{}{}", "#".repeat(done), ".".repeat(BAR as usize - done));
        let (read, of) = (grouped(seen.read), grouped(self.flights));
        let (lines, checkpoint) = (grouped(seen.committed), seen.checkpoint);
        format!(
            "    [{bar}] {read:>6} of {of} flights read, {lines:>5} lines published, checkpoint {checkpoint}"
        )
    }
}

/// A number with commas: 27,004.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 file`, `2 files`.
pub(crate) fn plural(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(27004), "27,004");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
