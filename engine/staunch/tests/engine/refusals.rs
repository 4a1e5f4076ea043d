//! A changed program on the checkpoints of the old one: what does not fit is refused before anything runs, with what
//! is wrong and what to do; and the old program goes on as if there had been no other.

use crate::faulty::{Deed, Faulty, Moment, faulty};
use crate::harness::{Place, eventually, place};
use crate::topic::Topic;
use staunch::core::error::Kind;
use staunch::core::{Request, StateKey};
use staunch::memory::{Collected, collect};
use staunch::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Numbers that the old program gets in each run.
const RUN: u64 = 40;

/// What the programs read and write; clones are the same.
#[derive(Clone)]
struct Ends {
    numbers: Topic<u64>,
    more: Topic<u64>,
    counts: Faulty<(u64, u64)>,
    copy: Faulty<u64>,
}

impl Ends {
    fn read<'s>(&self, job: &Job<'s>) -> Stream<'s, u64> {
        job.source("numbers", self.numbers.clone()).union(job.source("more", self.more.clone()))
    }

    /// The old program.
    fn old(&self, job: &Job<'_>) {
        let numbers = self.read(job);
        numbers.clone().sink("copy", self.copy.clone());
        self.count(numbers);
    }

    /// Its second half.
    fn count(&self, numbers: Stream<'_, u64>) {
        numbers.key_by(|n| n % 10).count("counts").sink("output", self.counts.clone());
    }
}

/// The old program, which is stopped between the tests of new ones.
struct Old {
    place: Place,
    ends: Ends,
    pushed: u64,
    /// How often a sink was to write, prepare or commit something.
    work: Arc<AtomicU64>,
}

/// Its first run is over.
fn stopped() -> Old {
    let (counts, copy) = (faulty(|_| Deed::Go), faulty(|_| Deed::Go));
    let ends = Ends { numbers: Topic::new(1), more: Topic::new(1), counts, copy };
    let place = place().workers(2).only_the_last_checkpoint();
    let mut old = Old { place, ends, pushed: 0, work: Arc::default() };
    old.watch();
    old.go_on();
    old
}

/// All files below a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.to_str().unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
    found
}

impl Old {
    /// The sinks do as they are told, and it is counted.
    fn watch(&self) {
        let script = |work: &Arc<AtomicU64>| {
            let work = Arc::clone(work);
            move |now: Moment| {
                let asked_only = matches!(now, Moment::OpenCommitter | Moment::Recover);
                work.fetch_add(u64::from(!asked_only), SeqCst);
                Deed::Go
            }
        };
        self.ends.counts.replace(script(&self.work));
        self.ends.copy.replace(script(&self.work));
    }

    fn program(&self) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
        let ends = self.ends.clone();
        move |job| {
            ends.old(job);
            Ok(())
        }
    }

    fn push(&mut self) {
        let new = self.pushed..self.pushed + RUN;
        self.ends.numbers.push(0, new.clone().filter(|n| n.is_multiple_of(2)));
        self.ends.more.push(0, new.filter(|n| !n.is_multiple_of(2)));
        self.pushed += RUN;
    }

    /// The old program reads the next numbers, and is stopped.
    fn go_on(&mut self) {
        self.push();
        let running = self.place.start(self.program());
        let copied = || running.metric("staunch_records_in_total", "step=\"copy\"") as u64;
        eventually("the numbers are read", || copied() == RUN);
        assert_eq!(running.stop(), Outcome::Stopped);
        self.check();
    }

    /// All numbers so far are counted and copied once.
    fn check(&self) {
        let mut copy = self.ends.copy.committed();
        copy.sort_unstable();
        assert_eq!(copy, (0..self.pushed).collect::<Vec<_>>());
        self.check_counts();
    }

    fn check_counts(&self) {
        let mut counts = self.ends.counts.committed();
        counts.sort_unstable();
        let each = self.pushed / 10;
        let of_key = |key: u64| (1..=each).map(move |count| (key, count));
        assert_eq!(counts, (0..10).flat_map(of_key).collect::<Vec<_>>());
    }

    fn newest(&self) -> String {
        self.place.manifests().last().unwrap().checkpoint.to_string()
    }

    /// Runs a changed program. It must be refused with these words before anything runs: nothing is read, written or
    /// published, and the files of the checkpoints are as before.
    fn refuses<B>(&self, words: &[&str], changed: B)
    where
        B: for<'s> Fn(&Ends, &Job<'s>) + Send + Sync + 'static,
    {
        let Ends { numbers, more, counts, copy } = &self.ends;
        let seen = || {
            let published = (counts.committed(), copy.committed());
            let prepared = (counts.inner.prepared_parts(), copy.inner.prepared_parts());
            (published, prepared, numbers.polls(0), more.polls(0), self.work.load(SeqCst))
        };
        let (before, files) = (seen(), contents(&self.place.config.checkpoints));
        let ends = self.ends.clone();
        let error = self.place.fail(move |job| {
            changed(&ends, job);
            Ok(())
        });
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "no {word:?} in {text:?}");
        }
        assert_eq!(error.kind(), Kind::Job, "{text}");
        assert_eq!(seen(), before, "published, prepared, polls, work of sinks: {text}");
        let mut after = contents(&self.place.config.checkpoints);
        for (name, bytes) in files {
            assert!(after.remove(&name) == Some(bytes), "{name} is changed or gone: {text}");
        }
        assert!(after.is_empty(), "the refused start left {:?}", after.keys());
    }
}

