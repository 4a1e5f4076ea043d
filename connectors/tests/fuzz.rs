//! Whatever JSON is found where the position of a file should be: an error, or exactly the records from where
//! that position says. A file is recognised by fingerprints, so hardly any other position is believed.
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;
#[path = "../../engine/checkpoint/tests/fuzz/mutate.rs"]
mod mutate;

use by_hand::{poll, run};
use mutate::{Watched, fuzz};
use staunch_connectors::file::{self, FilePosition};
use staunch_core::source::{Source, SplitReader};
use std::fs;
use tempfile::TempDir;

#[global_allocator]
static WATCHED: Watched = Watched;

#[test]
fn a_mutated_position_is_an_error_or_begins_where_it_says() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("words.txt");
    let lines: Vec<String> = (0..200).map(|n| format!("line {n} of them, {}", n * n)).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let source = file::lines(&path);
    let (split, positions) = run(async {
        let (_, split) = source.splits().await.unwrap().remove(0);
        let mut positions = Vec::new();
        for count in [1, 50, 150, 200] {
            let mut reader = source.open(split.clone(), None).await.unwrap();
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
            let mut reader = source.open(split.clone(), Some(position)).await?;
            poll(&mut reader, |_| false)
        });
        if let Ok(read) = read {
            let text: usize = lines.iter().map(|line| line.len() + 1).sum();
            let rest: usize = read.records.iter().map(|line| line.len() + 1).sum();
            // The last line has no end, and a position behind it says so.
            assert_eq!((text - rest) as u64, offset.min(text as u64 - 1) + u64::from(rest == 0), "{offset}");
            assert!(lines.ends_with(&read.records), "not the records from {offset} on");
            begun += 1;
        }
    });
    println!("{begun} of them begin");
    assert!(begun > 0);
}
