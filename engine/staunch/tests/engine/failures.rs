//! Errors and panics end a job promptly, with the name of the step; never by a hang.

use crate::faulty::{Deed, Moment, faulty};
use crate::harness::{eventually, place};
use crate::topic::{Failure, Topic};
use staunch::core::batch::Batch;
use staunch::core::context::SourceContext;
use staunch::core::error::Kind;
use staunch::core::sink::CommitError;
use staunch::core::source::{Acknowledger, Acknowledging, Progress, Records, Source, SplitReader};
use staunch::core::step::{Properties, Step, StepCx};
use staunch::prelude::*;
use staunch::{discard, generator, memory};
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

/// Far more than a start and an end take on a slow machine, and less than any time limit of a job.
const PROMPT: Duration = Duration::from_secs(15);

/// Runs a job that fails by itself, on 1 to 3 workers: it is back soon, and says why.
fn fails_with<B>(words: &[&str], build: B)
where
    B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + Clone + 'static,
{
    for workers in 1..=3 {
        let began = Instant::now();
        let error = place().workers(workers).fail(build.clone()).to_string();
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error:?}");
        }
        assert!(began.elapsed() < PROMPT, "it took {:?}: {error}", began.elapsed());
    }
}

#[test]
fn a_panic_in_a_stateless_verb_ends_the_job() {
    fails_with(&["no such thing"], |job| {
        job.source("numbers", generator::sequence(None, 3, |_, n| n))
            .map(|n| if n == 77_777 { panic!("no such thing") } else { n })
            .sink("output", discard::sink());
        Ok(())
    });
}

#[test]
fn a_panic_in_a_keyed_step_names_the_step() {
    fails_with(&["step `sums`", "a bad day"], |job| {
        job.source("numbers", generator::sequence(None, 3, |_, n| n))
            .key_by(|n| n % 100)
            .fold("sums", |sum: &mut u64, n| {
                assert!(n != 77_777, "a bad day");
                *sum += n;
            })
            .sink("output", discard::sink());
        Ok(())
    });
}

/// Passes records on, and may lie about their event time.
struct Passes {
    says: bool,
    gives: fn(u64) -> bool,
}

impl Step<u64, u64> for Passes {
    type Out = u64;

    fn properties(&self) -> Properties {
        Properties { emits_event_time: self.says, ..Properties::of("pass") }
    }

    fn process(&mut self, input: &mut Batch<(u64, u64)>, cx: &mut StepCx<u64>) -> Result<()> {
        for (_, n) in input.items.drain(..) {
            if (self.gives)(n) { cx.emit_at(n, 0) } else { cx.emit(n) }
        }
        Ok(())
    }
}

#[test]
fn a_step_that_lies_about_its_event_time_ends_the_job_before_a_record_is_lost() {
    let run = |says: bool, gives: fn(u64) -> bool, words: &'static [&'static str]| {
        fails_with(words, move |job| {
            let numbers = memory::collection((0..100_u64).collect::<Vec<_>>())
                .event_time(|_| Timestamp::MIN, Duration::ZERO);
            let step = Passes { says, gives };
            let passed = job.source("numbers", numbers).key_by(|n| *n).step("liar", |_| step).main;
            passed.filter(|_| true).sink("output", discard::sink());
            Ok(())
        });
    };
    run(true, |_| false, &["step `liar`", "0 event times", "has event times", "a bug"]);
    run(true, |n| n % 2 == 0, &["step `liar`", "has event times"]);
    run(false, |_| true, &["step `liar`", "has no event times"]);
}

#[test]
fn timed_and_untimed_records_come_together_without_event_times() {
    let (place, output) = (place(), memory::collect());
    let sink = output.clone();
    place.finish(move |job| {
        let timed = memory::collection((0..5_000_u64).collect::<Vec<_>>())
            .event_time(|_| Timestamp::MIN, Duration::ZERO);
        let untimed = job.source("untimed", memory::collection((5_000..10_000_u64).collect::<Vec<_>>()));
        let both = job.source("timed", timed).union(untimed);
        let step = Passes { says: false, gives: |_| false };
        let passed = both.filter(|_| true).key_by(|n| n % 7).step("pass", |_| step).main;
        passed.sink("output", sink.clone());
        Ok(())
    });
    let mut came = output.committed();
    came.sort_unstable();
    assert!(came.into_iter().eq(0..10_000));
}

