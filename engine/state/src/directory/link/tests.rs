//! Answers that are wrong: each operation once "done and reported as failed", once really refused.

use super::*;
use std::path::PathBuf;

/// A folder with a file `from` in it, and the paths of it and of `to`.
fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, b"a table of RocksDB").unwrap();
    (folder, from, to)
}

const EXDEV: i32 = 18;
const EIO: i32 = 5;
const EEXIST: i32 = 17;

fn linked_and_failed(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)?;
    Err(Error::from_raw_os_error(EIO))
}

fn linked_and_exists(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)?;
    Err(Error::from_raw_os_error(EEXIST))
}

fn linked_and_on_another_device(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)?;
    Err(Error::from_raw_os_error(EXDEV))
}

fn failed(_: &Path, _: &Path) -> Result<()> {
    Err(Error::from_raw_os_error(EIO))
}

fn on_another_device(_: &Path, _: &Path) -> Result<()> {
    Err(Error::from_raw_os_error(EXDEV))
}

fn renamed_and_failed(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)?;
    Err(Error::from_raw_os_error(EIO))
}

/// What a server says to a renaming that it did before.
fn renamed_and_not_found(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)?;
    fs::rename(from, to)
}

#[test]
fn a_link_that_was_made_and_reported_as_failed_is_success_and_leaves_the_source_whole() {
    for lie in [linked_and_failed, linked_and_exists, linked_and_on_another_device] {
        let (_folder, from, to) = files();
        link_or_copy(&from, &to, lie).unwrap();
        assert_eq!(fs::read(&from).unwrap(), b"a table of RocksDB");
        assert_eq!(fs::read(&to).unwrap(), b"a table of RocksDB");
        let (folder, from, to) = files();
        assert!(matches!(link(&from, &to, lie), Named::Made));
        fs::create_dir(folder.path().join(".tmp")).unwrap();
        let staged = staged(&from, folder.path(), lie).unwrap();
        assert_eq!(Identity::of(staged.path()).unwrap(), Identity::of(&from).unwrap());
    }
}

#[test]
fn a_link_that_failed_for_an_unknown_reason_is_neither_done_nor_copied() {
    let (folder, from, to) = files();
    assert_eq!(link_or_copy(&from, &to, failed).unwrap_err().raw_os_error(), Some(EIO));
    assert!(matches!(link(&from, &to, failed), Named::Unknown(_)));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_link_between_file_systems_becomes_a_copy_that_is_no_other_name_of_the_source() {
    let (folder, from, to) = files();
    link_or_copy(&from, &to, on_another_device).unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"a table of RocksDB");
    assert_ne!(Identity::of(&to).unwrap(), Identity::of(&from).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    fs::create_dir(folder.path().join(".tmp")).unwrap();
    let staged = staged(&from, folder.path(), on_another_device).unwrap();
    assert_eq!(fs::read(staged.path()).unwrap(), b"a table of RocksDB");
}

#[test]
fn a_name_that_another_file_has_is_taken_and_stays_that_file() {
    let (_folder, from, to) = files();
    fs::write(&to, b"another").unwrap();
    assert!(matches!(link(&from, &to, by_link), Named::Taken));
    assert_eq!(link_or_copy(&from, &to, by_link).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&to).unwrap(), b"another");
}

#[test]
fn a_renaming_that_was_done_and_reported_as_failed_is_success() {
    for lie in [renamed_and_failed, renamed_and_not_found] {
        let (_folder, from, to) = files();
        fs::write(&to, b"older").unwrap();
        assert!(matches!(rename(&from, &to, lie), Named::Made));
    }
    let (_folder, from, to) = files();
    assert!(matches!(rename(&from, &to, failed), Named::Unknown(_)));
    assert!(matches!(rename(&from, &to, on_another_device), Named::Refused(_)));
}
