//! Many splits: more than are open at a time, more than a manifest lists, and such that come and go.

use crate::harness::{eventually, place};
use crate::topic::Topic;
use staunch::core::context::SourceContext;
use staunch::core::source::{Progress, Records, Source, SplitReader};
use staunch::generator;
use staunch::memory::{collect, collection};
use staunch::prelude::*;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::task::Context;

/// More than an instance has open at a time.
const MANY: u32 = 100;

#[test]
fn a_hundred_endless_splits_on_one_worker_are_all_read_and_so_are_those_of_two_on_one() {
    let (topic, output) = (Topic::<u64>::new(MANY), collect::<u64>());
    let mut place = place();
    let mut expected = 0;
    for workers in [1, 2, 1] {
        place.config.workers = workers;
        let (source, sink) = (topic.clone(), output.clone());
        let running = place.start(move |job| {
            job.source("numbers", source.clone()).sink("output", sink.clone());
            Ok(())
        });
        for _ in 0..2 {
            (0..MANY).for_each(|split| topic.push(split, [u64::from(split)]));
            expected += MANY as usize;
            eventually("all splits are read", || output.committed().len() == expected);
        }
        assert_eq!(running.stop(), Outcome::Stopped);
    }
    let mut found = output.committed();
    found.sort_unstable();
    let each = |split: u32| std::iter::repeat_n(u64::from(split), expected / MANY as usize);
    assert_eq!(found, (0..MANY).flat_map(each).collect::<Vec<_>>());
}

#[test]
fn a_hundred_splits_that_always_have_something_take_turns() {
    let (place, output) = (place().every_ms(50), collect::<u32>());
    let sink = output.clone();
    let running = place.start(move |job| {
        let numbers = generator::sequence(None, MANY, |split, _| split).limit_rate(Some(2_000));
        job.source("numbers", numbers).sink("output", sink.clone());
        Ok(())
    });
    let seen = || output.committed().into_iter().collect::<BTreeSet<_>>().len();
    eventually("all splits are read", || seen() == MANY as usize);
    assert_eq!(running.stop(), Outcome::Stopped);
}

/// A split that was never open holds the watermark back, and one that waits for its next turn and is idle does not.
#[test]
fn the_watermark_of_a_hundred_splits_waits_for_each_to_be_read_once() {
    let (place, topic) = (place(), Topic::<i64>::new(MANY));
    (0..MANY).for_each(|split| topic.push(split, [1_000 + i64::from(split)]));
    let source = topic.clone();
    let running = place.start(move |job| {
        let times = source.clone().event_time(|time| Timestamp::from_millis(*time), Duration::ZERO);
        let keyed = job.source("times", times.idle_after(Duration::from_millis(400))).key_by(|time| *time);
        let windows = keyed.window(Tumbling::of(Duration::from_millis(10)));
        windows.count("counts").sink("output", staunch::discard::sink());
        Ok(())
    });
    let watermark = || (running.metric("staunch_watermark_seconds", "") * 1e3).round() as i64;
    eventually("the watermark of the furthest", || watermark() == 998 + i64::from(MANY));
    assert_eq!(running.metric("staunch_late_records_total", ""), 0.0);
    assert_eq!(running.stop(), Outcome::Stopped);
}

#[test]
fn the_records_of_the_log_stay_short_with_20_000_splits_that_have_ended_and_a_restart_knows_them_all() {
    const SPLITS: u32 = 20_000;
    let (place, output) = (place().every_ms(20), collect::<u32>());
    let mut longest = 0;
    for end in [false, true] {
        let sink = output.clone();
        let running = place.start(move |job| {
            let numbers = collection((0..SPLITS).collect::<Vec<u32>>()).splits(SPLITS);
            // The first run must not be through before it is stopped.
            let numbers = numbers.limit_rate((!end).then_some(4_000));
            job.source("numbers", numbers).sink("output", sink.clone());
            Ok(())
        });
        if end {
            assert_eq!(running.wait().unwrap(), Outcome::Finished);
        } else {
            eventually("some are read", || output.committed().len() > 3_000);
            assert_eq!(running.stop(), Outcome::Stopped);
        }
        let log = place.config.checkpoints.join("log");
        let lengths = log.read_dir().unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        longest = lengths.max().unwrap().max(longest);
    }
    assert!(longest < 100_000, "a record of {longest} bytes");
    let mut found = output.committed();
    found.sort_unstable();
    assert!(found.iter().copied().eq(0..SPLITS), "{} records", found.len());
    let splits = place.splits("numbers");
    assert!(splits.len() == SPLITS as usize && splits.iter().all(|split| split.finished));
    place.assert_tidy();
}

/// Splits of one record that somebody lists and unlists; what is not listed any more never comes again.
#[derive(Clone, Default)]
struct Passing(Arc<Mutex<BTreeSet<u32>>>);

struct One(u32, bool);

impl Source for Passing {
    type Record = u32;
    type Split = u32;
    type Position = bool;
    type Reader = One;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, u32)>> {
        Ok(self.0.lock().unwrap().iter().map(|split| (format!("{split:05}"), *split)).collect())
    }

    async fn open(&self, split: u32, at: Option<bool>, _: &SourceContext) -> Result<One> {
        Ok(One(split, at.unwrap_or(false)))
    }

    fn discover_every(&self) -> Option<Duration> {
        Some(Duration::from_millis(5))
    }

    fn forgets(&self) -> bool {
        true
    }
}

impl SplitReader for One {
    type Record = u32;
    type Position = bool;

    fn poll(&mut self, _: &mut Context<'_>, out: &mut Records<u32>) -> Result<Progress> {
        if !std::mem::replace(&mut self.1, true) {
            out.push(self.0, 4);
        }
        Ok(Progress::End)
    }

    fn position(&self) -> bool {
        self.1
    }
}

#[test]
fn splits_that_come_and_go_leave_nothing_behind_and_may_come_again() {
    let (mut place, source, output) = (place(), Passing::default(), collect::<u32>());
    let mut expected = Vec::new();
    for workers in [1, 3] {
        place.config.workers = workers;
        let (of, sink) = (source.clone(), output.clone());
        let running = place.start(move |job| {
            job.source("numbers", of.clone()).sink("output", sink.clone());
            Ok(())
        });
        for round in 0..3 {
            let these = round * 400..round * 400 + 500;
            expected.extend(these.clone());
            *source.0.lock().unwrap() = these.collect();
            eventually("they are read", || output.committed().len() == expected.len());
            source.0.lock().unwrap().clear();
            eventually("they are forgotten", || place.splits("numbers").is_empty());
        }
        assert_eq!(running.stop(), Outcome::Stopped);
        let part = place.manifests().pop().unwrap().sources["numbers"].clone();
        assert!(part.is_empty() && part.forgotten.is_empty(), "{part:?}");
    }
    let mut found = output.committed();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    place.assert_tidy();
}
