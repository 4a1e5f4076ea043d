//! Reading that blocks, moved to threads of its own.
//!
//! [`Background`] turns a reader that may wait for a disk into a [`SplitReader`] that never does: it reads ahead on
//! one of a few threads that all readers of the process share, into a small bounded queue, and the position of each
//! batch travels with it, so that reading ahead is invisible to checkpoints.

mod threads;

use crate::error::{Error, Result};
use crate::runtime::panic_text;
use crate::source::{Progress, Records, SplitReader};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use threads::{Next, Turn};

/// Runs work that blocks (files, a client without async) away from the I/O threads, and waits for it. What
/// connectors do this way is also seen by simulations; work that they spawn themselves is not.
///
/// # Errors
/// The work panicked.
pub async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R> {
    crate::runtime::blocking(work).await
}

/// Batches that may wait in the queue of one split.
const BATCHES_AHEAD: usize = 4;
/// Records in a batch until the engine has said how many it wants: few, for sources with a limited rate.
const FIRST_BATCH: usize = 16;
/// Reads in one turn of a reader, before another one has its turn on the thread.
const READS_PER_TURN: usize = 16;
/// A reader that had nothing is asked again after a tenth of the time for which it has had nothing, within these
/// bounds: thousands of quiet files cost little, and a busy one is never left alone for long.
const IDLE_WAIT: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// Reads one split, and may block while doing so.
pub trait BlockingReader: Send + 'static {
    /// What it yields.
    type Record: Send + 'static;
    /// Where it stands.
    type Position: Clone + Send + 'static;

    /// Appends up to about `out.room()` records. After [`Progress::Idle`] it is asked again a moment
    /// later, at most half a second. It should return at least a few times a second: other readers wait for their
    /// turn, and it must be possible to stop it.
    ///
    /// # Errors
    /// The split can no longer be read.
    fn read(&mut self, out: &mut Records<Self::Record>) -> Result<Progress>;

    /// Appends what is held back only because more of it might come: see [`SplitReader::drain`]. Nothing is read
    /// afterwards.
    ///
    /// # Errors
    /// As for [`BlockingReader::read`].
    fn drain(&mut self, _out: &mut Records<Self::Record>) -> Result<()> {
        Ok(())
    }

    /// The position of the next record.
    fn position(&self) -> Self::Position;
}

/// A [`SplitReader`] over a [`BlockingReader`], which reads ahead on threads that all readers of the process share.
/// Dropping it drops the reader, at once or when its current read is over.
pub struct Background<R: BlockingReader> {
    ahead: Arc<Ahead<R>>,
    position: R::Position,
    ended: bool,
}

impl<R: BlockingReader> fmt::Debug for Background<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("name", &self.ahead.name).field("ended", &self.ended).finish()
    }
}

struct Batch<R: BlockingReader> {
    /// With the position behind them.
    records: Result<(Records<R::Record>, R::Position)>,
    ended: bool,
}

impl<R: BlockingReader> Batch<R> {
    fn is_empty(&self) -> bool {
        self.records.as_ref().is_ok_and(|(records, _)| records.records.is_empty() && records.bad.is_empty())
    }
}

/// What the engine's side and the reading side share.
struct Ahead<R: BlockingReader> {
    name: String,
    /// Records that the engine wanted last; batches are made that large, since a batch has one position and cannot
    /// be cut.
    wanted: AtomicUsize,
    queue: Mutex<Queue<R>>,
    reading: Mutex<Reading<R>>,
}

struct Queue<R: BlockingReader> {
    batches: VecDeque<Batch<R>>,
    waker: Option<Waker>,
    /// True while nobody reads because the queue is full.
    is_full: bool,
    /// True once nobody wants more.
    closed: bool,
    /// True once only what is held back is wanted.
    draining: bool,
}

struct Reading<R> {
    /// `None` once it has ended.
    reader: Option<R>,
    /// Since when it has had nothing.
    quiet: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: BlockingReader> Background<R> {
    /// Starts reading ahead. `name` is for messages.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(name: &str, reader: R) -> Result<Self> {
        let position = reader.position();
        let ahead = Arc::new(Ahead {
            name: name.to_owned(),
            wanted: AtomicUsize::new(FIRST_BATCH),
            queue: Mutex::new(Queue {
                batches: VecDeque::new(),
                waker: None,
                is_full: false,
                closed: false,
                draining: false,
            }),
            reading: Mutex::new(Reading { reader: Some(reader), quiet: None }),
        });
        threads::submit(Arc::clone(&ahead) as Arc<dyn Turn>)?;
        Ok(Self { ahead, position, ended: false })
    }
}

impl<R: BlockingReader> Drop for Background<R> {
    fn drop(&mut self) {
        lock(&self.ahead.queue).closed = true;
        // If it is reading right now, it finds the queue closed afterwards.
        let reader = self.ahead.reading.try_lock().ok().and_then(|mut reading| reading.reader.take());
        drop(reader);
    }
}

