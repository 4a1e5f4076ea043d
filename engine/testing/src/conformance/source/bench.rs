//! One input with all that is known of it: what a rule works at.
//!
//! Promises that readers are opened as the engine does it: by a new source value, from a split that was
//! listed once, on threads for I/O; and that polls are made outside of them, as by a worker.

use super::Input;
use super::reading::Reading;
use crate::conformance::watch::runtime;
use crate::conformance::{Stop, Verdict, Watch, must};
use staunch::core::context::SourceContext;
use staunch::core::sink::CommitError;
use staunch::core::source::{Source, SplitReader};
use std::collections::BTreeSet;
use std::fmt::Debug;
use tokio::runtime::Runtime;

pub(super) type SplitOf<I> = <<I as Input>::Source as Source>::Split;
pub(super) type PositionOf<I> = <<I as Input>::Source as Source>::Position;
pub(super) type ReaderOf<I> = <<I as Input>::Source as Source>::Reader;

/// Boundaries of one reading at which others are opened; more are thinned out.
const MOST_BOUNDARIES: usize = 40;
/// How many records are wanted of a poll: one, few, an odd number, everything.
pub(super) const LIMITS: [usize; 4] = [1, 2, 7, 4096];

/// What must be in a split.
pub(super) struct Known<I: Input> {
    pub id: String,
    pub split: SplitOf<I>,
    pub records: Vec<I::Record>,
}

impl<I: Input> Known<I> {
    /// What must follow the first `read` records. A reader that handed out more than there is breaks the
    /// rule.
    pub fn after(&self, read: usize) -> Result<&[I::Record], Stop> {
        let all = format!("the {} records of split `{}` and no more", self.records.len(), self.id);
        self.records.get(read..).ok_or_else(|| Stop::broken(all, format!("{read} records")))
    }
}

/// Where a reader stood, and what it had handed out until then.
pub(super) struct Boundary<P> {
    pub position: P,
    pub records: usize,
    pub bad: usize,
}

/// Where the source is: in a job of its own.
fn here() -> SourceContext {
    SourceContext::alone("conformance")
}

pub(super) struct Bench<I: Input> {
    pub input: I,
    pub watch: Watch,
    /// The splits as first listed: a restarted job opens what is in its checkpoint.
    pub splits: Vec<Known<I>>,
    runtime: Runtime,
}

impl<I: Input> Bench<I> {
    pub fn new(input: I, watch: &Watch) -> Result<Self, Stop> {
        let (runtime, watch) = (runtime()?, watch.clone());
        let expected = input.expected();
        let longest = expected.iter().map(|(_, records)| records.len()).max().unwrap_or(0);
        must(
            longest >= super::FEWEST_RECORDS,
            format!("an input of which a split has {} records, or nothing is shown", super::FEWEST_RECORDS),
            format_args!("the longest has {longest}"),
        )?;
        let mut bench = Self { input, watch, splits: Vec::new(), runtime };
        let mut listed = bench.list()?;
        for (id, records) in expected {
            let at = listed.iter().position(|(known, _)| *known == id);
            let ids = || format!("{:?}", listed.iter().map(|(id, _)| id).collect::<Vec<_>>());
            let at = at.ok_or_else(|| Stop::broken(format!("a split `{id}`"), ids()))?;
            let (id, split) = listed.remove(at);
            bench.splits.push(Known { id, split, records });
        }
        let unknown: Vec<&String> = listed.iter().map(|(id, _)| id).collect();
        must(unknown.is_empty(), "no other splits than those expected", format_args!("{unknown:?}"))?;
        Ok(bench)
    }

    /// Lists the splits with a new source. Identities are unique.
    pub fn list(&self) -> Result<Vec<(String, SplitOf<I>)>, Stop> {
        let source = self.input.source();
        let listed = self
            .watch
            .ask("Source::splits", self.input.patience(), || self.runtime.block_on(source.splits(&here())));
        let listed = listed.map_err(|e| Stop::failed("Source::splits", &e))?;
        let unique: BTreeSet<&String> = listed.iter().map(|(id, _)| id).collect();
        let ids = || format!("{:?}", listed.iter().map(|(id, _)| id).collect::<Vec<_>>());
        must(unique.len() == listed.len(), "splits with unique identities", ids())?;
        Ok(listed)
    }

