//! Files as inputs of whole jobs: what happens to them while the job runs and while it does not, and what a job
//! refuses to read or to write.

use crate::harness::{eventually, place};
use staunch::file;
use staunch::prelude::*;
use staunch_connectors::memory::{Collected, collect};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A job that collects the lines of what it reads.
fn lines(
    input: &Path,
    follow: bool,
    output: &Collected<String>,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + use<> {
    let (input, output) = (input.to_owned(), output.clone());
    move |job| {
        job.source("lines", file::lines(&input).follow(follow)).sink("output", output.clone());
        Ok(())
    }
}

fn sorted(output: &Collected<String>) -> Vec<String> {
    let mut lines = output.committed();
    lines.sort();
    lines
}

#[test]
fn a_drain_reads_a_last_line_without_line_end_because_nobody_can_read_it_later() {
    for workers in [1, 3] {
        let (dir, output, place) = (TempDir::new().unwrap(), collect(), place().workers(workers));
        for (name, text) in [("a", "1\n2"), ("b", "3\n"), ("c", "4"), ("d", "")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let running = place.start(lines(dir.path(), true, &output));
        eventually("whole lines are read", || sorted(&output) == ["1", "3"]);
        running.drain();
        assert_eq!(sorted(&output), ["1", "2", "3", "4"]);
        assert_eq!(place.run(lines(dir.path(), true, &output)).unwrap(), Outcome::AlreadyFinished);
    }
}

#[test]
fn a_file_that_was_read_to_its_end_may_be_deleted_while_the_job_is_stopped() {
    let (dir, output, place) = (TempDir::new().unwrap(), collect(), place());
    fs::write(dir.path().join("a.log"), "1\n2\n").unwrap();
    fs::write(dir.path().join("b.log"), "3\n").unwrap();
    let running = place.start(lines(dir.path(), true, &output));
    eventually("all is read", || sorted(&output).len() == 3);
    assert_eq!(running.stop(), Outcome::Stopped);
    fs::remove_file(dir.path().join("a.log")).unwrap();
    fs::write(dir.path().join("c.log"), "4\n").unwrap();
    let running = place.start(lines(dir.path(), true, &output));
    eventually("the job goes on", || sorted(&output).len() == 4);
    assert_eq!(running.stop(), Outcome::Stopped);
    assert_eq!(sorted(&output), ["1", "2", "3", "4"]);
}

#[test]
fn a_file_that_is_renamed_in_its_directory_while_the_job_is_stopped_is_not_read_twice() {
    for workers in [1, 3] {
        let (dir, output, place) = (TempDir::new().unwrap(), collect(), place().workers(workers));
        fs::write(dir.path().join("a.log"), "1\n2\n").unwrap();
        let running = place.start(lines(dir.path(), true, &output));
        eventually("all is read", || sorted(&output).len() == 2);
        assert_eq!(running.stop(), Outcome::Stopped);
        fs::rename(dir.path().join("a.log"), dir.path().join("b.log")).unwrap();
        let error = place.fail(lines(dir.path(), true, &output)).to_string();
        assert!(
            error.contains("a.log") && error.contains("b.log") && error.contains("keep its name"),
            "{error}"
        );
    }
}

/// A file that is deleted is done, and whoever wrote it may begin another one of its name.
#[test]
fn a_name_that_is_used_again_in_a_followed_directory_is_another_file_and_is_read() {
    for stopped in [false, true] {
        for workers in [1, 3] {
            let (dir, output, place) = (TempDir::new().unwrap(), collect(), place().workers(workers));
            let path = dir.path().join("a.log");
            fs::write(&path, "1\n2\n").unwrap();
            fs::write(dir.path().join("b.log"), "k\n").unwrap();
            let mut running = place.start(lines(dir.path(), true, &output));
            eventually("all is read", || output.committed().len() == 3);
            fs::remove_file(&path).unwrap();
            eventually("the file is done", || {
                place.manifests().last().unwrap().sources["lines"].splits.iter().any(|split| split.finished)
            });
            if stopped {
                assert_eq!(running.stop(), Outcome::Stopped);
            }
            // It begins as the first one.
            fs::write(&path, "1\n2\n3\n").unwrap();
            if stopped {
                running = place.start(lines(dir.path(), true, &output));
            }
            eventually("the new file is read", || output.committed().len() == 6);
            assert_eq!(running.stop(), Outcome::Stopped);
            assert_eq!(sorted(&output), ["1", "1", "2", "2", "3", "k"]);
        }
    }
}

/// Stops a job over two files when it has read the first, changes that, and goes on.
fn changed_while_stopped(change: impl Fn(&Path)) -> (Result<Outcome>, Vec<String>) {
    let (dir, output, place) = (TempDir::new().unwrap(), collect(), place());
    let old: String = (0..10).map(|n| format!("old {n}\n")).collect();
    fs::write(dir.path().join("a.txt"), old).unwrap();
    fs::write(dir.path().join("b.txt"), "b\n".repeat(100_000)).unwrap();
    let job = |rate: Option<u64>| {
        let (dir, output) = (dir.path().to_owned(), output.clone());
        move |job: &Job<'_>| {
            job.source("lines", file::lines(&dir).limit_rate(rate)).sink("output", output.clone());
            Ok(())
        }
    };
    let running = place.start(job(Some(20_000)));
    eventually("the first file is read", || {
        place.manifests().last().is_some_and(|m| m.sources["lines"].splits.iter().any(|split| split.finished))
    });
    assert_eq!(running.stop(), Outcome::Stopped);
    change(&dir.path().join("a.txt"));
    let outcome = place.run(job(None));
    let rest = output.committed().into_iter().filter(|line| line != "b").collect();
    (outcome, rest)
}

#[test]
fn a_file_that_is_replaced_after_it_was_read_to_its_end_is_an_error_that_names_it() {
    let new: String = (0..10).map(|n| format!("new {n}\n")).collect();
    for change in ["replaced", "overwritten", "cut"] {
        let (outcome, _) = changed_while_stopped(|path| match change {
            "replaced" => {
                fs::remove_file(path).unwrap();
                fs::write(path, &new).unwrap();
            }
            "overwritten" => fs::write(path, &new).unwrap(),
            _ => fs::write(path, "old 0\n").unwrap(),
        });
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("a.txt is not the file that was read"), "{change}: {error}");
    }
}

