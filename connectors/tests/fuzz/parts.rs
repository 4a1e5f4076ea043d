//! Part files: the payloads that name them, and the owner of their directory.

use super::{Shown, all_common, altered, context, no_panic, prepared, texts};
use crate::by_hand::run;
use crate::mutate::fuzz;
use serde::Deserialize;
use serde_json::Value;
use staunch_connectors::file::{self, PartsCommitter};
use staunch_core::sink::{CommitError, Committer, Sink};
use staunch_core::{Committable, InMemoryStorage};
use staunch_testing::conformance::sink::{Row, rows};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use tempfile::TempDir;

/// The files in a directory, without those below.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    };
    paths.filter(|path| path.is_file()).map(read).collect()
}

/// An output directory with two prepared parts in it, as the first start left it.
struct Parts {
    _temporary: TempDir,
    out: PathBuf,
    pending: PathBuf,
    listed: Vec<Committable>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Parts {
    fn new() -> Self {
        let temporary = TempDir::new().unwrap();
        let out = temporary.path().join("out");
        let pending = out.join(".pending");
        let epochs = [rows(0..5), rows(5..15)];
        let (sink, context) = (file::json_lines::<Row>(&out), context(&InMemoryStorage::new(), 1));
        let listed = run(prepared(&sink, &context, &epochs));
        let mut parts = Self { _temporary: temporary, out, pending, listed, files: BTreeMap::new() };
        parts.files = parts.all();
        assert_eq!((parts.listed.len(), parts.files.len()), (2, 3));
        parts
    }

    fn all(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = files(&self.out);
        all.append(&mut files(&self.pending));
        all
    }

    fn restore(&self) {
        fs::remove_dir_all(&self.out).unwrap();
        fs::create_dir_all(&self.pending).unwrap();
        for (path, bytes) in &self.files {
            fs::write(path, bytes).unwrap();
        }
    }

    fn committer(&self, generation: u64) -> PartsCommitter {
        let (sink, context) =
            (file::json_lines::<Row>(&self.out), context(&InMemoryStorage::new(), generation));
        run(async { sink.committer(&context).await.unwrap() })
    }
}

fn contents(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<&Vec<u8>> {
    let mut contents: Vec<&Vec<u8>> = files.values().collect();
    contents.sort();
    contents
}

#[test]
fn a_mutated_payload_of_a_file_sink_publishes_that_part_or_nothing() {
    let dir = Parts::new();
    let good: Vec<Value> = dir.listed.iter().map(|one| one.payload.clone()).collect();
    let (mut published, mut refused, mut foreign) = (0, 0, 0);
    fuzz("payloads of part files", &texts(&good), |dice, input| {
        let payload = altered(dice, input, &good);
        let _shown = Shown(&payload);
        // The start that wrote a part believes its checksum; the next one reads the part.
        let generation = 1 + dice.below(2) as u64;
        let one = Committable { payload: payload.clone(), ..dir.listed[0].clone() };
        dir.restore();
        let mut committer = dir.committer(generation);
        let committed = run(async { committer.commit(from_ref(&one)).await });
        let after = dir.all();
        let is_foreign = match committed {
            Ok(()) => {
                assert_eq!(contents(&after), contents(&dir.files));
                for (_, bytes) in after.iter().filter(|(path, _)| !dir.files.contains_key(*path)) {
                    assert_eq!(payload["bytes"], bytes.len());
                    assert!(generation == 1 || payload["crc32c"] == crc32c::crc32c(bytes));
                }
                published += 1;
                false
            }
            Err(CommitError::Refused(why) | CommitError::Retry(why)) => {
                no_panic(&why);
                assert_eq!(after, dir.files);
                let is_foreign = why.to_string().contains("is no part file");
                match is_foreign {
                    true => foreign += 1,
                    false => refused += 1,
                }
                is_foreign
            }
        };
        // A recovery syncs much, so only some of those that succeed are tried.
        if is_foreign || dice.below(8) == 0 {
            dir.restore();
            let mut committer = dir.committer(2);
            let recovered = run(async { committer.recover(from_ref(&one)).await });
            assert_eq!(recovered.is_err(), is_foreign, "{recovered:?}");
            let waiting = dir.files.keys().filter(|path| path.parent() == Some(&*dir.pending));
            for path in waiting {
                let is_listed =
                    path.file_name().is_some_and(|name| payload["pending"] == *name.to_string_lossy());
                assert_eq!(path.exists(), is_foreign || is_listed, "{}", path.display());
            }
        }
    });
    all_common(&[("published", published), ("refused", refused), ("no payload", foreign)]);
}

/// What an owner's file must hold to be one.
#[derive(Deserialize)]
struct Owner {
    #[serde(rename = "job")]
    _job: String,
    sink: String,
    lineage: String,
    generation: u64,
}

#[test]
fn a_mutated_owner_file_is_refused_or_says_that_the_directory_is_ours() {
    let dir = Parts::new();
    let mark = dir.out.join(".staunch");
    let first: Value = serde_json::from_slice(&dir.files[&mark]).unwrap();
    let mut newer = first.clone();
    newer["generation"] = 9.into();
    let good = [first, newer];
    let recover = || {
        let mut committer = dir.committer(2);
        run(async { committer.recover(&dir.listed).await })
    };
    assert_eq!(recover().unwrap().len(), 0);
    let second = fs::read(&mark).unwrap();
    let (mut ours, mut others, mut damaged) = (0, 0, 0);
    fuzz("owners of directories", &texts(&good), |dice, input| {
        let bytes = match dice.below(4) {
            0 => input.to_vec(),
            _ => altered(dice, input, &good).to_string().into_bytes(),
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _shown = Shown(&text);
        fs::write(&mark, &bytes).unwrap();
        let owner = serde_json::from_slice::<Owner>(&bytes).ok();
        let is_ours = owner
            .as_ref()
            .is_some_and(|owner| owner.sink == "out" && owner.lineage == "life-1" && owner.generation <= 2);
        let mut committer = dir.committer(2);
        let (checked, committed) = run(async { (committer.check().await, committer.commit(&[]).await) });
        assert_eq!((checked.is_ok(), committed.is_ok()), (is_ours, is_ours), "{checked:?}, {committed:?}");
        if let (Err(why), Err(CommitError::Refused(other) | CommitError::Retry(other))) =
            (&checked, &committed)
        {
            no_panic(why);
            no_panic(other);
        }
        // A recovery syncs much, so only some of those that succeed are tried.
        if !is_ours || dice.below(8) == 0 {
            let recovered = recover();
            assert_eq!(recovered.is_ok(), is_ours, "{recovered:?}");
            assert_eq!(fs::read(&mark).unwrap(), if is_ours { &second[..] } else { &bytes[..] });
            match recovered {
                Ok(removed) => assert!(removed.is_empty(), "{removed:?}"),
                Err(why) => no_panic(&why),
            }
        }
        match (owner, is_ours) {
            (_, true) => ours += 1,
            (Some(_), false) => others += 1,
            (None, _) => damaged += 1,
        }
    });
    all_common(&[("ours", ours), ("another's", others), ("damaged", damaged)]);
}
