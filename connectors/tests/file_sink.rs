//! Part files in every crash window, and what only files can do wrong.
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;

use by_hand::{damaged, read_all, run};
use staunch_connectors::file::{self, CsvPart, JsonPart, Parts};
use staunch_core::sink::{CommitError, Sink};
use staunch_testing::conformance::Can;
use staunch_testing::conformance::sink::{Life, Row, Target, row, rows};
use staunch_testing::storage::MemoryStorage;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const RENAMED: &str = "a file is published by renaming it, which always answers";

struct JsonDir(TempDir);
struct CsvDir(TempDir);

fn json() -> JsonDir {
    JsonDir(TempDir::new().unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn parts(dir: &Path) -> Vec<PathBuf> {
    names(dir).into_iter().filter(|name| !name.starts_with('.')).map(|name| dir.join(name)).collect()
}

fn lose(dir: &Path) {
    for name in names(&dir.join(".pending")) {
        fs::remove_file(dir.join(".pending").join(name)).unwrap();
    }
}

impl Target for JsonDir {
    type Record = Row;
    type Sink = Parts<Row, JsonPart>;

    fn sink(&self) -> Self::Sink {
        file::json_lines(self.0.path().join("out"))
    }

    fn record(&self, n: u64) -> Row {
        row(n)
    }

    fn visible(&self) -> Vec<Row> {
        let texts =
            parts(&self.0.path().join("out")).into_iter().map(|part| fs::read_to_string(part).unwrap());
        texts
            .flat_map(|text| text.lines().map(|l| serde_json::from_str(l).unwrap()).collect::<Vec<_>>())
            .collect()
    }

    fn leftovers(&self, _: &MemoryStorage) -> usize {
        names(&self.0.path().join("out/.pending")).len()
    }

    fn lose_prepared(&self, _: &MemoryStorage) -> Can {
        lose(&self.0.path().join("out"));
        Can::Done(())
    }

    fn lose_next_answer(&self, _: &MemoryStorage) -> Can {
        Can::Not(RENAMED)
    }
}

impl Target for CsvDir {
    type Record = Row;
    type Sink = Parts<Row, CsvPart>;

    fn sink(&self) -> Self::Sink {
        file::csv(self.0.path())
    }

    fn record(&self, n: u64) -> Row {
        row(n)
    }

    fn visible(&self) -> Vec<Row> {
        let rows = file::rows::<Row>(self.0.path());
        let read = std::thread::spawn(move || run(read_all(&rows)).unwrap());
        read.join().unwrap().into_iter().flat_map(|(_, rows, _)| rows).collect()
    }

    fn leftovers(&self, _: &MemoryStorage) -> usize {
        names(&self.0.path().join(".pending")).len()
    }

    fn lose_prepared(&self, _: &MemoryStorage) -> Can {
        lose(self.0.path());
        Can::Done(())
    }

    fn lose_next_answer(&self, _: &MemoryStorage) -> Can {
        Can::Not(RENAMED)
    }
}

mod json_lines {
    use super::*;
    staunch_testing::sink_conformance!(json());
}

mod csv {
    use super::*;
    staunch_testing::sink_conformance!(CsvDir(TempDir::new().unwrap()));
}

#[test]
fn published_names_say_checkpoint_and_instance() {
    run(async {
        let mut life = Life::new(json());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let listed = start.prepare(42).await.unwrap();
        start.commit(&listed).await.unwrap();
        let dir = life.target.0.path().join("out");
        let wanted = [".pending", ".staunch", "part-0000000042-0000.jsonl", "part-0000000042-0001.jsonl"];
        assert_eq!(names(&dir), wanted);
        assert_eq!(fs::read_to_string(dir.join(wanted[3])).unwrap().lines().count(), 2);
    });
}

#[test]
fn a_directory_with_parts_of_unknown_origin_is_refused() {
    run(async {
        let mut life = Life::new(json());
        let dir = life.target.0.path().join("out");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("readme.txt"), "not ours, no harm").unwrap();
        drop(life.start(&[]).await.unwrap());
        fs::remove_file(dir.join(".staunch")).unwrap();
        fs::write(dir.join("part-0000000001-0000.jsonl"), "{}\n").unwrap();
        let why = life.start(&[]).await.err().unwrap().to_string();
        assert!(why.contains(".staunch") && why.contains("another output directory"), "{why}");
        fs::write(dir.join(".staunch"), "{").unwrap();
        let why = life.start(&[]).await.err().unwrap().to_string();
        assert!(why.contains("damaged"), "{why}");
    });
}

#[test]
fn another_sink_of_the_same_job_is_refused() {
    run(async {
        let mut life = Life::new(json());
        drop(life.start(&[]).await.unwrap());
        let mut context = life.context(2, 0);
        context.sink = "other".into();
        use staunch_core::sink::Committer;
        let why = life.target.sink().committer(&context).await.unwrap().recover(&[]).await.unwrap_err();
        assert!(why.to_string().contains("sink `out`"), "{why}");
    });
}

#[test]
fn a_fresh_job_does_not_add_to_published_parts() {
    run(async {
        let mut life = Life::new(json());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        start.commit(&listed).await.unwrap();
        life.starts = 0;
        let why = life.start(&[]).await.err().unwrap().to_string();
        assert!(why.contains("starts from nothing"), "{why}");
    });
}

#[test]
fn a_part_of_somebody_else_is_never_overwritten() {
    run(async {
        let mut life = Life::new(json());
        let mut start = life.start(&[]).await.unwrap();
        start.write(vec![row(0)]).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        let published = life.target.0.path().join("out/part-0000000001-0000.jsonl");
        fs::write(&published, "theirs").unwrap();
        let Err(CommitError::Refused(why)) = start.commit(&listed).await else { panic!("not refused") };
        assert!(why.to_string().contains("not overwritten"), "{why}");
        assert_eq!(fs::read_to_string(&published).unwrap(), "theirs");
    });
}

#[test]
fn a_part_that_was_cut_is_refused() {
    run(async {
        for publish_first in [false, true] {
            let mut life = Life::new(json());
            let mut start = life.start(&[]).await.unwrap();
            start.write(vec![row(0)]).await.unwrap();
            let listed = start.prepare(1).await.unwrap();
            let dir = life.target.0.path().join("out");
            let pending = dir.join(".pending").join(&names(&dir.join(".pending"))[0]);
            let file = if publish_first { dir.join("part-0000000001-0000.jsonl") } else { pending };
            if publish_first {
                start.commit(&listed).await.unwrap();
            }
            fs::write(file, "{").unwrap();
            let Err(CommitError::Refused(why)) = start.commit(&listed).await else { panic!("not refused") };
            assert!(why.to_string().contains("has 1 bytes"), "{why}");
        }
    });
}

#[test]
fn a_pending_part_that_was_damaged_is_refused_by_the_next_start() {
    run(async {
        let mut life = Life::new(json());
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        let mut listed = Vec::new();
        for checkpoint in 1..=2 {
            start.write(rows(u64::from(checkpoint) * 20..u64::from(checkpoint) * 20 + 20)).await.unwrap();
            listed.extend(start.prepare(checkpoint).await.unwrap());
        }
        let dir = life.target.0.path().join("out");
        let pending: Vec<PathBuf> =
            names(&dir.join(".pending")).iter().map(|name| dir.join(".pending").join(name)).collect();
        let good: Vec<Vec<u8>> = pending.iter().map(|path| fs::read(path).unwrap()).collect();
        let mut next = life.start(&listed).await.unwrap();
        for (what, bad) in damaged(&good[0], &good[1..]) {
            fs::write(&pending[0], bad).unwrap();
            let Err(CommitError::Refused(why)) = next.commit(&listed).await else { panic!("{what} passes") };
            let why = why.to_string();
            assert!(why.contains("part-s0000000000") && why.contains("20 records"), "{what}: {why}");
            assert!(parts(&dir).is_empty(), "{what}");
        }
        fs::remove_file(&pending[0]).unwrap();
        let Err(CommitError::Refused(why)) = next.commit(&listed).await else { panic!("a loss passes") };
        assert!(why.to_string().contains("part-s0000000000"), "{why}");
        fs::write(&pending[0], &good[0]).unwrap();
        next.commit(&listed).await.unwrap();
        assert_eq!(life.visible(), rows(20..60));
    });
}

/// The owner's file holds no data. Damage to it either refuses the start, or changes nothing: it is only
/// compared, and written anew by every start.
#[test]
fn a_damaged_owner_file_is_refused_or_makes_no_difference() {
    run(async {
        let mut life = Life::new(json());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..10)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        start.commit(&listed).await.unwrap();
        let mark = life.target.0.path().join("out/.staunch");
        let (good, mut refused) = (fs::read(&mark).unwrap(), 0);
        for (what, bad) in damaged(&good, &[]) {
            fs::write(&mark, bad).unwrap();
            life.starts = 1;
            match life.start(&listed).await {
                Err(why) => {
                    refused += 1;
                    assert!(why.to_string().contains("/out"), "{what}: {why}");
                }
                Ok(mut next) => {
                    next.commit(&listed).await.unwrap();
                    assert_eq!(fs::read(&mark).unwrap(), good_mark_of(&good, 2), "{what}");
                }
            }
            assert_eq!(life.visible(), rows(0..10), "{what}");
        }
        println!("{refused} of 400 refused");
        assert!(refused > 250, "{refused}");
        fs::remove_file(&mark).unwrap();
        assert!(life.start(&listed).await.err().unwrap().to_string().contains(".staunch"));
    });
}

