//! Positions: in files, in collections, of the generator.

use super::{Shown, all_common, altered, no_panic, texts};
use crate::by_hand::{here, poll, run};
use crate::mutate::fuzz;
use serde_json::{Value, json};
use staunch_connectors::file::{self, FilePosition};
use staunch_connectors::generator;
use staunch_connectors::memory::{CollectionSplit, collection};
use staunch_core::source::{Records, Source, SplitReader};
use std::fs;
use std::task::{Context, Waker};
use tempfile::TempDir;

const SPLITS: u32 = 3;

/// A file is recognised by fingerprints, so hardly any other position is believed.
#[test]
fn a_mutated_position_is_an_error_or_begins_where_it_says() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("words.txt");
    let lines: Vec<String> = (0..200).map(|n| format!("line {n} of them, {}", n * n)).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let source = file::lines(&path);
    let (split, positions) = run(async {
        let (_, split) = source.splits(&here()).await.unwrap().remove(0);
        let mut positions = Vec::new();
        for count in [1, 50, 150, 200] {
            let mut reader = source.open(split.clone(), None, &here()).await.unwrap();
            let read = poll(&mut reader, |records| records.len() >= count).unwrap().records.len();
            positions.push((read, reader.position()));
        }
        (split, positions)
    });
    let corpus: Vec<Vec<u8>> = positions.iter().map(|(_, at)| serde_json::to_vec(at).unwrap()).collect();
    let mut begun = 0;
    fuzz("positions in files", &corpus, |_, input| {
        let Ok(position) = serde_json::from_slice::<FilePosition>(input) else { return };
        let offset = position.offset;
        let read = run(async {
            let mut reader = source.open(split.clone(), Some(position), &here()).await?;
            poll(&mut reader, |_| false)
        });
        match read {
            Ok(read) => {
                let text: usize = lines.iter().map(|line| line.len() + 1).sum();
                let rest: usize = read.records.iter().map(|line| line.len() + 1).sum();
                // The last line has no end, and a position behind it says so.
                assert_eq!(
                    (text - rest) as u64,
                    offset.min(text as u64 - 1) + u64::from(rest == 0),
                    "{offset}"
                );
                assert!(lines.ends_with(&read.records), "not the records from {offset} on");
                begun += 1;
            }
            Err(why) => no_panic(&why),
        }
    });
    println!("{begun} of them begin");
    assert!(begun > 0);
}

#[test]
fn a_mutated_position_in_a_collection_is_an_error_or_begins_where_it_says() {
    let numbers: Vec<u64> = (0..100).collect();
    let source = collection(numbers.clone()).splits(SPLITS);
    let splits = run(Source::splits(&source, &here())).unwrap();
    let good: Vec<Value> = splits
        .iter()
        .flat_map(|(_, split)| [json!([split, 0]), json!([split, 17]), json!([split, null])])
        .collect();
    let (mut begun, mut refused, mut foreign) = (0, 0, 0);
    fuzz("positions in collections", &texts(&good), |dice, input| {
        let value = altered(dice, input, &good);
        let _shown = Shown(&value);
        let decoded = serde_json::from_value::<(CollectionSplit, Option<u64>)>(value.clone());
        let Ok((split, at)) = decoded else {
            foreign += 1;
            return;
        };
        let plain = serde_json::to_value(&split).unwrap();
        let (index, next) = (plain["index"].as_u64().unwrap() as usize, at.unwrap_or(0));
        let all: Vec<u64> = numbers.iter().copied().skip(index).step_by(SPLITS as usize).collect();
        let opened = run(source.open(split, at, &here()));
        assert_eq!(opened.is_ok(), plain["of"] == SPLITS && next <= all.len() as u64);
        let Ok(mut reader) = opened else {
            refused += 1;
            return;
        };
        let read = poll(&mut reader, |_| false).unwrap().records;
        assert_eq!(read, all[next as usize..]);
        assert_eq!(reader.position(), all.len() as u64);
        begun += 1;
    });
    all_common(&[("begun", begun), ("refused", refused), ("no position", foreign)]);
}

#[test]
fn a_mutated_position_of_a_generator_is_an_error_or_begins_where_it_says() {
    const COUNT: u64 = 100;
    let source = generator::sequence(Some(COUNT), SPLITS, |split, index| (split, index));
    let endless = generator::sequence(None, SPLITS, |split, index| (split, index));
    let good = [json!([0, 0]), json!([1, 17]), json!([2, COUNT]), json!([1, u64::MAX - 3]), json!([0, null])];
    let (mut begun, mut refused, mut foreign) = (0, 0, 0);
    fuzz("positions of generators", &texts(&good), |dice, input| {
        let value = altered(dice, input, &good);
        let _shown = Shown(&value);
        let Ok((split, at)) = serde_json::from_value::<(u32, Option<u64>)>(value.clone()) else {
            foreign += 1;
            return;
        };
        let next = at.unwrap_or(0);
        let made = |until: u64| -> Vec<(u32, u64)> { (next..until).map(|index| (split, index)).collect() };
        let opened = run(source.open(split, at, &here()));
        assert_eq!(opened.is_ok(), split < SPLITS && next <= COUNT);
        match opened {
            Ok(mut reader) => {
                assert_eq!(poll(&mut reader, |_| false).unwrap().records, made(COUNT));
                assert_eq!(reader.position(), COUNT);
                begun += 1;
            }
            Err(_) => refused += 1,
        }
        let opened = run(endless.open(split, at, &here()));
        assert_eq!(opened.is_ok(), split < SPLITS);
        if let Ok(mut reader) = opened {
            let (mut out, until) = (Records::with_limit(10), next.saturating_add(10));
            reader.poll(&mut Context::from_waker(Waker::noop()), &mut out).unwrap();
            assert_eq!(out.records(), made(until));
            assert_eq!(reader.position(), until);
        }
    });
    all_common(&[("begun", begun), ("refused", refused), ("no position", foreign)]);
}
