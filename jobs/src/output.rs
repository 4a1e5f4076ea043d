//! The output directory of a job, as any reader sees it: committed part files, and pending ones.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The committed files of an output directory: name and content. Empty as long as there is no directory.
///
/// # Errors
/// The directory cannot be read.
pub fn committed(output: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for path in listed(output)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && !name.starts_with('.') {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            found.insert(name, text);
        }
    }
    Ok(found)
}

/// All lines in the committed files, sorted.
///
/// # Errors
/// The directory cannot be read.
pub fn committed_lines(output: &Path) -> Result<Vec<String>> {
    let files = committed(output)?;
    let mut lines: Vec<String> = files.values().flat_map(|text| text.lines()).map(str::to_owned).collect();
    lines.sort_unstable();
    Ok(lines)
}

/// The files that are written and not committed: no reader takes them for results.
///
/// # Errors
/// The directory cannot be read.
pub fn pending(output: &Path) -> Result<Vec<PathBuf>> {
    listed(&output.join(".pending"))
}

/// The checkpoint in the name of a part file.
pub fn checkpoint_of(name: &str) -> Option<u64> {
    name.strip_prefix("part-")?.split('-').next()?.parse().ok()
}

fn listed(dir: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read {}", dir.display());
    match dir.read_dir() {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).with_context(unreadable),
        Ok(entries) => entries.map(|entry| Ok(entry.with_context(unreadable)?.path())).collect(),
    }
}

/// How two multisets of lines differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Expected and not there.
    pub lost: Vec<String>,
    /// There more often than expected, and expected.
    pub doubled: Vec<String>,
    /// There, and not expected at all.
    pub wrong: Vec<String>,
}

impl Difference {
    /// Compares what is there with what is expected.
    pub fn between<'a>(
        expected: impl IntoIterator<Item = &'a String>,
        found: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        let mut counts: BTreeMap<&String, (i64, i64)> = BTreeMap::new();
        expected.into_iter().for_each(|line| counts.entry(line).or_default().0 += 1);
        found.into_iter().for_each(|line| counts.entry(line).or_default().1 += 1);
        let mut difference = Self::default();
        for (line, (expected, found)) in counts {
            let into = match found - expected {
                0 => continue,
                ..0 => &mut difference.lost,
                _ if expected == 0 => &mut difference.wrong,
                _ => &mut difference.doubled,
            };
            into.extend((0..(found - expected).abs()).map(|_| line.clone()));
        }
        difference
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_wrong_lines_are_told_apart() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let difference = Difference::between(&lines("a a b c"), &lines("a b b b d"));
        let expected = Difference { lost: lines("a c"), doubled: lines("b b"), wrong: lines("d") };
        assert_eq!(difference, expected);
        assert!(Difference::between(&lines("a b a"), &lines("a a b")).is_none());
    }

    #[test]
    fn a_directory_that_is_not_there_yet_holds_nothing() {
        assert!(committed(Path::new("/nowhere/at/all")).unwrap().is_empty());
        assert_eq!(checkpoint_of("part-0000000017-0002.jsonl"), Some(17));
    }
}