/// The owner's file as the given start writes it.
fn good_mark_of(first: &[u8], generation: u64) -> Vec<u8> {
    let text = String::from_utf8(first.to_vec()).unwrap();
    text.replace("\"generation\":1", &format!("\"generation\":{generation}")).into_bytes()
}

#[test]
fn a_directory_with_parts_of_a_checkpoint_that_the_log_lost_is_refused() {
    run(async {
        let mut life = Life::new(json());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let listed = start.prepare(7).await.unwrap();
        start.commit(&listed).await.unwrap();
        life.next_checkpoint = 8;
        drop(life.start(&[]).await.unwrap());
        life.next_checkpoint = 7;
        let why = life.start(&[]).await.err().unwrap().to_string();
        assert!(why.contains("/out") && why.contains("checkpoint 7") && why.contains("backup"), "{why}");
    });
}

#[test]
fn a_directory_that_was_emptied_under_the_job_is_refused() {
    run(async {
        let mut life = Life::new(json());
        let mut start = life.start(&[]).await.unwrap();
        start.write(vec![row(0)]).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        fs::remove_dir_all(life.target.0.path().join("out")).unwrap();
        let Err(CommitError::Refused(why)) = start.commit(&listed).await else { panic!("not refused") };
        assert!(why.to_string().contains("emptied"), "{why}");
    });
}

