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
