//! Damage in a real checkpoint directory, file by file: the start is refused by name and before a record is
//! read, or the damage makes no difference to the result.
//!
//! How every byte of the state files is protected is tested in `engine/state/tests/stored/damage.rs`, of
//! log records in `engine/checkpoint/src/record_tests.rs`. Here is what the whole engine makes of it.

use crate::harness::{Dice, Place, place};
use crate::oracle::{Input, Key, Total};
use staunch::file;
use staunch::prelude::*;
use staunch_checkpoint::{FileKind, Manifest, Record, parse_slot};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;
use tempfile::TempDir;

const INPUT: Input = Input { splits: 2, records: 24_000, keys: 3000 };
/// Little enough that most state is spilled.
const STATE_BYTES: usize = 20_000;
/// Pause after this many records, so that there are some checkpoints before the job is stopped.
const PAUSE_EVERY: u64 = 16;

/// A directory with `checkpoints` and `output` of a job that was stopped half-way.
struct Stopped {
    dir: TempDir,
    newest: Manifest,
}

fn job(
    output: PathBuf,
    pause: Duration,
    read: Arc<AtomicU64>,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync {
    move |job| {
        let read = Arc::clone(&read);
        INPUT.totals(job, file::json_lines(&output), move |number| {
            let read = read.fetch_add(1, SeqCst);
            if number % PAUSE_EVERY == 0 {
                // Slower in the end: the input must last for the checkpoints of a slow disk, too.
                std::thread::sleep(if read < 4000 { pause } else { 4 * pause });
            }
        });
        Ok(())
    }
}

fn in_dir(dir: &Path) -> Place {
    let mut place = place().every_ms(10);
    place.config.workers = 2;
    place.config.checkpoints = dir.join("checkpoints");
    place.config.state_bytes = STATE_BYTES;
    // A barrier waits for what is in flight, which would be all of this input.
    place.config.inflight_bytes = 20_000;
    place
}

/// Runs the job until a checkpoint has files of every kind, and stops it: on one worker first, then on two,
/// whose chains of files begin anew with all state that there is, most of it spilled.
fn stopped() -> Stopped {
    let mut seen = Vec::new();
    for attempt in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let stopped = [1, 2].into_iter().all(|workers| {
            let read = Arc::new(AtomicU64::new(0));
            let mut place = in_dir(dir.path());
            place.config.workers = workers;
            let job = job(dir.path().join("output"), Duration::from_millis(5), Arc::clone(&read));
            let running = place.start(job);
            let began = Instant::now();
            crate::harness::eventually("some checkpoints, or an end to waiting", || {
                let decided = running.metric("staunch_checkpoints_completed_total", "");
                let enough = decided >= f64::from(2 + attempt) && read.load(SeqCst) > 2000;
                enough || began.elapsed() > Duration::from_secs(8)
            });
            running.stop() == Outcome::Stopped
        });
        let place = in_dir(dir.path());
        let newest = place.manifests().pop().unwrap();
        let kinds: Vec<FileKind> = state_files(&newest).map(|(_, kind)| kind).collect();
        let all = [FileKind::Base, FileKind::Delta, FileKind::Spill];
        if stopped && all.iter().all(|kind| kinds.contains(kind)) && place.log().len() >= 4 {
            return Stopped { dir, newest };
        }
        seen.push((stopped, kinds, place.log().len()));
    }
    panic!("no checkpoint came to have files of all kinds: {seen:?}");
}

fn state_files(manifest: &Manifest) -> impl Iterator<Item = (String, FileKind)> {
    let shards = manifest.states.values().flat_map(|state| &state.shards);
    shards.flat_map(|shard| &shard.files).map(|file| (file.name.clone(), file.kind))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// What readers of the output see, in the order of its parts.
fn published(output: &Path) -> Vec<Total> {
    let mut parts: Vec<PathBuf> = output.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("part-"));
    parts.sort();
    let lines = parts.iter().flat_map(|part| {
        let text = fs::read_to_string(part).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<(Key, (u64, u64))>>()
    });
    lines.collect()
}

impl Stopped {
    /// Damages a copy and runs the job on it: the error, or `None` if the result is the right one.
    fn try_with(&self, damage: impl FnOnce(&Path)) -> Option<String> {
        let copied = tempfile::tempdir().unwrap();
        copy(self.dir.path(), copied.path());
        damage(&copied.path().join("checkpoints"));
        let (output, read) = (copied.path().join("output"), Arc::new(AtomicU64::new(0)));
        let before = published(&output);
        match in_dir(copied.path()).run(job(output.clone(), Duration::ZERO, Arc::clone(&read))) {
            Ok(outcome) => {
                assert_eq!(outcome, Outcome::Finished);
                INPUT.check_all(&published(&output));
                None
            }
            Err(error) => {
                assert_eq!(read.load(SeqCst), 0, "records were read before it was found out: {error}");
                assert_eq!(published(&output), before, "{error}");
                Some(error.to_string())
            }
        }
    }

    fn refuses(&self, name: &str, what: &str, damage: impl FnOnce(&Path)) {
        let error = self.try_with(damage).unwrap_or_else(|| panic!("{what} of {name} makes no difference"));
        assert!(error.contains(name), "{what} of {name}: {error}");
        let advice = ["backup", "--from"].iter().any(|advice| error.contains(advice));
        assert!(advice, "{what} of {name}: nothing says what to do: {error}");
        assert!(!error.contains("panicked") && !error.contains("internal"), "{what} of {name}: {error}");
    }

