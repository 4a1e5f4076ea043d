//! Plans: what they look like, and what is wrong with a job, in one sentence, before anything runs.

use crate::harness::place;
use staunch::core::error::Kind;
use staunch::core::plan;
use staunch::prelude::*;
use staunch::{discard, memory, stdout};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn wrong<B>(build: B) -> String
where
    B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + Clone + 'static,
{
    let error = plan(build.clone()).unwrap_err();
    assert_eq!(error.kind(), staunch::core::error::Kind::Job);
    // Running it says the same, and leaves nothing behind.
    let place = place();
    assert_eq!(place.fail(build).to_string(), error.to_string());
    assert!(!place.config.checkpoints.exists());
    error.to_string()
}

fn numbers() -> memory::Collection<u64> {
    memory::collection([1, 2, 3])
}

fn timed() -> impl staunch::core::IntoSource<Record = u64> {
    numbers().event_time(|n| Timestamp::from_millis(*n as i64), Duration::ZERO)
}

fn minute() -> Tumbling {
    Tumbling::of(Duration::from_secs(60))
}

#[test]
fn a_window_without_event_time_is_refused_with_the_names_of_step_and_source() {
    let error = wrong(|job| {
        job.source("x", numbers())
            .key_by(|n| *n)
            .window(minute())
            .count("totals")
            .sink("output", discard::sink());
        Ok(())
    });
    assert_eq!(
        error,
        "`totals` needs event time, and its source `x` assigns none; give it one with .event_time(|record| ..., lateness)"
    );
}

#[test]
fn of_several_sources_only_those_without_event_time_are_named() {
    let error = wrong(|job| {
        let all = job.source("timed", timed()).union(job.source("plain", numbers()));
        let all = all.union(job.source("other", numbers()));
        all.key_by(|n| *n).window(minute()).count("totals").sink("output", discard::sink());
        Ok(())
    });
    assert!(
        error.starts_with("`totals` needs event time, and its sources `other`, `plain` assign none;"),
        "{error}"
    );
}

#[test]
fn a_step_that_drops_event_time_is_named_and_not_its_source() {
    let error = wrong(|job| {
        let counts = job.source("x", timed()).key_by(|n| *n).count("counts");
        counts.key_by(|(n, _)| *n).window(minute()).count("totals").sink("output", discard::sink());
        Ok(())
    });
    assert!(
        error.starts_with("`totals` needs event time, and `counts` before it passes none on;"),
        "{error}"
    );
}

#[test]
fn a_name_given_twice_is_refused() {
    let error = wrong(|job| {
        job.source("numbers", numbers()).key_by(|n| *n).count("numbers").sink("output", discard::sink());
        Ok(())
    });
    assert!(error.starts_with("the name `numbers` is given to two steps"), "{error}");
}

#[test]
fn a_bad_name_is_refused_whatever_it_names() {
    for bad in ["", "a b", "-a", "a/b", "ä", "a.b", &"x".repeat(101)] {
        let name = bad.to_owned();
        let error = wrong(move |job| {
            job.source(&name, numbers()).sink("output", discard::sink());
            Ok(())
        });
        assert!(error.contains(&format!("{bad:?} is not a name for a step")), "{error}");
    }
}

#[test]
fn a_stream_that_goes_nowhere_is_refused() {
    let error = wrong(|job| {
        let _ = job.source("numbers", numbers()).map(|n| n + 1);
        Ok(())
    });
    assert!(error.starts_with("the output of map goes nowhere; end it with .sink"), "{error}");
    let error = wrong(|job| {
        let _ = job.source("numbers", numbers()).key_by(|n| *n).count("counts");
        Ok(())
    });
    assert!(error.starts_with("the output of count `counts` goes nowhere"), "{error}");
}

#[test]
fn an_empty_job_is_refused() {
    let error = wrong(|_| Ok(()));
    assert!(error.contains("the job has no steps"), "{error}");
}

#[test]
fn dead_letters_without_a_stream_for_them_and_windows_of_nothing_are_refused() {
    let error = wrong(|job| {
        job.source("numbers", numbers().on_bad_input(BadInput::DeadLetter)).sink("output", discard::sink());
        Ok(())
    });
    assert!(error.contains("`numbers`") && error.contains("source_with_dead_letters"), "{error}");
    let error = wrong(|job| {
        let keyed = job.source("numbers", timed()).key_by(|n| *n);
        keyed.window(Tumbling::of(Duration::from_micros(10))).count("counts").sink("output", discard::sink());
        Ok(())
    });
    assert!(error.contains("at least a millisecond"), "{error}");
}

