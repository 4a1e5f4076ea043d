//! Part files as a transactional sink: written in a hidden folder, published by renaming.

use super::mark::{self, Mark, PENDING, failed, sync_dir};
use super::part::{self, PartFile};
use crate::formats::StreamEncoder;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use staunch_core::background::blocking;
use staunch_core::place::Place;
use staunch_core::sink::{CommitError, Committer, Prepared, Sink, SinkContext, SinkWriter};
use staunch_core::{CheckpointId, Committable, Error, Result, crash};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Writes part files into a directory; made by [`json_lines`](super::json_lines) or
/// [`csv`](super::csv).
#[derive(Debug)]
pub struct Parts<T, E> {
    dir: PathBuf,
    record: PhantomData<fn(T, E)>,
}

impl<T, E> Parts<T, E> {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), record: PhantomData }
    }
}

impl<T, E> Clone for Parts<T, E> {
    fn clone(&self) -> Self {
        Self::new(&self.dir)
    }
}

impl<T: Serialize + Send + 'static, E: StreamEncoder<Out = PartFile>> Sink for Parts<T, E> {
    type Record = T;
    type Writer = PartsWriter<T, E>;
    type Committer = PartsCommitter;

    async fn writer(&self, context: &SinkContext) -> Result<Self::Writer> {
        let pending = mark::pending(&self.dir);
        fs::create_dir_all(&pending).map_err(|e| failed("create the output directory", &pending, e))?;
        let waiting = waiting(&self.dir, context).await?;
        let (dir, context) = (self.dir.clone(), context.clone());
        Ok(PartsWriter { dir, pending, context, waiting, open: None, begun: 0, record: PhantomData })
    }

    async fn committer(&self, context: &SinkContext) -> Result<PartsCommitter> {
        let waiting = waiting(&self.dir, context).await?;
        Ok(PartsCommitter { dir: self.dir.clone(), context: context.clone(), waiting })
    }

    fn places(&self) -> Vec<Place> {
        vec![Place::Directory(self.dir.clone())]
    }
}

/// A prepared part, as the checkpoint lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    /// Its name in the folder of pending parts.
    #[serde(deserialize_with = "file_name")]
    pending: String,
    /// Its name once it is published.
    #[serde(deserialize_with = "file_name")]
    name: String,
    bytes: u64,
    crc32c: u32,
}

impl Part {
    fn of(committable: &Committable, sink: &str) -> Result<Self> {
        let part: Result<Part, _> = serde_json::from_value(committable.payload.clone());
        part.map_err(|e| {
            Error::job(format!(
                "the checkpoint lists output of sink `{sink}` (checkpoint {}) that is no part file; was the sink \
                 replaced under the same name? Run the old program until it stops cleanly, or give the new sink a \
                 new name",
                committable.checkpoint
            ))
            .caused_by(e)
        })
    }
}

/// A name and no path: a damaged checkpoint must never lead to a file outside of the directory.
fn file_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let is_name = Path::new(&name).file_name() == Some(OsStr::new(&name));
    match is_name {
        true => Ok(name),
        false => Err(D::Error::custom(format_args!("`{name}` is not the name of a file"))),
    }
}

/// Writes the part files of one instance.
#[derive(Debug)]
pub struct PartsWriter<T, E> {
    dir: PathBuf,
    pending: PathBuf,
    context: SinkContext,
    waiting: Arc<Waiting>,
    /// The part of the current epoch, from its first record on.
    open: Option<Open<E>>,
    /// Parts ever begun: makes names unique within the generation, as the checkpoint's id is not known
    /// while a part is written.
    begun: u64,
    record: PhantomData<fn(T)>,
}

#[derive(Debug)]
struct Open<E> {
    part: E,
    name: String,
    records: u64,
}

impl<T, E: StreamEncoder<Out = PartFile>> PartsWriter<T, E> {
    fn begin(&mut self) -> Result<Open<E>> {
        let SinkContext { instance, generation, .. } = self.context;
        let name = format!("part-s{:010}-{instance:04}-g{generation}.{}", self.begun, E::EXTENSION);
        self.begun += 1;
        let path = self.pending.join(&name);
        crash::disk::writing(&path);
        let file = File::create_new(&path).map_err(|e| failed("create", &path, e))?;
        Ok(Open { part: E::begin(PartFile::new(file)), name, records: 0 })
    }
}

