//! Tumbling windows: boundaries, lateness, corrections, windows after windows, crashes.

use crate::harness::{Dice, Fuse, Place, Running, eventually, place};
use crate::topic::Topic;
use staunch::memory::{Collected, collect, collection};
use staunch::prelude::*;
use std::collections::BTreeMap;

/// Key and event time in milliseconds.
type Event = (u64, i64);
/// Key, start of the window, value.
type Fired = (u64, i64, u64);

const TEN_MS: Duration = Duration::from_millis(10);

fn time((_, time): &Event) -> Timestamp {
    Timestamp::from_millis(*time)
}

fn fired(result: WindowResult<u64, u64>) -> Fired {
    (result.key, result.window.start.as_millis(), result.value)
}

fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}

/// How many events each window of 10 ms has.
fn counted(events: &[Event]) -> Vec<Fired> {
    let mut counts = BTreeMap::new();
    for (key, time) in events {
        *counts.entry((*key, time.div_euclid(10) * 10)).or_insert(0) += 1;
    }
    counts.into_iter().map(|((key, start), count)| (key, start, count)).collect()
}

#[test]
fn a_record_at_a_boundary_opens_the_next_window_and_times_may_be_negative() {
    let events: Vec<Event> =
        [-21, -20, -11, -10, -1, 0, 1, 9, 10, 19, 20].iter().flat_map(|t| [(1, *t), (2, *t)]).collect();
    assert!(counted(&events).contains(&(1, -10, 2)));
    for workers in 1..=3 {
        let (place, output) = (place().workers(workers), collect());
        let (sink, input) = (output.clone(), events.clone());
        place.finish(move |job| {
            let source = collection(input.clone()).splits(3).event_time(time, Duration::ZERO);
            let keyed = job.source("events", source).key_by(|e| e.0);
            keyed.window(Tumbling::of(TEN_MS)).count("counts").map(fired).sink("output", sink.clone());
            Ok(())
        });
        assert_eq!(sorted(output.committed()), counted(&events));
    }
}

/// A job of one partition that counts by windows of 10 ms, with late records on the side.
struct Live {
    topic: Topic<Event>,
    output: Collected<Fired>,
    late: Collected<Event>,
    running: Running,
    place: Place,
}

impl Live {
    fn start(lateness: Duration, allowed: Duration) -> Self {
        let (topic, output, late) = (Topic::new(1), collect(), collect());
        let place = place().workers(2);
        let build = Self::job(&topic, &output, &late, lateness, allowed);
        let running = place.start(build);
        Self { topic, output, late, running, place }
    }

    fn job(
        topic: &Topic<Event>,
        output: &Collected<Fired>,
        late: &Collected<Event>,
        lateness: Duration,
        allowed: Duration,
    ) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
        let (source, output, side) = (topic.clone(), output.clone(), late.clone());
        move |job| {
            let window = Tumbling::of(TEN_MS).allowed_lateness(allowed);
            let keyed = job.source("events", source.clone().event_time(time, lateness)).key_by(|e| e.0);
            let (counts, late) =
                keyed.window(window).fold_with_late("counts", |count: &mut u64, _| *count += 1);
            counts.map(fired).sink("output", output.clone());
            late.sink("late", side.clone());
            Ok(())
        }
    }

    /// Sends an event and waits until it has been counted and the watermark is this.
    fn send(&self, event: Event, watermark: i64) {
        let before = self.running.metric("staunch_records_in_total", "counts");
        self.topic.push(0, [event]);
        eventually("the event is counted", || {
            self.running.metric("staunch_records_in_total", "counts") > before
        });
        let expected = watermark as f64 / 1e3;
        eventually(&format!("the watermark is {watermark}"), || self.watermark() == expected);
    }

    /// On the first worker: the same everywhere.
    fn watermark(&self) -> f64 {
        self.running.metric("staunch_watermark_seconds", "worker=\"0\"")
    }

    fn committed(&self, count: usize) -> Vec<Fired> {
        eventually("the windows have fired", || self.output.committed().len() >= count);
        std::thread::sleep(Duration::from_millis(30));
        self.output.committed()
    }
}

