//! Where connectors, committers and deletions run: threads of their own, or a simulation's hands.

use super::shared::panic_text;
use super::threads::Threads;
use crate::error::{Error, Result};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How long blocking work may wait for a thread. If the system starts no more threads, it would wait for ever.
const THREAD_LIMIT: Duration = Duration::from_secs(10);

/// Runs what waits for the outside. Clones run on the same threads.
#[derive(Clone, Debug)]
pub(crate) struct Io {
    handle: Handle,
    threads: Threads,
    /// The runtime that moves only when it is told to.
    #[cfg(feature = "simulation")]
    by_hand: Option<std::sync::Weak<tokio::runtime::Runtime>>,
}

impl Io {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            threads: Threads::new(handle.clone()),
            handle,
            #[cfg(feature = "simulation")]
            by_hand: None,
        }
    }

    /// Of a runtime that is moved by whoever owns it; the tasks on it must not keep it alive.
    #[cfg(feature = "simulation")]
    pub(crate) fn by_hand(runtime: &std::sync::Arc<tokio::runtime::Runtime>) -> Self {
        let by_hand = Some(std::sync::Arc::downgrade(runtime));
        Self { by_hand, ..Self::new(runtime.handle().clone()) }
    }

    /// The threads of connectors, each for itself; none in a simulation, where everything has its turn.
    pub(crate) fn threads(&self) -> Option<&Threads> {
        #[cfg(feature = "simulation")]
        if self.by_hand.is_some() {
            return None;
        }
        Some(&self.threads)
    }

    /// Waits for what a connector opens or looks at, for so long at most and without being held up if it blocks. On a
    /// thread that is not one of these.
    pub(crate) fn within<R: Send + 'static>(
        &self,
        limit: std::time::Duration,
        what: &str,
        work: impl Future<Output = Result<R>> + Send + 'static,
    ) -> Result<R> {
        match self.threads() {
            Some(threads) => threads.within(limit, what, work),
            None => self.block_on(work),
        }
    }

    /// Waits for an answer of what may block, so long at most; on a thread that is not one of these.
    ///
    /// # Errors
    /// There was none in time, or no thread could be started; the work may go on.
    pub(crate) fn answer<R: Send + 'static>(
        &self,
        limit: Duration,
        name: &str,
        ask: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R> {
        let Some(threads) = self.threads() else { return Ok(ask()) };
        let (done, answer) = crossbeam_channel::bounded(1);
        threads.run(name, async move { drop(done.send(ask())) }, drop)?;
        answer.recv_timeout(limit).map_err(|_| Error::external(format!("no answer within {limit:?}")))
    }

    /// Ends what connectors do on threads of their own; what blocks is left alone after a while.
    pub(crate) fn end(&self, patience: std::time::Duration) {
        self.threads.end(patience);
    }

    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.handle.spawn(task)
    }

    /// Waits for a future, on a thread that is not one of these.
    pub(crate) fn block_on<R>(&self, future: impl Future<Output = Result<R>>) -> Result<R> {
        #[cfg(feature = "simulation")]
        if let Some(runtime) = &self.by_hand {
            return match runtime.upgrade() {
                Some(runtime) => runtime.block_on(future),
                None => Err(Error::internal("the simulated process is over")),
            };
        }
        self.handle.block_on(future)
    }

    /// Waits for the next message, on a thread that is not one of these; `None` if there will be none.
    pub(crate) fn wait<M>(&self, messages: &crossbeam_channel::Receiver<M>) -> Option<M> {
        #[cfg(feature = "simulation")]
        if let Some(runtime) = &self.by_hand {
            let runtime = runtime.upgrade()?;
            return runtime.block_on(async {
                loop {
                    if let Ok(message) = messages.try_recv() {
                        return Some(message);
                    }
                    let moment = std::time::Duration::from_millis(1);
                    super::wall_clock::sleep(moment);
                    tokio::time::sleep(moment).await;
                }
            });
        }
        messages.recv().ok()
    }

    /// Runs blocking work beside everything else; a simulation does it at once.
    pub(crate) fn beside(&self, work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
        if super::wall_clock::is_simulated() {
            work();
            return None;
        }
        Some(self.handle.spawn_blocking(work))
    }
}

