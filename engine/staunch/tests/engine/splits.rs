//! Many splits, few workers, and the other way round.

use crate::harness::{eventually, metric, place};
use crate::topic::Topic;
use staunch::core::context::SourceContext;
use staunch::core::source::{Progress, Records, Source, SplitReader};
use staunch::memory::{Collected, collect, collection};
use staunch::prelude::*;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::Context;

#[test]
fn a_hundred_splits_are_read_by_three_workers_and_each_record_once() {
    let (place, output) = (place().workers(3), collect());
    let sink = output.clone();
    let running = place.start(move |job| {
        let source = collection((0..10_000).collect::<Vec<u64>>()).splits(100);
        job.source("numbers", source).sink("output", sink.clone());
        Ok(())
    });
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    let mut found = output.committed();
    found.sort();
    assert_eq!(found, (0..10_000).collect::<Vec<_>>());
    for worker in 0..3 {
        let label = format!("step=\"numbers\",worker=\"{worker}\"");
        let read = metric(&running.metrics, "staunch_records_in_total", &label);
        assert!((3300.0..3500.0).contains(&read), "worker {worker} read {read}");
    }
}

#[test]
fn workers_without_a_split_do_not_hold_the_job_up() {
    let time = |n: &u64| Timestamp::from_millis(*n as i64);
    for records in [0, 1, 5000] {
        let (place, output) = (place().workers(3), collect());
        let sink = output.clone();
        place.finish(move |job| {
            let source = collection((0..records).collect::<Vec<u64>>()).event_time(time, Duration::ZERO);
            let windows =
                job.source("numbers", source).key_by(|n| n % 2).window(Tumbling::of(Duration::from_secs(1)));
            windows.count("counts").map(|result| result.value).sink("output", sink.clone());
            Ok(())
        });
        assert_eq!(output.committed().iter().sum::<u64>(), records);
        place.assert_tidy();
    }
}

#[test]
fn a_source_without_any_split_ends_at_once_unless_it_looks_for_new_ones() {
    let (place, output) = (place().workers(2), collect::<u64>());
    let (topic, sink) = (Topic::<u64>::new(0), output.clone());
    let source = topic.clone();
    place.finish(move |job| {
        job.source("numbers", source.clone()).sink("output", sink.clone());
        Ok(())
    });
    assert!(output.committed().is_empty());
}

/// As many splits as are open at a time, on each worker.
const OPEN_AT_A_TIME: u32 = 8;

/// A source without a record, whose open splits all end in the same turn: nothing is left then that could wake it.
#[derive(Clone)]
struct Empty {
    splits: u32,
    ends: Arc<Mutex<Ends>>,
}

/// Which readers of [`Empty`] may end.
struct Ends {
    /// Open readers that were asked, and wait for the others.
    asked: u32,
    /// Splits that were not told to end.
    left: u32,
    /// Counts up when readers are told to end: those that were asked before.
    round: u32,
}

struct EmptyReader {
    source: Empty,
    /// The round in which it was first asked.
    asked: Option<u32>,
    ended: bool,
}

/// On a slow machine a reader may have had nothing for so long, before the others are open, that it gives its place up.
impl Drop for EmptyReader {
    fn drop(&mut self) {
        let mut ends = self.source.ends.lock().unwrap();
        match self.asked {
            Some(round) if round == ends.round => ends.asked -= 1,
            Some(_) if !self.ended => ends.left += 1,
            _ => {}
        }
    }
}

impl Source for Empty {
    type Record = u64;
    type Split = u32;
    type Position = u32;
    type Reader = EmptyReader;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, u32)>> {
        Ok((0..self.splits).map(|split| (format!("{split:04}"), split)).collect())
    }

    async fn open(&self, _split: u32, _at: Option<u32>, _: &SourceContext) -> Result<EmptyReader> {
        Ok(EmptyReader { source: self.clone(), asked: None, ended: false })
    }

    fn open_at_once(&self) -> usize {
        OPEN_AT_A_TIME as usize
    }
}

impl SplitReader for EmptyReader {
    type Record = u64;
    type Position = u32;

    fn poll(&mut self, _cx: &mut Context<'_>, _out: &mut Records<u64>) -> Result<Progress> {
        let mut ends = self.source.ends.lock().unwrap();
        match self.asked {
            Some(round) if round < ends.round => {
                self.ended = true;
                return Ok(Progress::End);
            }
            Some(_) => {}
            None => {
                self.asked = Some(ends.round);
                ends.asked += 1;
            }
        }
        if ends.asked == ends.left.min(OPEN_AT_A_TIME) {
            // All are asked once more in the same turn, and all say that they are at their end.
            *ends = Ends { asked: 0, left: ends.left - ends.asked, round: ends.round + 1 };
            return Ok(Progress::Ready);
        }
        // The next one to be opened wakes the source.
        Ok(Progress::Idle)
    }

    fn position(&self) -> u32 {
        0
    }
}

