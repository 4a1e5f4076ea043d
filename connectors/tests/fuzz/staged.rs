//! Staged output: its blobs, the rows in them, and the payloads that name them.

use super::{Shown, all_common, altered, context, prepared, refusal, texts};
use crate::by_hand::run;
use crate::mutate::fuzz;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use staunch_core::sink::{CommitError, Committer, Sink, SinkContext};
use staunch_core::staged::{Applied, Staged, StagedCommitter, StagedRows, StagedTarget, Token};
use staunch_core::{CheckpointId, Committable, InMemoryStorage, Result, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;
use std::sync::{Arc, Mutex};

/// A staged row with something of everything in it; no field takes less than a byte.
type Wide = (u64, String, Option<i64>, Vec<char>, BTreeMap<u8, bool>);

fn wide(n: u64) -> Wide {
    let (letters, few) = (format!("łine {n}").chars().collect(), n as u8 % 4);
    let maybe = (!n.is_multiple_of(3)).then_some(-(n as i64));
    (n, format!("name {n}"), maybe, letters, (0..few).map(|key| (key, key > 1)).collect())
}

/// A target that takes the rows of a commit, all or none of them.
#[derive(Clone, Default, Debug)]
struct Taker<R>(Arc<Mutex<Vec<R>>>);

impl<R: Serialize + DeserializeOwned + Send + 'static> StagedTarget for Taker<R> {
    type Record = R;
    type Row = R;
    type Connection = ();

    fn row(&self, record: R) -> Result<R> {
        Ok(record)
    }

    async fn connect(&self, _context: &SinkContext) -> Result<()> {
        Ok(())
    }

    async fn fence(&self, _connection: &mut (), _context: &SinkContext) -> Result<()> {
        Ok(())
    }

    async fn committed(
        &self,
        _connection: &mut (),
        _context: &SinkContext,
        _instance: u32,
    ) -> Result<Option<CheckpointId>, CommitError> {
        Ok(None)
    }

    async fn newest(
        &self,
        _connection: &mut (),
        _context: &SinkContext,
    ) -> Result<Option<CheckpointId>, CommitError> {
        Ok(None)
    }

    async fn apply(
        &self,
        _connection: &mut (),
        _token: &Token,
        rows: StagedRows<R>,
    ) -> Result<Applied, CommitError> {
        let rows = rows.collect::<Result<Vec<R>, CommitError>>()?;
        self.0.lock().unwrap().extend(rows);
        Ok(Applied::Now)
    }
}

/// Three blobs of staged output, each of a checkpoint of its own.
struct Stage {
    storage: InMemoryStorage,
    target: Taker<Wide>,
    listed: Vec<Committable>,
    /// By blob: its rows.
    chunks: Vec<Vec<Wide>>,
    blobs: Vec<(String, Vec<u8>)>,
}

