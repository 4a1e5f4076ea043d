//! Runs a rule on a thread of its own, so that a connector that hangs is found and not waited for.
//!
//! Promises an outcome in bounded time. A thread whose connector hangs is left behind: nothing can end it.

use super::{Outcome, Rule, Stop, Verdict, Violation};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How often the watcher looks.
const LOOK: Duration = Duration::from_millis(10);

/// What the connector is being asked, and until when it must have answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    asked: Arc<Mutex<Vec<(Instant, Duration, String)>>>,
}

impl Watch {
    fn asked(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Duration, String)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the connector for something that must be answered in time.
    pub fn ask<R>(&self, what: impl Into<String>, limit: Duration, work: impl FnOnce() -> R) -> R {
        self.asked().push((Instant::now() + limit, limit, what.into()));
        let answer = work();
        self.asked().pop();
        answer
    }

    /// What should have been answered by now.
    fn overdue(&self) -> Option<Stop> {
        let asked = self.asked();
        let late = asked.iter().rev().find(|(until, ..)| *until < Instant::now());
        late.map(|(_, limit, what)| {
            Stop::broken(format!("{what} returns within {limit:?}"), "it has not returned")
        })
    }

    /// Runs a rule to its end, or until an answer is overdue.
    pub fn run(rule: Rule, work: impl FnOnce(&Watch) -> Verdict + Send + 'static) -> Outcome {
        let (done, result) = channel();
        let watch = Watch::default();
        let inside = watch.clone();
        let thread = Builder::new().name(rule.name.to_owned()).spawn(move || {
            // Nobody listens any more if it was overdue.
            let _ = done.send(work(&inside));
        });
        let thread = match thread {
            Ok(thread) => thread,
            Err(e) => return Outcome::Skipped(format!("no thread could be started: {e}")),
        };
        let verdict = loop {
            match result.recv_timeout(LOOK) {
                Ok(verdict) => break verdict,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(overdue) = watch.overdue() {
                        break Err(overdue);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let said = thread.join().err().map(|panic| said(&*panic)).unwrap_or_default();
                    break Err(Stop::broken("no panic", format!("a panic: {said}")));
                }
            }
        };
        match verdict {
            Ok(()) => Outcome::Held,
            Err(Stop::Skipped(why)) => Outcome::Skipped(why),
            Err(Stop::Broken { expected, seen }) => Outcome::Broken(Violation { rule, expected, seen }),
        }
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

/// What connectors run on: as in the engine, two threads for their I/O.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|e| Stop::Skipped(format!("no threads for I/O could be started: {e}")))
}
