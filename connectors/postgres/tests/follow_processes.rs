//! A job in a real process that follows a table and is killed: in the middle of the snapshot, at points of a checkpoint, and
//! wherever it is; what it wrote is done to a map, change by change, and must be the table.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use staunch_postgres::Event;
use staunch_testing::process::{kill, wait};
use staunch_testing::servers;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::copy::{Item, PATIENCE, replay};
use support::items::Items;
use tempfile::TempDir;

/// Points of a checkpoint, from the positions of the source to the end of the commit.
const POINTS: &[&str] = &[
    "source.positions_captured",
    "sink.prepared",
    "decision.due",
    "decision.visible",
    "decision.made",
    "commit.due",
    "commit.all_done",
];

struct Follower {
    items: Items,
    folder: TempDir,
    program: PathBuf,
    lives: u32,
}

impl Follower {
    fn new(url: &str) -> Option<Self> {
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().unwrap().with_file_name("examples").join("postgres_follower");
        if !program.exists() {
            println!(
                "SKIPPED: the example postgres_follower is not built (cargo test -p staunch-postgres builds it)"
            );
            return None;
        }
        Some(Self { items: Items::new(url), folder: tempfile::tempdir().unwrap(), program, lives: 0 })
    }

    fn start(&mut self, rate: u32, crash: Option<&str>) -> Child {
        self.lives += 1;
        let mut command = Command::new(&self.program);
        command
            .args(["--checkpoint-every", "30ms", "--checkpoints"])
            .arg(self.folder.path().join("checkpoints"))
            .env("FOLLOWER_URL", &self.items.schema.url)
            .env("FOLLOWER_TABLE", self.items.table())
            .env("FOLLOWER_SLOT", &self.items.schema.name)
            .env("FOLLOWER_OUT", self.folder.path().join("out"))
            .env("FOLLOWER_RATE", rate.to_string())
            .env_remove("STAUNCH_CRASH")
            .env_remove("STAUNCH_BUG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.log()).unwrap());
        if let Some(crash) = crash {
            command.env("STAUNCH_CRASH", crash);
        }
        command.spawn().unwrap()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join(format!("log-{}", self.lives))
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// What is published, in the order of checkpoints.
    fn out(&self) -> Vec<Event<Item>> {
        let parts = fs::read_dir(self.folder.path().join("out")).into_iter().flatten();
        let number = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?.strip_prefix("part-")?.to_owned();
            name.split('-').next()?.parse::<u64>().ok()
        };
        let parts = parts.filter_map(|entry| Some(entry.ok()?.path()));
        let mut parts: Vec<(u64, PathBuf)> = parts.filter_map(|path| Some((number(&path)?, path))).collect();
        parts.sort();
        let lines = parts.iter().map(|(_, path)| fs::read_to_string(path).unwrap());
        lines
            .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
            .collect()
    }

    fn until(&self, child: &mut Child, what: &str, is: impl Fn(&[Event<Item>]) -> bool) {
        let limit = Instant::now() + PATIENCE;
        while !is(&self.out()) {
            assert!(child.try_wait().unwrap().is_none(), "{what}: it ended: {}", self.said());
            assert!(Instant::now() < limit, "{what}: {} changes: {}", self.out().len(), self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Changes all over the table.
    fn stir(&self, round: usize) {
        self.items.schema.run(&format!(
            "UPDATE items SET n = n + 1 WHERE id % 7 = {round} % 7; DELETE FROM items WHERE id % 101 = {round};
             UPDATE items SET id = 100000 + id * 100 + {round} WHERE id = 20 + {round};
             UPDATE items SET id = -id * 100 - {round} WHERE id = 1900 + {round};
             INSERT INTO items SELECT 50000 + {round} * 100 + i, 0, 'new' FROM generate_series(1, 20) i"
        ));
    }

    /// Lives until a last row is out, and looks.
    fn complete(&mut self, what: &str) {
        self.items.insert(-7, -6);
        let mut child = self.start(1_000_000, None);
        let last = |event: &Event<Item>| matches!(&event.change, staunch_postgres::Change::Insert(row) if row.id == -7);
        // In a snapshot the last row may come early: so wait for one after it, too.
        self.until(&mut child, what, |out| out.iter().any(last));
        self.items.insert(-8, -7);
        self.until(&mut child, what, |out| {
            out.iter().any(|e| matches!(&e.change, staunch_postgres::Change::Insert(row) if row.id == -8))
        });
        kill(&mut child).unwrap();
        assert_eq!(replay(&self.out(), &self.items.table()), self.items.rows(), "{what}");
    }
}

#[test]
fn a_job_that_is_killed_anywhere_in_a_snapshot_and_behind_it_ends_with_exactly_the_table() {
    let Some(url) = servers::address("STAUNCH_POSTGRES") else { return };
    let Some(mut follower) = Follower::new(&url) else { return };
    follower.items.insert(0, 2000);
    let mut interrupted = 0;
    for round in 0..10 {
        let read = follower.out().len();
        let mut child = follower.start(3000, None);
        // So that there is something new to come even when the life before this one read all there was.
        follower.items.schema.run("UPDATE items SET n = n + 1 WHERE id BETWEEN 100 AND 250");
        // Some die before anything new is out.
        if round % 3 > 0 {
            follower.until(&mut child, "something new", |out| out.len() > read + 40);
        }
        follower.stir(round);
        std::thread::sleep(Duration::from_millis(round as u64 * 17 % 90));
        kill(&mut child).unwrap();
        let out = follower.out();
        interrupted +=
            u32::from(!out.is_empty() && out.iter().filter(|event| event.is_snapshot()).count() < 1500);
    }
    assert!(interrupted >= 2, "the snapshot was killed in its middle {interrupted} times");
    follower.complete("killed ten times");
}

#[test]
fn a_job_that_is_killed_at_any_point_of_a_checkpoint_ends_with_exactly_the_table() {
    let Some(url) = servers::address("STAUNCH_POSTGRES") else { return };
    for (nth, point) in (1..).zip(POINTS) {
        let Some(mut follower) = Follower::new(&url) else { return };
        follower.items.insert(0, 2000);
        for life in 0..2 {
            let mut child = follower.start(3000, Some(&format!("{point}:kill:{}", 2 + nth % 3)));
            // So that there are checkpoints even behind the snapshot.
            follower.stir(life);
            let status = wait(&mut child, PATIENCE)
                .unwrap_or_else(|why| panic!("{point}: {why}: {}", follower.said()));
            assert!(!status.success(), "{point}: {}", follower.said());
        }
        follower.complete(point);
    }
}
