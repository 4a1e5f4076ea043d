//! A process function as one would write it: payments by card, summed by the minute with a timer, in three states, with two
//! side outputs. However records come, over crashes and other numbers of workers, its output is that of a few loops.

#![allow(clippy::unwrap_used)]

use serde::{Deserialize, Serialize};
use staunch::core::{Metrics, run};
use staunch::memory::{collect, collection};
use staunch::prelude::*;
use staunch_testing::{Crash, JobTest, OperatorTest, script};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

const MINUTE_MS: i64 = 60_000;
/// Longer than this without a payment, and a card begins anew.
const FORGOTTEN_MS: i64 = 10 * MINUTE_MS;
/// A card that spends more in a minute is blocked.
const LIMIT: u64 = 1_000;
const LARGE: u64 = 400;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Payment {
    id: u64,
    card: u64,
    at_ms: i64,
    cents: u64,
}

fn time(payment: &Payment) -> Timestamp {
    Timestamp::from_millis(payment.at_ms)
}

/// Card, end of the minute in minutes, spent in it, spent so far, whether the card is blocked.
type Minute = (u64, i64, u64, u64, bool);

struct Fraud {
    /// What was paid in minutes that are not over: by time and id.
    open: OrderedMap<u64, (i64, u64), u64>,
    total: Value<u64, u64>,
    blocked: Value<u64, bool>,
    large: SideOutput<Payment>,
    late: SideOutput<Payment>,
}

impl Fraud {
    fn new(needs: &mut Needs<'_, u64>) -> Self {
        Self {
            open: needs.ordered("open"),
            total: needs.value("total").ttl(Duration::from_millis(FORGOTTEN_MS as u64)),
            blocked: needs.value("blocked"),
            large: needs.side("large"),
            late: needs.side("late"),
        }
    }
}

impl Process<u64, Payment> for Fraud {
    type Out = Minute;

    fn record(&mut self, cx: &mut Cx<'_, u64, Minute>, payment: Payment) -> Result<()> {
        let end = (payment.at_ms / MINUTE_MS + 1) * MINUTE_MS;
        if end <= cx.watermark().as_millis() {
            cx.count_late();
            self.late.emit(cx, payment);
            return Ok(());
        }
        self.open.insert(cx, &(payment.at_ms, payment.id), payment.cents)?;
        // Set by every payment of the minute; it is one timer. Another, that nobody wants, is taken back.
        cx.set_timer(Moment::EventTime(Timestamp::from_millis(end)))?;
        let other = Moment::EventTime(Timestamp::from_millis(end + 1));
        cx.set_timer(other)?;
        cx.delete_timer(other)?;
        if payment.cents >= LARGE {
            self.large.emit(cx, payment);
        }
        Ok(())
    }

    fn timer(&mut self, cx: &mut Cx<'_, u64, Minute>, at: Moment) -> Result<()> {
        let Moment::EventTime(end) = at else { return Ok(()) };
        let end = end.as_millis();
        let mut spent = 0_u64;
        self.open.range(cx, ..(end, 0), |_, cents| {
            spent += cents;
            ControlFlow::Continue(())
        })?;
        self.open.remove_range(cx, ..(end, 0))?;
        let total = self.total.update(cx, |total| *total.insert(total.unwrap_or(0) + spent))?;
        if spent > LIMIT {
            self.blocked.set(cx, true)?;
        }
        let blocked = self.blocked.get(cx)?.unwrap_or(false);
        cx.emit((*cx.key(), end / MINUTE_MS, spent, total, blocked));
        Ok(())
    }
}

/// Three cards; the second has a long pause. A little out of order.
fn payments() -> Vec<Payment> {
    let pause = |card: u64, n: u64| if card == 1 && n > 20 { 2 * FORGOTTEN_MS } else { 0 };
    let payment = |n: u64| {
        let card = n % 3;
        Payment { id: n, card, at_ms: n as i64 * 9_000 + pause(card, n), cents: n * 131 % 500 + 100 }
    };
    let mut payments: Vec<Payment> = (0..48_u64).map(|n| payment(n ^ 1)).collect();
    payments.sort_by_key(|payment| payment.at_ms / 20_000);
    payments
}

