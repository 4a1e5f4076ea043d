//! Whatever is found where a connector's own stored values should be (positions, staged rows, payloads of
//! prepared output, the owner of a directory): an error, or exactly what the value says. Never a panic, never an
//! absurd allocation, and no output that nobody prepared.
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;
#[path = "../../engine/checkpoint/tests/fuzz/mutate.rs"]
mod mutate;

use by_hand::{poll, run};
use mutate::{Dice, Watched, fuzz};
use serde::Deserialize;
use serde_json::{Value, json};
use staunch_connectors::file::{self, FilePosition, PartsCommitter};
use staunch_connectors::generator;
use staunch_connectors::memory::{Collected, CollectionSplit, collect, collection};
use staunch_core::sink::{CommitError, Committer, Sink, SinkContext, SinkWriter};
use staunch_core::source::{Records, Source, SplitReader};
use staunch_core::staged::{Applied, Staged, StagedCommitter, StagedRows, StagedTarget, Token};
use staunch_core::{CheckpointId, Committable, Error, Generation, InMemoryStorage, Result, Storage};
use staunch_testing::conformance::sink::{Row, committable, rows};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use tempfile::TempDir;

#[global_allocator]
static WATCHED: Watched = Watched;

const SPLITS: u32 = 3;

/// What could be found in place of JSON that a connector wrote: the input if it is JSON, or else one of `good`
/// with a change that leaves it JSON. Most mutated bytes are none, and would not get as far as a connector.
fn altered(dice: &mut Dice, input: &[u8], good: &[Value]) -> Value {
    serde_json::from_slice(input).unwrap_or_else(|_| {
        let mut value = good[dice.below(good.len())].clone();
        change(dice, &mut value);
        value
    })
}

/// Changes a value, or something inside of it.
fn change(dice: &mut Dice, value: &mut Value) {
    match value {
        Value::Array(items) if !items.is_empty() && dice.below(16) > 0 => {
            let at = dice.below(items.len());
            match dice.below(16) {
                0 => drop(items.remove(at)),
                1 => {
                    let again = items[at].clone();
                    items.push(again);
                }
                _ => change(dice, &mut items[at]),
            }
        }
        Value::Object(fields) if !fields.is_empty() && dice.below(16) > 0 => {
            let at = dice.below(fields.len());
            let Some(name) = fields.keys().nth(at).cloned() else { return };
            match dice.below(16) {
                0 => drop(fields.remove(&name)),
                1 => {
                    let field = fields.remove(&name).unwrap_or_default();
                    fields.insert("another".to_owned(), field);
                }
                _ => {
                    if let Some(field) = fields.get_mut(&name) {
                        change(dice, field);
                    }
                }
            }
        }
        Value::String(text) if dice.below(16) > 0 => {
            let bytes = dice.input(&[text.clone().into_bytes()]);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        Value::Number(number) if dice.below(16) > 0 => {
            let known = number.as_u64().unwrap_or(0);
            let other = match dice.below(6) {
                0 => known ^ (1 << dice.below(64)),
                1 | 2 => known ^ (1 << dice.below(8)),
                3 => dice.below(40) as u64,
                4 => 0,
                _ => u64::MAX,
            };
            *value = other.into();
        }
        _ => {
            let others = [Value::Null, json!(true), json!(-1), json!(1.5), json!(""), json!([]), json!({})];
            *value = others[dice.below(others.len())].clone();
        }
    }
}

fn texts(values: &[Value]) -> Vec<Vec<u8>> {
    values.iter().map(|value| value.to_string().into_bytes()).collect()
}

/// Shows what was made of an input, if the test fails over it.
struct Shown<'a>(&'a dyn Display);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("made into: {}", self.0);
        }
    }
}

/// Each outcome is a good share of them all: otherwise hardly anything was tried.
fn all_common(outcomes: &[(&str, u64)]) {
    let all: u64 = outcomes.iter().map(|(_, count)| count).sum();
    println!("{outcomes:?}");
    assert!(outcomes.iter().all(|(_, count)| count * 50 >= all), "{outcomes:?}");
}

/// A panic on a thread of its own comes back as an error that says so.
fn no_panic(why: &Error) {
    let why = why.to_string();
    assert!(!why.contains("a blocking task died") && !why.contains("a reading thread died"), "{why}");
}

/// The text of a refusal. Nothing in memory is ever to be asked again.
fn refusal(error: CommitError) -> String {
    match error {
        CommitError::Refused(why) => {
            no_panic(&why);
            why.to_string()
        }
        CommitError::Retry(why) => panic!("wants to be asked again: {why}"),
    }
}

fn context(storage: &InMemoryStorage, generation: u64) -> SinkContext {
    SinkContext {
        job: "job".into(),
        sink: "out".into(),
        lineage: "life-1".into(),
        generation: Generation(generation),
        instance: 0,
        instances: 1,
        next_checkpoint: CheckpointId(u32::MAX),
        fresh: false,
        storage: Arc::new(storage.clone()),
    }
}

