//! What a freeze has serialised, on its way to the persister: in memory as long as it is little, else in a scratch
//! file that a thread writes.
//!
//! Without it a base of a large state would be in memory beside the state, as a whole. The worker never writes
//! itself: if the disk does not keep up, the freeze is told to wait ([`Outbox::is_full`]) while records go on. A disk
//! that fails or stands still costs nothing but memory: what cannot be written is kept.
//!
//! Bytes of a scratch file are under a checksum, and are compared when they are read again: what was frozen is what
//! gets into the checkpoint, or the checkpoint fails.

use super::part::Bytes;
use super::proof::Proof;
use crate::error::{Problem, StateError};
use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Serialised bytes of a group that go out before the group is done.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// The freeze waits for the disk when so many times the bytes that may stay in memory are there.
const FULL: usize = 4;
/// Pieces under way to the thread.
const QUEUE: usize = 16;
/// How long the freeze waits in one slice: as long as a slice takes.
const NAP: Duration = Duration::from_millis(1);
/// After so long without room the disk counts as failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Frozen entries of one group that follow one another.
pub(crate) struct Piece {
    pub(crate) group: u16,
    pub(crate) entries: u64,
    pub(crate) length: u64,
    place: Place,
}

enum Place {
    Memory(Arc<Vec<u8>>),
    /// The number of the piece in the file.
    Spooled(Arc<Spool>, usize),
}

impl Piece {
    /// Its bytes: from memory until they are written, so that a disk that hangs holds up no reader.
    pub(crate) fn bytes(&self) -> Result<Cow<'_, [u8]>, StateError> {
        match &self.place {
            Place::Memory(bytes) => Ok(Cow::Borrowed(bytes)),
            Place::Spooled(spool, number) => spool.read(*number).map(Cow::Owned),
        }
    }

    /// Whether it is in a scratch file, or on its way there.
    pub(crate) fn is_spooled(&self) -> bool {
        matches!(self.place, Place::Spooled(..))
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    /// Bytes that may stay in memory.
    limit: usize,
    pieces: Vec<Piece>,
    /// Bytes of the pieces that are in memory, and the first of those.
    in_memory: usize,
    first: usize,
    spool: Option<(Arc<Spool>, SyncSender<Arc<Vec<u8>>>)>,
    /// There is no scratch file, or not any more: all stays in memory.
    without: bool,
    sent: usize,
    full_since: Option<Instant>,
    patience: Duration,
    proof: Proof,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, patience: PATIENCE, ..Self::default() }
    }

    /// A freeze of so many groups begins.
    pub(super) fn begin(&mut self, groups: usize) {
        self.proof.begin(groups);
    }

    /// How long a section gets before it goes out.
    fn piece_bytes(&self) -> usize {
        PIECE_BYTES.min(self.limit / FULL)
    }

    /// Whether the freeze should wait for the disk; then some of the waiting is done here.
    pub(super) fn is_full(&mut self, scratch: &Path) -> bool {
        let is_full = |this: &Self| !this.without && this.in_memory > this.limit.saturating_mul(FULL);
        self.send(scratch);
        if !is_full(self) {
            self.full_since = None;
            return false;
        }
        if let Some((spool, _)) = &self.spool {
            spool.wait_a_moment(self.sent);
        }
        self.send(scratch);
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if is_full(self) && since.elapsed() > self.patience {
            tracing::warn!(?scratch, "the disk takes nothing; frozen state stays in memory until it does");
            self.without = true;
        }
        is_full(self)
    }

    /// Takes what a group has serialised so far, if that is much or the group is `done`. `at`: the position of the
    /// group among those that are frozen.
    pub(super) fn take_from(
        &mut self,
        (at, group): (usize, u16),
        section: &mut Bytes,
        done: bool,
        scratch: &Path,
        read_back: impl Fn(&[u8]) -> Result<&[u8], Problem>,
    ) -> Result<(), Problem> {
        if section.entries > 0 && (done || section.bytes.len() >= self.piece_bytes()) {
            let Bytes { bytes, entries } = std::mem::take(section);
            self.proof.look_at(at, &bytes, entries, read_back)?;
            self.in_memory += bytes.len();
            let length = bytes.len() as u64;
            self.pieces.push(Piece { group, entries, length, place: Place::Memory(Arc::new(bytes)) });
            self.send(scratch);
        }
        Ok(())
    }

    /// All pieces, groups ascending; those of a group in the order in which they were serialised.
    pub(super) fn finish(
        &mut self,
        read_back: impl Fn(&[u8]) -> Result<&[u8], Problem>,
    ) -> Result<Vec<Piece>, Problem> {
        let (mut next, patience) = (Self::new(self.limit), self.patience);
        (next.proof, next.patience) = (std::mem::take(&mut self.proof), patience);
        let mut all = std::mem::replace(self, next);
        self.proof.end(&all.pieces, read_back)?;
        all.pieces.sort_by_key(|piece| piece.group);
        Ok(all.pieces)
    }

    /// Hands pieces over to the thread, as many as it takes.
    fn send(&mut self, scratch: &Path) {
        while self.in_memory > self.limit && !self.without {
            let Some(piece) = self.pieces.get_mut(self.first) else { return };
            let (spool, sender) = match &self.spool {
                Some(open) => open,
                None => match Spool::start(scratch) {
                    Ok(open) => self.spool.insert(open),
                    Err(error) => {
                        tracing::warn!(%error, "frozen state stays in memory until it is in the checkpoint storage");
                        self.without = true;
                        return;
                    }
                },
            };
            let Place::Memory(bytes) = &piece.place else { return };
            match spool.send(sender, bytes) {
                Ok(number) => {
                    piece.place = Place::Spooled(Arc::clone(spool), number);
                    self.in_memory -= piece.length as usize;
                    (self.sent, self.first) = (self.sent + 1, self.first + 1);
                }
                Err(TrySendError::Full(_)) => return,
                Err(TrySendError::Disconnected(_)) => self.without = true,
            }
        }
    }
}

