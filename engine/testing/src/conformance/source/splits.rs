//! Rules about splits: who they are, and who reads them. Their sentences are in the list of rules.

use super::Input;
use super::bench::{Bench, LIMITS, PositionOf, same};
use super::reading::Reading;
use crate::conformance::{Stop, Verdict, must};
use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch::core::source::SplitReader;
use std::fmt::Debug;

/// Listings that are compared: names made of a hash map's order may agree by chance once.
const LISTINGS: usize = 6;
/// Orders in which splits are read, each from a seed of its own.
const SEEDS: u64 = 6;
/// Rounds after which readers are left to read to the end.
const ROUNDS: usize = 30;

pub fn an_identity_names_the_same_records_in_every_listing<I: Input>(bench: &Bench<I>) -> Verdict {
    let known: Vec<&String> = bench.splits.iter().map(|known| &known.id).collect();
    for listing in 1..=LISTINGS {
        let listed = bench.list()?;
        let ids: Vec<&String> = listed.iter().map(|(id, _)| id).collect();
        let equal = ids.len() == known.len() && known.iter().all(|id| ids.contains(id));
        must(equal, format!("the identities {known:?} in every listing"), format_args!("{ids:?}"))?;
        for (id, split) in &listed {
            let Some(known) = bench.splits.iter().find(|known| known.id == *id) else { continue };
            let what = || format!("listing {listing}, split `{id}`");
            bench.rest_is(what, split, None, 4096, &known.records)?;
        }
    }
    Ok(())
}

pub fn splits_and_positions_survive_as_json<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        let split = through_json("split", &known.split)?;
        let (_, boundaries) = bench.boundaries(known, 1, 0)?;
        for boundary in boundaries {
            let at = through_json("position", &boundary.position)?;
            let what = || format!("split `{}`, from a position read back from JSON: {at:?}", known.id);
            bench.rest_is(what, &split, Some(&at), 4096, known.after(boundary.records)?)?;
        }
    }
    Ok(())
}

/// As the checkpoint's record does it: as text, and as a value inside of a larger one.
fn through_json<T: Serialize + DeserializeOwned + Debug>(what: &str, value: &T) -> Result<T, Stop> {
    let expected = || format!("a {what} that can be written as JSON and read back");
    let failed = |e: serde_json::Error| Stop::broken(expected(), format!("{value:?}: {e}"));
    let text = serde_json::to_string(value).map_err(failed)?;
    let again: T = serde_json::from_str(&text).map_err(failed)?;
    let once_more = serde_json::to_value(&again).map_err(failed)?;
    let same = serde_json::to_value(value).map_err(failed)? == once_more;
    must(same, format!("{} unchanged", expected()), format_args!("{text}, then {once_more}"))?;
    serde_json::from_value(once_more).map_err(failed)
}

pub fn reading_again_gives_the_same_records<I: Input>(bench: &Bench<I>) -> Verdict {
    for known in &bench.splits {
        for limit in LIMITS.into_iter().chain(LIMITS) {
            let what = || format!("split `{}` from its beginning, {limit} wanted of each poll", known.id);
            bench.rest_is(what, &known.split, None, limit, &known.records)?;
        }
    }
    Ok(())
}

/// A small generator of numbers that look random; the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % n.max(1) as u64).unwrap_or(0)
    }
}

pub fn other_readers_in_any_order_read_the_same<I: Input>(bench: &Bench<I>) -> Verdict {
    (1..=SEEDS).try_for_each(|seed| read_in_any_order(bench, seed))
}

fn read_in_any_order<I: Input>(bench: &Bench<I>, seed: u64) -> Verdict {
    let mut dice = Dice(seed);
    let mut at: Vec<Option<PositionOf<I>>> = bench.splits.iter().map(|_| None).collect();
    let mut got: Vec<Vec<I::Record>> = bench.splits.iter().map(|_| Vec::new()).collect();
    // The readers of the generation before read on for a while, as those of a zombie do.
    let mut zombies: Vec<(usize, Reading<I>)> = Vec::new();
    for _ in 0..ROUNDS {
        let mut order: Vec<usize> = (0..bench.splits.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, dice.below(last + 1));
        }
        let mut readers = Vec::new();
        for split in order {
            readers.push((split, bench.open(&bench.splits[split].split, at[split].as_ref())?));
        }
        for _ in 0..2 * readers.len() + dice.below(4) {
            let (chosen, limit) = (dice.below(readers.len()), 1 + dice.below(3));
            readers[chosen].1.poll(limit)?;
            if let Some((_, zombie)) = zombies.get_mut(chosen) {
                zombie.poll(limit)?;
            }
        }
        for (split, reading) in &readers {
            at[*split] = Some(reading.position());
            got[*split].extend_from_slice(&reading.records);
        }
        zombies = readers;
        if got.iter().zip(&bench.splits).all(|(got, known)| got.len() >= known.records.len()) {
            break;
        }
    }
    for ((known, at), mut got) in bench.splits.iter().zip(at).zip(got) {
        let mut last = bench.open(&known.split, at.as_ref())?;
        last.read_on(4096, known.records.len().saturating_sub(got.len()), 0)?;
        got.append(&mut last.records);
        same(|| format!("split `{}`, read by many readers (seed {seed})", known.id), &known.records, &got)?;
    }
    Ok(())
}

pub fn new_splits_leave_the_old_ones_alone<I: Input>(bench: &Bench<I>) -> Verdict {
    let mut stood = Vec::new();
    for known in &bench.splits {
        let mut reading = bench.open(&known.split, None)?;
        reading.read_some(1, known.records.len() / 2)?;
        stood.push((reading.reader.position(), reading.records.len()));
    }
    let (new, records) = bench.input.add_split().or_skip()?;
    let listed = bench.list()?;
    let ids: Vec<&String> = listed.iter().map(|(id, _)| id).collect();
    let right = ids.len() == bench.splits.len() + 1
        && bench.splits.iter().all(|known| ids.contains(&&known.id))
        && ids.contains(&&new);
    must(right, format!("the old identities and `{new}`"), format_args!("{ids:?}"))?;
    for (id, split) in &listed {
        let Some(at) = bench.splits.iter().position(|known| known.id == *id) else {
            bench.rest_is(|| format!("the new split `{id}`"), split, None, 4096, &records)?;
            continue;
        };
        let (position, read) = &stood[at];
        // As listed now, and as the checkpoint has it.
        for split in [split, &bench.splits[at].split] {
            let what = || format!("the old split `{id}` after record {read}");
            bench.rest_is(what, split, Some(position), 4096, bench.splits[at].after(*read)?)?;
        }
    }
    Ok(())
}