impl<R: BlockingReader> Ahead<R> {
    /// Whether another batch is wanted; if not, taking one from a full queue asks for the next.
    fn has_room(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.is_full = queue.batches.len() >= BATCHES_AHEAD;
        !queue.is_full && !queue.closed && !queue.draining
    }

    fn push(&self, batch: Batch<R>) {
        let mut queue = lock(&self.queue);
        queue.batches.push_back(batch);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn caught<A>(&self, work: impl FnOnce() -> Result<A>) -> Result<A> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic_text(&*panic);
            Err(Error::job(format!("the reader of {} panicked: {text}", self.name)))
        })
    }

    /// Reads once; `None` if there may be more at once.
    fn read(&self, reading: &mut Reading<R>) -> Option<Next> {
        let Some(reader) = &mut reading.reader else { return Some(Next::Submitted) };
        let mut records = Records::with_limit(self.wanted.load(Relaxed).max(1));
        let was_quiet = reading.quiet.is_some();
        let read = self.caught(|| {
            let progress = reader.read(&mut records)?;
            let empty = records.records.is_empty() && records.bad.is_empty();
            // The first time that nothing comes may say more of the position: that it is the end of what there is.
            let is_news = !empty || progress == Progress::End || (progress == Progress::Idle && !was_quiet);
            Ok((progress, is_news.then(|| reader.position())))
        });
        let ended = matches!(read, Ok((Progress::End, _)) | Err(_));
        let idle = matches!(read, Ok((Progress::Idle, _)));
        let batch = read.map(|(_, position)| position.map(|position| (records, position))).transpose();
        if let Some(records) = batch {
            self.push(Batch { records, ended });
        }
        if ended {
            reading.reader = None;
            return Some(Next::Submitted);
        }
        if !idle {
            reading.quiet = None;
            return None;
        }
        let quiet = reading.quiet.get_or_insert_with(Instant::now).elapsed();
        Some(Next::After((quiet / 10).clamp(IDLE_WAIT[0], IDLE_WAIT[1])))
    }
}

impl<R: BlockingReader> Turn for Ahead<R> {
    fn turn(self: Arc<Self>) -> Next {
        let mut reading = lock(&self.reading);
        for _ in 0..READS_PER_TURN {
            if !self.has_room() {
                if lock(&self.queue).closed {
                    reading.reader = None;
                }
                return Next::Submitted;
            }
            if let Some(next) = self.read(&mut reading) {
                return next;
            }
        }
        Next::Again
    }
}

/// The last turn of a reader, when the job drains.
struct LastTurn<R: BlockingReader>(Arc<Ahead<R>>);

impl<R: BlockingReader> Turn for LastTurn<R> {
    fn turn(self: Arc<Self>) -> Next {
        let ahead = &self.0;
        let mut reading = lock(&ahead.reading);
        // It may have ended or failed by itself meanwhile; that is in the queue.
        if let Some(mut reader) = reading.reader.take() {
            let mut records = Records::with_limit(usize::MAX);
            let drained = ahead.caught(|| reader.drain(&mut records).map(|()| reader.position()));
            ahead.push(Batch { records: drained.map(|position| (records, position)), ended: true });
        }
        Next::Submitted
    }
}

impl<R: BlockingReader> Background<R> {
    /// Takes the next batch; idle if there is none.
    fn take(&mut self, cx: &mut Context<'_>, out: &mut Records<R::Record>) -> Result<Progress> {
        loop {
            let mut queue = lock(&self.ahead.queue);
            let Some(batch) = queue.batches.pop_front() else {
                if !queue.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    queue.waker = Some(cx.waker().clone());
                }
                return Ok(Progress::Idle);
            };
            let was_full = std::mem::take(&mut queue.is_full);
            drop(queue);
            if was_full {
                threads::submit(Arc::clone(&self.ahead) as Arc<dyn Turn>)?;
            }
            self.ended = batch.ended;
            let (records, position) = batch.records?;
            let empty = records.records.is_empty() && records.bad.is_empty();
            out.records.extend(records.records);
            out.bad.extend(records.bad);
            out.bytes += records.bytes;
            self.position = position;
            match (self.ended, empty) {
                (true, _) => return Ok(Progress::End),
                (false, false) => return Ok(Progress::Ready),
                (false, true) => {}
            }
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
        self.ahead.wanted.store(out.room(), Relaxed);
        self.take(cx, out)
    }

    /// What was read ahead and not taken is as if it had not been read, and nothing behind it is wanted.
    fn drain(&mut self, cx: &mut Context<'_>, out: &mut Records<R::Record>) -> Result<Progress> {
        if self.ended {
            return Ok(Progress::End);
        }
        let mut queue = lock(&self.ahead.queue);
        let first = !std::mem::replace(&mut queue.draining, true);
        let is_behind = first && queue.batches.iter().any(|batch| !batch.is_empty());
        drop(queue);
        if is_behind {
            self.ended = true;
            return Ok(Progress::End);
        }
        if first {
            threads::submit(Arc::new(LastTurn(Arc::clone(&self.ahead))))?;
        }
        self.take(cx, out)
    }