/// See [`crate::background::blocking`].
pub(crate) async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R> {
    if super::wall_clock::is_simulated() {
        return Ok(work());
    }
    blocking_within(THREAD_LIMIT, work).await
}

async fn blocking_within<R: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R> {
    // Whoever is first: the thread that begins, or who gives up waiting for one. What was given up is never begun, and
    // what has begun is waited for: an error says that nothing was done.
    let claimed = Arc::new(AtomicBool::new(false));
    let claim = Arc::clone(&claimed);
    let (begin, begun) = tokio::sync::oneshot::channel();
    let task = tokio::task::spawn_blocking(move || {
        if claim.swap(true, SeqCst) {
            return None;
        }
        // Whoever waits for it may be gone.
        let _ = begin.send(());
        Some(work())
    });
    if tokio::time::timeout(limit, begun).await.is_err() && !claimed.swap(true, SeqCst) {
        task.abort();
        return Err(Error::external(format!(
            "no thread has become free for work that waits for the outside within {limit:?}: all of them wait, or the \
             limit of threads is reached (ulimit -u, pids.max)"
        )));
    }
    let done = task.await.map_err(|died| match died.try_into_panic() {
        Ok(panic) => Error::job(format!("panicked: {}", panic_text(&*panic))),
        Err(died) => Error::internal("work that waits for the outside was given up").caused_by(died),
    })?;
    done.ok_or_else(|| Error::internal("work that waits for the outside was claimed twice"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_work_that_gets_no_thread_is_an_error_and_no_hang() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build();
        let runtime = runtime.unwrap();
        let (free, busy) = std::sync::mpsc::channel::<()>();
        let first = runtime.spawn_blocking(move || busy.recv());
        let error = runtime.block_on(blocking_within(Duration::from_millis(20), || ())).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::External);
        assert!(error.to_string().contains("limit of threads"), "{error}");
        free.send(()).unwrap();
        runtime.block_on(first).unwrap().unwrap();
        assert_eq!(runtime.block_on(blocking_within(Duration::from_secs(20), || 7)).unwrap(), 7);
    }

    #[test]
    fn blocking_work_that_is_given_up_just_as_it_begins_is_either_done_or_never_begun() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let (mut given_up, ran) = (Vec::new(), Arc::new(std::sync::Mutex::new(Vec::new())));
        for n in 0..2000 {
            let ran = Arc::clone(&ran);
            // About as long as a thread takes to begin, once a little less and once a little more.
            let limit = Duration::from_micros(n % 100);
            match runtime.block_on(blocking_within(limit, move || ran.lock().unwrap().push(n))) {
                Ok(()) => {}
                Err(_) => given_up.push(n),
            }
        }
        drop(runtime);
        let ran = ran.lock().unwrap();
        let both: Vec<_> = ran.iter().filter(|n| given_up.contains(n)).collect();
        assert!(both.is_empty(), "given up and done all the same: {both:?}");
        assert_eq!(ran.len() + given_up.len(), 2000);
    }

    #[test]
    fn what_does_not_answer_is_given_up_after_its_limit() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let io = Io::new(runtime.handle().clone());
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let error = io.answer(Duration::from_millis(20), "storage", move || gate.recv()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::External);
        assert!(error.to_string().contains("no answer within 20ms"), "{error}");
        assert_eq!(io.answer(Duration::from_secs(20), "storage", || 7).unwrap(), 7);
        open.send(()).unwrap();
        io.end(Duration::from_secs(20));
    }

    #[test]
    fn a_panic_of_blocking_work_is_told_with_its_text() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let work = || -> () { panic!("a torn page") };
        let error = runtime.block_on(blocking_within(Duration::from_secs(20), work)).unwrap_err();
        assert!(error.to_string().contains("a torn page"), "{error}");
    }
}
