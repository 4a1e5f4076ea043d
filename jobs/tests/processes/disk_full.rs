//! A full disk, under the checkpoints and under the output: a clear error, and nothing lost.

use crate::support::{Case, ended, skipped};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A small file system of its own; unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(at).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            skipped("a full disk: this user may not mount a small file system (root may)");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.0.join(".ballast")).unwrap();
        let mut size = 1 << 16;
        while size > 0 {
            if ballast.write_all(&vec![1; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn make_space(&self) {
        fs::remove_file(self.0.join(".ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Fills the disk under a running job, which must give up with a clear error; with space again, it continues.
fn full_under(case: &Case, disk: &SmallDisk) {
    let mut running = case.start("--workers 2 --rate 4000 --checkpoint-every 100ms");
    case.wait_for_lines(&running, 100);
    disk.fill();
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

    disk.make_space();
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
    let Some(disk) = SmallDisk::mount(&case.checkpoints()) else { return };
    full_under(&case, &disk);
}

#[test]
fn when_the_disk_of_the_output_is_full_nothing_half_written_is_published() {
    let case = Case::flights();
    let Some(disk) = SmallDisk::mount(&case.output()) else { return };
    full_under(&case, &disk);
}
