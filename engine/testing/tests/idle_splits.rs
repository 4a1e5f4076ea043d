//! Idle splits and the watermark, in a simulated process: time passes only when the test says so.
#![allow(clippy::unwrap_used, clippy::panic)]

use staunch::core::context::SourceContext;
use staunch::core::simulation::{Actor, Process, Setup, Started};
use staunch::core::source::{Progress, Records, Source, SplitReader};
use staunch::core::{InMemoryStorage, Metrics};
use staunch::discard;
use staunch::prelude::*;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::Context;

const IDLE: Duration = Duration::from_millis(100);

/// Splits of event times that the test pushes; `None` is the end.
#[derive(Clone)]
struct Pushed(Arc<Vec<Mutex<VecDeque<Option<i64>>>>>);

struct PushedReader {
    of: Pushed,
    split: usize,
    read: u64,
}

impl Source for Pushed {
    type Record = i64;
    type Split = usize;
    type Position = u64;
    type Reader = PushedReader;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, usize)>> {
        Ok((0..self.0.len()).map(|split| (split.to_string(), split)).collect())
    }

    async fn open(&self, split: usize, at: Option<u64>, _: &SourceContext) -> Result<PushedReader> {
        Ok(PushedReader { of: self.clone(), split, read: at.unwrap_or(0) })
    }
}

impl SplitReader for PushedReader {
    type Record = i64;
    type Position = u64;

    fn poll(&mut self, _: &mut Context<'_>, out: &mut Records<i64>) -> Result<Progress> {
        let mut split = self.of.0[self.split].lock().unwrap();
        match split.front().copied() {
            // The simulation asks again.
            None => Ok(Progress::Idle),
            Some(None) => Ok(Progress::End),
            Some(Some(time)) => {
                split.pop_front();
                self.read += 1;
                out.push(time, 8);
                Ok(Progress::Ready)
            }
        }
    }

    fn position(&self) -> u64 {
        self.read
    }
}

struct Running {
    process: Box<Process>,
    source: Pushed,
    metrics: Metrics,
}

impl Running {
    /// Windows over a source of so many splits.
    fn start(splits: usize, workers: usize) -> Self {
        let source = Pushed(Arc::new((0..splits).map(|_| Mutex::default()).collect()));
        let (metrics, of) = (Metrics::new("idle"), source.clone());
        let config = RunConfig { workers, checkpoint_every: None, ..RunConfig::new("idle", "simulated") };
        let state_dir = std::env::temp_dir().join(format!("staunch-idle-splits-{}", std::process::id()));
        let setup = Setup {
            config: RunConfig { state_dir: Some(state_dir), ..config },
            storage: Arc::new(InMemoryStorage::new()),
            lineage: "one".into(),
            controls: Controls::default(),
            metrics: metrics.clone(),
            time: Duration::ZERO,
            at_point: Arc::new(|_, _| Ok(())),
        };
        let build = move |job: &Job<'_>| {
            let times = of.clone().event_time(|time| Timestamp::from_millis(*time), Duration::ZERO);
            let keyed = job.source("times", times.idle_after(IDLE)).key_by(|time| *time);
            keyed
                .window(Tumbling::of(Duration::from_millis(10)))
                .count("counts")
                .sink("output", discard::sink());
            Ok(())
        };
        let Started::Running(process) = Process::start(build, setup).unwrap() else { panic!("it is new") };
        let mut running = Self { process, source, metrics };
        running.settle();
        running
    }

    fn push(&self, split: usize, time: i64) {
        self.source.0[split].lock().unwrap().push_back(Some(time));
    }

    fn end(&self, split: usize) {
        self.source.0[split].lock().unwrap().push_back(None);
    }

    /// Everybody moves until nothing changes any more; no time passes.
    fn settle(&mut self) {
        for _ in 0..60 {
            let workers = (0..self.process.workers()).map(Actor::Worker);
            for actor in workers.chain([Actor::Io, Actor::Coordinator, Actor::Clock]) {
                if let Some(ended) = self.process.act(actor) {
                    panic!("it ended: {ended:?}");
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.process.pass_time(time);
        self.settle();
    }

    /// What the first worker has applied, in milliseconds; all have the same.
    fn watermark(&self) -> i64 {
        let text = self.metrics.render().unwrap();
        let of_first =
            |line: &&str| line.starts_with("staunch_watermark_seconds") && line.contains("worker=\"0\"");
        let line = text.lines().find(of_first).unwrap_or_else(|| panic!("no watermark in {text}"));
        (line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() * 1e3).round() as i64
    }
}

#[test]
fn splits_that_fall_silent_together_leave_the_watermark_at_the_highest_that_any_had() {
    for workers in 1..=3 {
        let mut running = Running::start(3, workers);
        [100, 50, 60].iter().enumerate().for_each(|(split, time)| running.push(split, *time));
        running.settle();
        assert_eq!(running.watermark(), 49);
        running.pass(IDLE / 2);
        assert_eq!(running.watermark(), 49);
        running.pass(IDLE);
        assert_eq!(running.watermark(), 99, "{workers} workers");
    }
}

#[test]
fn the_watermark_is_the_same_in_whatever_order_splits_fall_idle() {
    for workers in 1..=3 {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut running = Running::start(3, workers);
            [100, 50, 60].iter().enumerate().for_each(|(split, time)| running.push(split, *time));
            running.settle();
            // Each speaks once more, a little after the one before, and falls silent then.
            for split in order {
                running.pass(IDLE / 4);
                running.push(split, [90, 50, 60][split]);
                running.settle();
            }
            running.pass(2 * IDLE);
            assert_eq!(running.watermark(), 99, "{workers} workers, {order:?}");
        }
    }
}

#[test]
fn an_idle_split_holds_nothing_back_and_one_that_speaks_again_does() {
    for workers in 1..=3 {
        let mut running = Running::start(3, workers);
        running.pass(IDLE * 7 / 10);
        running.push(0, 100);
        running.settle();
        running.pass(IDLE / 2);
        assert_eq!(running.watermark(), 99, "two of three are idle");
        running.pass(2 * IDLE);
        assert_eq!(running.watermark(), 99, "all are idle");
        running.push(1, 200);
        running.settle();
        assert_eq!(running.watermark(), 199);
        running.push(0, 300);
        running.settle();
        assert_eq!(running.watermark(), 199, "both speak, and the slower one counts");
        running.end(1);
        running.settle();
        assert_eq!(running.watermark(), 299);
    }
}

#[test]
fn a_split_that_ended_ahead_of_idle_ones_counts_when_they_fall_idle() {
    for workers in 1..=2 {
        let mut running = Running::start(2, workers);
        running.push(0, 100);
        running.push(1, 50);
        running.end(0);
        running.settle();
        assert_eq!(running.watermark(), 49);
        running.pass(2 * IDLE);
        assert_eq!(running.watermark(), 99, "{workers} workers");
    }
}