#[test]
fn another_type_of_key_or_value_of_a_state_is_refused_with_the_difference() {
    let mut old = stopped();
    let which = format!("another type than in checkpoint {}", old.newest());
    let advice = "Run the program that wrote it, or start anew with --from none and another output";
    let value = ["step `counts`", &which, "  key: u64\n", "- value: u64\n+ value: i64\n", advice];
    old.refuses(&value, |ends, job| {
        let numbers = ends.read(job);
        numbers.clone().sink("copy", ends.copy.clone());
        let counts = numbers.key_by(|n| n % 10).fold("counts", |count: &mut i64, _| *count += 1);
        counts.map(|(key, count)| (key, count as u64)).sink("output", ends.counts.clone());
    });
    old.go_on();
    let which = format!("another type than in checkpoint {}", old.newest());
    let key = ["step `counts`", &which, "- key: u64\n+ key: str\n", "  value: u64\n", advice];
    old.refuses(&key, |ends, job| {
        let numbers = ends.read(job);
        numbers.clone().sink("copy", ends.copy.clone());
        let counts = numbers.key_by(|n| (n % 10).to_string()).count("counts");
        counts.map(|(_, count)| (0, count)).sink("output", ends.counts.clone());
    });
    old.go_on();
}

#[test]
fn a_stateful_step_that_is_renamed_or_taken_out_is_refused() {
    let mut old = stopped();
    let what = |old: &Old| format!("checkpoint {} has state of a step `counts`", old.newest());
    let rest = ["which this job does not have", "Give it its old name, or start anew with --from none"];
    old.refuses(&[&what(&old), rest[0], rest[1]], |ends, job| {
        let numbers = ends.read(job);
        numbers.clone().sink("copy", ends.copy.clone());
        numbers.key_by(|n| n % 10).count("tally").sink("output", ends.counts.clone());
    });
    old.go_on();
    old.refuses(&[&what(&old), rest[0], rest[1]], |ends, job| {
        let numbers = ends.read(job);
        numbers.clone().sink("copy", ends.copy.clone());
        numbers.map(|n| (n % 10, 1)).sink("output", ends.counts.clone());
    });
    old.go_on();
}

#[test]
fn a_source_that_is_renamed_or_taken_out_is_refused() {
    let mut old = stopped();
    let what = |old: &Old| format!("checkpoint {} has positions of a source `more`", old.newest());
    let rest = ["which this job does not have", "Give it its old name, or start anew with --from none"];
    old.refuses(&[&what(&old), rest[0], rest[1]], |ends, job| {
        let more = job.source("others", ends.more.clone());
        let numbers = job.source("numbers", ends.numbers.clone()).union(more);
        numbers.clone().sink("copy", ends.copy.clone());
        ends.count(numbers);
    });
    old.go_on();
    old.refuses(&[&what(&old), rest[0], rest[1]], |ends, job| {
        let numbers = job.source("numbers", ends.numbers.clone());
        numbers.clone().sink("copy", ends.copy.clone());
        ends.count(numbers);
    });
    old.go_on();
}

#[test]
fn a_job_with_another_name_is_refused() {
    let mut old = stopped();
    old.place.config.job = "other".into();
    let words = ["belongs to job \"test\", this is job \"other\"", "use another checkpoint directory"];
    old.refuses(&words, |ends, job| ends.old(job));
    old.place.config.job = "test".into();
    old.go_on();
}