#[test]
fn an_unusable_output_directory_is_an_error_that_names_it() {
    run(async {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("out"), "a file").unwrap();
        let mut life = Life::new(JsonDir(dir));
        let why = life.start(&[]).await.err().unwrap().to_string();
        assert!(why.contains("the output directory") && why.contains("/out"), "{why}");
    });
}

#[test]
fn a_checkpoint_of_another_kind_of_sink_is_refused() {
    run(async {
        let mut memory = Life::new(json());
        let mut start = memory.start(&[]).await.unwrap();
        start.write(vec![row(0)]).await.unwrap();
        let mut listed = start.prepare(1).await.unwrap();
        listed[0].payload = serde_json::json!({"other": 1});
        let why = memory.start(&listed).await.err().unwrap().to_string();
        assert!(why.contains("no part file"), "{why}");
    });
}

/// A damaged list must not lead to the files of others: neither take one for a part, nor publish one there.
#[test]
fn a_checkpoint_that_names_files_elsewhere_is_refused() {
    run(async {
        let mut life = Life::new(json());
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        start.write(vec![row(0)]).await.unwrap();
        let good = start.prepare(1).await.unwrap();
        let dir = life.target.0.path().to_owned();
        let pending = dir.join("out/.pending").join(good[0].payload["pending"].as_str().unwrap());
        // The same bytes: only its place tells it from the part.
        let theirs = dir.join("theirs");
        fs::copy(pending, &theirs).unwrap();
        let absolute = theirs.to_str().unwrap();
        for field in ["pending", "name"] {
            for other in ["../../theirs", "../moved", absolute, "a/part", "part/", "part/.", "..", ".", ""] {
                let mut listed = good.clone();
                listed[0].payload[field] = other.into();
                let Err(CommitError::Refused(commit)) = start.commit(&listed).await else {
                    panic!("{field} `{other}` is committed")
                };
                let Err(recovery) = life.start(&listed).await else { panic!("{field} `{other}` is kept") };
                for why in [commit, recovery] {
                    let why = why.to_string();
                    assert!(why.contains(&format!("`{other}` is not the name of a file")), "{why}");
                }
            }
        }
        start.commit(&good).await.unwrap();
        assert_eq!(names(&dir), ["out", "theirs"]);
        assert_eq!(life.visible(), rows(0..1));
    });
}

