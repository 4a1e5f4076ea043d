//! Where sources read and sinks write, as places: so that no two steps of a job, and no step and the job's own
//! checkpoints, get in each other's way without a word.

use crate::config::RunConfig;
use crate::error::{Error, Result};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a checkpoint directory has in it that is the engine's alone.
const OWN: [&str; 6] = ["log", "state", "splits", "staged", "work", ".tmp"];

/// Something outside that a source reads or a sink writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A directory: the files directly in it.
    Directory(PathBuf),
    /// One file. Several sinks may write into one, such as into tables of a database.
    File(PathBuf),
    /// Something that is no path, such as `queue://server/name`: the same place if the text is the same.
    Named(String),
}

/// What a step does at its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Reads,
    Writes,
}

/// A step at a place.
#[derive(Debug)]
pub(crate) struct At {
    pub(crate) step: String,
    pub(crate) role: Role,
    pub(crate) place: Place,
}

impl At {
    fn who(&self) -> String {
        let role = if self.role == Role::Reads { "source" } else { "sink" };
        format!("{role} `{}`", self.step)
    }

    fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Directory(path) | Place::File(path) => Some(path),
            Place::Named(_) => None,
        }
    }

    fn text(&self) -> String {
        match &self.place {
            Place::Directory(path) | Place::File(path) => path.display().to_string(),
            Place::Named(name) => name.clone(),
        }
    }
}

