//! Crashes at many random moments: the output is the same as if there had been none.

use crate::faulty::{Deed, Faulty, Moment, faulty};
use crate::harness::{Dice, Fuse, place};
use crate::oracle::{Input, Total};
use staunch::memory::collect;
use staunch::prelude::*;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const INPUT: Input = Input { splits: 4, records: 30_000, keys: 50 };

#[test]
fn a_step_that_panics_at_random_records_loses_and_doubles_nothing() {
    let mut dice = Dice::new(1);
    let (mut crashes, mut restored) = (0, 0);
    for round in 0..12 {
        let (place, output) = (place().every_ms(5), collect::<Total>());
        let mut place = place.workers(2);
        let room = place.config.inflight_bytes;
        loop {
            place.config.workers = 1 + dice.roll(3) as usize;
            // In most rounds the first crash waits for the first commit, however long a checkpoint takes.
            let waits = round % 4 != 0 && output.committed().is_empty();
            let fuse = Fuse::at(1 + dice.roll(if waits { 40_000 } else { 100_000 }));
            // A barrier waits for what is in flight: while a commit is waited for, that is a batch at a time.
            place.config.inflight_bytes = if waits { 64 << 10 } else { room };
            let (sink, pass) = (output.clone(), fuse.clone());
            let outcome = place.run(move |job| {
                let (pass, seen) = (pass.clone(), sink.clone());
                let waiting = Cell::new(waits);
                // The records come slowly enough for some checkpoints, and far more slowly before the commit
                // that is waited for: the input must last until it comes.
                INPUT.totals(job, sink.clone(), move |number| {
                    if number % 1024 == 0 {
                        waiting.set(waiting.get() && seen.committed().is_empty());
                        std::thread::sleep(Duration::from_micros(if waiting.get() { 50_000 } else { 500 }));
                    }
                    assert!(waiting.get() || !pass.burn(), "a record that nobody can stomach");
                });
                Ok(())
            });
            INPUT.check_prefix(&output.committed());
            match outcome {
                Ok(Outcome::Finished) => break,
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert!(error.to_string().contains("nobody can stomach"), "{error}");
                    crashes += 1;
                    restored += u64::from(!output.committed().is_empty());
                }
            }
        }
        INPUT.check_all(&output.committed());
        assert_eq!(output.prepared_parts(), 0, "output that was never decided is left");
        place.assert_tidy();
    }
    assert!(crashes >= 10 && restored >= 5, "{crashes} crashes, {restored} of them after a commit");
}

/// Fails once, at the `nth` of these moments, in this way.
fn once(moment: Moment, nth: u64, deed: Deed) -> impl Fn(Moment) -> Deed + Send + Sync + 'static {
    let fuse = Fuse::at(nth);
    move |now| if now == moment && fuse.burn() { deed } else { Deed::Go }
}

fn totals_into(sink: &Faulty<Total>) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let sink = sink.clone();
    move |job| {
        INPUT.totals(job, sink.clone(), |number| {
            if number % 1024 == 0 {
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        Ok(())
    }
}

#[test]
fn a_sink_that_fails_or_panics_at_any_moment_loses_and_doubles_nothing() {
    let mut dice = Dice::new(2);
    let moments = [
        Moment::OpenWriter,
        Moment::OpenCommitter,
        Moment::Recover,
        Moment::Write,
        Moment::Prepare,
        Moment::Commit,
        Moment::Committed,
    ];
    for moment in moments {
        for deed in [Deed::Fail, Deed::Panic, Deed::Refuse] {
            let mut place = place().every_ms(5);
            let sink = faulty::<Total>(once(moment, 1 + dice.roll(3), deed));
            // A failed commit is tried again; everything else ends the run.
            for attempt in 0.. {
                assert!(attempt < 5, "{moment:?} {deed:?}: it fails again and again");
                place.config.workers = 1 + dice.roll(3) as usize;
                match place.run(totals_into(&sink)) {
                    Ok(outcome) => {
                        assert_ne!(outcome, Outcome::Stopped);
                        break;
                    }
                    Err(error) => {
                        let text = error.to_string();
                        assert!(text.contains("output"), "{moment:?} {deed:?}: no name in {text:?}");
                        assert!(text.contains(&format!("{moment:?}")), "{moment:?} {deed:?}: {text:?}");
                        INPUT.check_prefix(&sink.committed());
                    }
                }
            }
            INPUT.check_all(&sink.committed());
            assert_eq!(sink.inner.prepared_parts(), 0);
        }
    }
}

#[test]
fn failing_now_in_the_sink_and_now_in_the_job_loses_and_doubles_nothing() {
    let mut dice = Dice::new(3);
    let mut place = place().every_ms(5);
    let sink = faulty::<Total>(|_| Deed::Go);
    let began = Arc::new(AtomicU64::new(0));
    for round in 0.. {
        assert!(round < 400, "it does not get anywhere");
        place.config.workers = 1 + dice.roll(3) as usize;
        let moment = [Moment::Write, Moment::Prepare, Moment::Commit, Moment::Committed][round % 4];
        // Further every time, so that it ends.
        let deed = [Deed::Fail, Deed::Panic, Deed::Refuse][dice.roll(3) as usize];
        let nth = 2 + dice.roll(4 + round as u64 / 2);
        // Where checkpoints take long, there may be no second commit before the end.
        let nth = if round < 4 && moment == Moment::Commit { 1 } else { nth };
        sink.replace(once(moment, nth, deed));
        began.fetch_add(1, SeqCst);
        match place.run(totals_into(&sink)) {
            // Already, if the last run failed after the final checkpoint was decided.
            Ok(outcome) => {
                assert_ne!(outcome, Outcome::Stopped);
                break;
            }
            Err(_) => drop(INPUT.check_prefix(&sink.committed())),
        }
    }
    INPUT.check_all(&sink.committed());
    assert!(began.load(SeqCst) > 3, "it hardly failed");
    place.assert_tidy();
}
