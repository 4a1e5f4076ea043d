//! Threads for what a connector does, one for each: whoever blocks there holds up itself alone.
//!
//! A connector is asked to wait without blocking, and may do otherwise. What it waits for may never answer. So nothing is
//! waited for here without a limit, and a process whose connector does not come back can end: such a thread is left alone.

use crate::error::{Error, Result};
use crossbeam_channel::bounded;
use std::future::Future;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The threads of one process's connectors.
#[derive(Clone, Debug)]
pub(crate) struct Threads(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    handle: Handle,
    /// Work is dropped where it waits.
    over: watch::Sender<bool>,
    alive: Mutex<usize>,
    left: Condvar,
}

/// Counts a thread until it leaves, by whichever way.
struct Alive(Arc<Inside>);

impl Drop for Alive {
    fn drop(&mut self) {
        *self.0.alive.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_all();
    }
}

impl Threads {
    pub(crate) fn new(handle: Handle) -> Self {
        let over = watch::channel(false).0;
        Self(Arc::new(Inside { handle, over, alive: Mutex::new(0), left: Condvar::new() }))
    }

    /// Runs work on a thread of its own until it is done, or all is over. What it panics with goes on to `ended`, with
    /// nothing if it was dropped.
    ///
    /// # Errors
    /// No thread could be started.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        name: &str,
        work: impl Future<Output = R> + Send + 'static,
        ended: impl FnOnce(std::thread::Result<Option<R>>) + Send + 'static,
    ) -> Result<()> {
        let inside = Arc::clone(&self.0);
        *inside.alive.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let alive = Alive(inside);
        // Entries of the log go where those of the caller go.
        let log = tracing::dispatcher::get_default(Clone::clone);
        let body = move || {
            let (handle, mut over) = (alive.0.handle.clone(), alive.0.over.subscribe());
            let until_over = async {
                tokio::select! {
                    biased;
                    _ = over.wait_for(|over| *over) => None,
                    done = work => Some(done),
                }
            };
            let whole = std::panic::AssertUnwindSafe(|| handle.block_on(until_over));
            ended(tracing::dispatcher::with_default(&log, || std::panic::catch_unwind(whole)));
            drop(alive);
        };
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        started
            .map(drop)
            .map_err(|e| Error::external(format!("cannot start a thread for {name}")).caused_by(e))
    }

    /// Runs work on a thread of its own and waits for it, so long at most.
    ///
    /// # Errors
    /// Those of the work; or it took too long, or no thread could be started.
    pub(crate) fn within<R: Send + 'static>(
        &self,
        limit: Duration,
        what: &str,
        work: impl Future<Output = Result<R>> + Send + 'static,
    ) -> Result<R> {
        let (done, answer) = bounded(1);
        self.run(what, work, move |ended| drop(done.send(ended)))?;
        match answer.recv_timeout(limit) {
            Ok(Ok(Some(result))) => result,
            Ok(Ok(None)) | Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                Err(Error::internal(format!("{what} was given up")))
            }
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => Err(no_answer(what, limit)),
        }
    }

    /// Ends all work where it waits, and waits for the threads to leave, so long at most. Those that block are left
    /// alone.
    pub(crate) fn end(&self, patience: Duration) {
        self.0.over.send_replace(true);
        let until = Instant::now() + patience;
        let mut alive = self.0.alive.lock().unwrap_or_else(PoisonError::into_inner);
        while *alive > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(threads = *alive, "connectors that do not answer are left alone");
                return;
            }
            alive = self.0.left.wait_timeout(alive, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What to say of something outside that does not answer in time.
pub(crate) fn no_answer(what: &str, limit: Duration) -> Error {
    Error::external(format!("{what} has given no answer within {limit:?} (--open-timeout)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> (tokio::runtime::Runtime, Threads) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let threads = Threads::new(runtime.handle().clone());
        (runtime, threads)
    }

    #[test]
    fn what_blocks_for_ever_holds_nobody_up_and_is_named() {
        let (runtime, threads) = threads();
        let (_open, gate) = bounded::<()>(0);
        let blocks = async move { Ok(gate.recv().is_ok()) };
        let error = threads.within(Duration::from_millis(20), "the far server", blocks).unwrap_err();
        assert!(error.to_string().contains("the far server has given no answer within 20ms"), "{error}");
        assert_eq!(error.kind(), crate::error::Kind::External);
        assert_eq!(threads.within(Duration::from_secs(20), "another", async { Ok(7) }).unwrap(), 7);
        threads.end(Duration::from_millis(20));
        runtime.shutdown_background();
    }

    #[test]
    fn what_waits_is_dropped_at_the_end() {
        let (_runtime, threads) = threads();
        let (told, heard) = bounded(1);
        threads
            .run("waits", std::future::pending::<()>(), move |ended| {
                let _ = told.send(ended.is_ok_and(|r| r.is_none()));
            })
            .unwrap();
        threads.end(Duration::from_secs(20));
        assert!(heard.recv().unwrap());
    }
}