#[test]
fn a_file_that_was_read_to_its_end_may_be_copied_grow_or_go_and_is_not_read_again() {
    let old: Vec<String> = (0..10).map(|n| format!("old {n}")).collect();
    for change in ["nothing", "copied", "grown", "gone"] {
        let (outcome, lines) = changed_while_stopped(|path| match change {
            "copied" => {
                let text = fs::read(path).unwrap();
                fs::remove_file(path).unwrap();
                fs::write(path, text).unwrap();
            }
            "grown" => fs::write(path, old.join("\n") + "\nmore\n").unwrap(),
            "gone" => fs::remove_file(path).unwrap(),
            _ => {}
        });
        assert_eq!(outcome.unwrap(), Outcome::Finished, "{change}");
        assert_eq!(lines, old, "{change}");
    }
}

#[test]
fn a_job_that_would_read_its_own_output_or_write_one_place_twice_is_refused_before_anything_is_claimed() {
    let (dir, place) = (TempDir::new().unwrap(), place());
    let (input, link) = (dir.path().join("in"), dir.path().join("link"));
    fs::create_dir(&input).unwrap();
    fs::write(input.join("a.txt"), "1\n").unwrap();
    std::os::unix::fs::symlink(&input, &link).unwrap();
    let out = dir.path().join("out");
    let checkpoints = place.config.checkpoints.clone();
    for (first, second, words) in [
        (&link, &out, "source `lines` and sink `first`"),
        (&out, &input, "source `lines` and sink `second`"),
        (&out, &out, "sink `first` and sink `second`"),
        (&out, &checkpoints, "the checkpoints of the job"),
    ] {
        let (input, first, second) = (input.clone(), first.clone(), second.clone());
        let error = place.fail(move |job| {
            let lines = job.source("lines", file::lines(&input).follow(true));
            lines.clone().sink("first", file::json_lines(&first));
            lines.sink("second", file::json_lines(&second));
            Ok(())
        });
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.kind(), staunch::core::error::Kind::Job);
        assert!(!out.exists() && !checkpoints.exists(), "{words}");
    }
}
