//! Rules about bad input, and about acknowledging (window `j`). Their sentences are in the list of rules.

use super::Input;
use super::bench::{Bench, LIMITS, same};
use crate::conformance::{Stop, Verdict, must};
use staunch::core::source::SplitReader;
use std::time::{Duration, Instant};

/// How long a reader that must not acknowledge is watched for doing so.
const WATCHED: Duration = Duration::from_millis(30);

pub fn bad_input_is_reported_and_passed_over<I: Input>(bench: &Bench<I>) -> Verdict {
    let spoilt = bench.input.spoil().or_skip()?;
    let pieces: usize = spoilt.iter().map(|(_, pieces)| pieces).sum();
    must(pieces > 0, "an input with malformed pieces (`Input::spoil`)", "none")?;
    for known in &bench.splits {
        let of_split = |(id, pieces): &(String, usize)| (*id == known.id).then_some(*pieces);
        let wanted = spoilt.iter().find_map(of_split).unwrap_or(0);
        for limit in LIMITS {
            let (all, boundaries) = bench.boundaries(known, limit, wanted)?;
            let what = || format!("the good records of split `{}`, {limit} wanted of each poll", known.id);
            same(what, &known.records, &all.records)?;
            let expected = format!("{wanted} pieces of bad input in split `{}`", known.id);
            must(all.bad.len() == wanted, expected, format_args!("{:?}", all.bad))?;
            let told = all.bad.iter().all(|bad| !bad.place.is_empty() && !bad.reason.is_empty());
            must(told, "a place and a reason for each piece of bad input", format_args!("{:?}", all.bad))?;
            for at in boundaries {
                let mut rest = bench.open(&known.split, Some(&at.position))?;
                rest.read_on(limit, known.after(at.records)?.len(), wanted.saturating_sub(at.bad))?;
                let what = || {
                    let (read, bad, id) = (at.records, at.bad, &known.id);
                    format!("split `{id}` after {read} records and {bad} pieces of bad input")
                };
                same(what, known.after(at.records)?, &rest.records)?;
                same(|| format!("bad input, {}", what()), &all.bad[at.bad..], &rest.bad)?;
            }
        }
    }
    Ok(())
}

pub fn acknowledging_changes_nothing_that_is_read<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let (id, all) = (&known.id, known.records.len());
        let (mut reading, mut read) = (bench.open(&known.split, None)?, 0);
        let mut stood = vec![reading.position()];
        let until = Instant::now() + bench.input.patience();
        while read + reading.records.len() < all && Instant::now() < until {
            if reading.poll(2)?.records == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            stood.push(reading.position());
            let newest = stood.len() - 1;
            // Now and then nothing is told, or the same twice, or late, or an old one once more after a newer one.
            let told: &[usize] = match newest % 5 {
                0 => &[],
                1 => &[newest],
                2 => &[newest, newest],
                3 => &[newest - 1],
                _ => &[newest, newest / 2, newest],
            };
            for told in told {
                bench.acknowledge(id, &stood[*told])?;
            }
            if newest == 4 {
                // Acknowledged, and then a crash.
                same(
                    || format!("split `{id}`"),
                    known.records.get(..reading.records.len()).unwrap_or(&known.records),
                    &reading.records,
                )?;
                read = reading.records.len();
                reading = bench.open(&known.split, Some(&stood[newest]))?;
            }
        }
        same(|| format!("split `{id}`, while it is acknowledged"), known.after(read)?, &reading.records)?;
        let at = reading.position();
        bench.acknowledge(id, &at)?;
        drop(reading);
        bench.rest_is(|| format!("split `{id}`, opened at its end"), &known.split, Some(&at), 7, &[])?;
    }
    Ok(())
}

fn acknowledged<I: Input>(bench: &Bench<I>, id: &str) -> Result<u64, Stop> {
    bench.input.acknowledged(id).or_skip()
}

/// Breaks the rule unless so many records become acknowledged, and never more.
fn becomes<I: Input>(bench: &Bench<I>, id: &str, wanted: usize) -> Verdict {
    let (until, wanted) = (Instant::now() + bench.input.patience(), wanted as u64);
    loop {
        let seen = acknowledged(bench, id)?;
        let expected = format!("{wanted} records of split `{id}` acknowledged to the outside");
        must(seen <= wanted && Instant::now() < until, expected, seen)?;
        if seen == wanted {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn j_nothing_is_acknowledged_before_its_decision<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let (id, before) = (&known.id, acknowledged(bench, &known.id)?);
        let mut reading = bench.open(&known.split, None)?;
        reading.read_some(1, known.records.len() / 2)?;
        let (at, read) = (reading.position(), reading.records.len());
        reading.read_some(1, known.records.len())?;
        std::thread::sleep(WATCHED);
        let seen = acknowledged(bench, id)?;
        must(seen == before, format!("nothing of split `{id}` acknowledged before a decision"), seen)?;
        bench.acknowledge(id, &at)?;
        becomes(bench, id, read)?;
        std::thread::sleep(WATCHED);
        becomes(bench, id, read)?;
    }
    Ok(())
}

pub fn j_a_later_notice_covers_a_lost_one<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        acknowledged(bench, &known.id)?;
        let all = known.records.len();
        let mut first = bench.open(&known.split, None)?;
        first.read_some(1, all / 3)?;
        // This checkpoint is decided, and its notice is lost in the crash.
        let (at, read) = (first.position(), first.records.len());
        drop(first);
        let mut second = bench.open(&known.split, Some(&at))?;
        second.read_on(1, known.after(read)?.len(), 0)?;
        let what = || format!("split `{}` after a crash that lost a notice", known.id);
        same(what, known.after(read)?, &second.records)?;
        bench.acknowledge(&known.id, &second.reader.position())?;
        becomes(bench, &known.id, all)?;
    }
    Ok(())
}