#[test]
fn empty_splits_that_end_together_make_room_for_those_that_wait() {
    const SPLITS: u32 = 128 * OPEN_AT_A_TIME;
    let (mut place, output) = (place().only_the_last_checkpoint(), collect::<u64>());
    // The clock would wake the source too, once in a step, and that would take two minutes.
    place.config.step = Duration::from_secs(1);
    let source =
        Empty { splits: SPLITS, ends: Arc::new(Mutex::new(Ends { asked: 0, left: SPLITS, round: 0 })) };
    let sink = output.clone();
    place.finish(move |job| {
        job.source("nothing", source.clone()).sink("output", sink.clone());
        Ok(())
    });
    let splits = place.splits("nothing");
    assert!(splits.len() == SPLITS as usize && splits.iter().all(|split| split.finished));
    assert!(output.committed().is_empty());
}

#[test]
fn a_new_split_is_found_read_and_remembered_over_a_stop_on_another_number_of_workers() {
    let topic = Topic::<u64>::new(4).discovering(Duration::from_millis(20), [0]);
    let (mut place, output) = (place(), collect());
    (0..4).for_each(|split| topic.push(split, [u64::from(split) * 10]));
    let build = |topic: &Topic<u64>, output: &staunch::memory::Collected<u64>| {
        let (source, sink) = (topic.clone(), output.clone());
        move |job: &Job<'_>| {
            job.source("numbers", source.clone()).sink("output", sink.clone());
            Ok(())
        }
    };
    let mut expected = vec![0];
    for (new, workers) in [(1, 3), (2, 1), (3, 2)] {
        place.config.workers = workers;
        let running = place.start(build(&topic, &output));
        eventually("what was known is read", || output.committed() == expected);
        topic.list(new);
        expected.push(u64::from(new) * 10);
        eventually("the new split is read", || output.committed() == expected);
        // One record more in each that is known.
        (0..=new).for_each(|split| topic.push(split, [u64::from(split)]));
        expected.extend((0..=new).map(u64::from));
        let sorted = |mut records: Vec<u64>| {
            records.sort();
            records
        };
        eventually("the others are read on", || sorted(output.committed()) == sorted(expected.clone()));
        expected = output.committed();
        assert_eq!(running.stop(), Outcome::Stopped);
        assert_eq!(place.splits("numbers").len(), new as usize + 1);
    }
}

#[test]
fn a_rate_limits_what_an_instance_reads() {
    let (place, output) = (place().workers(2), collect());
    let sink = output.clone();
    let began = std::time::Instant::now();
    place.finish(move |job| {
        let source = collection((0..600).collect::<Vec<u64>>()).splits(4).limit_rate(Some(1000));
        job.source("numbers", source).sink("output", sink.clone());
        Ok(())
    });
    assert_eq!(output.committed().len(), 600);
    let took = began.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_secs(15)).contains(&took), "it took {took:?}");
}

/// Counts lines that it reads slowly, so that the reader of a file is far ahead of what is published.
fn slow_lines(
    input: &Path,
    output: &Collected<u64>,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + use<> {
    let (input, sink) = (input.to_owned(), output.clone());
    move |job| {
        let lines = job.source("lines", staunch::file::lines(&input).follow(true));
        let numbers = lines.map(|line| line.parse::<u64>().unwrap_or(u64::MAX)).inspect(|n| {
            if n % 10 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        numbers.sink("output", sink.clone());
        Ok(())
    }
}

fn lines(numbers: Range<u64>) -> String {
    numbers.map(|n| format!("{n:099}\n")).collect()
}

/// Each worker builds a source of its own, and one more lists the directory.
#[test]
fn a_followed_file_that_is_renamed_while_its_reader_is_behind_ends_the_job_before_it_is_read_twice() {
    const LINES: u64 = 200_000;
    let logs = tempfile::tempdir().unwrap();
    std::fs::write(logs.path().join("a.log"), lines(0..LINES)).unwrap();
    let (mut place, output) = (place().workers(2).every_ms(5), collect::<u64>());
    place.config.inflight_bytes = 20_000;
    let running = place.start(slow_lines(logs.path(), &output));
    eventually("the first output", || !output.committed().is_empty());
    std::fs::rename(logs.path().join("a.log"), logs.path().join("b.log")).unwrap();
    let error = running.wait().unwrap_err().to_string();
    assert!(error.contains("read as a.log") && error.contains("must keep its name"), "{error}");
    let mut found = output.committed();
    let all = found.len();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), all, "records were read twice");
    assert!((all as u64) < LINES, "the reader was not behind");
}

#[test]
fn a_followed_file_or_directory_that_is_removed_while_its_reader_is_behind_is_read_to_its_end() {
    const LINES: u64 = 20_000;
    for whole_directory in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        std::fs::write(logs.join("a.log"), lines(0..LINES)).unwrap();
        let input = if whole_directory { logs.clone() } else { logs.join("a.log") };
        let (mut place, output) = (place().workers(2).every_ms(5), collect::<u64>());
        place.config.inflight_bytes = 20_000;
        let running = place.start(slow_lines(&input, &output));
        eventually("the first output", || !output.committed().is_empty());
        assert!((output.committed().len() as u64) < LINES / 2, "the reader is not behind");
        std::fs::remove_dir_all(&logs).unwrap();
        eventually("all lines are published", || output.committed().len() as u64 == LINES);
        assert_eq!(running.stop(), Outcome::Stopped);
    }
}
