//! Rules about polls: they return, they wake, they end. Their sentences are in the list of rules.

use super::Input;
use super::bench::{Bench, LIMITS, same};
use crate::conformance::{Stop, Verdict, must};
use staunch::core::source::Progress;
use std::time::{Duration, Instant};

/// What the quickest of several polls may take. Of one poll it would judge how busy the machine is.
const AT_ONCE: Duration = Duration::from_millis(20);
/// Polls of which the quickest counts.
const POLLS: usize = 8;
/// Polls in a row that may say Ready and bring nothing.
const EMPTY_READY: usize = 200;

pub fn poll_never_blocks<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let mut reading = bench.open(&known.split, None)?;
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for _ in 0..POLLS {
            first.push(reading.poll(1)?.took);
        }
        reading.read_on(1, known.records.len(), 0)?;
        for _ in 0..POLLS {
            last.push(reading.poll(1)?.took);
        }
        for (where_, took) in [("from the beginning", first), ("behind the last record", last)] {
            let quickest = took.iter().min().copied().unwrap_or_default();
            let expected =
                format!("of {POLLS} polls {where_} of split `{}` one within {AT_ONCE:?}", known.id);
            must(quickest <= AT_ONCE, expected, format_args!("the quickest took {quickest:?}"))?;
        }
    }
    Ok(())
}

pub fn poll_honours_the_room<I: Input>(bench: &Bench<I>) -> Verdict {
    let batch = bench.input.batch();
    let long: Vec<_> = bench.splits.iter().filter(|known| known.records.len() > 2 * batch).collect();
    if long.is_empty() {
        return Err(Stop::Skipped(format!("no split has more than two batches ({batch} records each)")));
    }
    for known in long {
        for limit in LIMITS {
            let mut reading = bench.open(&known.split, None)?;
            let until = Instant::now() + bench.input.patience();
            while reading.records.len() < known.records.len() && Instant::now() < until {
                let polled = reading.poll(limit)?;
                let most = limit + batch;
                let expected = format!("at most {limit} records, and a batch of {batch} beyond, of one poll");
                must(polled.records + polled.bad <= most, expected, polled.records + polled.bad)?;
                if polled.progress == Progress::End {
                    break;
                }
            }
        }
    }
    Ok(())
}

pub fn an_idle_reader_calls_the_waker<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let mut reading = bench.open(&known.split, None)?;
        while reading.records.len() < known.records.len() {
            let polled = reading.poll(2)?;
            if polled.progress == Progress::End {
                break;
            }
            if polled.progress == Progress::Idle {
                let (read, all) = (reading.records.len(), known.records.len());
                let seen = format!("it was not, within {:?}", bench.input.patience());
                let expected = format!("the waker called: split `{}` stands at {read} of {all}", known.id);
                must(reading.is_woken(&polled), expected, seen)?;
            }
        }
        same(|| format!("split `{}`, polled when woken", known.id), &known.records, &reading.records)?;
    }
    Ok(())
}

pub fn growth_wakes_an_idle_reader<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let mut reading = bench.open(&known.split, None)?;
        reading.read_on(7, known.records.len(), 0)?;
        let mut all = known.records.clone();
        for _ in 0..2 {
            // Two polls: the waker of the last one counts, not the first that was ever given.
            let mut polled = reading.poll(7)?;
            if polled.progress == Progress::End {
                // Right for an input that cannot grow, and wrong for one that can.
                bench.input.grow(&known.id).or_skip()?;
            }
            for _ in 0..2 {
                let expected = format!("Idle behind the last record of split `{}`, which may grow", known.id);
                must(polled.progress == Progress::Idle, expected, format_args!("{:?}", polled.progress))?;
                polled = reading.poll(7)?;
            }
            all.extend(bench.input.grow(&known.id).or_skip()?);
            while reading.records.len() < all.len() {
                if polled.progress == Progress::Idle {
                    let expected = format!("what was appended to split `{}` calls the waker", known.id);
                    let seen = format!("it was not called within {:?}", bench.input.patience());
                    must(reading.is_woken(&polled), expected, seen)?;
                }
                polled = reading.poll(7)?;
                must(polled.progress != Progress::End, "no End of a split that grows", "End")?;
            }
            // The last poll may have been Ready: the next round begins behind the last record again.
            reading.read_on(7, all.len(), 0)?;
        }
        same(|| format!("split `{}` with what was appended", known.id), &all, &reading.records)?;
    }
    Ok(())
}

/// A job is idle only if its sources say so; one that says Ready for ever keeps a core busy.
pub fn a_reader_with_nothing_is_idle_or_at_its_end<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let mut reading = bench.open(&known.split, None)?;
        reading.read_on(4096, known.records.len(), 0)?;
        let mut ready = 0;
        while reading.poll(7)?.progress == Progress::Ready {
            ready += 1;
            let expected = format!("Idle or End behind the last record of split `{}`", known.id);
            must(ready < EMPTY_READY, expected, format_args!("Ready, {ready} times"))?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

pub fn the_end_is_final<I: Input>(bench: &Bench<I>) -> Verdict {
    bench.input.end().or_skip()?;
    for known in &bench.splits {
        let mut reading = bench.open(&known.split, None)?;
        let until = Instant::now() + bench.input.patience();
        while reading.poll(7)?.progress != Progress::End {
            let expected = format!("End of split `{}` after {} records", known.id, known.records.len());
            must(Instant::now() < until, expected, format_args!("none after {}", reading.records.len()))?;
            std::thread::sleep(Duration::from_micros(100));
        }
        same(|| format!("split `{}` until its End", known.id), &known.records, &reading.records)?;
        let end = reading.position();
        for _ in 0..POLLS {
            let polled = reading.poll(7)?;
            let quiet = polled.progress == Progress::End && polled.records + polled.bad == 0;
            let seen = format!("{:?} with {} records", polled.progress, polled.records);
            must(quiet, format!("End and nothing else after the End of split `{}`", known.id), seen)?;
        }
        let after = bench.open(&known.split, Some(&end))?.poll(7)?;
        must(after.records == 0, "nothing behind the End", format_args!("{} records", after.records))?;
    }
    Ok(())
}
