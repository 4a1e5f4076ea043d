//! Stopping at random moments, and going on with another number of workers.

use crate::harness::{Dice, eventually, place};
use crate::oracle::{Input, Total};
use staunch::core::Request;
use staunch::memory::collect;
use staunch::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const INPUT: Input = Input { splits: 5, records: 20_000, keys: 300 };

/// Runs the job with a stop at a random moment until it is finished; returns the number of stops.
fn stop_and_go(every: Option<u64>, seed: u64) -> u32 {
    let mut dice = Dice::new(seed);
    let (mut place, output) = (place(), collect::<Total>());
    place.config.checkpoint_every = every.map(Duration::from_millis);
    let read = Arc::new(AtomicU64::new(0));
    for stops in 0.. {
        assert!(stops < 200, "it does not get anywhere");
        place.config.workers = [1, 3, 2][stops as usize % 3];
        let (sink, count) = (output.clone(), Arc::clone(&read));
        count.store(0, SeqCst);
        let before = output.committed().len() as u64;
        let running = place.start(move |job| {
            let count = Arc::clone(&count);
            INPUT.totals(job, sink.clone(), move |_| {
                if count.fetch_add(1, SeqCst) % 512 == 0 {
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
            Ok(())
        });
        // Sometimes before the workers are up, sometimes after the end. Counted in records, so that a fast
        // machine stops as often as a slow one.
        let left = u64::from(INPUT.splits) * INPUT.records - before;
        let enough = dice.roll(40_000).saturating_sub(4_000).min(left);
        eventually("enough is read", || read.load(SeqCst) >= enough);
        // With nothing left it comes to its end by itself, and a stop might be sooner, again and again.
        if left > 0 {
            running.controls.request(Request::Stop);
        }
        let outcome = running.wait().unwrap();
        let committed = output.committed();
        let all = INPUT.check_prefix(&committed);
        // A stop loses nothing: what was read is in the output, all of it.
        assert_eq!(all - before, read.load(SeqCst), "read and committed since the last stop");
        assert_eq!(output.prepared_parts(), 0);
        place.assert_tidy();
        if outcome == Outcome::Finished {
            INPUT.check_all(&committed);
            return stops;
        }
        assert_eq!(outcome, Outcome::Stopped);
    }
    unreachable!("the loop has no end");
}

#[test]
fn a_job_stopped_at_random_moments_goes_on_with_1_3_and_2_workers() {
    let stops: u32 = (0..4).map(|seed| stop_and_go(Some(5), 10 + seed)).sum();
    assert!(stops >= 8, "{stops} stops");
}

#[test]
fn a_job_without_periodic_checkpoints_goes_on_after_a_stop_too() {
    let stops: u32 = (0..2).map(|seed| stop_and_go(None, 20 + seed)).sum();
    assert!(stops >= 4, "{stops} stops");
}

#[test]
fn more_workers_than_key_groups_of_the_checkpoint_are_refused() {
    let (mut place, output) = (place(), collect::<Total>());
    place.config.groups = 2;
    let build = |output: &staunch::memory::Collected<Total>| {
        let sink = output.clone();
        move |job: &Job<'_>| {
            INPUT.totals(job, sink.clone(), |_| {});
            Ok(())
        }
    };
    let running = place.start(build(&output));
    assert_eq!(running.stop(), Outcome::Stopped);
    // The number of groups is that of the checkpoint, whatever is asked for now.
    (place.config.groups, place.config.workers) = (128, 3);
    let error = place.fail(build(&output)).to_string();
    assert!(error.contains("3 workers") && error.contains("from 1 to 2, the job's key groups"), "{error}");
    place.config.workers = 2;
    place.finish(build(&output));
    INPUT.check_all(&output.committed());
    assert!(place.manifests().iter().all(|m| m.groups == 2));
}

#[test]
fn the_state_of_two_steps_moves_with_their_keys() {
    let output = collect::<(u64, u64)>();
    let mut place = place().every_ms(5);
    let mut dice = Dice::new(30);
    let read = Arc::new(AtomicU64::new(0));
    for round in 0.. {
        assert!(round < 100, "it does not get anywhere");
        place.config.workers = [2, 1, 3][round % 3];
        let (sink, count) = (output.clone(), Arc::clone(&read));
        count.store(0, SeqCst);
        // Each record comes out once.
        let left = 60_000 - output.committed().len() as u64;
        let running = place.start(move |job| {
            let count = Arc::clone(&count);
            let numbers =
                staunch::generator::sequence(Some(15_000), 4, |split, n| u64::from(split) * 15_000 + n);
            job.source("numbers", numbers)
                .inspect(move |n| {
                    count.fetch_add(1, SeqCst);
                    if n % 512 == 0 {
                        std::thread::sleep(Duration::from_micros(200))
                    }
                })
                .key_by(|n| n % 1000)
                .count("first")
                .key_by(|(_, count)| *count)
                .count("second")
                .sink("output", sink.clone());
            Ok(())
        });
        // Counted in records, as above.
        let enough = dice.roll(15_000).saturating_sub(1_500).min(left);
        eventually("enough is read", || read.load(SeqCst) >= enough);
        if left > 0 {
            running.controls.request(Request::Stop);
        }
        if running.wait().unwrap() == Outcome::Finished {
            break;
        }
    }
    // 60 records of each of 1000 keys: each count is reached once by each key.
    let mut expected: Vec<(u64, u64)> = (1..=60).flat_map(|n| (1..=1000).map(move |k| (n, k))).collect();
    expected.sort();
    let mut found = output.committed();
    found.sort();
    assert_eq!(found, expected);
}
