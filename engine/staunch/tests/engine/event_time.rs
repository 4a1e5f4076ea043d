//! Watermarks: per split, idleness, ends, unions.

use crate::faulty::{Deed, Faulty, Moment, faulty};
use crate::harness::{Place, Running, eventually, place};
use crate::topic::Topic;
use staunch::core::IntoSource;
use staunch::core::Request;
use staunch::prelude::*;
use staunch::{discard, memory};
use staunch_checkpoint::Kind;
use std::time::Instant;

type Event = (u64, i64);

const IDLE: Duration = Duration::from_millis(100);

fn time((_, time): &Event) -> Timestamp {
    Timestamp::from_millis(*time)
}

/// Starts a job that counts the events of a source by windows of 10 ms.
fn count<S>(place: &Place, source: impl Fn() -> S + Send + Sync + 'static) -> Running
where
    S: IntoSource<Record = Event>,
{
    place.start(move |job| {
        let keyed = job.source("events", source()).key_by(|e| e.0);
        keyed.window(Tumbling::of(Duration::from_millis(10))).count("counts").sink("output", discard::sink());
        Ok(())
    })
}

fn watermark_ms(running: &Running) -> i64 {
    // Of the first worker: it is the same on all.
    (running.metric("staunch_watermark_seconds", "worker=\"0\"") * 1e3).round() as i64
}

fn reaches(running: &Running, expected: i64) {
    eventually(&format!("the watermark is {expected}"), || watermark_ms(running) == expected);
}

fn stays(running: &Running, expected: i64) {
    let until = Instant::now() + 3 * IDLE;
    while Instant::now() < until {
        assert_eq!(watermark_ms(running), expected);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_slowest_split_holds_the_watermark_on_any_number_of_workers() {
    for workers in 1..=3 {
        let (place, topic) = (place().workers(workers), Topic::<Event>::new(3));
        let source = topic.clone();
        let running = count(&place, move || source.clone().event_time(time, Duration::from_millis(20)));
        topic.push(0, [(1, 1000), (1, 900)]);
        topic.push(1, [(1, 500)]);
        stays(&running, 0);
        topic.push(2, [(1, 2000)]);
        reaches(&running, 479);
        topic.push(1, [(1, 3000)]);
        reaches(&running, 979);
        assert_eq!(running.stop(), Outcome::Stopped);
    }
}

#[test]
fn a_split_at_its_end_holds_nothing_back() {
    for workers in 1..=3 {
        let (place, topic) = (place().workers(workers), Topic::<Event>::new(3));
        let source = topic.clone();
        let running = count(&place, move || source.clone().event_time(time, Duration::ZERO));
        topic.push(0, [(1, 100)]);
        topic.push(1, [(1, 200)]);
        topic.end(2);
        reaches(&running, 99);
        topic.end(0);
        reaches(&running, 199);
        topic.end(1);
        assert_eq!(running.wait().unwrap(), Outcome::Finished);
    }
}

#[test]
fn a_union_has_the_lower_watermark_of_two_sources() {
    for workers in 1..=3 {
        let place = place().workers(workers);
        let (one, other) = (Topic::<Event>::new(1), Topic::<Event>::new(2));
        let sources = (one.clone(), other.clone());
        let running = place.start(move |job| {
            let first = job.source("one", sources.0.clone().event_time(time, Duration::ZERO));
            let second = job.source("other", sources.1.clone().event_time(time, Duration::ZERO));
            let keyed = first.map(|e| e).union(second).key_by(|e| e.0);
            keyed
                .window(Tumbling::of(Duration::from_millis(10)))
                .count("counts")
                .sink("output", discard::sink());
            Ok(())
        });
        one.push(0, [(1, 1000)]);
        other.push(0, [(1, 500)]);
        stays(&running, 0);
        other.push(1, [(1, 2000)]);
        reaches(&running, 499);
        other.push(0, [(1, 5000)]);
        reaches(&running, 999);
        one.end(0);
        reaches(&running, 1999);
        other.end_all();
        assert_eq!(running.wait().unwrap(), Outcome::Finished);
    }
}

#[test]
fn a_split_that_is_found_later_holds_the_watermark_until_it_speaks() {
    for workers in 1..=2 {
        let mut place = place().workers(workers);
        // So that no record of the log goes away while it is looked at.
        place.config.retained = 1000;
        let topic = Topic::<Event>::new(2).discovering(Duration::from_millis(20), [0]);
        let source = topic.clone();
        let running = count(&place, move || source.clone().event_time(time, Duration::ZERO));
        topic.push(0, [(1, 100)]);
        reaches(&running, 99);
        topic.list(1);
        eventually("the new split is read", || topic.polls(1) > 0);
        // Behind the barrier of a checkpoint that begins now, everybody knows of the new split.
        running.controls.request(Request::Savepoint("known".into()));
        let known = Kind::Savepoint { name: "known".into() };
        eventually("the savepoint", || place.manifests().iter().any(|m| m.kind == known));
        topic.push(0, [(1, 1000)]);
        stays(&running, 99);
        topic.push(1, [(1, 150)]);
        reaches(&running, 149);
        topic.push(1, [(1, 2000)]);
        reaches(&running, 999);
        assert_eq!(running.metric("staunch_late_records_total", ""), 0.0);
        running.drain();
    }
}

#[test]
fn a_split_that_is_not_read_because_the_sink_is_slow_is_not_idle() {
    let mut place = place();
    // A record fills a step.
    place.config.inflight_bytes = 4 * size_of::<Event>();
    let topic = Topic::<Event>::new(2);
    // Longer than it takes until the sink holds the source up, and shorter than the sink does so.
    let idle = Duration::from_secs(1);
    let sink: Faulty<Event> =
        faulty(move |now| if now == Moment::Write { Deed::Wait(3 * idle) } else { Deed::Go });
    let (source, output) = (topic.clone(), sink.clone());
    let running = place.start(move |job| {
        let events = job.source("events", source.clone().event_time(time, Duration::ZERO).idle_after(idle));
        events.clone().sink("slow", output.clone());
        let windows = events.key_by(|e| e.0).window(Tumbling::of(Duration::from_millis(10)));
        windows.count("counts").sink("output", discard::sink());
        Ok(())
    });
    let read = || running.metric("staunch_records_in_total", "step=\"events\"");
    topic.push(1, [(1, 0)]);
    eventually("the first record is read", || read() == 1.0);
    // Each in a step of its own; four steps are all that may be unfinished.
    for n in 0..3 {
        topic.push(0, [(1, 1000 + n)]);
        eventually("the next record is read", || read() == 2.0 + n as f64);
    }
    topic.push(0, [(1, 1003), (1, 1004), (1, 1005)]);
    topic.push(1, [(1, 5), (1, 6)]);
    sink.behave();
    eventually("all is read", || read() == 9.0);
    assert_eq!(running.metric("staunch_late_records_total", ""), 0.0);
    topic.end_all();
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    assert_eq!(running.metric("staunch_late_records_total", ""), 0.0);
}

#[test]
fn a_drain_fires_all_windows_and_what_comes_after_it_is_never_half_done() {
    for stop_too in [false, true] {
        let (place, topic, output) =
            (place().every_ms(2).workers(2), Topic::<Event>::new(2), memory::collect());
        let (source, sink) = (topic.clone(), output.clone());
        let running = place.start(move |job| {
            let keyed = job.source("events", source.clone().event_time(time, Duration::ZERO)).key_by(|e| e.0);
            let counts = keyed.window(Tumbling::of(Duration::from_secs(1))).count("counts");
            counts.map(|result| (result.key, result.value)).sink("output", sink.clone());
            Ok(())
        });
        topic.push(0, (0..500).map(|n| (n % 5, n as i64)));
        eventually("all is read", || running.metric("staunch_records_in_total", "counts") == 500.0);
        running.controls.request(Request::Drain);
        if stop_too {
            // Too late: a stop in the middle of a drain would keep fired windows beside unread input.
            running.controls.request(Request::Stop);
            running.controls.request(Request::Savepoint("late".into()));
        }
        assert_eq!(running.wait().unwrap(), Outcome::Finished);
        let mut counts = output.committed();
        counts.sort();
        assert_eq!(counts, (0..5).map(|key| (key, 100)).collect::<Vec<_>>());
        let open = place.manifests().into_iter().filter(|m| m.kind != Kind::Final);
        for shard in open.flat_map(|m| m.states["counts"].shards.clone()) {
            assert_ne!(shard.watermark_ms, Some(i64::MAX), "the end of time beside input that goes on");
        }
        place.assert_tidy();
    }
}

#[test]
fn looking_for_idleness_does_not_keep_the_worker_busy() {
    let (place, topic) = (place().only_the_last_checkpoint(), Topic::<Event>::new(2));
    let source = topic.clone();
    let idle = Duration::from_secs(2);
    let running = count(&place, move || source.clone().event_time(time, Duration::ZERO).idle_after(idle));
    topic.push(1, [(1, 0)]);
    for n in 0..150 {
        topic.push(0, [(1, n)]);
        std::thread::sleep(Duration::from_millis(7));
    }
    let before = topic.polls(1);
    std::thread::sleep(Duration::from_millis(500));
    let polls = topic.polls(1) - before;
    assert!(polls <= 5, "an idle split was polled {polls} times in half a second");
    assert_eq!(running.stop(), Outcome::Stopped);
}
