//! A power cut: everything that a dead process wrote and did not sync is taken away.
//!
//! Killing a process loses nothing that it has written: the operating system lives on. So the victim writes
//! down what it writes, renames and syncs (`STAUNCH_DISK_LOG`, see the crate `staunch-crash`), and [`cut`]
//! does to the disk the worst that a power cut may do by POSIX: a name is gone unless its folder was synced,
//! a renamed file is under its old name, a file whose content was not synced is empty. Only renaming is
//! taken to be atomic, as the documents ask of file systems: a file never has both names, or none.
//!
//! What it does not know: SQLite's files (SQLite syncs for itself), files that were deleted and might come
//! back, and the scratch files of RocksDB, which a start empties anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A name that may not be durable.
#[derive(Debug)]
enum Name {
    /// A new file, or a second link.
    New(PathBuf),
    Renamed {
        from: PathBuf,
        to: PathBuf,
        /// The old name was durable.
        was_durable: bool,
    },
}

/// What is known of the disk at some moment.
#[derive(Debug, Default)]
struct Disk {
    /// Files whose content is not synced.
    unsynced: BTreeSet<PathBuf>,
    /// In the order in which they came about.
    names: Vec<Name>,
    /// Folders, and whether their own names are durable.
    folders: BTreeMap<PathBuf, bool>,
}

/// Does to everything below `root` what a power cut may do, after what `log` says; returns how many things
/// were lost. The log begins anew.
///
/// # Errors
/// The log cannot be read, or something cannot be taken away.
pub fn cut(log: &Path, root: &Path) -> io::Result<usize> {
    let mut disk = Disk::default();
    for line in fs::read_to_string(log)?.lines() {
        disk.apply(line, root)?;
    }
    fs::remove_file(log)?;
    disk.lose()
}

impl Disk {
    fn apply(&mut self, line: &str, root: &Path) -> io::Result<()> {
        let mut words = line.split('\t');
        let operation = words.next().unwrap_or_default();
        let mut path = || PathBuf::from(words.next().unwrap_or_default());
        match operation {
            "folder" => {
                for folder in path().ancestors().take_while(|f| *f != root && f.starts_with(root)) {
                    self.folders.entry(folder.to_owned()).or_insert(false);
                }
            }
            "write" => {
                let file = path();
                self.unsynced.insert(file.clone());
                self.names.push(Name::New(file));
            }
            "link" => {
                path();
                self.names.push(Name::New(path()));
            }
            "rename" => {
                let (from, to) = (path(), path());
                if self.unsynced.remove(&from) {
                    self.unsynced.insert(to.clone());
                }
                let before = self.names.len();
                self.names.retain(|name| !matches!(name, Name::New(new) if *new == from));
                let was_durable = self.names.len() == before;
                self.names.push(Name::Renamed { from, to, was_durable });
            }
            "sync" => {
                self.unsynced.remove(&path());
            }
            "sync-folder" => self.synced_folder(&path()),
            other => return Err(io::Error::other(format!("the log of the disk has an operation {other:?}"))),
        }
        Ok(())
    }

    fn synced_folder(&mut self, folder: &Path) {
        let inside = |path: &Path| path.parent() == Some(folder);
        self.names.retain(|name| match name {
            Name::New(path) => !inside(path),
            Name::Renamed { from, to, .. } => !inside(from) && !inside(to),
        });
        for (path, durable) in &mut self.folders {
            *durable |= inside(path);
        }
    }

    fn lose(self) -> io::Result<usize> {
        let mut lost = 0;
        let mut count = |done: io::Result<()>| match done {
            Ok(()) => {
                lost += 1;
                Ok(())
            }
            // It was deleted, or the process died before it did what it had written down.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => Ok(()),
            Err(error) => Err(error),
        };
        for name in self.names.iter().rev() {
            match name {
                Name::New(path) => count(fs::remove_file(path))?,
                Name::Renamed { from, to, was_durable: true } => count(fs::rename(to, from))?,
                Name::Renamed { to, .. } => count(fs::remove_file(to))?,
            }
        }
        for file in &self.unsynced {
            count(File::options().write(true).open(file).and_then(|file| file.set_len(0)))?;
        }
        for (folder, _) in self.folders.iter().rev().filter(|(_, durable)| !**durable) {
            count(fs::remove_dir_all(folder))?;
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does what a script says to a real folder, writes it down, and cuts the power.
    fn after_a_cut(script: &[&str]) -> Vec<(String, u64)> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("disk");
        fs::create_dir(&root).unwrap();
        let mut log = String::new();
        for line in script {
            let words: Vec<&str> = line.split(' ').collect();
            let at = |n: usize| root.join(words[n]);
            match words[0] {
                "write" => fs::write(at(1), "content").unwrap(),
                "rename" => fs::rename(at(1), at(2)).unwrap(),
                "link" => fs::hard_link(at(1), at(2)).unwrap(),
                _ => {}
            }
            let paths: Vec<String> =
                words[1..].iter().map(|name| root.join(name).display().to_string()).collect();
            let path = if words[0] == "sync-folder" { vec![root.display().to_string()] } else { paths };
            log.push_str(&format!("{}\t{}\n", words[0], path.join("\t")));
        }
        fs::write(dir.path().join("log"), log).unwrap();
        cut(&dir.path().join("log"), &root).unwrap();
        let left = fs::read_dir(&root).unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
        });
        let mut left: Vec<_> = left.collect();
        left.sort();
        left
    }

    #[test]
    fn what_was_synced_with_its_folder_stays() {
        let left = after_a_cut(&["write a", "sync a", "rename a b", "sync-folder"]);
        assert_eq!(left, [("b".to_owned(), 7)]);
    }

    #[test]
    fn a_name_in_a_folder_that_was_not_synced_is_gone() {
        assert_eq!(after_a_cut(&["write a", "sync a"]), []);
        assert_eq!(after_a_cut(&["write a", "sync a", "rename a b"]), []);
        assert_eq!(after_a_cut(&["write a", "sync a", "sync-folder", "link a b"]), [("a".to_owned(), 7)]);
    }

    #[test]
    fn a_rename_that_was_not_synced_is_undone() {
        let left = after_a_cut(&["write a", "sync a", "sync-folder", "rename a b"]);
        assert_eq!(left, [("a".to_owned(), 7)]);
    }

    #[test]
    fn content_that_was_not_synced_is_gone() {
        assert_eq!(after_a_cut(&["write a", "sync-folder"]), [("a".to_owned(), 0)]);
    }
}