    /// Every kind of damage to one file, which must be refused each time.
    fn refuses_all(&self, name: &str, others: &[String], dice: &mut Dice) -> usize {
        let good = fs::read(self.dir.path().join("checkpoints").join(name)).unwrap();
        let mut tried = 0;
        for _ in 0..3 {
            let (at, bit) = (dice.roll(good.len() as u64) as usize, dice.roll(8));
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            self.refuses(name, &format!("a flip at {at}"), |dir| fs::write(dir.join(name), flipped).unwrap());
            self.refuses(name, &format!("a cut at {at}"), |dir| {
                fs::write(dir.join(name), &good[..at]).unwrap()
            });
            tried += 2;
        }
        // Small files of RocksDB may be equal in all databases, and a swap of them is none.
        let dir = self.dir.path().join("checkpoints");
        for other in others.iter().filter(|other| fs::read(dir.join(other)).unwrap() != good) {
            self.refuses(name, &format!("{other} in the place"), |dir| {
                fs::copy(dir.join(other), dir.join(name)).unwrap();
            });
            tried += 1;
        }
        tried
    }
}

#[test]
fn a_damaged_lost_or_swapped_file_of_state_ends_the_start_before_a_record_is_read() {
    let (stopped, mut dice, mut tried) = (stopped(), Dice::new(7), BTreeMap::new());
    assert_eq!(stopped.try_with(|_| {}), None, "undamaged");
    let mut of_kind: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, kind) in state_files(&stopped.newest) {
        let ending = name.rsplit(['-', '.']).next().unwrap_or_default().trim_end_matches(char::is_numeric);
        of_kind.entry(format!("{kind:?} {ending}")).or_default().push(name);
    }
    for (kind, names) in &of_kind {
        // Three of a kind are enough here.
        for name in names.iter().take(3) {
            let others = &names[..names.len().min(3)];
            *tried.entry(kind).or_insert(0) += 1 + stopped.refuses_all(name, others, &mut dice);
            stopped.refuses(name, "the loss", |dir| fs::remove_file(dir.join(name)).unwrap());
        }
    }
    println!("damaged and refused: {tried:?}");
}

#[test]
fn a_damaged_lost_or_swapped_record_of_the_log_is_refused_or_makes_no_difference() {
    let (stopped, mut dice, mut tried) = (stopped(), Dice::new(8), 0);
    let log = stopped.dir.path().join("checkpoints/log");
    let mut names: Vec<String> = log
        .read_dir()
        .unwrap()
        .map(|e| format!("log/{}", e.unwrap().file_name().to_str().unwrap()))
        .collect();
    names.sort();
    names.retain(|name| parse_slot(name).is_some());
    for name in &names {
        tried += stopped.refuses_all(name, &names, &mut dice);
    }
    // Two records that changed places.
    let (first, last) = (&names[0], &names[names.len() - 1]);
    stopped.refuses("log/", "an exchange", |dir| {
        fs::rename(dir.join(first), dir.join("aside")).unwrap();
        fs::rename(dir.join(last), dir.join(first)).unwrap();
        fs::rename(dir.join("aside"), dir.join(last)).unwrap();
    });
    println!("damaged and refused: {tried} + 1");

    let mut irrelevant = 0;
    for name in &names {
        let bytes = fs::read(stopped.dir.path().join("checkpoints").join(name)).unwrap();
        let lose = |dir: &Path| fs::remove_file(dir.join(name)).unwrap();
        match Record::decode(name, &bytes).unwrap() {
            // Without its fence nobody knows which start decided what follows.
            Record::Fence(fence) if fence.generation == stopped.newest.generation => {
                let error = stopped.try_with(lose).expect("a lost fence is refused");
                assert!(error.contains("after the fence of generation"), "{error}");
                assert!(error.contains("backup"), "{error}");
            }
            // An older start, of which nothing is needed any more.
            Record::Fence(_) => assert_eq!(stopped.try_with(lose), None),
            // The output tells: it has parts of a checkpoint of which the log knows nothing.
            Record::Checkpoint(manifest) if manifest.checkpoint == stopped.newest.checkpoint => {
                let part = format!("part-{:010}-", manifest.checkpoint.0);
                let mut output = stopped.dir.path().join("output").read_dir().unwrap();
                if output.any(|e| e.unwrap().file_name().to_str().unwrap().starts_with(&part)) {
                    let what = format!("checkpoint {}", manifest.checkpoint);
                    stopped.refuses(&what, "the loss of the newest record", lose);
                } else {
                    // Its epoch put nothing out, so going on from the one before is as good.
                    assert_eq!(stopped.try_with(lose), None);
                }
            }
            // Kept for `--from` only.
            Record::Checkpoint(_) => {
                assert_eq!(stopped.try_with(lose), None);
                irrelevant += 1;
            }
        }
    }
    assert!(irrelevant > 0);
}

#[test]
fn what_no_checkpoint_lists_makes_no_difference() {
    let stopped = stopped();
    let error = stopped.try_with(|dir| {
        fs::write(dir.join("state/left-over"), "of a crash").unwrap();
        fs::create_dir_all(dir.join("work/remains")).unwrap();
        fs::write(dir.join("work/remains/CURRENT"), "nonsense").unwrap();
    });
    assert_eq!(error, None);
}
