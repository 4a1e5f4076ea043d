//! The contract of steps: several states, side outputs of several types, work on a watermark in slices, crashes in between.

use crate::harness::{eventually, place};
use crate::topic::Topic;
use staunch::core::batch::Batch;
use staunch::core::step::{Advance, Declare, Moment, Properties, Side, State, Step, StepCx};
use staunch::core::{Request, StepOutputs, Table};
use staunch::memory::{collect, collection};
use staunch::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Numbers that are put out by one call of `advance`.
const SLICE: usize = 100;

/// Holds numbers back until the watermark has passed them, and puts them out in slices; counts them by parity besides.
struct Hold {
    held: State<Table<u64, i64, u64>>,
    parities: State<Table<u64, (), u64>>,
    odd: Side<u64>,
    text: Side<String>,
    /// Derived from what is held.
    waiting: Vec<(u64, u64, i64)>,
    calls: Arc<AtomicU64>,
}

impl Hold {
    fn new(declare: &mut Declare<u64>, calls: Arc<AtomicU64>) -> Self {
        Self {
            held: declare.table("held"),
            parities: declare.table("parities"),
            odd: declare.side("odd"),
            text: declare.side("text"),
            waiting: Vec::new(),
            calls,
        }
    }
}

impl Step<u64, u64> for Hold {
    type Out = u64;

    fn properties(&self) -> Properties {
        Properties::of("hold").needs_event_time().emits_event_time()
    }

    fn process(&mut self, input: &mut Batch<(u64, u64)>, _: &mut StepCx<u64>) -> Result<()> {
        let (mut held, mut parities) = (self.held.open(), self.parities.open());
        for (((key, n), hash), time) in input.items.drain(..).zip(&input.hashes).zip(&input.times) {
            held.update_one(*hash, &key, *time, |slot| *slot = Some(n))?;
            let count =
                parities.update_one(*hash, &key, (), |count| *count.insert(count.unwrap_or(0) + 1))?;
            self.waiting.push((*hash, key, *time));
            if n % 2 == 1 {
                self.odd.emit_at(n, *time);
            }
            if count % 500 == 0 {
                self.text.emit_at(format!("{count} of {key}"), *time);
            }
        }
        Ok(())
    }

    fn advance(&mut self, to: Moment, cx: &mut StepCx<u64>) -> Result<Advance> {
        let Moment::EventTime(now) = to else { return Ok(Advance::Done) };
        self.calls.fetch_add(1, SeqCst);
        let mut held = self.held.open();
        let mut left = SLICE;
        let mut at = 0;
        while at < self.waiting.len() {
            let (hash, key, time) = self.waiting[at];
            if time > now.as_millis() {
                at += 1;
                continue;
            }
            if left == 0 {
                return Ok(Advance::More);
            }
            left -= 1;
            self.waiting.swap_remove(at);
            if let Some(n) = held.remove(hash, &key, time)? {
                cx.emit_at(n, time);
            }
        }
        Ok(Advance::Done)
    }

    fn restored(&mut self, _: Timestamp) -> Result<()> {
        let waiting = &mut self.waiting;
        self.held.open().for_each(|key, time, _| waiting.push((staunch::core::hash_key(key), *key, time)))?;
        Ok(())
    }
}

fn millis(n: &u64) -> Timestamp {
    Timestamp::from_millis(*n as i64)
}