/// What checkpoints 1, 2 and so on list of a sink after these epochs.
async fn prepared<S: Sink>(sink: &S, context: &SinkContext, epochs: &[Vec<S::Record>]) -> Vec<Committable>
where
    S::Record: Clone,
{
    sink.committer(context).await.unwrap().recover(&[]).await.unwrap();
    let mut writer = sink.writer(context).await.unwrap();
    let mut listed = Vec::new();
    for (checkpoint, records) in (1..).zip(epochs) {
        writer.write(records.clone()).await.unwrap();
        for one in writer.prepare(CheckpointId(checkpoint)).await.unwrap() {
            listed.push(committable(checkpoint, 0, context.generation.0, &one).unwrap());
        }
    }
    listed
}

/// A file is recognised by fingerprints, so hardly any other position is believed.
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
    let splits = run(Source::splits(&source)).unwrap();
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
        let opened = run(source.open(split, at));
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
        let opened = run(source.open(split, at));
        assert_eq!(opened.is_ok(), split < SPLITS && next <= COUNT);
        match opened {
            Ok(mut reader) => {
                assert_eq!(poll(&mut reader, |_| false).unwrap().records, made(COUNT));
                assert_eq!(reader.position(), COUNT);
                begun += 1;
            }
            Err(_) => refused += 1,
        }
        let opened = run(endless.open(split, at));
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

#[test]
fn a_mutated_payload_of_a_collection_publishes_a_whole_part_or_nothing() {
    let epochs: [Vec<u64>; 2] = [vec![1, 2, 3], vec![4, 5]];
    let context = context(&InMemoryStorage::new(), 1);
    let start = || {
        let sink: Collected<u64> = collect();
        let listed = run(prepared(&sink, &context, &epochs));
        (sink, listed)
    };
    let good: Vec<Value> = start().1.iter().map(|one| one.payload.clone()).collect();
    let (mut taken, mut lost, mut foreign) = (0, 0, 0);
    fuzz("payloads of collections", &texts(&good), |dice, input| {
        let payload = altered(dice, input, &good);
        let _shown = Shown(&payload);
        let (sink, listed) = start();
        let one = Committable { payload: payload.clone(), ..listed[0].clone() };
        let committed = run(async { sink.committer(&context).await.unwrap().commit(from_ref(&one)).await });
        match committed {
            Ok(()) => {
                assert!(epochs.contains(&sink.committed()), "{:?}", sink.committed());
                taken += 1;
            }
            Err(error) => {
                assert!(sink.committed().is_empty() && sink.prepared_parts() == 2);
                match refusal(error).contains("another kind of sink") {
                    true => foreign += 1,
                    false => lost += 1,
                }
            }
        }
        let (sink, _) = start();
        let recovered = run(async { sink.committer(&context).await.unwrap().recover(from_ref(&one)).await });
        let removed = recovered.map_or(0, |removed| removed.len());
        assert_eq!(sink.prepared_parts() + removed, 2);
    });
    all_common(&[("taken", taken), ("lost", lost), ("no payload", foreign)]);
}

/// A staged row with something of everything in it; no field takes less than a byte.
type Wide = (u64, String, Option<i64>, Vec<char>, BTreeMap<u8, bool>);

fn wide(n: u64) -> Wide {
    let (letters, few) = (format!("łine {n}").chars().collect(), n as u8 % 4);
    let maybe = (!n.is_multiple_of(3)).then_some(-(n as i64));
    (n, format!("name {n}"), maybe, letters, (0..few).map(|key| (key, key > 1)).collect())
}

/// A target that takes the rows of a commit, all or none of them.
#[derive(Clone, Default, Debug)]
struct Taker(Arc<Mutex<Vec<Wide>>>);

impl StagedTarget for Taker {
    type Record = Wide;
    type Row = Wide;
    type Connection = ();

    fn row(&self, record: Wide) -> Result<Wide> {
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
        rows: StagedRows<Wide>,
    ) -> Result<Applied, CommitError> {
        let rows = rows.collect::<Result<Vec<Wide>, CommitError>>()?;
        self.0.lock().unwrap().extend(rows);
        Ok(Applied::Now)
    }
}

/// Three blobs of staged output, each of a checkpoint of its own.
struct Stage {
    storage: InMemoryStorage,
    target: Taker,
    listed: Vec<Committable>,
    /// By blob: its rows.
    chunks: Vec<Vec<Wide>>,
    blobs: Vec<(String, Vec<u8>)>,
}

impl Stage {
    fn new() -> Self {
        let (storage, target) = (InMemoryStorage::new(), Taker::default());
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

    fn committer(&self) -> StagedCommitter<Taker> {
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
                assert!(5 * rows.len() <= input.len(), "{rows:?}");
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
                        assert!(why.contains("is damaged") || why.contains("not found"), "{why}");
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
        // A path in place of a name could lead to files that are none of this test's.
        if ["pending", "name"].iter().any(|field| payload[field].as_str().is_some_and(|n| n.contains('/'))) {
            return;
        }
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