    /// Opens a split with a new source; the outer error is none of the rule's.
    pub fn try_open(
        &self,
        split: &SplitOf<I>,
        at: Option<&PositionOf<I>>,
    ) -> staunch::core::Result<Reading<I>> {
        let source = self.input.source();
        let reader = self.watch.ask("Source::open", self.input.patience(), || {
            self.runtime.block_on(source.open(split.clone(), at.cloned(), &here()))
        })?;
        Ok(Reading::new(reader, self.watch.clone(), self.input.patience()))
    }

    /// Acknowledges a position of a split by a new source value, as a restarted engine does.
    pub fn acknowledge(&self, id: &str, at: &PositionOf<I>) -> Verdict {
        let source = self.input.source();
        let told = self.watch.ask("Source::acknowledger", self.input.patience(), || {
            self.runtime.block_on(async {
                let opened = source.acknowledger(&here()).await.map_err(CommitError::Retry)?;
                let Some(mut acknowledger) = opened else { return Ok(false) };
                acknowledger.acknowledge(&[(id.to_owned(), at.clone())]).await.map(|()| true)
            })
        });
        match told {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stop::Skipped("the source acknowledges nothing to an outside system".into())),
            Err(CommitError::Retry(e) | CommitError::Refused(e)) => {
                Err(Stop::failed(format!("acknowledging split `{id}` up to {at:?}"), &e))
            }
        }
    }

    /// Opens a split where the rule needs that to succeed.
    pub fn open(&self, split: &SplitOf<I>, at: Option<&PositionOf<I>>) -> Result<Reading<I>, Stop> {
        self.try_open(split, at).map_err(|e| {
            let place = at.map_or_else(|| "its beginning".to_owned(), |at| format!("{at:?}"));
            Stop::failed(format!("opening split {split:?} at {place}"), &e)
        })
    }

    /// Opens a split and compares all that follows with what must.
    pub fn rest_is(
        &self,
        what: impl Fn() -> String,
        split: &SplitOf<I>,
        at: Option<&PositionOf<I>>,
        limit: usize,
        expected: &[I::Record],
    ) -> Verdict {
        let mut reading = self.open(split, at)?;
        reading.read_on(limit, expected.len(), 0)?;
        must(reading.bad.is_empty(), "no bad input in an input without any", format!("{:?}", reading.bad))?;
        same(what, expected, &reading.records)
    }

    /// Reads a split from its beginning and notes where the reader stood before the first poll and after
    /// each, thinned out to a bounded number that has the first and the last.
    pub fn boundaries(
        &self,
        known: &Known<I>,
        limit: usize,
        bad: usize,
    ) -> Result<(Reading<I>, Vec<Boundary<PositionOf<I>>>), Stop> {
        let mut reading = self.open(&known.split, None)?;
        let mut all = vec![Boundary { position: reading.position(), records: 0, bad: 0 }];
        reading.read_noting(limit, known.records.len(), bad, |reader, records, bad| {
            all.push(Boundary { position: reader.position(), records, bad });
        })?;
        let step = all.len().div_ceil(MOST_BOUNDARIES).max(1);
        let last = all.len() - 1;
        let kept = all.into_iter().enumerate().filter(|(at, _)| at % step == 0 || *at == last);
        Ok((reading, kept.map(|(_, boundary)| boundary).collect()))
    }
}

/// Breaks the rule unless the same records came in the same order.
pub(super) fn same<R: PartialEq + Debug>(what: impl Fn() -> String, expected: &[R], seen: &[R]) -> Verdict {
    if expected == seen {
        return Ok(());
    }
    let at = expected.iter().zip(seen).take_while(|(a, b)| a == b).count();
    let show = |records: &[R]| match records.get(at) {
        Some(record) => format!("{} records, number {} being {record:?}", records.len(), at + 1),
        None => format!("{} records", records.len()),
    };
    Err(Stop::broken(format!("{}: {}", what(), show(expected)), show(seen)))
}
