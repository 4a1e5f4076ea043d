//! An operator that was told something else than when its state was built.

use crate::harness::{Place, eventually, place};
use crate::topic::Topic;
use staunch::core::error::Kind;
use staunch::memory::{Collected, collect};
use staunch::prelude::*;

/// Key, start of the window, count.
type Fired = (u64, i64, u64);

/// Counts records, whose time is their number in seconds, by windows.
fn counting(
    topic: &Topic<u64>,
    output: &Collected<Fired>,
    window: Tumbling,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let (topic, output) = (topic.clone(), output.clone());
    move |job| {
        let seconds = |n: &u64| Timestamp::from_millis(*n as i64 * 1000);
        job.source("numbers", topic.clone().event_time(seconds, Duration::ZERO))
            .key_by(|n| n % 2)
            .window(window)
            .count("counts")
            .map(|fired| (fired.key, fired.window.start.as_millis() / 1000, fired.value))
            .sink("output", output.clone());
        Ok(())
    }
}

fn minutes(minutes: u64) -> Tumbling {
    Tumbling::of(Duration::from_secs(60 * minutes))
}

/// A job that counts by the minute, stopped in the middle of one.
fn stopped() -> (Place, Topic<u64>, Collected<Fired>) {
    let (place, topic, output) = (place().workers(2), Topic::new(1), collect());
    topic.push(0, 0..90);
    let running = place.start(counting(&topic, &output, minutes(1)));
    let counted = || running.metric("staunch_records_in_total", "step=\"counts\"") as u64;
    eventually("the numbers are counted", || counted() == 90);
    assert_eq!(running.stop(), Outcome::Stopped);
    (place, topic, output)
}

fn sorted(output: &Collected<Fired>) -> Vec<Fired> {
    let mut fired = output.committed();
    fired.sort_unstable();
    fired
}

#[test]
fn a_window_of_60_s_does_not_become_one_of_300_s_under_the_same_name() {
    let (mut place, topic, output) = stopped();
    for accepted in [false, true] {
        place.config.accept_changes = accepted.then(|| "counts".to_owned()).into_iter().collect();
        let error = place.fail(counting(&topic, &output, minutes(5)));
        let text = error.to_string();
        for word in
            ["step `counts`", "window: was 60s, is 300s", "cannot go on", "only allowed lateness may change"]
        {
            assert!(text.contains(word), "no {word:?} in {text:?}");
        }
        assert_eq!(error.kind(), Kind::Job, "{text}");
    }
    place.config.accept_changes.clear();
    topic.push(0, 90..120);
    topic.end_all();
    place.finish(counting(&topic, &output, minutes(1)));
    assert_eq!(sorted(&output), [(0, 0, 30), (0, 60, 30), (1, 0, 30), (1, 60, 30)]);
}

#[test]
fn another_lateness_is_refused_until_it_is_accepted_and_is_the_one_to_keep_from_then_on() {
    let (mut place, topic, output) = stopped();
    let later = || minutes(1).allowed_lateness(Duration::from_secs(3600));
    let text = place.fail(counting(&topic, &output, later())).to_string();
    for word in ["step `counts`", "allowed lateness: was 0s, is 3600s", "--accept-change counts"] {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
    place.config.accept_changes = ["counts".to_owned()].into();
    topic.push(0, [100, 130, 61]);
    topic.end_all();
    place.finish(counting(&topic, &output, later()));
    // The late record corrects the window that has fired.
    assert!(sorted(&output).contains(&(1, 60, 16)), "{:?}", sorted(&output));
    let stored = &place.manifests().pop().unwrap().states["counts"];
    assert_eq!(stored.parameters["allowed lateness"], "3600s");
}

#[test]
fn another_operator_on_state_of_the_same_shape_is_refused_with_both_names() {
    let (place, topic, output) = (place(), Topic::new(1), collect());
    let job = |counts: bool| {
        let (topic, output) = (topic.clone(), output.clone());
        move |job: &Job<'_>| {
            let keyed = job.source("numbers", topic.clone()).key_by(|n: &u64| n % 2);
            let totals = if counts { keyed.count("totals") } else { keyed.reduce("totals", |a, b| a + b) };
            totals.sink("output", output.clone());
            Ok(())
        }
    };
    topic.push(0, 0..4);
    let running = place.start(job(true));
    eventually("the numbers are counted", || output.committed().len() == 4);
    assert_eq!(running.stop(), Outcome::Stopped);
    let text = place.fail(job(false)).to_string();
    assert!(text.contains("step `totals`") && text.contains("operator: was `count`, is `reduce`"), "{text}");
}

#[test]
fn a_change_of_a_step_that_is_not_there_is_not_accepted_in_silence() {
    let (mut place, topic, output) = stopped();
    place.config.accept_changes = ["count".to_owned()].into();
    let text = place.fail(counting(&topic, &output, minutes(1))).to_string();
    assert!(text.contains("no step of that name"), "{text}");
}
