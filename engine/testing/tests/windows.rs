//! Windows against a loop over the same records, in every way of handing them over: some have state that is spilled, some
//! restore it after every record.

use staunch::prelude::*;
use staunch_testing::OperatorTest;
use std::collections::BTreeMap;

const LENGTH_MS: i64 = 10;

/// Key and event time.
type Event = (u64, i64);

/// Events that go on in time with some disorder; some windows get many, some none.
fn events(keys: u64, count: u64) -> Vec<Event> {
    let mut random = 7_u64;
    let event = |n| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let time = n as i64 * 3 + (random >> 60) as i64 % 5 + if n % 11 > 8 { 25 } else { 0 };
        ((random >> 33) % keys, time)
    };
    (0..count).map(event).collect()
}

fn sums(events: &[Event]) -> Vec<(u64, i64, i64)> {
    let mut sums = BTreeMap::new();
    for (key, time) in events {
        *sums.entry((*key, time - time % LENGTH_MS)).or_insert(0) += time;
    }
    sums.into_iter().map(|((key, start), sum)| (key, start, sum)).collect()
}

fn summed(events: Stream<Event>, lateness: Duration) -> Stream<(u64, i64, i64)> {
    events
        .key_by(|event: &Event| event.0)
        .window(Tumbling::of(Duration::from_millis(LENGTH_MS as u64)).allowed_lateness(lateness))
        .fold("sums", |sum: &mut i64, event: Event| *sum += event.1)
        .map(|result| (result.key, result.window.start.as_millis(), result.value))
}

#[test]
fn windows_are_those_of_a_loop_whether_their_state_is_spilled_restored_or_moved() {
    for (keys, count) in [(1, 25), (5, 30), (20, 30)] {
        let events = events(keys, count);
        // Nothing is late, so nothing is corrected: what is kept longer fires once all the same.
        for lateness in [0, 35] {
            OperatorTest::new(move |stream: Stream<Event>| summed(stream, Duration::from_millis(lateness)))
                .event_time(|event| Timestamp::from_millis(event.1), Duration::from_millis(60))
                .input(events.clone())
                .expect(sums(&events))
                .unwrap();
        }
    }
}