/// What somebody else does to the output directory while parts wait in it.
type Strike = (&'static str, fn(&Path), &'static str);

fn strikes() -> [Strike; 5] {
    [
        ("parts removed by a cleaner", lose, "was removed or replaced before it was published"),
        (
            "a part replaced",
            |out| {
                let part = out.join(".pending").join(names(&out.join(".pending")).remove(0));
                fs::remove_file(&part).unwrap();
                fs::write(part, "x").unwrap();
            },
            "was removed or replaced before it was published",
        ),
        (
            "the folder of pending parts removed",
            |out| fs::remove_dir_all(out.join(".pending")).unwrap(),
            ".pending",
        ),
        (
            "the directory replaced",
            |out| {
                fs::rename(out, out.with_extension("old")).unwrap();
                fs::create_dir_all(out.join(".pending")).unwrap();
            },
            "out",
        ),
        ("the directory removed", |out| fs::remove_dir_all(out).unwrap(), "out"),
    ]
}

#[test]
fn parts_that_are_gone_are_noticed_before_the_vote_and_read_again() {
    for (strike, act, wanted) in strikes() {
        // While the part is written, and while it waits for a checkpoint that was given up.
        for given_up in [false, true] {
            run(async {
                let mut life = Life::new(json());
                let mut start = life.start(&[]).await.unwrap();
                start.write(rows(0..4)).await.unwrap();
                if given_up {
                    start.prepare(1).await.unwrap();
                }
                act(&life.target.0.path().join("out"));
                let why = start.prepare(2).await.err().unwrap_or_else(|| panic!("{strike}: it voted"));
                assert!(why.to_string().contains(wanted), "{strike}: {why}");
                drop(start);
                let mut next = life.start(&[]).await.unwrap();
                next.write(rows(0..4)).await.unwrap();
                let listed = next.prepare(2).await.unwrap();
                next.commit(&listed).await.unwrap();
                assert_eq!(life.visible(), rows(0..4), "{strike}");
            });
        }
    }
}

#[test]
fn parts_that_are_gone_after_the_decision_are_refused_with_what_to_do() {
    for (strike, act, _) in strikes() {
        run(async {
            let mut life = Life::new(json());
            let mut start = life.start(&[]).await.unwrap();
            start.write(rows(0..4)).await.unwrap();
            let listed = start.prepare(1).await.unwrap();
            act(&life.target.0.path().join("out"));
            match start.commit(&listed).await {
                Err(CommitError::Refused(why)) => {
                    assert!(why.to_string().contains("sink `out`"), "{strike}: {why}")
                }
                other => panic!("{strike}: {other:?}"),
            }
            assert!(life.visible().is_empty(), "{strike}");
        });
    }
}

#[test]
fn a_part_that_was_published_and_taken_by_a_reader_is_missed_by_nobody() {
    run(async {
        let mut life = Life::new(json());
        let mut start = life.start(&[]).await.unwrap();
        for checkpoint in 1..4 {
            start.write(rows(0..4)).await.unwrap();
            let listed = start.prepare(checkpoint).await.unwrap();
            start.commit(&listed).await.unwrap();
            parts(&life.target.0.path().join("out")).iter().for_each(|part| fs::remove_file(part).unwrap());
        }
        assert!(life.visible().is_empty());
    });
}
