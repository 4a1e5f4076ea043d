//! One generation of a job as two processes, each with its own of everything, over links that carry bytes. They are in one
//! process of the system, and only records pass as between workers.
#![allow(clippy::unwrap_used, clippy::panic)]

use staunch::core::context::SourceContext;
use staunch::core::error::Kind;
use staunch::core::simulation::several::{Cutter, Setup, run};
use staunch::core::source::{Progress, Records, Source, SplitReader};
use staunch::core::{InMemoryStorage, Metrics};
use staunch::memory::{Collected, collect};
use staunch::prelude::*;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Instant;

/// A job that is not back after this long hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// Workers of each process.
const WORKERS: usize = 2;

#[derive(Default)]
struct Queue {
    records: VecDeque<u64>,
    /// How many were ever taken out.
    read: u64,
    ended: bool,
    waker: Option<Waker>,
}

/// Splits that the test fills. Split n is read by worker n.
#[derive(Clone)]
struct Queues(Arc<Vec<Mutex<Queue>>>);

impl Queues {
    fn new(splits: usize) -> Self {
        Self(Arc::new((0..splits).map(|_| Mutex::default()).collect()))
    }

    fn change(&self, split: usize, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.0[split].lock().unwrap();
        change(&mut queue);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    fn push(&self, split: usize, records: impl IntoIterator<Item = u64>) {
        self.change(split, |queue| queue.records.extend(records));
    }

    fn end_all(&self) {
        (0..self.0.len()).for_each(|split| self.change(split, |queue| queue.ended = true));
    }
}

struct Reader {
    of: Queues,
    split: usize,
    at: u64,
}

impl Source for Queues {
    type Record = u64;
    type Split = usize;
    type Position = u64;
    type Reader = Reader;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, usize)>> {
        Ok((0..self.0.len()).map(|split| (split.to_string(), split)).collect())
    }

    async fn open(&self, split: usize, at: Option<u64>, context: &SourceContext) -> Result<Reader> {
        assert_eq!((context.instance as usize, context.instances), (split, 2 * WORKERS as u32));
        Ok(Reader { of: self.clone(), split, at: at.unwrap_or(0) })
    }
}

impl SplitReader for Reader {
    type Record = u64;
    type Position = u64;

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<u64>) -> Result<Progress> {
        let mut queue = self.of.0[self.split].lock().unwrap();
        assert_eq!(queue.read, self.at, "this queue cannot be read again");
        let mut progress = Progress::Idle;
        while out.room() > 0
            && let Some(record) = queue.records.pop_front()
        {
            queue.read += 1;
            self.at += 1;
            out.push(record, 8);
            progress = Progress::Ready;
        }
        if queue.records.is_empty() && queue.ended {
            return Ok(Progress::End);
        }
        queue.waker = Some(cx.waker().clone());
        Ok(progress)
    }

    fn position(&self) -> u64 {
        self.at
    }
}

type Counts = Collected<(u64, u64)>;

/// Two processes that count numbers by their last digit.
struct Running {
    source: Queues,
    counts: Counts,
    controls: Controls,
    cutter: Cutter,
    storage: Arc<InMemoryStorage>,
    ended: Receiver<Result<Vec<Result<Outcome>>>>,
}

impl Running {
    fn start(name: &str, splits: usize) -> Self {
        Self::start_on(name, Queues::new(splits), collect(), Arc::default(), |_| {})
    }

    /// With a link on which the first messages to the other process are so long on their way.
    fn start_late(name: &str, splits: usize, late: Duration) -> Self {
        Self::start_with(name, Queues::new(splits), collect(), Arc::default(), |_| {}, late)
    }

    fn start_on(
        name: &str,
        source: Queues,
        counts: Counts,
        storage: Arc<InMemoryStorage>,
        look: impl Fn(u64) + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(name, source, counts, storage, look, Duration::ZERO)
    }