/// What must come out.
fn expected(payments: &[Payment]) -> (Vec<Minute>, Vec<Payment>) {
    let mut minutes: BTreeMap<(u64, i64), u64> = BTreeMap::new();
    for payment in payments {
        *minutes.entry((payment.card, payment.at_ms / MINUTE_MS + 1)).or_default() += payment.cents;
    }
    let mut cards: BTreeMap<u64, (u64, i64, bool)> = BTreeMap::new();
    let mut out = Vec::new();
    for ((card, minute), spent) in minutes {
        let (total, last, blocked) = cards.entry(card).or_default();
        *total = if minute * MINUTE_MS >= *last + FORGOTTEN_MS { spent } else { *total + spent };
        *last = minute * MINUTE_MS;
        *blocked |= spent > LIMIT;
        out.push((card, minute, spent, *total, *blocked));
    }
    (out, payments.iter().filter(|payment| payment.cents >= LARGE).cloned().collect())
}

/// All outputs as one, for a test that looks at one.
fn in_one<'s>(payments: Stream<'s, Payment>) -> Stream<'s, String> {
    let mut fraud = payments.key_by(|payment| payment.card).process("fraud", Fraud::new);
    let large = fraud.side::<Payment>("large").map(|payment| format!("large {payment:?}"));
    let late = fraud.side::<Payment>("late").map(|payment| format!("late {payment:?}"));
    fraud.main.map(|minute| format!("{minute:?}")).union(large).union(late)
}

fn lines((minutes, large): (Vec<Minute>, Vec<Payment>)) -> Vec<String> {
    let large = large.iter().map(|payment| format!("large {payment:?}"));
    minutes.iter().map(|minute| format!("{minute:?}")).chain(large).collect()
}

#[test]
fn a_process_with_three_states_a_timer_and_two_side_outputs_is_the_same_however_records_come() {
    let input = payments();
    let (minutes, large) = expected(&input);
    assert!(minutes.iter().any(|m| m.4) && minutes.iter().any(|m| !m.4) && large.len() > 5, "{minutes:?}");
    let forgotten = minutes.windows(2).any(|m| m[0].0 == m[1].0 && m[1].3 == m[1].2);
    assert!(forgotten, "no card is forgotten: {minutes:?}");
    OperatorTest::new(in_one)
        .event_time(time, Duration::from_secs(30))
        .input(input.clone())
        .expect(lines((minutes, large)))
        .unwrap();
}

#[test]
fn a_record_behind_its_minute_goes_to_the_side_and_nowhere_else_over_a_crash_and_a_rescale() {
    let payment = |id, at_ms| Payment { id, card: 7, at_ms, cents: 10 };
    let script = script()
        .records([payment(1, 1_000), payment(2, 2_000)])
        .barrier()
        .crash(Crash::Now)
        // The watermark passes the first minute; then comes one for it.
        .records([payment(3, 100_000)])
        .barrier()
        .records([payment(4, 3_000)])
        .barrier()
        .workers(3)
        .records([payment(5, 110_000)]);
    let program = |job: &Job<'_>, (): &()| {
        let payments = collection(Vec::<Payment>::new()).event_time(time, Duration::from_secs(1));
        in_one(job.source("payments", payments)).sink("output", staunch::discard::sink());
        Ok(())
    };
    let mut test = JobTest::new(program, ()).feed("payments", script);
    let output = test.collect::<String>("output");
    test.run_to_end().unwrap();
    let mut came = output.committed();
    came.sort_unstable();
    let late = format!("late {:?}", payment(4, 3_000));
    assert_eq!(came, ["(7, 1, 20, 20, false)".to_owned(), "(7, 2, 20, 40, false)".to_owned(), late]);
}

