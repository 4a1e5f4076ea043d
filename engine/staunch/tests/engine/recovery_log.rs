//! What a start says in the log about its recovery: where it begins, what it publishes, what it removes, and where
//! each split is read on.

use crate::faulty::{Deed, Faulty, Moment, faulty};
use crate::harness::{Place, Running, eventually, place};
use crate::topic::{Failure, Topic};
use serde_json::{Value, json};
use staunch::core::{Metrics, Request, StartFrom, run};
use staunch::file;
use staunch::memory::{Collected, collect};
use staunch::prelude::*;
use staunch_checkpoint::Manifest;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

/// A job that is not back after this long hangs.
const LIMIT: Duration = Duration::from_secs(20);

const RESTORING: &str =
    "restoring; output of the checkpoint that may not be published yet is published first";
const PUBLISHED: &str = "output of the checkpoint is published, unless it already was";
const STATE_REMOVED: &str = "state files of unfinished checkpoints removed";

/// Where the log is written to.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was logged: the fields of each line, with its message.
struct Said(Vec<Value>);

impl Said {
    /// The other fields of the lines with this message, sorted.
    fn with(&self, message: &str) -> Vec<Value> {
        let mut lines: Vec<Value> =
            self.0.iter().filter(|line| line["message"] == message).cloned().collect();
        for line in &mut lines {
            line.as_object_mut().unwrap().remove("message");
        }
        sorted(lines)
    }

    /// The lines whose message begins like this, sorted.
    fn beginning(&self, message: &str) -> Vec<Value> {
        let begins = |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with(message));
        sorted(self.0.iter().filter(begins).cloned().collect())
    }
}

fn sorted(mut lines: Vec<Value>) -> Vec<Value> {
    lines.sort_by_cached_key(Value::to_string);
    lines
}

/// Runs a job to its end, and returns what the thread logged that called it, as `--log json` writes it. The whole
/// recovery is on that thread; so jobs of other tests are not heard.
fn listen<B>(place: &Place, build: B) -> (Result<Outcome>, Said)
where
    B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
{
    let (log, config) = (Log::default(), place.config.clone());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        let start = || run(build, config, Controls::default(), Metrics::new("test"));
        let _ = sender.send(tracing::subscriber::with_default(subscriber, start));
    });
    let outcome = ended.recv_timeout(LIMIT).expect("the job hangs, or run() panicked");
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let fields = |line: &str| serde_json::from_str::<Value>(line).unwrap()["fields"].take();
    (outcome, Said(text.lines().map(fields).collect()))
}

/// What must be said of the output that a checkpoint lists, a line for each piece.
fn listed(manifest: &Manifest) -> Vec<Value> {
    let mut lines = Vec::new();
    for (sink, part) in &manifest.sinks {
        for piece in &part.pending {
            lines.push(json!({
                "sink": sink,
                "checkpoint": piece.checkpoint.0,
                "instance": piece.instance,
                "records": piece.records,
            }));
        }
    }
    sorted(lines)
}

fn copy(
    topic: &Topic<u64>,
    sink: &Faulty<u64>,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let (source, sink) = (topic.clone(), sink.clone());
    move |job| {
        job.source("numbers", source.clone()).sink("output", sink.clone());
        Ok(())
    }
}