#[test]
fn a_window_fires_when_no_record_of_it_can_come_any_more() {
    let live = Live::start(Duration::from_millis(5), Duration::ZERO);
    live.send((1, 3), -3);
    live.send((1, 14), 8);
    assert!(live.committed(0).is_empty(), "a record at 9 would still be in time");
    live.send((1, 15), 9);
    assert_eq!(live.committed(1), [(1, 0, 1)]);
    live.topic.end_all();
    assert_eq!(live.running.wait().unwrap(), Outcome::Finished);
    assert_eq!(live.output.committed(), [(1, 0, 1), (1, 10, 2)]);
}

#[test]
fn a_record_out_of_order_within_the_lateness_is_in_time() {
    let live = Live::start(Duration::from_millis(100), Duration::ZERO);
    live.send((1, 100), -1);
    live.send((1, 0), -1);
    live.send((1, 55), -1);
    live.topic.end_all();
    live.running.wait().unwrap();
    assert_eq!(sorted(live.output.committed()), [(1, 0, 1), (1, 50, 1), (1, 100, 1)]);
    assert_eq!(live.running.metric("staunch_late_records_total", ""), 0.0);
}

#[test]
fn a_record_behind_the_watermark_is_counted_late_and_goes_to_the_side() {
    let live = Live::start(Duration::ZERO, Duration::ZERO);
    live.send((1, 100), 99);
    live.send((1, 99), 99);
    live.send((2, 0), 99);
    live.topic.end_all();
    live.running.wait().unwrap();
    assert_eq!(live.late.committed(), [(1, 99), (2, 0)]);
    assert_eq!(live.running.metric("staunch_late_records_total", "counts"), 2.0);
    assert_eq!(live.output.committed(), [(1, 100, 1)]);
    live.place.assert_tidy();
}

#[test]
fn with_allowed_lateness_a_late_record_corrects_the_result_until_it_is_over() {
    let live = Live::start(Duration::ZERO, Duration::from_millis(20));
    live.send((1, 5), 4);
    live.send((1, 10), 9);
    assert_eq!(live.committed(1), [(1, 0, 1)]);
    live.send((1, 6), 9);
    assert_eq!(live.committed(2), [(1, 0, 1), (1, 0, 2)]);
    // A key that had nothing when the window fired.
    live.send((7, 6), 9);
    assert_eq!(live.committed(3)[2..], [(7, 0, 1)]);
    live.send((1, 29), 28);
    live.send((1, 9), 28);
    assert!(live.committed(5).contains(&(1, 0, 3)), "the last millisecond in which it counts");
    assert!(live.late.committed().is_empty());
    live.send((1, 30), 29);
    live.send((1, 9), 29);
    live.topic.end_all();
    live.running.wait().unwrap();
    assert_eq!(live.late.committed(), [(1, 9)]);
}

#[test]
fn corrections_go_on_after_a_stop_on_another_number_of_workers() {
    let mut live = Live::start(Duration::ZERO, Duration::from_millis(20));
    live.send((1, 5), 4);
    live.send((2, 5), 4);
    live.send((1, 10), 9);
    assert_eq!(sorted(live.committed(2)), [(1, 0, 1), (2, 0, 1)]);
    assert_eq!(live.running.stop(), Outcome::Stopped);
    live.place.config.workers = 3;
    let allowed = Duration::from_millis(20);
    let build = Live::job(&live.topic, &live.output, &live.late, Duration::ZERO, allowed);
    live.running = live.place.start(build);
    live.send((1, 6), 0);
    assert_eq!(live.committed(3)[2..], [(1, 0, 2)]);
    live.topic.push(0, [(1, 30)]);
    eventually("the watermark advances", || live.watermark() == 0.029);
    live.send((2, 6), 29);
    live.topic.end_all();
    live.running.wait().unwrap();
    assert_eq!(live.late.committed(), [(2, 6)]);
    let fired = sorted(live.output.committed());
    assert_eq!(fired, [(1, 0, 1), (1, 0, 2), (1, 10, 1), (1, 30, 1), (2, 0, 1)]);
}

