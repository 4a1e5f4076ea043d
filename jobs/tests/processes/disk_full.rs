//! A full disk, under the checkpoints and under the output: a clear error, and nothing lost.

use crate::support::{Case, ended, skipped};
use staunch_testing::small_disk::SmallDisk;
use std::path::Path;

fn small_disk(at: &Path) -> Option<SmallDisk> {
    match SmallDisk::mount(at, 2 << 20) {
        Ok(disk) => Some(disk),
        Err(error) => {
            skipped(&format!("a full disk: {error}"));
            None
        }
    }
}

/// Fills the disk under a running job, which must give up with a clear error; with space again, it continues.
fn full_under(case: &Case, disk: &SmallDisk) {
    let mut running = case.start("--workers 2 --rate 4000 --checkpoint-every 100ms");
    case.wait_for_lines(&running, 100);
    disk.fill().unwrap();
    let failed = ended(&mut running);
    let error = failed.log.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    assert_eq!(failed.code, Some(1), "{}", failed.log);
    assert!(error.contains("No space left"), "the error does not say what is wrong: {error}\n{}", failed.log);
    assert!(!failed.log.contains("panicked"), "{}", failed.log);
    let published = jobs::output::committed(&case.output()).unwrap();

    // Still full: the same again, and nothing is damaged by trying.
    let again = case.run("--workers 1 --rate 4000 --checkpoint-every 100ms");
    assert_eq!(again.code, Some(1), "{}", again.log);
    assert!(again.log.contains("No space left"), "{}", again.log);

    disk.make_space().unwrap();
    let last = case.complete("--workers 3");
    assert!(last.log.contains("\"restoring"), "it began from nothing: {}", last.log);
    for (name, text) in published {
        assert_eq!(
            jobs::output::committed(&case.output()).unwrap().get(&name),
            Some(&text),
            "{name} changed"
        );
    }
    case.assert_batch_result();
}

#[test]
fn when_the_disk_of_the_checkpoints_is_full_the_last_good_one_stays() {
    let case = Case::flights();
    let Some(disk) = small_disk(&case.checkpoints()) else { return };
    full_under(&case, &disk);
}

#[test]
fn when_the_disk_of_the_output_is_full_nothing_half_written_is_published() {
    let case = Case::flights();
    let Some(disk) = small_disk(&case.output()) else { return };
    full_under(&case, &disk);
}