#[test]
fn after_a_crash_between_decision_and_commit_the_log_says_what_is_published_and_where_reading_goes_on() {
    let (mut place, topic) = (place().workers(2).only_the_last_checkpoint(), Topic::new(3));
    let sink = faulty(|now| if now == Moment::Commit { Deed::Refuse } else { Deed::Go });
    topic.push(0, 0..3);
    topic.push(1, 10..15);
    topic.end(2);
    let running = place.start(copy(&topic, &sink));
    let read = || running.metric("staunch_records_in_total", "step=\"output\"") as u64;
    eventually("all is read", || read() == 8 && topic.polls(2) > 0);
    running.controls.request(Request::Stop);
    let error = running.wait().unwrap_err().to_string();
    assert!(error.contains("Commit refused"), "{error}");
    let manifest = place.manifests().pop().expect("a checkpoint is decided");
    assert!(sink.committed().is_empty(), "and not published");

    sink.behave();
    topic.push(0, [3]);
    topic.end_all();
    place.config.workers = 1;
    let (outcome, said) = listen(&place, copy(&topic, &sink));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let checkpoint = manifest.checkpoint.0;
    let restoring = json!({ "generation": 2, "checkpoint": checkpoint, "pending_output": 2 });
    assert_eq!(said.with(RESTORING), [restoring]);
    let published = [(0, 3), (1, 5)].map(|(instance, records)| {
        json!({ "sink": "output", "checkpoint": checkpoint, "instance": instance, "records": records })
    });
    assert_eq!(said.with(PUBLISHED), published);
    // The third split is at its end.
    let splits = [("partition-0", "3"), ("partition-1", "5")];
    let continuing = splits.map(|(split, at)| json!({ "source": "numbers", "split": split, "position": at }));
    assert_eq!(said.with("continuing"), continuing);
    // Nothing was left to be removed.
    assert_eq!(said.beginning("sink `"), Vec::<Value>::new());
    // And so it was.
    let mut committed = sink.committed();
    committed.sort_unstable();
    assert_eq!(committed, [0, 1, 2, 3, 10, 11, 12, 13, 14]);
}

/// The paths of files in a folder whose names begin like this.
fn files(folder: &Path, beginning: &str) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(beginning)).collect()
}

/// State files that no checkpoint lists.
fn unlisted(place: &Place) -> usize {
    let manifests = place.manifests();
    let shards = manifests.iter().flat_map(|manifest| manifest.states.values()).flat_map(|s| &s.shards);
    let listed: BTreeSet<String> = shards.flat_map(|shard| &shard.files).map(|f| f.name.clone()).collect();
    place.state_files().iter().filter(|name| !listed.contains(&format!("state/{name}"))).count()
}

/// A job with state and three sinks, of which one can hold a checkpoint up.
fn three_sinks(
    topic: &Topic<u64>,
    memory: &Collected<u64>,
    folder: &Path,
    slow: &Faulty<(u64, u64)>,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let (source, folder) = (topic.clone(), folder.to_owned());
    let (memory, slow) = (memory.clone(), slow.clone());
    move |job| {
        let numbers = job.source("numbers", source.clone());
        numbers.clone().sink("memory", memory.clone());
        numbers.clone().sink("files", file::json_lines(&folder));
        numbers.key_by(|n| *n).count("counts").sink("slow", slow.clone());
        Ok(())
    }
}

