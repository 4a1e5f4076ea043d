//! A source whose records are made from their index: for benchmarks and tests.
//!
//! Record `i` of split `s` is a pure function of `(s, i)`, so a restart makes the same records again.

use staunch_core::context::SourceContext;
use staunch_core::source::{Progress, Records, Source, SplitReader};
use staunch_core::{Error, Result};
use std::fmt;
use std::sync::Arc;
use std::task::Context;

/// A source of `splits` splits, each with `count` records (`None`: it never ends), made by
/// `make(split, index)`.
pub fn sequence<T, F>(count: Option<u64>, splits: u32, make: F) -> Sequence<F>
where
    T: Send + 'static,
    F: Fn(u32, u64) -> T + Send + Sync + 'static,
{
    Sequence { count, splits, make: Arc::new(make) }
}

/// A deterministic source; made by [`sequence`].
pub struct Sequence<F> {
    count: Option<u64>,
    splits: u32,
    make: Arc<F>,
}

impl<F> Clone for Sequence<F> {
    fn clone(&self) -> Self {
        Self { count: self.count, splits: self.splits, make: Arc::clone(&self.make) }
    }
}

impl<F> fmt::Debug for Sequence<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence").field("count", &self.count).field("splits", &self.splits).finish()
    }
}

impl<T, F> Source for Sequence<F>
where
    T: Send + 'static,
    F: Fn(u32, u64) -> T + Send + Sync + 'static,
{
    type Record = T;
    type Split = u32;
    type Position = u64;
    type Reader = SequenceReader<F>;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, u32)>> {
        Ok((0..self.splits).map(|split| (split.to_string(), split)).collect())
    }

    async fn open(&self, split: u32, at: Option<u64>, _: &SourceContext) -> Result<Self::Reader> {
        let (next, end) = (at.unwrap_or(0), self.count.unwrap_or(u64::MAX));
        if split >= self.splits || next > end {
            return Err(Error::job(format!(
                "the checkpoint stands at record {next} of split {split}, but the generator now makes {} splits of \
                 {end} records; do not make it smaller, or start without the checkpoint",
                self.splits
            )));
        }
        Ok(SequenceReader { split, next, end, make: Arc::clone(&self.make) })
    }
}

/// Makes the records of one split.
pub struct SequenceReader<F> {
    split: u32,
    next: u64,
    end: u64,
    make: Arc<F>,
}

impl<F> fmt::Debug for SequenceReader<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SequenceReader").field("split", &self.split).field("next", &self.next).finish()
    }
}

impl<T, F> SplitReader for SequenceReader<F>
where
    T: Send + 'static,
    F: Fn(u32, u64) -> T + Send + Sync + 'static,
{
    type Record = T;
    type Position = u64;

    fn poll(&mut self, _cx: &mut Context<'_>, out: &mut Records<T>) -> Result<Progress> {
        let count = (self.end - self.next).min(out.room() as u64);
        let until = self.next + count;
        out.extend((self.next..until).map(|index| (self.make)(self.split, index)), record_bytes::<T>(count));
        self.next = until;
        Ok(if self.next == self.end { Progress::End } else { Progress::Ready })
    }

    fn position(&self) -> u64 {
        self.next
    }
}

fn record_bytes<T>(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(size_of::<T>().max(1))
}
