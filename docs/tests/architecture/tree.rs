//! What is in the workspace: its folders and files, without what builds put there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the workspace is.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("docs is in the workspace").to_owned()
}

/// The text of a file of the workspace.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// Names at the top that belong to builds, according to `.gitignore`.
fn ignored() -> BTreeSet<String> {
    let own = read(".gitignore");
    own.lines()
        .filter_map(|line| line.strip_prefix('/'))
        .map(|n| n.trim_end_matches('/').to_owned())
        .collect()
}

/// Folders at the top, sorted.
pub fn folders() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root())
        .expect("the workspace can be listed")
        .map(|entry| entry.expect("the workspace can be listed"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".git" && !ignored().contains(name))
        .collect();
    names.sort();
    names
}

/// Files of the workspace with this ending, as paths from its root, sorted.
pub fn files(ending: &str) -> Vec<String> {
    fn walk(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    folders().iter().for_each(|folder| walk(&root().join(folder), ending, &mut found));
    for entry in fs::read_dir(root()).into_iter().flatten().flatten() {
        if entry.path().is_file() && entry.file_name().to_string_lossy().ends_with(ending) {
            found.push(entry.path());
        }
    }
    let relative = |path: PathBuf| path.strip_prefix(root()).ok().map(|p| p.to_string_lossy().into_owned());
    let mut found: Vec<String> = found.into_iter().filter_map(relative).collect();
    found.sort();
    found
}

/// Fails with all violations, one a line.
pub fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}