#[test]
fn after_a_crash_between_prepare_and_decision_the_log_says_what_is_removed_and_what_is_read_again() {
    let (place, topic) = (place().only_the_last_checkpoint(), Topic::new(1));
    let (memory, slow) = (collect(), faulty(|_| Deed::Go));
    let folder = tempfile::tempdir().unwrap();
    let start = || place.start(three_sinks(&topic, &memory, folder.path(), &slow));
    let arrived = |running: &Running, records: u64| {
        let at = |sink: &str| running.metric("staunch_records_in_total", &format!("step=\"{sink}\"")) as u64;
        eventually("all is in the sinks", || ["memory", "files", "slow"].map(at) == [records; 3]);
    };
    topic.push(0, 0..4);
    let running = start();
    arrived(&running, 4);
    assert_eq!(running.stop(), Outcome::Stopped);
    let manifest = place.manifests().pop().unwrap();

    // The next checkpoint: two sinks and the state have all, and the third never answers.
    slow.replace(|now| if now == Moment::Prepare { Deed::Hang } else { Deed::Go });
    topic.push(0, 4..7);
    let running = start();
    arrived(&running, 3);
    running.controls.request(Request::Checkpoint);
    let pending = folder.path().join(".pending");
    eventually("all but one is prepared", || {
        let parts = (memory.prepared_parts(), files(&pending, "part-").len());
        parts == (1, 1) && unlisted(&place) > 0
    });
    topic.fail(0, Failure::Error);
    let error = running.wait().unwrap_err().to_string();
    assert!(error.contains("the broker went away"), "{error}");
    assert_eq!(place.manifests(), std::slice::from_ref(&manifest), "nothing more is decided");
    let (left, state_files) = (files(&pending, "part-"), unlisted(&place));

    slow.behave();
    topic.end_all();
    let (outcome, said) = listen(&place, three_sinks(&topic, &memory, folder.path(), &slow));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let checkpoint = manifest.checkpoint;
    let restoring = json!({ "generation": 3, "checkpoint": checkpoint.0, "pending_output": 3 });
    assert_eq!(said.with(RESTORING), [restoring]);
    assert_eq!(said.with(PUBLISHED), listed(&manifest));
    let removed = [
        json!({ "sink": "files", "message": format!(
            "sink `files`: removed {}, written for a checkpoint that was never decided",
            left[0].display()
        ) }),
        json!({ "sink": "memory", "message": format!(
            "sink `memory`: removed 3 records of checkpoint {}, instance 0, generation 2: never decided",
            checkpoint.next()
        ) }),
    ];
    assert_eq!(said.beginning("sink `"), sorted(removed.into()));
    assert_eq!(said.with(STATE_REMOVED), [json!({ "files": state_files })]);
    let continuing = json!({ "source": "numbers", "split": "partition-0", "position": "4" });
    assert_eq!(said.with("continuing"), [continuing]);
    // And so it was: what was removed is read again, and published once.
    assert_eq!(memory.committed(), (0..7).collect::<Vec<_>>());
    assert_eq!((memory.prepared_parts(), files(&pending, "")), (0, vec![]));
    let parts = files(folder.path(), "part-").into_iter().map(|path| fs::read_to_string(path).unwrap());
    let mut lines: Vec<u64> = parts.flat_map(|text| numbers(&text)).collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..7).collect::<Vec<_>>());
    let mut counts = slow.committed();
    counts.sort_unstable();
    assert_eq!(counts, (0..7).map(|n| (n, 1)).collect::<Vec<_>>());
}

fn numbers(text: &str) -> Vec<u64> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_start_from_nothing_and_one_that_goes_back_are_told_apart_in_the_log() {
    let (mut place, topic) = (place().only_the_last_checkpoint(), Topic::new(1));
    let (output, other) = (faulty(|_| Deed::Go), faulty(|_| Deed::Go));
    for n in 0..2 {
        topic.push(0, [n]);
        let running = place.start(copy(&topic, &output));
        eventually("it is read", || running.metric("staunch_records_in_total", "step=\"output\"") == 1.0);
        assert_eq!(running.stop(), Outcome::Stopped);
    }
    topic.end_all();
    let manifests = place.manifests();
    let [older, newer] = &manifests[..] else { panic!("{} checkpoints", manifests.len()) };

    place.config.from = StartFrom::Checkpoint(older.checkpoint);
    let (outcome, said) = listen(&place, copy(&topic, &output));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let restoring = json!({ "generation": 3, "checkpoint": older.checkpoint.0, "pending_output": 1 });
    assert_eq!(said.with(RESTORING), [restoring]);
    assert_eq!(said.with(PUBLISHED), listed(older));
    let continuing = json!({ "source": "numbers", "split": "partition-0", "position": "1" });
    assert_eq!(said.with("continuing"), [continuing]);
    let warning = format!("checkpoints up to {} were decided", newer.checkpoint);
    assert_eq!(said.beginning(&warning).len(), 1, "what is published again");
    assert_eq!(output.committed(), [0, 1, 1]);

    place.config.from = StartFrom::Nothing;
    let (outcome, said) = listen(&place, copy(&topic, &other));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(said.with("starting from nothing"), [json!({ "generation": 4 })]);
    for message in [RESTORING, PUBLISHED, "continuing"] {
        assert_eq!(said.with(message), Vec::<Value>::new(), "{message}");
    }
    assert_eq!(other.committed(), [0, 1]);
}
