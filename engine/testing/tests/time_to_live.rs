//! Values with a time to live, through records that are out of order, and taken and set again and again.

#![allow(clippy::unwrap_used)]

use staunch::core::{Metrics, Request, run};
use staunch::generator;
use staunch::memory::{collect, collection};
use staunch::prelude::*;
use std::time::Instant;

const TTL_MS: i64 = 10;

/// Says what the value is at each record, and writes it. With a record's value below 0 it is only read.
struct Last {
    value: Value<u64, i64>,
    /// The value is taken and set, not changed in its place.
    anew: bool,
}

impl Process<u64, (i64, i64)> for Last {
    type Out = Option<i64>;

    fn record(&mut self, cx: &mut Cx<'_, u64, Option<i64>>, (_, value): (i64, i64)) -> Result<()> {
        let was = if self.anew && value >= 0 { self.value.take(cx)? } else { self.value.get(cx)? };
        if value >= 0 {
            self.value.set(cx, value)?;
        }
        cx.emit(was);
        Ok(())
    }
}

/// What a process with a value that lives for [`TTL_MS`] says to records of one key: event time and value.
fn said(records: &[(i64, i64)]) -> Vec<Option<i64>> {
    let dir = tempfile::tempdir().unwrap();
    let output = collect();
    let (sink, records) = (output.clone(), records.to_vec());
    let build = move |job: &Job<'_>| {
        let time = |record: &(i64, i64)| Timestamp::from_millis(record.0);
        let source = collection(records.clone()).splits(1).event_time(time, Duration::from_secs(1));
        let last = job.source("records", source).key_by(|_| 0u64).process("last", |needs| Last {
            value: needs.value("value").ttl(Duration::from_millis(TTL_MS as u64)),
            anew: false,
        });
        last.main.sink("output", sink.clone());
        Ok(())
    };
    let config = RunConfig { checkpoint_every: None, ..RunConfig::new("last", dir.path()) };
    assert_eq!(run(build, config, Controls::default(), Metrics::new("last")).unwrap(), Outcome::Finished);
    output.committed()
}

#[test]
fn a_record_that_is_out_of_order_does_not_shorten_the_life_of_a_value() {
    // Written at 100 and 95, whichever came first: it lives until 110.
    for writes in [[(95, 1), (100, 2)], [(100, 1), (95, 2)]] {
        assert_eq!(said(&[writes[0], writes[1], (107, -1)]), [None, Some(1), Some(2)], "{writes:?}");
        assert_eq!(said(&[writes[0], writes[1], (110, -1)]), [None, Some(1), None], "{writes:?}");
    }
}

#[test]
fn a_value_that_is_taken_and_set_again_and_again_has_one_timer() {
    let dir = tempfile::tempdir().unwrap();
    let output = collect();
    let sink = output.clone();
    let build = move |job: &Job<'_>| {
        let time = |record: &(i64, i64)| Timestamp::from_millis(record.0);
        let source = generator::sequence(None, 1, |_, n| (n as i64, n as i64)).limit_rate(Some(20_000));
        let records = job.source("records", source.event_time(time, Duration::ZERO));
        let last = records.key_by(|_| 0u64).process("last", |needs| Last {
            // Longer than the test: no timer is due.
            value: needs.value("value").ttl(Duration::from_secs(1_000_000)),
            anew: true,
        });
        last.main.sink("output", sink.clone());
        Ok(())
    };
    let config = RunConfig {
        checkpoint_every: Some(Duration::from_millis(20)),
        ..RunConfig::new("last", dir.path().join("checkpoints"))
    };
    let (controls, metrics) = (Controls::default(), Metrics::new("last"));
    let (of_run, seen) = (controls.clone(), metrics.clone());
    let running = std::thread::spawn(move || run(build, config, of_run, seen));
    let until = Instant::now() + Duration::from_secs(60);
    while output.committed().len() < 1_000 {
        assert!(Instant::now() < until, "it does not go on");
        std::thread::sleep(Duration::from_millis(2));
    }
    controls.request(Request::Stop);
    assert_eq!(running.join().unwrap().unwrap(), Outcome::Stopped);
    let text = metrics.render().unwrap();
    let keys = text.lines().find(|line| line.starts_with("staunch_state_keys{")).unwrap();
    // One value, one timer.
    assert!(keys.ends_with(" 2"), "{keys}");
}