/// The refusal of a sink must not cost output: what is decided and not published yet is published by the old program.
#[test]
fn a_sink_that_is_renamed_or_taken_out_is_refused_while_the_checkpoint_lists_output_of_it() {
    let mut old = stopped();
    old.push();
    let running = old.place.start(old.program());
    let copied = || running.metric("staunch_records_in_total", "step=\"copy\"") as u64;
    eventually("the numbers are read", || copied() == RUN);
    // Not sooner: a start commits again what its checkpoint lists.
    old.ends.copy.replace(|now| if now == Moment::Commit { Deed::Refuse } else { Deed::Go });
    running.controls.request(Request::Stop);
    let error = running.wait().unwrap_err().to_string();
    assert!(error.contains("Commit refused"), "{error}");
    old.watch();
    let listed = |old: &Old| old.place.manifests().last().unwrap().sinks["copy"].pending.len();
    assert!(listed(&old) > 0 && old.ends.copy.inner.prepared_parts() > 0, "nothing waits for its commit");
    assert_eq!(old.ends.copy.committed().len() as u64, RUN);

    let taken_out = |ends: &Ends, job: &Job<'_>| ends.count(ends.read(job));
    let renamed = |ends: &Ends, job: &Job<'_>| {
        let numbers = ends.read(job);
        // It would take the output that is due for what is left over.
        numbers.clone().sink("twin", ends.copy.clone());
        ends.count(numbers);
    };
    let refused = |old: &Old| {
        let what =
            format!("checkpoint {} has {} pieces of output of a sink `copy`", old.newest(), listed(old));
        let words =
            [&what, "which this job does not have", "Give it its old name; to take it out, first run"];
        old.refuses(&words, taken_out);
        old.refuses(&words, renamed);
    };
    refused(&old);
    let running = old.place.start(old.program());
    assert_eq!(running.stop(), Outcome::Stopped);
    old.check();

    // All is published, and still listed. The next checkpoint, without output of the sink, does not list it.
    old.go_on();
    assert!(listed(&old) > 0);
    refused(&old);
    assert_eq!(old.place.start(old.program()).stop(), Outcome::Stopped);
    assert_eq!(listed(&old), 0);
    old.push();
    let ends = old.ends.clone();
    let running = old.place.start(move |job| {
        taken_out(&ends, job);
        Ok(())
    });
    let counted = || running.metric("staunch_records_in_total", "step=\"output\"") as u64;
    eventually("the numbers are counted", || counted() == RUN);
    assert_eq!(running.stop(), Outcome::Stopped);
    old.check_counts();
    assert_eq!(old.ends.copy.committed().len() as u64, 3 * RUN);
}

#[test]
fn another_max_parallelism_changes_nothing_for_a_job_that_has_a_checkpoint() {
    let mut old = stopped();
    for groups in [3, 1000] {
        // More workers than the first of them would allow.
        (old.place.config.groups, old.place.config.workers) = (groups, 5);
        old.go_on();
    }
    assert!(old.place.manifests().iter().all(|manifest| manifest.groups == 128));
}

mod before {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub struct Key(pub u64);
}

mod after {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Key(pub u64);

    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            state.write_u64(self.0 + 1);
        }
    }
}

fn counts_by<K: StateKey>(
    topic: &Topic<u64>,
    output: &Collected<u64>,
    key: fn(u64) -> K,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let (source, sink) = (topic.clone(), output.clone());
    move |job| {
        let counts = job.source("numbers", source.clone()).key_by(move |n| key(*n)).count("counts");
        counts.map(|(_, count)| count).sink("output", sink.clone());
        Ok(())
    }
}

#[test]
fn a_key_that_hashes_in_another_way_is_refused_before_a_record_is_read() {
    let (mut place, topic) = (place().only_the_last_checkpoint(), Topic::new(1));
    let output = collect();
    for run in 1..=3_u64 {
        topic.push(0, 0..RUN);
        place.config.workers = run as usize;
        let running = place.start(counts_by(&topic, &output, |n| before::Key(n % 10)));
        let counted = || running.metric("staunch_records_in_total", "step=\"counts\"") as u64;
        eventually("the numbers are counted", || counted() == RUN);
        assert_eq!(running.stop(), Outcome::Stopped);
        let mut counts: Vec<u64> = output.committed();
        counts.sort_unstable();
        let expected: Vec<u64> = (1..=run * RUN / 10).flat_map(|count| [count; 10]).collect();
        assert_eq!(counts, expected);

        let (polls, manifests) = (topic.polls(0), place.manifests());
        let error = place.fail(counts_by(&topic, &output, |n| after::Key(n % 10)));
        let text = error.to_string();
        for word in ["step counts", "key hashing changed", "Keep the key type's Hash implementation"] {
            assert!(text.contains(word), "no {word:?} in {text:?}");
        }
        assert_eq!(error.kind(), Kind::Job, "{text}");
        assert_eq!((topic.polls(0), place.manifests()), (polls, manifests));
        assert_eq!(output.committed().len(), counts.len());
    }
}
