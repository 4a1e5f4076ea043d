//! Whose an output directory is: the file `.staunch` in it.

use serde::{Deserialize, Serialize};
use staunch_core::sink::SinkContext;
use staunch_core::staged::lost_checkpoint;
use staunch_core::{CheckpointId, Error, Generation, Result, crash};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FILE: &str = ".staunch";
/// The folder of parts that wait for their commit.
pub(super) const PENDING: &str = ".pending";

/// The owner of an output directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    job: String,
    sink: String,
    lineage: String,
    generation: Generation,
}

/// Where parts wait until their checkpoint is decided.
pub(super) fn pending(dir: &Path) -> PathBuf {
    dir.join(PENDING)
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    if crash::bug("folder_sync_skipped") {
        return Ok(());
    }
    File::open(dir)?.sync_all()?;
    crash::disk::synced_folder(dir);
    Ok(())
}

pub(super) fn failed(what: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    Error::external(format!("cannot {what} {}", path.display())).caused_by(error.into())
}

impl Mark {
    pub fn of(context: &SinkContext) -> Self {
        let SinkContext { job, sink, lineage, generation, .. } = context.clone();
        Self { job, sink, lineage, generation }
    }

    fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                Error::job(format!(
                    "{} is damaged; use another output directory, or empty this one",
                    path.display()
                ))
                .caused_by(e)
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("read", &path, e)),
        }
    }

    /// Whether the directory can be ours; changes nothing.
    pub fn may_claim(&self, dir: &Path, context: &SinkContext) -> Result<()> {
        // Whatever else hides the directory, it may hold output of another run.
        if !dir.try_exists().map_err(|e| failed("look for the output directory", dir, e))? {
            return Ok(());
        }
        let newest = newest_part(dir).map_err(|e| failed("read the output directory", dir, e))?;
        let has_parts = newest.is_some();
        let place = dir.display();
        let advice = "use another output directory, or empty this one";
        match Self::read(dir)? {
            None if has_parts => Err(Error::job(format!(
                "{place} holds part files, but not the file {FILE} that says whose they are; {advice}"
            ))),
            None => Ok(()),
            Some(other) if other.lineage != self.lineage || other.sink != self.sink => {
                Err(Error::job(format!(
                    "{place} holds the output of another run (job `{}`, sink `{}`, run {}; this is run {}); {advice}, or \
                 continue that run from its checkpoints",
                    other.job, other.sink, other.lineage, self.lineage
                )))
            }
            Some(other) if other.generation > self.generation => Err(self.fenced(&other, dir)),
            Some(_) if context.fresh && has_parts => Err(Error::job(format!(
                "{place} holds output of this run, but the job starts from nothing; {advice}"
            ))),
            Some(_) => match newest.filter(|newest| *newest >= context.next_checkpoint) {
                Some(lost) => {
                    let why = lost_checkpoint(&self.sink, lost);
                    Err(Error::job(format!("{place}: {why}")))
                }
                None => Ok(()),
            },
        }
    }

    /// Makes the directory ours, or says why it cannot be.
    pub fn claim(&self, dir: &Path, context: &SinkContext) -> Result<()> {
        let waiting = pending(dir);
        crash::disk::making_folder(dir);
        crash::disk::making_folder(&waiting);
        fs::create_dir_all(&waiting).map_err(|e| failed("create the output directory", &waiting, e))?;
        self.may_claim(dir, context)?;
        self.write(dir).map_err(|e| failed("write the owner's file into", dir, e))
    }

    /// Checks that the directory is still ours.
    pub fn check(&self, dir: &Path) -> Result<Result<()>> {
        Ok(match Self::read(dir)? {
            Some(_) if crash::bug("fencing_skipped") => Ok(()),
            Some(mark)
                if mark.lineage == self.lineage
                    && mark.sink == self.sink
                    && mark.generation <= self.generation =>
            {
                Ok(())
            }
            Some(other) => Err(self.fenced(&other, dir)),
            None => Err(Error::job(format!("{} was emptied or moved away while the job ran", dir.display()))),
        })
    }

    fn fenced(&self, other: &Self, dir: &Path) -> Error {
        Error::job(format!(
            "{} was taken over: start {} of run {} writes there now, this is start {} of run {}",
            dir.display(),
            other.generation,
            other.lineage,
            self.generation,
            self.lineage
        ))
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        // In the folder of pending parts, where leftovers of a crash are removed.
        let new = pending(dir).join(format!("mark-g{}", self.generation));
        let mark = dir.join(FILE);
        crash::disk::writing(&new);
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        crash::disk::synced(&new);
        crash::disk::renaming(&new, &mark);
        fs::rename(&new, mark)?;
        sync_dir(dir)?;
        // Any of the folders above may be new.
        for folder in dir.canonicalize()?.ancestors().skip(1) {
            match sync_dir(folder) {
                // One that may not be opened was not made by us.
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The highest checkpoint of which there is a part.
fn newest_part(dir: &Path) -> io::Result<Option<CheckpointId>> {
    let mut newest = None;
    for entry in dir.read_dir()? {
        newest = newest.max(of_part(&entry?.file_name().to_string_lossy()));
    }
    Ok(newest)
}

/// The checkpoint of a published part, if this is the name of one:
/// `part-<10 digits>-<digits>.<extension>`.
fn of_part(name: &str) -> Option<CheckpointId> {
    let (stem, _) = name.strip_prefix("part-")?.split_once('.')?;
    let (checkpoint, instance) = stem.split_once('-')?;
    let digits = [checkpoint, instance].iter().all(|n| n.bytes().all(|b| b.is_ascii_digit()));
    if checkpoint.len() != 10 || !digits {
        return None;
    }
    // A number that is none of ours is above all of them.
    Some(CheckpointId(checkpoint.parse().unwrap_or(u32::MAX)))
}
