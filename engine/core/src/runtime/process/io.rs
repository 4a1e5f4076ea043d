//! Where connectors, committers and deletions run: threads of their own, or a simulation's hands.

use crate::error::{Error, Result};
use std::future::Future;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Runs what waits for the outside. Clones run on the same threads.
#[derive(Clone, Debug)]
pub(crate) struct Io {
    handle: Handle,
    /// The runtime that moves only when it is told to.
    #[cfg(feature = "simulation")]
    by_hand: Option<std::sync::Weak<tokio::runtime::Runtime>>,
}

impl Io {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            handle,
            #[cfg(feature = "simulation")]
            by_hand: None,
        }
    }

    /// Of a runtime that is moved by whoever owns it; the tasks on it must not keep it alive.
    #[cfg(feature = "simulation")]
    pub(crate) fn by_hand(runtime: &std::sync::Arc<tokio::runtime::Runtime>) -> Self {
        Self { handle: runtime.handle().clone(), by_hand: Some(std::sync::Arc::downgrade(runtime)) }
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
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::internal("a blocking task died").caused_by(e))
}
