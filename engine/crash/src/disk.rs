//! What has happened to files, as a power cut sees it: a test takes away what was not synced.
//!
//! Nothing is done here but writing it down, and only with the feature `enabled` and `STAUNCH_DISK_LOG`.
//! A line is an operation and its paths, with tabs between them. An operation is written down *before* it
//! is done if it makes something exist, and *after* it if it makes something durable: a process that dies
//! between has then promised too little, never too much.

use std::path::Path;

/// A folder is about to be made.
#[inline(always)]
pub fn making_folder(path: &Path) {
    note("folder", &[path]);
}

/// A file is about to be made or written to.
#[inline(always)]
pub fn writing(path: &Path) {
    note("write", &[path]);
}

/// A file is about to get another name.
#[inline(always)]
pub fn renaming(from: &Path, to: &Path) {
    note("rename", &[from, to]);
}

/// A file is about to get a second name.
#[inline(always)]
pub fn linking(from: &Path, to: &Path) {
    note("link", &[from, to]);
}

/// What is in a file is durable.
#[inline(always)]
pub fn synced(path: &Path) {
    note("sync", &[path]);
}

/// The names in a folder are durable.
#[inline(always)]
pub fn synced_folder(path: &Path) {
    note("sync-folder", &[path]);
}

#[inline(always)]
#[cfg(not(feature = "enabled"))]
fn note(_operation: &str, _paths: &[&Path]) {}

#[cfg(feature = "enabled")]
fn note(operation: &str, paths: &[&Path]) {
    use std::io::Write;
    let Some(mut log) = crate::armed::file_named_by("STAUNCH_DISK_LOG") else { return };
    let mut line = operation.to_owned();
    for path in paths {
        line.push('\t');
        line.push_str(&path.to_string_lossy());
    }
    line.push('\n');
    log.write_all(line.as_bytes()).unwrap_or_else(|e| panic!("STAUNCH_DISK_LOG: {e}"));
}