#[test]
fn a_step_has_several_states_and_side_outputs_and_works_on_a_watermark_in_slices() {
    for workers in 1..=3 {
        let (place, calls) = (place().workers(workers), Arc::new(AtomicU64::new(0)));
        let (output, odd, texts) = (collect(), collect(), collect());
        let sinks = (output.clone(), odd.clone(), texts.clone());
        let counted = Arc::clone(&calls);
        place.finish(move |job| {
            let numbers = collection((0..5_000_u64).collect::<Vec<_>>()).splits(3);
            // The watermark comes at the end, and all is due at once.
            let numbers = job.source("numbers", numbers.event_time(millis, Duration::from_secs(60)));
            let calls = Arc::clone(&counted);
            let mut held = numbers.key_by(|n| n % 10).step("hold", |d| Hold::new(d, calls));
            let odd = held.side::<u64>("odd");
            held.side::<String>("text").sink("texts", sinks.2.clone());
            // Side outputs have event time too.
            odd.key_by(|n| n % 3)
                .window(Tumbling::of(Duration::from_secs(1)))
                .count("odd-counts")
                .map(|fired| fired.value)
                .sink("odd", sinks.1.clone());
            held.main.sink("output", sinks.0.clone());
            Ok(())
        });
        let mut came = output.committed();
        came.sort_unstable();
        assert!(came.into_iter().eq(0..5_000), "on {workers} workers");
        assert_eq!(odd.committed().iter().sum::<u64>(), 2_500);
        let mut texts: Vec<String> = texts.committed();
        texts.sort_unstable();
        let expected: Vec<String> = (0..10).map(|key| format!("500 of {key}")).collect();
        assert_eq!(texts, expected);
        assert!(calls.load(SeqCst) >= 5_000 / SLICE as u64, "{} calls", calls.load(SeqCst));
        let states: Vec<String> = place.manifests().pop().unwrap().states.into_keys().collect();
        assert_eq!(states, ["hold.held", "hold.parities", "odd-counts"]);
        place.assert_tidy();
    }
}

#[test]
fn state_of_several_tables_is_restored_and_rescaled() {
    let (mut place, topic) = (place(), Topic::new(1));
    let (output, odd) = (collect(), collect());
    let job = || {
        let (topic, output, odd) = (topic.clone(), output.clone(), odd.clone());
        move |job: &Job<'_>| {
            let numbers = job.source("numbers", topic.clone().event_time(millis, Duration::from_millis(50)));
            let calls = Arc::default();
            let mut held = numbers.key_by(|n| n % 10).step("hold", |d| Hold::new(d, calls));
            held.side::<u64>("odd").sink("odd", odd.clone());
            held.main.sink("output", output.clone());
            Ok(())
        }
    };
    for run in 0..4_u64 {
        place.config.workers = [1, 3, 2, 2][run as usize];
        topic.push(0, run * 100..(run + 1) * 100);
        let running = place.start(job());
        let read = || running.metric("staunch_records_in_total", "step=\"hold\"") as u64;
        eventually("the numbers are read", || read() == 100);
        running.controls.request(Request::Stop);
        assert_eq!(running.wait().unwrap(), Outcome::Stopped);
    }
    topic.end_all();
    place.finish(job());
    let mut came = output.committed();
    came.sort_unstable();
    assert!(came.into_iter().eq(0..400));
    assert_eq!(odd.committed().len(), 200);
}

#[test]
fn what_is_wrong_with_states_and_side_outputs_is_said_before_anything_runs() {
    let refused =
        |words: &[&str], make: fn(&mut Declare<u64>) -> Hold, take: fn(&mut StepOutputs<'_, u64>)| {
            let plan = staunch::core::plan(move |job: &Job<'_>| {
                let numbers = collection(vec![1_u64]).event_time(millis, Duration::ZERO);
                let mut held = job.source("numbers", numbers).key_by(|n| *n).step("hold", make);
                take(&mut held);
                held.main.sink("output", staunch::discard::sink());
                Ok(())
            });
            let text = plan.unwrap_err().to_string();
            for word in ["step `hold`"].iter().chain(words) {
                assert!(text.contains(word), "no {word:?} in {text:?}");
            }
        };
    let good = |d: &mut Declare<u64>| Hold::new(d, Arc::default());
    refused(&["`late`", "does not have"], good, |held| drop(held.side::<u64>("late")));
    refused(&["`odd`", "another type"], good, |held| drop(held.side::<String>("odd")));
    refused(&["`odd`", "taken already"], good, |held| {
        drop(held.side::<u64>("odd"));
        drop(held.side::<u64>("odd"));
    });
    let twice = |d: &mut Declare<u64>| {
        let _ = d.table::<(), u64>("held");
        Hold::new(d, Arc::default())
    };
    refused(&["two states have the name `held`"], twice, |_| {});
    let named = |d: &mut Declare<u64>| {
        let _ = d.table::<(), u64>("a.b");
        Hold::new(d, Arc::default())
    };
    refused(&["\"a.b\" is not a name"], named, |_| {});
}