impl<T: Serialize + Send + 'static, E: StreamEncoder<Out = PartFile>> SinkWriter for PartsWriter<T, E> {
    type Record = T;

    async fn write(&mut self, records: Vec<T>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        for record in &records {
            part::append(&mut open.part, record)?;
        }
        open.records += records.len() as u64;
        drop(records);
        self.open = Some(open);
        Ok(())
    }

    fn cut(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        let (open, instance) = (self.open.take(), self.context.instance);
        let (dir, pending) = (self.dir.clone(), self.pending.clone());
        let (mark, waiting) = (Mark::of(&self.context), Arc::clone(&self.waiting));
        let name = format!("part-{:010}-{instance:04}.{}", checkpoint.0, E::EXTENSION);
        let work = move || {
            let prepared = open.map(|open| make_durable(open, &pending, instance)).transpose()?;
            // What was removed behind our back is noticed before anybody relies on it. A mark that cannot be read just now
            // says nothing; the committer reads it again, and waits for it, before anything is published.
            match mark.check(&dir) {
                Ok(ours) => ours?,
                Err(error) => tracing::warn!(%error, "whose directory it is cannot be seen just now"),
            }
            waiting.check(&pending, instance)?;
            let Some((waits, bytes, crc32c, records)) = prepared else { return Ok(Vec::new()) };
            waiting.add(instance, &waits, bytes);
            let payload = serde_json::to_value(Part { pending: waits, name, bytes, crc32c })
                .map_err(|e| Error::internal("a part has no JSON form").caused_by(e))?;
            Ok(vec![Prepared { records, payload }])
        };
        Ok(async { blocking(work).await? })
    }
}

/// Finishes a part, and makes it and its name durable. Returns its name, length, checksum and records.
fn make_durable<E: StreamEncoder<Out = PartFile>>(
    open: Open<E>,
    pending: &Path,
    instance: u32,
) -> Result<(String, u64, u32, u64)> {
    let path = pending.join(&open.name);
    let PartFile { file, bytes, crc32c } = part::finish(open.part)?;
    let durable = || {
        crash::point_of("sink.half_flushed", instance)?;
        file.sync_all()?;
        crash::disk::synced(&path);
        sync_dir(pending)?;
        file.metadata()
    };
    let written = durable().map_err(|e| failed("make a part durable in", pending, e))?;
    match fs::symlink_metadata(&path) {
        Ok(found) if (found.dev(), found.ino(), found.len()) == (written.dev(), written.ino(), bytes) => {
            Ok((open.name, bytes, crc32c, open.records))
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("look at", &path, e)),
        Ok(_) | Err(_) => Err(taken_away(&path)),
    }
}

fn taken_away(path: &Path) -> Error {
    Error::external(format!(
        "{} was removed or replaced before it was published. Keep other programs out of {PENDING}, cleaners of temporary \
         files too, and run the job again: nothing is lost, its records are read once more",
        path.display()
    ))
}

/// The parts that wait for their commit, as this process has written them: noted by the writers, struck out by the
/// committer before it publishes them.
#[derive(Debug, Default)]
struct Waiting(Mutex<BTreeMap<(u32, String), u64>>);

async fn waiting(dir: &Path, context: &SinkContext) -> Result<Arc<Waiting>> {
    let key = format!("parts {} {}", context.sink, dir.display());
    context.shared.get(&key, async { Ok(Waiting::default()) }).await
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u32, String), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, instance: u32, name: &str, bytes: u64) {
        self.lock().insert((instance, name.to_owned()), bytes);
    }

    fn remove(&self, instance: u32, name: &str) {
        self.lock().remove(&(instance, name.to_owned()));
    }

    /// Whether all parts of an instance are still there. None is published meanwhile.
    fn check(&self, pending: &Path, instance: u32) -> Result<()> {
        let all = self.lock();
        for ((_, name), bytes) in all.range((instance, String::new())..(instance + 1, String::new())) {
            let path = pending.join(name);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.len() == *bytes => {}
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("look at", &path, e)),
                Ok(_) | Err(_) => return Err(taken_away(&path)),
            }
        }
        Ok(())
    }
}

/// Publishes part files.
#[derive(Debug)]
pub struct PartsCommitter {
    dir: PathBuf,
    context: SinkContext,
    waiting: Arc<Waiting>,
}

impl Committer for PartsCommitter {
    async fn check(&mut self) -> Result<()> {
        let (dir, context) = (self.dir.clone(), self.context.clone());
        blocking(move || Mark::of(&context).may_claim(&dir, &context)).await?
    }

