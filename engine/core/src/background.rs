//! Reading that blocks, moved to a thread of its own.
//!
//! [`Background`] turns a reader that may wait for a disk into a [`SplitReader`] that never does: a
//! thread reads ahead into a small bounded channel, and the position of each batch travels with it, so
//! that reading ahead is invisible to checkpoints.

use crate::error::{Error, Result};
use crate::source::{Progress, Records, SplitReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// Runs work that blocks (files, a client without async) away from the I/O threads, and waits for it. What
/// connectors do this way is also seen by simulations; work that they spawn themselves is not.
///
/// # Errors
/// The work panicked.
pub async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R> {
    crate::runtime::blocking(work).await
}

/// Batches that may wait in the channel of one split.
const BATCHES_AHEAD: usize = 4;
/// Records in a batch until the engine has said how many it wants: few, for sources with a limited rate.
const FIRST_BATCH: usize = 16;
/// How long the thread waits after the reader had nothing.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// Reads one split, and may block while doing so.
pub trait BlockingReader: Send + 'static {
    /// What it yields.
    type Record: Send + 'static;
    /// Where it stands.
    type Position: Clone + Send + 'static;

    /// Appends up to about `out.room()` records. After [`Progress::Idle`] it is asked again a moment
    /// later. It should return at least a few times a second, so that it can be stopped.
    ///
    /// # Errors
    /// The split can no longer be read.
    fn read(&mut self, out: &mut Records<Self::Record>) -> Result<Progress>;

    /// The position of the next record.
    fn position(&self) -> Self::Position;
}

/// A [`SplitReader`] over a [`BlockingReader`] on its own thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Background<R: BlockingReader> {
    batches: mpsc::Receiver<Batch<R>>,
    /// Records that the engine wanted last; the thread makes its batches that large, since a batch has
    /// one position and cannot be cut.
    wanted: Arc<AtomicUsize>,
    position: R::Position,
    ended: bool,
}

#[derive(Debug)]
struct Batch<R: BlockingReader> {
    records: Result<Records<R::Record>>,
    position: R::Position,
    ended: bool,
}

impl<R: BlockingReader> Background<R> {
    /// Starts reading ahead. `name` is for the thread.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(name: &str, mut reader: R) -> Result<Self> {
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let position = reader.position();
        let wanted = Arc::new(AtomicUsize::new(FIRST_BATCH));
        let asked = Arc::clone(&wanted);
        std::thread::Builder::new()
            .name(format!("read {name}"))
            .spawn(move || read_ahead(&mut reader, &sender, &asked))
            .map_err(|e| Error::external("cannot start a thread for reading").caused_by(e))?;
        Ok(Self { batches, wanted, position, ended: false })
    }
}

fn read_ahead<R: BlockingReader>(reader: &mut R, sender: &mpsc::Sender<Batch<R>>, wanted: &AtomicUsize) {
    while !sender.is_closed() {
        let mut records = Records::with_limit(wanted.load(Relaxed).max(1));
        let progress = reader.read(&mut records);
        let ended = matches!(progress, Ok(Progress::End) | Err(_));
        let idle = matches!(progress, Ok(Progress::Idle));
        let empty = records.records.is_empty() && records.bad.is_empty();
        if !empty || ended {
            let batch = Batch { records: progress.map(|_| records), position: reader.position(), ended };
            if sender.blocking_send(batch).is_err() {
                return;
            }
        }
        if ended {
            return;
        }
        if idle {
            std::thread::sleep(IDLE_WAIT);
        }
    }
}

impl<R: BlockingReader> SplitReader for Background<R> {
    type Record = R::Record;
    type Position = R::Position;

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<R::Record>) -> Result<Progress> {
        if self.ended {
            return Ok(Progress::End);
        }
        self.wanted.store(out.room(), Relaxed);
        match self.batches.poll_recv(cx) {
            Poll::Pending => Ok(Progress::Idle),
            Poll::Ready(None) => Err(Error::internal("a reading thread died without a word")),
            Poll::Ready(Some(batch)) => {
                let records = batch.records?;
                out.records.extend(records.records);
                out.bad.extend(records.bad);
                out.bytes += records.bytes;
                self.position = batch.position;
                self.ended = batch.ended;
                Ok(if self.ended { Progress::End } else { Progress::Ready })
            }
        }
    }

    fn position(&self) -> R::Position {
        self.position.clone()
    }
}