    fn position(&self) -> R::Position {
        self.position.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Hands out numbers up to an end, says nothing in between, or waits until it is let go.
    struct Numbers {
        next: u32,
        end: u32,
        quiet: bool,
        hangs: Option<mpsc::Receiver<()>>,
        dropped: Arc<()>,
    }

    impl BlockingReader for Numbers {
        type Record = u32;
        type Position = u32;

        fn read(&mut self, out: &mut Records<u32>) -> Result<Progress> {
            if let Some(until) = self.hangs.take() {
                // Ends when the sender is dropped.
                let _ = until.recv();
            }
            assert!(self.next != 13, "unlucky");
            if self.next >= self.end {
                return Ok(if self.quiet { Progress::Idle } else { Progress::End });
            }
            while self.next < self.end && out.room() > 0 {
                out.push(self.next, 4);
                self.next += 1;
            }
            Ok(Progress::Ready)
        }

        fn position(&self) -> u32 {
            self.next
        }
    }

    fn numbers(end: u32) -> Numbers {
        Numbers { next: 0, end, quiet: false, hangs: None, dropped: Arc::new(()) }
    }

    /// All that a reader gives, and how it ended; `None` if nothing more comes for now.
    fn read(reader: &mut Background<Numbers>, count: usize) -> (Vec<u32>, Option<Result<()>>) {
        let (mut all, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        let begin = Instant::now();
        loop {
            let mut out = Records::with_limit(100);
            match reader.poll(&mut cx, &mut out) {
                Ok(progress) => {
                    all.extend(out.records);
                    if progress == Progress::End {
                        return (all, Some(Ok(())));
                    }
                    assert!(
                        all.last().is_none_or(|last| last + 1 == reader.position()),
                        "{}",
                        reader.position()
                    );
                }
                Err(error) => return (all, Some(Err(error))),
            }
            if all.len() >= count {
                return (all, None);
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "{} records", all.len());
            std::thread::yield_now();
        }
    }

    #[test]
    fn hundreds_of_readers_share_a_few_threads_and_each_gives_all_in_order() {
        let count = |name: &str| {
            let threads = std::fs::read_dir("/proc/self/task").unwrap();
            let names =
                threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
            names.filter(|found| found.trim() == name).count()
        };
        let mut readers: Vec<_> =
            (0..300).map(|n| Background::start("numbers", numbers(5000 + n * 14)).unwrap()).collect();
        assert!(count("staunch-read") <= MOST_FOR_TESTS, "{}", count("staunch-read"));
        for (reader, n) in readers.iter_mut().zip(0..) {
            let (all, end) = read(reader, usize::MAX);
            assert_eq!(all, (0..5000 + n * 14).collect::<Vec<_>>());
            end.unwrap().unwrap();
        }
    }

    /// Other tests of this program may leave some that hang.
    const MOST_FOR_TESTS: usize = 40;

    #[test]
    fn readers_that_hang_do_not_keep_others_from_reading() {
        let mut hanging = Vec::new();
        for _ in 0..20 {
            let (sender, receiver) = mpsc::channel();
            let reader = Numbers { hangs: Some(receiver), ..numbers(3) };
            hanging.push((sender, Background::start("hangs", reader).unwrap()));
        }
        let (all, end) = read(&mut Background::start("numbers", numbers(1000)).unwrap(), usize::MAX);
        assert_eq!(all.len(), 1000);
        end.unwrap().unwrap();
        for (sender, mut reader) in hanging {
            drop(sender);
            assert_eq!(read(&mut reader, usize::MAX).0, [0, 1, 2]);
        }
    }

    #[test]
    fn what_a_panicking_reader_said_is_in_the_error() {
        let mut reader = Background::start("numbers", Numbers { next: 13, ..numbers(20) }).unwrap();
        let error = read(&mut reader, usize::MAX).1.unwrap().unwrap_err();
        assert!(error.to_string().contains("numbers panicked: unlucky"), "{error}");
    }

    #[test]
    fn a_reader_that_nobody_wants_any_more_is_dropped() {
        let (one, two) = (numbers(u32::MAX), Numbers { quiet: true, ..numbers(3) });
        let weak = [&one, &two].map(|numbers| Arc::downgrade(&numbers.dropped));
        let mut readers = [one, two].map(|numbers| Background::start("numbers", numbers).unwrap());
        for reader in &mut readers {
            assert!(read(reader, 3).1.is_none());
        }
        drop(readers);
        let begin = Instant::now();
        while weak.iter().any(|weak| weak.strong_count() > 0) {
            assert!(begin.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
    }
}