#[test]
fn a_job_with_a_process_that_fails_again_and_again_puts_out_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let (output, input) = (collect(), payments());
    let mut runs = 0;
    loop {
        // Dies a little later each time.
        let fuse = Arc::new(AtomicI64::new(runs * 7 + 5));
        let (sink, records) = (output.clone(), input.clone());
        let build = move |job: &Job<'_>| {
            let fuse = Arc::clone(&fuse);
            let source = collection(records.clone()).splits(1).event_time(time, Duration::from_secs(30));
            let payments = job.source("payments", source.limit_rate(Some(2_000)));
            let burning = payments.inspect(move |_| assert!(fuse.fetch_sub(1, SeqCst) != 1, "the fuse"));
            in_one(burning).sink("output", sink.clone());
            Ok(())
        };
        let config = RunConfig {
            workers: 1 + runs as usize % 3,
            checkpoint_every: Some(Duration::from_millis(2)),
            ..RunConfig::new("fraud", dir.path().join("checkpoints"))
        };
        match run(build, config, Controls::default(), Metrics::new("fraud")) {
            Ok(outcome) => break assert_eq!(outcome, Outcome::Finished),
            Err(error) => assert!(error.to_string().contains("the fuse"), "{error}"),
        }
        runs += 1;
        assert!(runs < 100, "it never ends");
    }
    assert!(runs > 2, "only {runs} runs failed");
    let (mut came, mut wanted) = (output.committed(), lines(expected(&input)));
    came.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(came, wanted);
}

/// Sets timers in the past and in order, from within timers, and takes one back.
struct Alarms;

impl Process<u64, i64> for Alarms {
    type Out = String;

    fn record(&mut self, cx: &mut Cx<'_, u64, String>, value: i64) -> Result<()> {
        cx.emit(format!("record {value}"));
        if value >= 0 {
            cx.set_timer(Moment::EventTime(Timestamp::from_millis(value)))?;
        }
        Ok(())
    }

    fn timer(&mut self, cx: &mut Cx<'_, u64, String>, at: Moment) -> Result<()> {
        let Moment::EventTime(at) = at else { return Ok(()) };
        let timer = |ms| Moment::EventTime(Timestamp::from_millis(ms));
        cx.emit(format!("timer {}", at.as_millis()));
        match at.as_millis() {
            // All of these are due by then, if the watermark has gone far.
            10 => {
                cx.set_timer(timer(15))?;
                cx.set_timer(timer(30))?;
                cx.delete_timer(timer(20))?;
                cx.set_timer(timer(10_000))?;
            }
            15 => cx.set_timer(timer(3))?,
            _ => {}
        }
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties::of("alarms").needs_event_time()
    }
}

#[test]
fn timers_come_in_their_order_those_set_by_timers_among_them_and_those_of_the_past_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let output = collect();
    let sink = output.clone();
    let build = move |job: &Job<'_>| {
        let source = collection(vec![30_i64, 20, 10, 10]);
        let source = source.event_time(|_: &i64| Timestamp::from_millis(1), Duration::ZERO);
        let alarms = job.source("numbers", source).key_by(|_| 1_u64).process("alarms", |_| Alarms);
        alarms.main.sink("output", sink.clone());
        Ok(())
    };
    run(build, RunConfig::new("alarms", dir.path()), Controls::default(), Metrics::new("alarms")).unwrap();
    let records = ["record 30", "record 20", "record 10", "record 10"];
    let timers = ["timer 10", "timer 15", "timer 3", "timer 30", "timer 10000"];
    assert_eq!(output.committed(), [&records[..], &timers[..]].concat());
}

#[test]
fn a_timer_on_a_stream_without_event_time_is_refused_and_says_what_is_missing() {
    struct Untimed;
    impl Process<u64, u64> for Untimed {
        type Out = u64;
        fn record(&mut self, cx: &mut Cx<'_, u64, u64>, value: u64) -> Result<()> {
            cx.emit(value);
            cx.set_timer(Moment::EventTime(Timestamp::MIN))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let build = |job: &Job<'_>| {
        let untimed = job.source("numbers", collection(vec![1_u64])).key_by(|n| *n);
        untimed.process("untimed", |_| Untimed).main.sink("output", staunch::discard::sink());
        Ok(())
    };
    let config = RunConfig::new("untimed", dir.path());
    let error = run(build, config, Controls::default(), Metrics::new("untimed")).unwrap_err().to_string();
    assert!(error.contains("step `untimed`") && error.contains(".event_time("), "{error}");
    let planned = staunch::core::plan(|job: &Job<'_>| {
        let untimed = job.source("payments", collection(payments())).key_by(|p| p.card);
        untimed.process("fraud", Fraud::new).main.sink("output", staunch::discard::sink());
        Ok(())
    });
    let error = planned.unwrap_err().to_string();
    assert!(error.contains("`fraud` needs event time"), "a time to live is of event time: {error}");
}