#[test]
fn what_the_program_itself_refuses_is_passed_on() {
    let error = wrong(|_| Err(Error::job("--from-year must not be later than --to-year")));
    assert_eq!(error, "--from-year must not be later than --to-year");
}

#[test]
fn zero_workers_and_a_bad_name_of_the_job_are_refused() {
    let job = |job: &Job<'_>| {
        job.source("numbers", numbers()).sink("output", discard::sink());
        Ok(())
    };
    let error = place().workers(0).fail(job).to_string();
    assert!(error.starts_with("0 workers: the number must be from 1 to 128"), "{error}");
    let mut place = place();
    place.config.job = "my job".into();
    assert!(place.fail(job).to_string().contains("\"my job\""));
}

/// Calls number `others` and up build another graph, with channels of other types.
fn fickle(others: usize) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let calls = AtomicUsize::new(0);
    move |job| {
        let numbers = job.source("numbers", numbers());
        if calls.fetch_add(1, SeqCst) < others {
            numbers.key_by(|n| *n).count("counts").sink("output", discard::sink());
        } else {
            let words = numbers.map(|n| n.to_string());
            words.key_by(|word| word.clone()).count("words").sink("output", discard::sink());
        }
        Ok(())
    }
}

#[test]
fn a_worker_that_builds_another_graph_is_refused_with_the_step_and_what_to_do() {
    for (workers, others) in [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)] {
        let error = place().workers(workers).fail(fickle(others));
        assert_eq!(error.kind(), Kind::Job, "{error}");
        let error = error.to_string();
        for word in ["another graph", "step #1 was count `counts`, and is map", "HashMap", "same graph"] {
            assert!(error.contains(word), "{workers} workers, {others} equal ones: no {word:?} in {error}");
        }
    }
}

#[test]
fn a_panic_while_the_graph_is_built_is_an_error_of_the_job_wherever_it_comes() {
    for good in 0..=2 {
        let calls = AtomicUsize::new(0);
        let error = place().workers(2).fail(move |job| {
            let source = job.source("numbers", numbers());
            assert!(calls.fetch_add(1, SeqCst) < good, "no columns");
            source.sink("output", discard::sink());
            Ok(())
        });
        assert_eq!(error.kind(), Kind::Job, "{error}");
        assert!(
            error.to_string().contains("panicked") && error.to_string().contains("no columns"),
            "{error}"
        );
    }
}

#[test]
fn a_plan_is_text_json_and_dot() {
    let plan = plan(|job| {
        let events = job.source("events", timed());
        let (counts, late) = events
            .clone()
            .key_by(|n| *n)
            .window(minute())
            .fold_with_late("totals", |sum: &mut u64, n| *sum += n);
        counts.sink("output", memory::collect());
        late.sink("late", discard::sink());
        events.map(|n| n * 2).sink("screen", stdout::json());
        Ok(())
    })
    .unwrap();
    let text = plan.to_text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "#0   source `events` [event time]",
            "#1   window fold `totals` (allowed lateness 0s, window 60s) [event time]  <- #0",
            "#2   late records [event time]  <- #1",
            "#3   sink `output`  <- #1",
            "#4   sink `late` (at least once)  <- #2",
            "#5   map [event time]  <- #0",
            "#6   sink `screen` (at least once)  <- #5",
        ]
        .map(|line| line.replace(" [event", "  [event"))
    );
    let json: serde_json::Value = serde_json::from_str(&plan.to_json()).unwrap();
    assert_eq!(json["nodes"][1]["kind"], "stateful");
    assert_eq!(json["nodes"][1]["name"], "totals");
    assert_eq!(json["nodes"][1]["parameters"]["window"], "60s");
    assert_eq!(json["nodes"][1]["inputs"], serde_json::json!([0]));
    assert_eq!(json["nodes"][3]["guarantee"], "exactly-once");
    let dot = plan.to_dot();
    assert!(dot.starts_with("digraph job {") && dot.ends_with("}\n"));
    assert!(dot.contains("n0 -> n1;") && dot.contains("n1 [label=\"window fold `totals`\""), "{dot}");
}
