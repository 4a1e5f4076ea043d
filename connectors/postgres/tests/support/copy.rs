//! A job that copies changes of tables into memory, and an audit that does to a map what they say.
//!
//! The audit is strict: a row that is there already, or is not there, is a change that was doubled or lost.

use serde::{Deserialize, Serialize};
use staunch::core::SourceExt;
use staunch::memory::{Collected, collect};
use staunch::prelude::{Controls, Error, Outcome, Run, Summary};
use staunch_postgres::{Change, Event, Follow};
use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Generous: a server beside a compiler is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A row of the tests' tables.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Item {
    pub id: i64,
    pub n: Option<i64>,
    pub note: Option<String>,
}

pub type Changes = Vec<Event<Item>>;

/// A job, its checkpoints, and what came out over all its runs.
pub struct Copy {
    pub folder: TempDir,
    pub out: Collected<Event<Item>>,
    pub source: Follow<Event<Item>>,
    /// Records a second.
    pub rate: Option<u64>,
}

/// One run of it.
pub struct Running {
    pub controls: Controls,
    pub out: Collected<Event<Item>>,
    thread: JoinHandle<Result<Summary, Error>>,
}

impl Copy {
    pub fn new(source: Follow<Event<Item>>) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), out: collect(), source, rate: None }
    }

    pub fn run(&self) -> Running {
        let (controls, out, source, rate) =
            (Controls::default(), self.out.clone(), self.source.clone(), self.rate);
        let run = Run::new("copy", self.folder.path())
            .checkpoint_every(Duration::from_millis(50))
            .controls(&controls);
        let build = move |job: &staunch::core::Job<'_>| {
            job.source("in", source.clone().limit_rate(rate)).sink("out", out.clone());
            Ok(())
        };
        Running { controls, out: self.out.clone(), thread: std::thread::spawn(move || run.run(build)) }
    }

    /// The rows as they are after all that came out.
    pub fn state(&self, table: &str) -> Vec<Item> {
        replay(&self.out.committed(), table)
    }
}

/// Does what changes of a table say, and fails if one cannot be done.
pub fn replay(changes: &[Event<Item>], table: &str) -> Vec<Item> {
    let mut rows: BTreeMap<i64, Item> = BTreeMap::new();
    for event in changes.iter().filter(|event| *event.table == *table) {
        match &event.change {
            Change::Insert(row) => {
                let was = rows.insert(row.id, row.clone());
                assert_eq!(was, None, "doubled: {event:?}");
            }
            Change::Update { before, after } => {
                let was = rows.remove(&before.as_ref().map_or(after.id, |before| before.id));
                assert!(was.is_some(), "what it changes was lost: {event:?}");
                assert_eq!(rows.insert(after.id, after.clone()), None, "doubled: {event:?}");
            }
            Change::Delete(row) => {
                assert!(rows.remove(&row.id).is_some(), "what it deletes was lost: {event:?}");
            }
            Change::Truncate => rows.clear(),
        }
    }
    rows.into_values().collect()
}

impl Running {
    /// Waits until what came out is so.
    pub fn until(&self, what: &str, is: impl Fn(&Changes) -> bool) {
        let limit = Instant::now() + PATIENCE;
        loop {
            let now = self.out.committed();
            if is(&now) {
                return;
            }
            assert!(
                !self.thread.is_finished(),
                "the job ended, and {what} is not out: {} changes",
                now.len()
            );
            assert!(Instant::now() < limit, "{what} is not out: {} changes", now.len());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn until_count(&self, count: usize) {
        self.until(&format!("{count} changes"), |now| now.len() >= count);
    }

    pub fn stop(self) {
        self.controls.stop();
        assert_eq!(self.thread.join().unwrap().unwrap().outcome, Outcome::Stopped);
    }

    pub fn end(self) -> Summary {
        self.thread.join().unwrap().unwrap()
    }

    pub fn fails(self) -> Error {
        self.thread.join().unwrap().unwrap_err()
    }
}

/// Ends whoever reads a slot, and drops it and the publication of the same name.
pub fn drop_slot(url: &str, name: &str) {
    let name = name.to_owned();
    super::with(url, async move |client| {
        let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active";
        let drop =
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
        for _ in 0..200 {
            client.query(end, &[&name]).await.unwrap();
            if client.query(drop, &[&name]).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.batch_execute(&format!("DROP PUBLICATION IF EXISTS \"{name}\"")).await.unwrap();
    });
}

/// Ends whoever reads a slot, and waits until it is free.
pub fn end_readers(url: &str, name: &str) {
    let name = name.to_owned();
    super::with(url, async move |client| {
        let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active";
        while !client.query(end, &[&name]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}
