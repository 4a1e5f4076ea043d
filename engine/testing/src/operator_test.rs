//! Tests of operators: the same input in every way in which an engine may hand it over, with the same
//! result each time.
//!
//! One call runs the operator item by item, in bulk, with a crash and a restore after every record, with
//! another number of workers after every record, with all state spilled, and in batches cut at random. The idea is that of
//! Hazelcast Jet's `TestSupport`.
//!
//! ```
//! use staunch::prelude::*;
//! use staunch_testing::OperatorTest;
//!
//! OperatorTest::new(|words: Stream<String>| words.key_by(|word| word.len() as u64).count("counts"))
//!     .input(["a", "to", "b"].map(String::from))
//!     .expect([(1, 1), (2, 1), (1, 2)])
//!     .unwrap();
//! ```

use crate::job_test::{Crash, Failed, JobTest, Script, script};
use staunch::core::context::SourceContext;
use staunch::core::source::{Progress, Records, Source, SplitReader};
use staunch::core::{Error, Job, Result, SourceExt, Stream, Timestamp};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

type Operator<I, O> = Arc<dyn for<'s> Fn(Stream<'s, I>) -> Stream<'s, O> + Send + Sync>;
type EventTime<I> = (Arc<dyn Fn(&I) -> Timestamp + Send + Sync>, Duration);

/// A test of an operator, or of several in a row. See the [module](self).
pub struct OperatorTest<I, O> {
    operator: Operator<I, O>,
    event_time: Option<EventTime<I>>,
    input: Vec<I>,
    real: BTreeSet<String>,
}

/// A way to hand records over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Each record in a batch of its own, with a checkpoint in between.
    ItemByItem,
    /// All records at once.
    InBulk,
    /// After every record the process dies, and its state comes from the checkpoint.
    RestoreAfterEach,
    /// After every record the job goes on with another number of workers.
    RescaleAfterEach,
    /// Memory for no state at all: it is spilled, and comes from the checkpoint after every record.
    Spilled,
    /// As [`Mode::Spilled`], all records at once and no crash.
    SpilledInBulk,
    /// Batches of three records on three workers, by another schedule for each number.
    Scheduled(u64),
}

/// Schedules that are tried.
const SCHEDULES: u64 = 8;

impl<I, O> OperatorTest<I, O>
where
    I: Clone + Send + Sync + 'static,
    O: Clone + PartialEq + Debug + Send + 'static,
{
    /// A test of what this makes of a stream.
    pub fn new(operator: impl for<'s> Fn(Stream<'s, I>) -> Stream<'s, O> + Send + Sync + 'static) -> Self {
        Self { operator: Arc::new(operator), event_time: None, input: Vec::new(), real: BTreeSet::new() }
    }

    /// Records have an event time, and come at most so late. No record may come later, since what is late
    /// depends on the moment.
    #[must_use]
    pub fn event_time(
        mut self,
        time: impl Fn(&I) -> Timestamp + Send + Sync + 'static,
        lateness: Duration,
    ) -> Self {
        self.event_time = Some((Arc::new(time), lateness));
        self
    }

    /// The records that go in.
    #[must_use]
    pub fn input(mut self, records: impl IntoIterator<Item = I>) -> Self {
        self.input.extend(records);
        self
    }

    /// A sink into which the operator itself writes stays as it is, in every mode. For those whose output no
    /// test wants, such as `staunch::discard::sink()` for late records.
    #[must_use]
    pub fn real_sink(mut self, sink: &str) -> Self {
        self.real.insert(sink.to_owned());
        self
    }

    /// Runs the operator in every mode. What comes out must be these records, in any order.
    ///
    /// # Errors
    /// The first mode in which something else comes out, and what.
    pub fn expect(&self, output: impl IntoIterator<Item = O>) -> Result<(), String> {
        let expected: Vec<O> = output.into_iter().collect();
        let modes = [
            Mode::InBulk,
            Mode::ItemByItem,
            Mode::RestoreAfterEach,
            Mode::RescaleAfterEach,
            Mode::Spilled,
            Mode::SpilledInBulk,
        ];
        let scheduled = (0..SCHEDULES).map(Mode::Scheduled);
        for mode in modes.into_iter().chain(scheduled) {
            let came = self.run(mode).map_err(|error| format!("{mode:?}: {error}"))?;
            compare(&expected, came).map_err(|difference| format!("{mode:?}: {difference}"))?;
        }
        Ok(())
    }

    /// What comes out in one mode.
    ///
    /// # Errors
    /// The job fails.
    pub fn run(&self, mode: Mode) -> Result<Vec<O>, Failed> {
        let script = self.input.iter().cloned().enumerate().fold(script(), |script, (at, record)| {
            let script = script.records([record]);
            match mode {
                Mode::ItemByItem => script.barrier(),
                Mode::RestoreAfterEach | Mode::Spilled => script.barrier().crash(Crash::Now),
                Mode::RescaleAfterEach => script.workers((at + 1) % 3 + 1),
                Mode::InBulk | Mode::SpilledInBulk | Mode::Scheduled(_) => script,
            }
        });
        let script: Script<I> = match mode {
            Mode::InBulk | Mode::SpilledInBulk | Mode::Scheduled(_) => Script::all_at_once(script),
            _ => script,
        };
        let (operator, event_time) = (Arc::clone(&self.operator), self.event_time.clone());
        let program = move |job: &Job<'_>, (): &()| {
            let stream = match &event_time {
                Some((time, lateness)) => {
                    let time = Arc::clone(time);
                    job.source(
                        "input",
                        Nothing(PhantomData).event_time(move |record| time(record), *lateness),
                    )
                }
                None => job.source("input", Nothing(PhantomData)),
            };
            operator(stream).sink("output", staunch::discard::sink());
            Ok(())
        };
        let mut test = JobTest::new(program, ()).feed("input", script);
        if let Mode::Scheduled(seed) = mode {
            test = test.workers(3).batches_of(3).seed(seed);
        }
        if matches!(mode, Mode::Spilled | Mode::SpilledInBulk) {
            test = test.state_bytes(0);
        }
        test = self.real.iter().fold(test, |test, sink| test.real_sink(sink));
        let output = test.collect("output");
        test.run_to_end()?;
        Ok(output.committed())
    }
}

fn compare<O: PartialEq + Debug>(expected: &[O], mut came: Vec<O>) -> Result<(), String> {
    let mut missing = Vec::new();
    for record in expected {
        match came.iter().position(|other| other == record) {
            Some(at) => drop(came.swap_remove(at)),
            None => missing.push(record),
        }
    }
    if missing.is_empty() && came.is_empty() {
        return Ok(());
    }
    Err(format!("missing {missing:?}, unexpected {came:?}"))
}

/// The place of a source that is always fed.
struct Nothing<T>(PhantomData<fn() -> T>);

struct NothingReader<T>(PhantomData<fn() -> T>);

impl<T: Send + 'static> Source for Nothing<T> {
    type Record = T;
    type Split = ();
    type Position = ();
    type Reader = NothingReader<T>;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, ())>> {
        Ok(Vec::new())
    }

    async fn open(&self, (): (), _: Option<()>, _: &SourceContext) -> Result<NothingReader<T>> {
        Err(Error::internal("the input of a test was not fed"))
    }
}

impl<T: Send + 'static> SplitReader for NothingReader<T> {
    type Record = T;
    type Position = ();

    fn poll(&mut self, _: &mut Context<'_>, _: &mut Records<T>) -> Result<Progress> {
        Ok(Progress::End)
    }

    fn position(&self) {}
}