#[test]
fn a_panic_in_the_event_time_of_a_source_names_the_source() {
    fails_with(&["step `numbers`", "what time"], |job| {
        let time = |n: &u64| {
            assert!(*n != 77_777, "what time is it");
            Timestamp::from_millis(*n as i64)
        };
        job.source("numbers", generator::sequence(None, 3, |_, n| n).event_time(time, Duration::ZERO))
            .sink("output", discard::sink());
        Ok(())
    });
}

#[test]
fn a_reader_that_fails_or_panics_ends_the_job_with_the_name_of_the_source() {
    for (failure, words) in [(Failure::Error, "the broker went away"), (Failure::Panic, "the reader panics")]
    {
        for workers in 1..=3 {
            let topic = Topic::<u64>::new(3);
            let source = topic.clone();
            let output = memory::collect();
            let sink = output.clone();
            let place = place().workers(workers);
            let running = place.start(move |job| {
                job.source("broker", source.clone()).sink("output", sink.clone());
                Ok(())
            });
            topic.push(1, 0..10);
            eventually("the first records", || output.committed().len() == 10);
            topic.fail(2, failure);
            let began = Instant::now();
            let error = running.wait().unwrap_err();
            assert!(began.elapsed() < PROMPT, "it took {:?}", began.elapsed());
            assert_eq!(error.step(), Some("broker"));
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

/// What a [`Broken`] source does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    ListError,
    ListPanic,
    OpenError,
    OpenPanic,
    ListHangs,
    ListBlocks,
    OpenHangs,
    OpenBlocks,
}

/// Longer than any test waits.
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone)]
struct Broken(Wrong);

struct Never;

impl Source for Broken {
    type Record = u64;
    type Split = u32;
    type Position = u64;
    type Reader = Never;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, u32)>> {
        match self.0 {
            Wrong::ListError => Err(Error::external("it cannot be listed")),
            Wrong::ListPanic => panic!("it cannot be listed"),
            Wrong::ListHangs => std::future::pending().await,
            Wrong::ListBlocks => {
                std::thread::sleep(HOUR);
                Ok(Vec::new())
            }
            _ => Ok((0..5).map(|split| (split.to_string(), split)).collect()),
        }
    }

    async fn open(&self, split: u32, _: Option<u64>, _: &SourceContext) -> Result<Never> {
        match self.0 {
            _ if split != 4 => Ok(Never),
            Wrong::OpenPanic => panic!("it cannot be opened"),
            Wrong::OpenHangs => std::future::pending().await,
            Wrong::OpenBlocks => {
                std::thread::sleep(HOUR);
                Ok(Never)
            }
            _ => Err(Error::external("it cannot be opened")),
        }
    }
}

impl SplitReader for Never {
    type Record = u64;
    type Position = u64;

    fn poll(&mut self, _: &mut Context<'_>, _: &mut Records<u64>) -> Result<Progress> {
        Ok(Progress::Idle)
    }

    fn position(&self) -> u64 {
        0
    }
}

#[test]
fn a_source_that_cannot_be_listed_or_opened_ends_the_job_with_its_name() {
    for (wrong, words) in [
        (Wrong::ListError, "it cannot be listed"),
        (Wrong::ListPanic, "it cannot be listed"),
        (Wrong::OpenError, "it cannot be opened"),
        (Wrong::OpenPanic, "it cannot be opened"),
    ] {
        fails_with(&["step `broken`", words], move |job| {
            job.source("broken", Broken(wrong)).sink("output", discard::sink());
            Ok(())
        });
    }
}

#[test]
fn a_source_that_does_not_answer_ends_the_job_with_its_name_and_what_was_waited_for() {
    for (wrong, word) in [
        (Wrong::ListHangs, "list its splits"),
        (Wrong::ListBlocks, "list its splits"),
        (Wrong::OpenHangs, "split 4 was not opened"),
        (Wrong::OpenBlocks, "split 4 was not opened"),
    ] {
        let mut place = place();
        place.config.open_timeout = Duration::from_millis(200);
        let error = place.fail(move |job| {
            job.source("broken", Broken(wrong)).sink("output", discard::sink());
            Ok(())
        });
        assert_eq!(error.step(), Some("broken"));
        assert_eq!(error.kind(), staunch::core::error::Kind::External);
        let text = error.to_string();
        assert!(text.contains(word) && text.contains("--open-timeout"), "{text}");
    }
}

