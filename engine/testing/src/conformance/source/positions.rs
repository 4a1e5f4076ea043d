//! Rules about positions. Their sentences are in the list of rules.

use super::Input;
use super::bench::{Bench, Known, LIMITS, PositionOf};
use crate::conformance::{Verdict, must};
use staunch::core::source::Progress;
use std::time::{Duration, Instant};

/// Polls without room, and polls after the last record, that must not move a position.
const EMPTY_POLLS: usize = 5;

pub fn a_position_is_of_the_next_record<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        for limit in LIMITS {
            let (_, boundaries) = bench.boundaries(known, limit, 0)?;
            for boundary in boundaries {
                leads_on(bench, known, &boundary.position, boundary.records, limit)?;
            }
        }
    }
    Ok(())
}

/// Breaks the rule unless the position is that of the record after the first `read`.
fn leads_on<I: Input>(
    bench: &Bench<I>,
    known: &Known<I>,
    at: &PositionOf<I>,
    read: usize,
    limit: usize,
) -> Verdict {
    let what = || {
        let id = &known.id;
        format!("split `{id}`, opened where a reader stood after record {read} ({limit} wanted of each poll)")
    };
    bench.rest_is(what, &known.split, Some(at), limit, known.after(read)?)
}

/// A barrier may come right after a restart: then this position is the checkpoint's.
pub fn an_unread_reader_stands_where_it_was_opened<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let (_, boundaries) = bench.boundaries(known, 1, 0)?;
        for boundary in boundaries {
            let at = bench.open(&known.split, Some(&boundary.position))?.position();
            leads_on(bench, known, &at, boundary.records, 4096)?;
        }
        let fresh = bench.open(&known.split, None)?.position();
        leads_on(bench, known, &fresh, 0, 4096)?;
    }
    Ok(())
}

pub fn a_poll_without_records_leaves_the_position<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let all = known.records.len();
        for read in [0, all / 2, all] {
            let mut reading = bench.open(&known.split, None)?;
            reading.read_some(1, read)?;
            for _ in 0..EMPTY_POLLS {
                // A batch that cannot be cut may come even without room; it is counted.
                reading.poll(0)?;
                leads_on(bench, known, &reading.position(), reading.records.len(), 4096)?;
            }
        }
    }
    Ok(())
}

pub fn opening_at_the_end_gives_nothing<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let mut reading = bench.open(&known.split, None)?;
        reading.read_on(4096, known.records.len(), 0)?;
        let mut end = reading.position();
        // Again and again: a position must not walk away from the end.
        for _ in 0..3 {
            let mut after = bench.open(&known.split, Some(&end))?;
            after.read_on(4096, 0, 0)?;
            let seen = format!("{} records", after.records.len() + after.bad.len());
            must(after.records.is_empty(), format!("nothing after the end of split `{}`", known.id), seen)?;
            end = after.position();
        }
    }
    Ok(())
}

pub fn what_is_appended_follows_the_old_position<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let mut reading = bench.open(&known.split, None)?;
        reading.read_on(7, known.records.len(), 0)?;
        let (end, mut all) = (reading.position(), known.records.clone());
        drop(reading);
        let more = bench.input.grow(&known.id).or_skip()?;
        must(!more.is_empty(), "an input that grows by a record at least (`Input::grow`)", "none")?;
        let what = || format!("split `{}`, grown while nobody read it", known.id);
        bench.rest_is(what, &known.split, Some(&end), 2, &more)?;
        all.extend(more);
        bench.rest_is(what, &known.split, None, 7, &all)?;
    }
    Ok(())
}

pub fn a_lost_position_is_an_error<I: Input>(bench: &Bench<I>) -> Verdict {
    let mut stood = Vec::new();
    for known in bench.splits.iter().filter(|known| known.records.len() >= super::FEWEST_RECORDS) {
        let mut reading = bench.open(&known.split, None)?;
        reading.read_some(1, known.records.len() / 2)?;
        stood.push((known, reading.position()));
    }
    for (known, at) in stood {
        bench.input.lose_positions(&known.id).or_skip()?;
        let expected = format!("an error at opening split `{}` at {at:?}, which is gone", known.id);
        // Whoever reads in the background may find out a moment later, but before it hands anything out.
        let Ok(mut reading) = bench.try_open(&known.split, Some(&at)) else { continue };
        let until = Instant::now() + bench.input.patience();
        loop {
            let Ok(polled) = reading.try_poll(1) else { break };
            let came = polled.records + polled.bad;
            must(came == 0, expected.clone(), format_args!("{came} records"))?;
            let over = polled.progress == Progress::End || Instant::now() > until;
            must(!over, expected.clone(), format_args!("{:?}", polled.progress))?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}
