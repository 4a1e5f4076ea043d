//! What a start of the job will load, read from its checkpoint log: a line and then JSON, in one file a record.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files of state that a checkpoint lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// Of all of them together.
    pub bytes: u64,
    /// How many they are.
    pub files: usize,
}

#[derive(Deserialize)]
struct Record {
    /// None in a record that is not of a checkpoint.
    checkpoint: Option<Manifest>,
}

#[derive(Deserialize)]
struct Manifest {
    states: BTreeMap<String, State>,
}

#[derive(Deserialize)]
struct State {
    shards: Vec<Shard>,
}

#[derive(Deserialize)]
struct Shard {
    files: Vec<StateFile>,
}

#[derive(Deserialize)]
struct StateFile {
    bytes: u64,
}

/// Of the newest checkpoint, while no process runs the job.
pub fn newest(checkpoints: &Path) -> Result<Stored> {
    let log = checkpoints.join("log");
    let listed = fs::read_dir(&log)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>());
    let mut records = listed.with_context(|| format!("cannot list {}", log.display()))?;
    // Names sort as their numbers do.
    records.sort_unstable();
    for record in records.iter().rev() {
        let what = || format!("cannot read {}", record.display());
        let text = fs::read_to_string(record).with_context(what)?;
        if let Some(stored) = of_record(&text).with_context(what)? {
            return Ok(stored);
        }
    }
    bail!("there is no checkpoint in {}", log.display())
}

fn of_record(text: &str) -> Result<Option<Stored>> {
    let (_, body) = text.split_once('\n').context("the record has no first line")?;
    let record: Record = serde_json::from_str(body)?;
    Ok(record.checkpoint.map(|manifest| {
        let shards = manifest.states.values().flat_map(|state| &state.shards);
        let files: Vec<u64> = shards.flat_map(|shard| &shard.files).map(|file| file.bytes).collect();
        Stored { bytes: files.iter().sum(), files: files.len() }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_all_steps_and_workers_count_and_fences_are_no_checkpoints() {
        let files = |all: &str| format!(r#"{{ "worker": 0, "watermark_ms": null, "files": [{all}] }}"#);
        let file =
            |bytes: u64| format!(r#"{{ "name": "a", "kind": "base", "bytes": {bytes}, "crc32c": 1 }}"#);
        let (one, two) = (files(&format!("{}, {}", file(10), file(3))), files(&file(100)));
        let state = |shard: &str| format!(r#"{{ "schema": "u64", "shards": [{shard}] }}"#);
        let states = format!(r#"{{ "a": {}, "b": {} }}"#, state(&one), state(&two));
        let checkpoint = format!("staunch-log 2 0 0\n{{ \"checkpoint\": {{ \"states\": {states} }} }}\n");
        assert_eq!(of_record(&checkpoint).unwrap(), Some(Stored { bytes: 113, files: 3 }));
        let fence = "staunch-log 2 0 0\n{ \"fence\": { \"job\": \"recovery\" } }\n";
        assert_eq!(of_record(fence).unwrap(), None);
    }
}