#[test]
fn windows_after_windows_get_every_result_in_time() {
    let events: Vec<Event> = (0..20_000).map(|n| (n % 13, n as i64 / 5)).collect();
    let expected: Vec<Fired> = (0..40).map(|w| (0, w * 100, if w < 40 { 500 } else { 0 })).collect();
    for workers in 1..=3 {
        let (place, output) = (place().workers(workers), collect());
        let (sink, input) = (output.clone(), events.clone());
        let running = place.start(move |job| {
            let source = collection(input.clone()).splits(4).event_time(time, Duration::from_millis(50));
            job.source("events", source)
                .key_by(|e| e.0)
                .window(Tumbling::of(TEN_MS))
                .count("small")
                .key_by(|_| 0)
                .window(Tumbling::of(Duration::from_millis(100)))
                .fold("large", |sum: &mut u64, result| *sum += result.value)
                .map(fired)
                .sink("output", sink.clone());
            Ok(())
        });
        assert_eq!(running.wait().unwrap(), Outcome::Finished);
        assert_eq!(sorted(output.committed()), expected);
        assert_eq!(running.metric("staunch_late_records_total", ""), 0.0);
    }
}

#[test]
fn windows_of_other_streams_of_the_same_source_do_not_disturb_one_another() {
    let events: Vec<Event> = (0..5000).map(|n| (n % 3, n as i64)).collect();
    let (place, small, large) = (place().workers(2), collect(), collect());
    let (one, other) = (small.clone(), large.clone());
    place.finish(move |job| {
        let stream = job.source("events", collection(events.clone()).splits(2).event_time(time, TEN_MS));
        let keyed = stream.clone().filter(|e| e.0 == 1).key_by(|e| e.0);
        keyed.window(Tumbling::of(TEN_MS)).count("small").map(fired).sink("s", one.clone());
        let keyed = stream.key_by(|_| 9);
        keyed.window(Tumbling::of(Duration::from_secs(1))).count("large").map(fired).sink("l", other.clone());
        Ok(())
    });
    assert_eq!(small.committed().iter().map(|(_, _, n)| n).sum::<u64>(), 1667);
    assert_eq!(sorted(large.committed()), (0..5).map(|w| (9, w * 1000, 1000)).collect::<Vec<_>>());
}

#[test]
fn windows_fire_once_however_often_the_job_breaks_and_is_rescaled() {
    // Up to 300 ms out of order.
    let events: Vec<Event> = (0..40_000).map(|n| (n % 31, (n + n * 7919 % 300) as i64)).collect();
    let mut dice = Dice::new(5);
    for _ in 0..4 {
        let (mut place, output) = (place().every_ms(5), collect());
        for round in 0.. {
            assert!(round < 60);
            place.config.workers = 1 + dice.roll(3) as usize;
            let fuse = Fuse::at(1 + dice.roll(60_000));
            let (sink, input) = (output.clone(), events.clone());
            let outcome = place.run(move |job| {
                let fuse = fuse.clone();
                let source = collection(input.clone()).splits(4).event_time(time, Duration::from_millis(600));
                job.source("events", source)
                    .inspect(move |(_, time)| {
                        assert!(!fuse.burn(), "crash");
                        if time % 1000 == 0 {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    })
                    .key_by(|e| e.0)
                    .window(Tumbling::of(TEN_MS))
                    .count("counts")
                    .map(fired)
                    .sink("output", sink.clone());
                Ok(())
            });
            if outcome.is_ok() {
                break;
            }
        }
        assert_eq!(sorted(output.committed()), counted(&events));
        place.assert_tidy();
    }
}