    fn start_with(
        name: &str,
        source: Queues,
        counts: Counts,
        storage: Arc<InMemoryStorage>,
        look: impl Fn(u64) + Clone + Send + Sync + 'static,
        late: Duration,
    ) -> Self {
        let (of, output) = (source.clone(), counts.clone());
        let build = move |job: &Job<'_>| {
            let look = look.clone();
            let numbers = job.source("numbers", of.clone()).inspect(move |n| look(*n));
            numbers.key_by(|n| n % 10).count("counts").sink("output", output.clone());
            Ok(())
        };
        let state_dir = std::env::temp_dir().join(format!("staunch-several-{name}-{}", std::process::id()));
        let config = RunConfig {
            workers: WORKERS,
            checkpoint_every: Some(Duration::from_millis(20)),
            state_dir: Some(state_dir),
            ..RunConfig::new(name, "in-memory")
        };
        let setup = Setup {
            config,
            storage: storage.clone(),
            controls: Controls::default(),
            metrics: (0..2).map(|_| Metrics::new(name)).collect(),
            cutter: Cutter::default(),
            late,
        };
        let (controls, cutter) = (setup.controls.clone(), setup.cutter.clone());
        let (sender, ended) = channel();
        std::thread::spawn(move || sender.send(run(build, &setup)));
        Self { source, counts, controls, cutter, storage, ended }
    }

    /// Waits until so many records are published.
    fn published(&self, records: usize) {
        let began = Instant::now();
        while self.counts.committed().len() < records {
            assert!(began.elapsed() < LIMIT, "{} of {records}", self.counts.committed().len());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How both processes ended.
    fn end(&self) -> [Result<Outcome>; 2] {
        let ended = self.ended.recv_timeout(LIMIT).expect("it hangs").unwrap();
        ended.try_into().unwrap()
    }

    fn ends_well(&self, expected: Outcome) {
        assert_eq!(self.end().map(Result::unwrap), [expected; 2]);
    }

    fn fails(&self) -> [Error; 2] {
        self.end().map(Result::unwrap_err)
    }
}

/// For the numbers up to `n`, each counted once: every count of every digit.
fn expected(n: u64) -> Vec<(u64, u64)> {
    let mut counts: Vec<_> = (0..n).map(|n| (n % 10, n / 10 + 1)).collect();
    counts.sort_unstable();
    counts
}

fn sorted(counts: &Counts) -> Vec<(u64, u64)> {
    let mut counts = counts.committed();
    counts.sort_unstable();
    counts
}

#[test]
fn splits_go_to_both_processes_and_every_record_counts_once() {
    let running = Running::start("both", 4);
    for split in 0..4 {
        running.source.push(split, (0..4000).filter(|n| n % 4 == split as u64));
    }
    running.source.end_all();
    running.ends_well(Outcome::Finished);
    assert_eq!(sorted(&running.counts), expected(4000));
}

#[test]
fn a_process_whose_splits_come_late_does_not_say_that_its_input_has_ended() {
    let running = Running::start_late("late", 4, Duration::from_millis(200));
    for split in 0..4 {
        running.source.push(split, (0..400).filter(|n| n % 4 == split as u64));
    }
    running.source.end_all();
    running.ends_well(Outcome::Finished);
    assert_eq!(sorted(&running.counts), expected(400));
}

#[test]
fn a_process_without_input_holds_nobody_up_whichever_it_is() {
    for busy in 0..4 {
        let running = Running::start(&format!("idle-{busy}"), 4);
        // Checkpoints of all workers are decided again and again while only one of them reads.
        for round in 1..=5 {
            running.source.push(busy, (round - 1) * 100..round * 100);
            running.published(round as usize * 100);
        }
        running.source.end_all();
        running.ends_well(Outcome::Finished);
        assert_eq!(sorted(&running.counts), expected(500));
    }
}

#[test]
fn a_stop_reaches_both_processes_and_the_next_start_continues_with_all_they_read() {
    let running = Running::start("stop", 4);
    running.source.push(0, 0..50);
    running.source.push(3, 50..100);
    running.published(100);
    running.controls.stop();
    running.ends_well(Outcome::Stopped);
    let Running { source, counts, storage, .. } = running;
    let again = Running::start_on("stop", source, counts, storage, |_| {});
    again.source.push(2, 100..200);
    again.source.end_all();
    again.ends_well(Outcome::Finished);
    assert_eq!(sorted(&again.counts), expected(200));
}

#[test]
fn a_drain_reaches_both_processes() {
    let running = Running::start("drain", 4);
    running.source.push(1, 0..50);
    running.source.push(2, 50..100);
    running.published(100);
    running.controls.drain();
    running.ends_well(Outcome::Finished);
    assert_eq!(sorted(&running.counts), expected(100));
}

#[test]
fn a_link_that_closes_ends_both_processes_with_an_error_that_names_it() {
    let running = Running::start("cut", 4);
    running.source.push(0, 0..50);
    running.published(50);
    running.cutter.cut(1);
    let [coordinator, other] = running.fails();
    let text = coordinator.to_string();
    assert!(text.contains("process 1 of the job is gone: its link closed"), "{text}");
    let text = other.to_string();
    assert!(text.contains("the coordinator of the job is gone: the link to it closed"), "{text}");
    assert_eq!([coordinator.kind(), other.kind()], [Kind::External; 2]);
}

#[test]
fn a_failure_in_one_process_ends_both_with_its_error() {
    let source = Queues::new(4);
    let look = |n| assert_ne!(n, 13, "unlucky");
    let running = Running::start_on("fails", source, collect(), Arc::default(), look);
    // Read by a worker of the process that is not the coordinator's.
    running.source.push(3, 0..20);
    for error in running.fails() {
        assert!(error.to_string().contains("unlucky"), "{error}");
        assert_eq!(error.kind(), Kind::Job);
    }
}