/// Whether the steps of a job leave each other alone.
///
/// # Errors
/// Two of them share a place; the error names both.
pub(crate) fn check_steps(steps: &[At]) -> Result<()> {
    for (index, one) in steps.iter().enumerate() {
        for other in &steps[..index] {
            let both = format!("{} and {}", other.who(), one.who());
            match (one.role, other.role) {
                (Role::Reads, Role::Reads) => {}
                (Role::Writes, Role::Writes) => {
                    if !matches!(one.place, Place::File(_)) && is_same(one, other)? {
                        return Err(Error::job(format!(
                            "{both} of this job write into one place, {}; give each its own",
                            one.text()
                        )));
                    }
                }
                (Role::Reads, Role::Writes) | (Role::Writes, Role::Reads) => {
                    let (reads, writes) = if one.role == Role::Reads { (one, other) } else { (other, one) };
                    if is_same(reads, writes)? || is_in(reads, writes)? {
                        return Err(Error::job(format!(
                            "{both} of this job share a place, {}: the job would read its own output; give the sink \
                             another place",
                            writes.text()
                        )));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Whether the steps of a job leave its checkpoints and its working directory alone.
///
/// # Errors
/// One of them reads or writes there; the error names it.
pub(crate) fn check_against(config: &RunConfig, steps: &[At]) -> Result<()> {
    let own = OWN.map(|name| (config.checkpoints.join(name), "the checkpoints of the job are"));
    let state = config.state_dir.clone().map(|dir| (dir, "the state of the job is on disk"));
    for at in steps {
        let Some(path) = at.path() else { continue };
        let taken = |what: &str, taken: &Path| {
            let (who, text) = (at.who(), at.text());
            Err(Error::job(format!(
                "{who} has its place at {text}, where {what} ({}); give one of them another directory",
                taken.display()
            )))
        };
        if same_path(path, &config.checkpoints)? {
            return taken("the checkpoints of the job are", &config.checkpoints);
        }
        for (dir, what) in own.iter().chain(&state) {
            if resolved(path)?.starts_with(resolved(dir)?) {
                return taken(what, dir);
            }
        }
    }
    Ok(())
}

fn is_same(one: &At, other: &At) -> Result<bool> {
    match (&one.place, &other.place) {
        (Place::Named(one), Place::Named(other)) => Ok(one == other),
        _ => match (one.path(), other.path()) {
            (Some(one), Some(other)) => same_path(one, other),
            _ => Ok(false),
        },
    }
}

/// Whether one writes a file directly in the directory that the other one reads.
fn is_in(reads: &At, writes: &At) -> Result<bool> {
    match (&reads.place, &writes.place) {
        (Place::Directory(read), Place::File(written)) => {
            let written = resolved(written)?;
            written.parent().map_or(Ok(false), |parent| same_path(parent, read))
        }
        _ => Ok(false),
    }
}

/// Whether two paths lead to one place, whatever they are called.
fn same_path(one: &Path, other: &Path) -> Result<bool> {
    let identity = |path: &Path| match path.metadata() {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unknown(path, e)),
    };
    match (identity(one)?, identity(other)?) {
        (Some(one), Some(other)) => Ok(one == other),
        (None, None) => Ok(resolved(one)? == resolved(other)?),
        _ => Ok(false),
    }
}

/// The path without links, `.` and `..`, as far as it exists; what does not exist yet is taken as it is.
fn resolved(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|e| unknown(path, e))?;
    let mut missing = Vec::new();
    for existing in absolute.ancestors() {
        match existing.canonicalize() {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |path, name| path.join(name))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.extend(existing.file_name()),
            Err(e) => return Err(unknown(path, e)),
        }
    }
    Ok(absolute)
}

fn unknown(path: &Path, error: io::Error) -> Error {
    Error::external(format!(
        "cannot find out where {} is; check the path and its permissions",
        path.display()
    ))
    .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn at(step: &str, role: Role, place: Place) -> At {
        At { step: step.to_owned(), role, place }
    }

    fn reads(path: impl Into<PathBuf>) -> At {
        at("in", Role::Reads, Place::Directory(path.into()))
    }

    fn writes(step: &str, path: impl Into<PathBuf>) -> At {
        at(step, Role::Writes, Place::Directory(path.into()))
    }

    /// A directory of its own with another name for it.
    fn two_names(test: &str) -> (PathBuf, PathBuf) {
        let base = std::env::temp_dir().join(format!("staunch-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        fs::create_dir_all(base.join("real")).unwrap();
        symlink(base.join("real"), base.join("link")).unwrap();
        (base.join("real"), base.join("link"))
    }

    #[test]
    fn two_steps_at_one_place_are_found_by_any_of_its_names() {
        let (real, link) = two_names("places");
        let (there, same) = (real.join("new"), link.join("old/../new"));
        fs::create_dir(real.join("old")).unwrap();
        for (one, other) in [(&real, &link), (&there, &same), (&there, &there)] {
            let error = check_steps(&[writes("a", one), writes("b", other)]).unwrap_err().to_string();
            assert!(error.contains("sink `a` and sink `b`") && error.contains("of this job"), "{error}");
            let error = check_steps(&[reads(one), writes("b", other)]).unwrap_err().to_string();
            assert!(error.contains("source `in` and sink `b`"), "{error}");
        }
        check_steps(&[reads(&real), reads(&link), writes("a", real.join("a")), writes("b", real.join("b"))])
            .unwrap();
        fs::remove_dir_all(real.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_database_in_the_directory_that_is_read_is_found_and_two_of_its_tables_may_be_written() {
        let (real, link) = two_names("database");
        let table = |step, dir: &PathBuf| at(step, Role::Writes, Place::File(dir.join("d.db")));
        check_steps(&[table("a", &real), table("b", &link), reads(real.join("sub"))]).unwrap();
        assert!(check_steps(&[table("a", &real), reads(&link)]).is_err());
        let named = |step, role| at(step, role, Place::Named("queue://q".into()));
        assert!(check_steps(&[named("a", Role::Writes), named("b", Role::Writes)]).is_err());
        assert!(check_steps(&[named("in", Role::Reads), named("b", Role::Writes)]).is_err());
        fs::remove_dir_all(real.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_step_at_the_checkpoints_or_the_state_of_the_job_is_refused() {
        let (real, link) = two_names("own");
        let mut config = RunConfig::new("job", &real);
        config.state_dir = Some(real.with_file_name("state-dir"));
        let own = OWN.map(|name| real.join(name).join("x"));
        for path in own.into_iter().chain([link.clone(), link.join("log"), link.join("../state-dir/x")]) {
            for step in [reads(&path), writes("out", &path)] {
                let error = check_against(&config, &[step]).unwrap_err().to_string();
                assert!(error.contains("of the job"), "{}: {error}", path.display());
            }
        }
        check_against(&config, &[reads(real.join("in")), writes("out", real.join("out"))]).unwrap();
        fs::remove_dir_all(real.parent().unwrap()).unwrap();
    }
}
