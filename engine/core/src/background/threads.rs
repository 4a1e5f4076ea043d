//! The threads that read: a few for all readers of the process, however many there are.
//!
//! A reader that hangs (a disk that does not answer) keeps its thread. So that it does not keep the others' too, a
//! spare thread is started whenever a reader has waited for its turn for long.

use crate::error::{Error, Result};
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Least threads, if there is work for so many; more on machines with more cores, since reading decodes too.
const THREADS: usize = 4;
/// Most threads, those included that hang.
const MOST_THREADS: usize = 64;
/// How long a reader may wait for its turn before a spare thread is started.
const TURN_WAIT: Duration = Duration::from_secs(1);
/// Tasks that wait for something new are looked at so much apart, if they are many: thousands of quiet files take a
/// small part of a core.
const LOOK_APART: Duration = Duration::from_micros(100);
/// A wait is not made longer than this because many wait.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// How long a spare thread stays without work.
const SPARE_WAIT: Duration = Duration::from_secs(10);

/// Something that gets turns on these threads.
pub(super) trait Turn: Send + Sync {
    /// Works for a moment, and says when it wants its next turn.
    fn turn(self: Arc<Self>) -> Next;
}

/// When the next turn is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// As soon as others had theirs.
    Again,
    /// After a while, or a little later: many that wait are woken together.
    After(Duration),
    /// When it is submitted again.
    Submitted,
}

type Task = Arc<dyn Turn>;

/// A task that waits until a time.
struct Due(Instant, Task);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    /// The earliest is the greatest, which is what a heap gives first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.cmp(&self.0)
    }
}

#[derive(Default)]
struct State {
    /// Tasks that can have their turn, with the time since when.
    ready: VecDeque<(Instant, Task)>,
    later: BinaryHeap<Due>,
    threads: usize,
    /// Threads that have nothing to do.
    resting: usize,
    /// Until when the one of them sleeps that looks after `later`.
    watch: Option<Instant>,
    /// Whether a thread looks after readers that wait for long.
    has_guard: bool,
}

struct Threads {
    state: Mutex<State>,
    work: Condvar,
    began: Instant,
    least: usize,
}

static READING: LazyLock<Threads> = LazyLock::new(|| Threads {
    state: Mutex::default(),
    work: Condvar::new(),
    began: Instant::now(),
    least: std::thread::available_parallelism().map_or(THREADS, |cores| cores.get().max(THREADS)),
});

/// Gives a task its next turn as soon as possible.
///
/// # Errors
/// No thread could be started, and there is none.
pub(super) fn submit(task: Task) -> Result<()> {
    let pool = &*READING;
    let mut state = pool.lock();
    state.ready.push_back((Instant::now(), task));
    if state.resting > 0 {
        pool.work.notify_one();
        return Ok(());
    }
    if state.threads < pool.least {
        let started = pool.start(&mut state);
        if state.threads == 0 {
            state.ready.pop_back();
            return started;
        }
    }
    Ok(())
}

/// How long to wait if so many wait already.
fn apart(wait: Duration, waiting: usize) -> Duration {
    let share = LOOK_APART.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX));
    wait.max(share.min(LONGEST_WAIT))
}

impl Threads {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&'static self, state: &mut State) -> Result<()> {
        let failed = |e| Error::external("cannot start a thread for reading").caused_by(e);
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        if !state.has_guard {
            thread("staunch-guard").spawn(|| self.guard()).map_err(failed)?;
            state.has_guard = true;
        }
        thread("staunch-read").spawn(|| self.work()).map_err(failed)?;
        state.threads += 1;
        Ok(())
    }

    fn work(&'static self) {
        let mut state = self.lock();
        let mut rest = None;
        loop {
            let now = Instant::now();
            while state.later.peek().is_some_and(|due| due.0 <= now) {
                let due = state.later.pop().map(|Due(at, task)| (at, task));
                state.ready.extend(due);
            }
            if let Some((_, task)) = state.ready.pop_front() {
                rest = None;
                // Whoever rests goes on with the others.
                let is_more = !state.ready.is_empty() || (!state.later.is_empty() && state.watch.is_none());
                if state.resting > 0 && is_more {
                    self.work.notify_one();
                }
                drop(state);
                let next = Arc::clone(&task).turn();
                state = self.lock();
                match next {
                    Next::Again => state.ready.push_back((Instant::now(), task)),
                    Next::After(wait) => {
                        let at = self.together(apart(wait, state.later.len()));
                        state.later.push(Due(at, task));
                    }
                    Next::Submitted => {
                        drop(state);
                        // It may be the last that holds a reader, and closes files.
                        drop(task);
                        state = self.lock();
                    }
                }
                continue;
            }
            let since = *rest.get_or_insert(now);
            if state.threads > self.least && now.duration_since(since) >= SPARE_WAIT {
                state.threads -= 1;
                return;
            }
            state = self.rest(state, now);
        }
    }

    /// Waits for work. One of those who wait looks after the tasks that are due later.
    fn rest<'l>(&'l self, mut state: MutexGuard<'l, State>, now: Instant) -> MutexGuard<'l, State> {
        let first = state.later.peek().map(|due| due.0);
        let watch = first.filter(|first| state.watch.is_none_or(|watch| *first < watch));
        let is_spare = state.threads > self.least;
        state.resting += 1;
        state.watch = watch.or(state.watch);
        let wait = watch.map(|first| first.duration_since(now)).or(is_spare.then_some(SPARE_WAIT));
        state = match wait {
            Some(wait) => self.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
            None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.resting -= 1;
        if watch.is_some() && state.watch == watch {
            state.watch = None;
        }
        state
    }

    /// The time after a wait, moved to one that many share, so that they cost one waking up together.
    fn together(&self, wait: Duration) -> Instant {
        let grid = (wait / 4).max(Duration::from_millis(1)).as_nanos();
        let at = (self.began.elapsed() + wait).as_nanos().div_ceil(grid) * grid;
        self.began + Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX))
    }

    /// Starts a spare thread when a reader waits for its turn for long: all others may hang.
    fn guard(&'static self) {
        loop {
            std::thread::sleep(TURN_WAIT);
            let mut state = self.lock();
            let has_waited = |since: &Instant| since.elapsed() >= TURN_WAIT;
            let ready = state.ready.front().is_some_and(|(since, _)| has_waited(since));
            let due = state.later.peek().is_some_and(|Due(at, _)| has_waited(at));
            if (ready || due)
                && state.threads < MOST_THREADS
                && let Err(error) = self.start(&mut state)
            {
                tracing::warn!(%error, "readers wait for their turn");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_that_wait_waits_longer_and_never_longer_than_half_a_second() {
        let short = Duration::from_millis(50);
        assert_eq!(apart(short, 0), short);
        assert_eq!(apart(short, 3000), Duration::from_millis(300));
        assert_eq!(apart(short, usize::MAX), LONGEST_WAIT);
        assert_eq!(apart(Duration::from_secs(1), usize::MAX), Duration::from_secs(1));
    }
}