/// A scratch file that a thread writes. It has no name, so that it is gone with the last of its pieces, or with the
/// process.
struct Spool {
    path: PathBuf,
    file: File,
    written: Mutex<Written>,
    changed: Condvar,
}

/// What the thread was sent, and how far it is.
#[derive(Default)]
struct Written {
    pieces: Vec<Kept>,
    /// Pieces that the thread has dealt with.
    done: usize,
    /// Nothing more comes.
    over: bool,
}

enum Kept {
    At {
        offset: u64,
        length: usize,
        crc32c: u32,
    },
    /// It is not written yet, or could not be.
    Memory(Arc<Vec<u8>>),
}

impl Spool {
    fn start(scratch: &Path) -> Result<(Arc<Self>, SyncSender<Arc<Vec<u8>>>), StateError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        std::fs::create_dir_all(scratch).map_err(StateError::io("create the folder", scratch))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = scratch.join(format!("frozen-{}-{number}", std::process::id()));
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(StateError::io("create", &path))?;
        std::fs::remove_file(&path).map_err(StateError::io("take its name from", &path))?;
        Self::writing(path, file)
    }

    fn writing(path: PathBuf, file: File) -> Result<(Arc<Self>, SyncSender<Arc<Vec<u8>>>), StateError> {
        let spool = Arc::new(Self { path, file, written: Mutex::default(), changed: Condvar::new() });
        let (sender, receiver) = sync_channel(QUEUE);
        let writer = Arc::clone(&spool);
        let thread = std::thread::Builder::new().name("frozen state".to_owned());
        let started = thread.spawn(move || writer.write(&receiver));
        started.map_err(StateError::io("start a thread for", &spool.path))?;
        Ok((spool, sender))
    }

    /// Hands a piece over to the thread, if it takes one; its number.
    fn send(
        &self,
        sender: &SyncSender<Arc<Vec<u8>>>,
        bytes: &Arc<Vec<u8>>,
    ) -> Result<usize, TrySendError<Arc<Vec<u8>>>> {
        // Under the lock, so that the thread finds it in its place.
        let mut written = self.lock();
        sender.try_send(Arc::clone(bytes))?;
        written.pieces.push(Kept::Memory(Arc::clone(bytes)));
        Ok(written.pieces.len() - 1)
    }

    fn write(&self, pieces: &Receiver<Arc<Vec<u8>>>) {
        let (mut at, mut failed) = (0u64, false);
        while let Ok(bytes) = pieces.recv() {
            let mut file = &self.file;
            if !failed && let Err(error) = file.write_all(&bytes) {
                let path = &self.path;
                tracing::warn!(?path, %error, "frozen state stays in memory until it is in the checkpoint storage");
                failed = true;
            }
            let there = Kept::At { offset: at, length: bytes.len(), crc32c: crc32c::crc32c(&bytes) };
            at += bytes.len() as u64;
            let mut written = self.lock();
            let number = written.done;
            written.done += 1;
            if !failed && let Some(kept) = written.pieces.get_mut(number) {
                *kept = there;
            }
            drop(written);
            self.changed.notify_all();
        }
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// Waits until the thread has dealt with something more of what it was sent, but not for long.
    fn wait_a_moment(&self, sent: usize) {
        let written = self.lock();
        let before = written.done;
        if before < sent {
            let waiting = |written: &mut Written| written.done == before && !written.over;
            drop(self.changed.wait_timeout_while(written, NAP, waiting));
        }
    }

    fn read(&self, number: usize) -> Result<Vec<u8>, StateError> {
        let written = self.lock();
        let (offset, length, crc32c) = match written.pieces.get(number) {
            Some(Kept::At { offset, length, crc32c }) => (*offset, *length, *crc32c),
            Some(Kept::Memory(bytes)) => return Ok(bytes.to_vec()),
            None => return Err(self.error("a piece was never sent to it")),
        };
        drop(written);
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset).map_err(StateError::io("read", &self.path))?;
        if crc32c::crc32c(&bytes) != crc32c {
            return Err(self.error("it does not hold any more what was written to it"));
        }
        Ok(bytes)
    }

    fn error(&self, problem: &str) -> StateError {
        StateError::io("read", &self.path)(std::io::Error::other(problem.to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        // Pieces are only added; a panic leaves them usable.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