impl Stage {
    fn new() -> Self {
        let (storage, target) = (InMemoryStorage::new(), Taker::<Wide>::default());
        let chunks: Vec<Vec<Wide>> =
            (0..3).map(|chunk| (10 * chunk..10 * chunk + 5).map(wide).collect()).collect();
        let listed = run(prepared(&Staged::new(target.clone()), &context(&storage, 1), &chunks));
        let blob = |one: &Committable| {
            let name = one.payload["chunks"][0]["name"].as_str().unwrap().to_owned();
            let bytes = storage.get(&name).unwrap();
            (name, bytes)
        };
        let blobs: Vec<(String, Vec<u8>)> = listed.iter().map(blob).collect();
        assert_eq!(blobs.len(), 3);
        Self { storage, target, listed, chunks, blobs }
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        self.blobs.iter().map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Puts back what a commit or a recovery removed.
    fn restore(&self) {
        for (name, bytes) in &self.blobs {
            self.storage.put(name, bytes).unwrap();
        }
    }

    fn committer(&self) -> StagedCommitter<Taker<Wide>> {
        let (sink, context) = (Staged::new(self.target.clone()), context(&self.storage, 1));
        run(async { sink.committer(&context).await.unwrap() })
    }

    /// The rows that a new committer takes to the target.
    fn commit(&self, one: &Committable) -> Result<Vec<Wide>, CommitError> {
        self.target.0.lock().unwrap().clear();
        let mut committer = self.committer();
        run(async { committer.commit(from_ref(one)).await })?;
        Ok(self.target.0.lock().unwrap().clone())
    }

    /// Whether these are the rows of whole blobs, one after the other.
    fn is_whole(&self, rows: &[Wide]) -> bool {
        let mut rest = rows;
        while !rest.is_empty() {
            let Some(chunk) = self.chunks.iter().find(|chunk| rest.starts_with(chunk)) else { return false };
            rest = &rest[chunk.len()..];
        }
        true
    }
}

#[test]
fn a_mutated_staged_blob_is_refused_or_is_the_blob() {
    let stage = Stage::new();
    let (mut same, mut refused) = (0_u64, 0_u64);
    fuzz("staged blobs", &stage.corpus(), |dice, input| {
        let at = dice.below(stage.blobs.len());
        stage.storage.put(&stage.blobs[at].0, input).unwrap();
        match stage.commit(&stage.listed[at]) {
            Ok(rows) => {
                assert_eq!(rows, stage.chunks[at]);
                same += 1;
            }
            Err(error) => {
                let why = refusal(error);
                assert!(why.contains("is damaged"), "{why}");
                refused += 1;
            }
        }
    });
    println!("{refused} refused, {same} the same");
    assert!(refused > same);
}

/// Behind the checksum, which is made right again after the mutation.
#[test]
fn mutated_staged_rows_under_a_right_checksum_are_an_error_or_some_rows() {
    let stage = Stage::new();
    let (mut read, mut unreadable) = (0, 0);
    fuzz("staged rows, checksums made right", &stage.corpus(), |_, input| {
        let mut one = stage.listed[0].clone();
        let chunk = &mut one.payload["chunks"][0];
        chunk["bytes"] = input.len().into();
        chunk["crc32c"] = crc32c::crc32c(input).into();
        stage.storage.put(&stage.blobs[0].0, input).unwrap();
        match stage.commit(&one) {
            Ok(rows) => {
                assert_eq!(rows.len(), stage.chunks[0].len(), "{rows:?}");
                read += 1;
            }
            Err(error) => {
                let why = refusal(error);
                assert!(why.contains("a staged row cannot be read"), "{why}");
                unreadable += 1;
            }
        }
    });
    all_common(&[("read", read), ("unreadable", unreadable)]);
}

#[test]
fn rows_that_take_no_bytes_are_committed_as_often_as_they_were_written() {
    let (storage, target) = (InMemoryStorage::new(), Taker::<()>::default());
    let (sink, context) = (Staged::new(target.clone()), context(&storage, 1));
    run(async {
        let listed = prepared(&sink, &context, &[vec![(); 7]]).await;
        sink.committer(&context).await.unwrap().commit(&listed).await.unwrap();
    });
    assert_eq!(target.0.lock().unwrap().len(), 7);
}

#[test]
fn a_mutated_payload_of_a_staged_sink_commits_whole_blobs_or_nothing() {
    let stage = Stage::new();
    let chunks: Vec<Value> = stage.listed.iter().map(|one| one.payload["chunks"][0].clone()).collect();
    let good = [&chunks[..], &chunks[1..], &chunks[2..]].map(|chunks| {
        let mut payload = stage.listed[0].payload.clone();
        payload["chunks"] = chunks.into();
        payload
    });
    let (mut taken, mut lost, mut foreign) = (0, 0, 0);
    fuzz("payloads of staged output", &texts(&good), |dice, input| {
        let payload = altered(dice, input, &good);
        let _shown = Shown(&payload);
        let one = Committable { payload: payload.clone(), ..stage.listed[0].clone() };
        stage.restore();
        let mut committer = stage.committer();
        let recovered = run(async { committer.recover(from_ref(&one)).await });
        let listed = payload["chunks"].as_array().into_iter().flatten();
        let listed: BTreeSet<&str> = listed.filter_map(|chunk| chunk["name"].as_str()).collect();
        for (name, _) in &stage.blobs {
            let keeps = recovered.is_err() || listed.contains(name.as_str());
            assert_eq!(stage.storage.get(name).is_ok(), keeps, "{name}");
        }
        stage.restore();
        match stage.commit(&one) {
            Ok(rows) => {
                assert!(recovered.is_ok() && stage.is_whole(&rows), "{rows:?}");
                taken += 1;
            }
            Err(error) => {
                let why = refusal(error);
                match recovered {
                    Ok(_) => {
                        // The last one: another number of rows than the blob has.
                        let all = ["is damaged", "not found", "a staged row cannot be read"];
                        assert!(all.iter().any(|one| why.contains(one)), "{why}");
                        lost += 1;
                    }
                    Err(_) => {
                        assert!(why.contains("did not stage"), "{why}");
                        foreign += 1;
                    }
                }
            }
        }
    });
    all_common(&[("taken", taken), ("lost", lost), ("no payload", foreign)]);
}