#[test]
fn a_sink_that_cannot_be_opened_ends_the_job_with_its_name() {
    for moment in [Moment::OpenWriter, Moment::OpenCommitter, Moment::Recover] {
        for deed in [Deed::Fail, Deed::Panic] {
            fails_with(&["step `output`", &format!("{moment:?}")], move |job| {
                let sink = faulty(move |now| if now == moment { deed } else { Deed::Go });
                job.source("numbers", generator::sequence(None, 3, |_, n| n)).sink("output", sink);
                Ok(())
            });
        }
    }
}

#[test]
fn a_program_that_builds_another_graph_on_a_worker_ends_the_job() {
    let builds = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let error = place().workers(2).fail(move |job| {
        let nth = builds.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if nth == 2 {
            return Err(Error::job("the second worker has other arguments"));
        }
        job.source("numbers", generator::sequence(None, 3, |_, n| n)).sink("output", discard::sink());
        Ok(())
    });
    assert!(error.to_string().contains("other arguments"), "{error}");
}

#[test]
fn a_writer_that_hangs_does_not_keep_a_failing_job_from_ending() {
    let sink = faulty(|now| if now == Moment::Write { Deed::Hang } else { Deed::Go });
    let topic = Topic::new(2);
    let source = topic.clone();
    let place = place().workers(2);
    let running = place.start(move |job| {
        job.source("broker", source.clone()).sink("output", sink.clone());
        Ok(())
    });
    topic.push(0, 0..100);
    eventually("the records are read", || running.metric("staunch_records_in_total", "output") > 0.0);
    topic.fail(1, Failure::Error);
    assert_eq!(running.wait().unwrap_err().step(), Some("broker"));
}

#[test]
fn a_commit_that_hangs_is_given_up_after_the_commit_timeout() {
    let mut place = place();
    place.config.commit_timeout = Duration::from_millis(300);
    let sink = faulty(|now| if now == Moment::Commit { Deed::Hang } else { Deed::Go });
    let output = sink.clone();
    let error = place.fail(move |job| {
        job.source("numbers", memory::collection([1, 2, 3])).sink("output", sink.clone());
        Ok(())
    });
    assert!(error.to_string().contains("output") && error.to_string().contains("300ms"), "{error}");
    output.behave();
    let sink = output.clone();
    let outcome = place.run(move |job| {
        job.source("numbers", memory::collection([1, 2, 3])).sink("output", sink.clone());
        Ok(())
    });
    // The final checkpoint was decided; only its output was left to be published.
    assert_eq!(outcome.unwrap(), Outcome::AlreadyFinished);
    assert_eq!(output.committed(), [1, 2, 3]);
}

/// A topic whose acknowledgements are refused.
struct Unheard(Topic<u64>);

struct Refusing;

impl Acknowledger for Refusing {
    type Position = <Topic<u64> as Source>::Position;

    async fn acknowledge(&mut self, _: &[(String, Self::Position)]) -> Result<(), CommitError> {
        Err(CommitError::Refused(Error::job("the subscription was deleted")))
    }
}

impl Source for Unheard {
    type Record = u64;
    type Split = <Topic<u64> as Source>::Split;
    type Position = <Topic<u64> as Source>::Position;
    type Reader = <Topic<u64> as Source>::Reader;

    async fn splits(&self, context: &SourceContext) -> Result<Vec<(String, Self::Split)>> {
        self.0.splits(context).await
    }

    async fn open(
        &self,
        split: Self::Split,
        at: Option<Self::Position>,
        context: &SourceContext,
    ) -> Result<Self::Reader> {
        self.0.open(split, at, context).await
    }

    async fn acknowledger(&self, _: &SourceContext) -> Result<Option<Acknowledging<Self::Position>>> {
        Ok(Some(Acknowledging::by(Refusing)))
    }
}

#[test]
fn an_acknowledgement_that_is_refused_for_good_needs_a_person() {
    let topic = Topic::new(1);
    topic.push(0, [1, 2, 3]);
    let output = memory::collect();
    let error = place().fail(move |job| {
        job.source("numbers", Unheard(topic.clone())).sink("output", output.clone());
        Ok(())
    });
    assert!(error.to_string().contains("the subscription was deleted"), "{error}");
    assert_eq!(error.kind(), Kind::Job);
}