    async fn recover(&mut self, listed: &[Committable]) -> Result<Vec<String>> {
        let (dir, context) = (self.dir.clone(), self.context.clone());
        let keep: Result<BTreeSet<String>> =
            listed.iter().map(|c| Part::of(c, &context.sink).map(|part| part.pending)).collect();
        let keep = keep?;
        blocking(move || {
            Mark::of(&context).claim(&dir, &context)?;
            let pending = mark::pending(&dir);
            remove_unlisted(&pending, &keep, &context).map_err(|e| failed("clean", &pending, e))
        })
        .await?
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        let (dir, context, committables) = (self.dir.clone(), self.context.clone(), committables.to_vec());
        let waiting = Arc::clone(&self.waiting);
        blocking(move || {
            Mark::of(&context).check(&dir).map_err(CommitError::Retry)?.map_err(|why| {
                let records: u64 = committables.iter().map(|c| c.records).sum();
                let sink = &context.sink;
                CommitError::Refused(
                    Error::job(format!("sink `{sink}`: {records} records are not committed")).caused_by(why),
                )
            })?;
            for committable in &committables {
                let part = Part::of(committable, &context.sink).map_err(CommitError::Refused)?;
                waiting.remove(committable.instance, &part.pending);
                publish(&dir, &part, committable, &context)?;
                crash::point("commit.some_done")
                    .map_err(|e| CommitError::Retry(failed("publish into", &dir, e)))?;
            }
            // Also if all were published before: the crash may have come between renaming and syncing.
            let synced = sync_dir(&dir).and_then(|()| sync_dir(&mark::pending(&dir)));
            synced.map_err(|e| CommitError::Retry(failed("make durable", &dir, e)))
        })
        .await
        .map_err(CommitError::Retry)?
    }
}

fn publish(
    dir: &Path,
    part: &Part,
    committable: &Committable,
    context: &SinkContext,
) -> Result<(), CommitError> {
    let (waiting, published) = (mark::pending(dir).join(&part.pending), dir.join(&part.name));
    let length = |path: &Path| match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(CommitError::Retry(failed("look at", path, e))),
    };
    let refuse = |why: String| {
        let Committable { records, checkpoint, instance, .. } = committable;
        let sink = &context.sink;
        Err(CommitError::Refused(Error::external(format!(
            "sink `{sink}`: {records} records of checkpoint {checkpoint} (instance {instance}) cannot be published: {why}. \
             Put the file back and run the job again, or start over with --from none and another output directory"
        ))))
    };
    match (length(&waiting)?, length(&published)?) {
        (Some(found), None) if found == part.bytes => {
            // What this process wrote itself is not read again.
            if committable.generation < context.generation {
                let crc32c =
                    checksum(&waiting).map_err(|e| CommitError::Retry(failed("read", &waiting, e)))?;
                if crc32c != part.crc32c {
                    return refuse(format!("{} is damaged: its checksum differs", waiting.display()));
                }
            }
            crash::disk::renaming(&waiting, &published);
            fs::rename(&waiting, &published).map_err(|e| CommitError::Retry(failed("publish", &waiting, e)))
        }
        (None, Some(found)) if found == part.bytes => Ok(()),
        (Some(_), Some(_)) => refuse(format!(
            "{} exists already and was written by somebody else; it is not overwritten",
            published.display()
        )),
        (None, None) => refuse(format!("neither {} nor {} exists", waiting.display(), published.display())),
        (Some(found), None) => refuse(format!("{} has {found} bytes, not {}", waiting.display(), part.bytes)),
        (None, Some(found)) => {
            refuse(format!("{} has {found} bytes, not {}", published.display(), part.bytes))
        }
    }
}

/// CRC-32C of a file.
fn checksum(path: &Path) -> io::Result<u32> {
    let (mut file, mut buffer, mut crc32c) = (File::open(path)?, vec![0; 1 << 18], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crc32c),
            read => crc32c = crc32c::crc32c_append(crc32c, &buffer[..read]),
        }
    }
}

/// Removes what no checkpoint lists. Files of a higher generation stay: then we are the one who is late.
fn remove_unlisted(
    pending: &Path,
    keep: &BTreeSet<String>,
    context: &SinkContext,
) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for entry in pending.read_dir()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if keep.contains(&name) || generation(&name).is_some_and(|other| other > context.generation.0) {
            continue;
        }
        let path = pending.join(&name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => lines.push(format!(
                "sink `{}`: removed {}, written for a checkpoint that was never decided",
                context.sink,
                path.display()
            )),
        }
        crash::point("recovery.some_orphans_removed")?;
    }
    sync_dir(pending)?;
    lines.sort_unstable();
    Ok(lines)
}

/// The generation in the name of a pending part.
fn generation(name: &str) -> Option<u64> {
    let (_, rest) = name.rsplit_once("-g")?;
    rest.split('.').next()?.parse().ok()
}
