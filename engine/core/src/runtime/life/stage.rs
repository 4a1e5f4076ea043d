//! Where a life stands, for whoever waits for its end.
//!
//! A life runs on threads of its own; its caller watches from here. A start that waits for the outside is given up
//! after a limit, or soon after a stop was asked for; a life that is over is left alone if its threads do not leave.
//! What is given up goes on as a process that was replaced does: it may finish what it is in the middle of, and
//! begins nothing more. It does not know what a life does.

use crate::control::Outcome;
use crate::error::{Error, Result};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long things may take.
pub(crate) struct Limits {
    /// One wait of a start for the outside: a disk, a server. Connectors have shorter limits of their own.
    pub(crate) outside: Duration,
    /// What a start may still take when a stop was asked for.
    pub(crate) stop: Duration,
    /// What the threads of a life that is over may take to leave.
    pub(crate) end: Duration,
    /// How often a start is looked at.
    pub(crate) look: Duration,
}

/// The limits of every life.
pub(crate) const LIMITS: Limits = Limits {
    outside: Duration::from_secs(120),
    stop: Duration::from_secs(1),
    end: Duration::from_secs(10),
    look: Duration::from_millis(50),
};

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Stage {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    phase: Phase,
    outcome: Option<Result<Outcome>>,
    /// Nobody waits any more.
    abandoned: bool,
}

#[derive(Default)]
enum Phase {
    /// Nothing that can take long has begun.
    #[default]
    New,
    /// What the start is doing, since when, and whether the limit holds.
    Starting(String, Instant, bool),
    Running,
    /// The outcome is known; what is waited for, and since when it is over.
    Over(String, Instant),
    /// All threads have left.
    Left,
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment; a panic leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The start goes on to its next wait for the outside.
    ///
    /// # Errors
    /// The start was given up: nothing more may be begun.
    pub(crate) fn enter(&self, what: impl Into<String>) -> Result<()> {
        self.change(Phase::Starting(what.into(), Instant::now(), true))
    }

    /// The same, for a wait that has limits of its own.
    ///
    /// # Errors
    /// As for [`Stage::enter`].
    pub(crate) fn enter_limited(&self, what: impl Into<String>) -> Result<()> {
        self.change(Phase::Starting(what.into(), Instant::now(), false))
    }

    /// The start is over, and the workers begin.
    ///
    /// # Errors
    /// As for [`Stage::enter`].
    pub(crate) fn running(&self) -> Result<()> {
        self.change(Phase::Running)
    }

    fn change(&self, phase: Phase) -> Result<()> {
        let mut state = self.lock();
        if state.abandoned {
            return Err(Error::external("nobody waits for this start any more"));
        }
        state.phase = phase;
        self.changed.notify_all();
        Ok(())
    }

    /// It is known how the life ended; its threads are to leave.
    pub(crate) fn over(&self, outcome: Result<Outcome>) {
        let mut state = self.lock();
        state.outcome.get_or_insert(outcome);
        state.phase = Phase::Over("the end".into(), Instant::now());
        self.changed.notify_all();
    }

    /// The start was given up.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// What is waited for at the end.
    pub(crate) fn leaving(&self, what: impl Into<String>) {
        if let Phase::Over(waiting_for, _) = &mut self.lock().phase {
            *waiting_for = what.into();
        }
    }

    /// Something failed while the life was already ending well: an error wins.
    pub(crate) fn failed_too(&self, error: Error) {
        let mut state = self.lock();
        if matches!(state.outcome, None | Some(Ok(_))) {
            state.outcome = Some(Err(error));
        }
    }

    /// All threads have left; how it ended, unless that was said before.
    pub(crate) fn left(&self, outcome: Option<Result<Outcome>>) {
        let mut state = self.lock();
        if let Some(outcome) = outcome {
            state.outcome.get_or_insert(outcome);
        }
        state.phase = Phase::Left;
        self.changed.notify_all();
    }

    /// Waits for the end of the life, or gives it up.
    ///
    /// # Errors
    /// Those of the life; or that its start took too long, with what it was waiting for.
    pub(crate) fn watch(&self, limits: &Limits, stop_asked: impl Fn() -> bool) -> Result<Outcome> {
        let mut stop_since: Option<Instant> = None;
        let mut state = self.lock();
        loop {
            let wait = match &state.phase {
                Phase::New => limits.look,
                Phase::Starting(what, since, limited) => {
                    let asked =
                        if stop_asked() { *stop_since.get_or_insert_with(Instant::now) } else { *since };
                    if stop_since.is_some() && asked.elapsed() >= limits.stop {
                        tracing::info!(waiting_for = what, "stopped before the job began; nothing was read");
                        state.abandoned = true;
                        return Ok(Outcome::Stopped);
                    }
                    if *limited && since.elapsed() >= limits.outside {
                        let error =
                            format!("{what}: no answer within {:?}; the start is given up", limits.outside);
                        state.abandoned = true;
                        return Err(Error::external(error));
                    }
                    limits.look
                }
                Phase::Running => Duration::MAX,
                Phase::Over(waiting_for, since) => {
                    let left = limits.end.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        tracing::warn!(
                            waiting_for,
                            "the job is over, and this does not end within {:?}; it is left alone",
                            limits.end
                        );
                        return outcome(&mut state);
                    }
                    left
                }
                Phase::Left => return outcome(&mut state),
            };
            state = if wait == Duration::MAX {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }
}

fn outcome(state: &mut State) -> Result<Outcome> {
    let unknown = || Err(Error::internal("the job ended and nobody said how"));
    state.outcome.take().unwrap_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const SHORT: Limits = Limits {
        outside: Duration::from_millis(20),
        stop: Duration::from_millis(20),
        end: Duration::from_millis(20),
        look: Duration::from_millis(1),
    };

    #[test]
    fn a_start_that_waits_too_long_is_given_up_with_the_name_of_what_it_waits_for() {
        let stage = Stage::default();
        stage.enter("sink `ledger`: checking its target").unwrap();
        let error = stage.watch(&SHORT, || false).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::External);
        assert!(
            error.to_string().starts_with("sink `ledger`: checking its target: no answer within"),
            "{error}"
        );
        // And it begins nothing more, whenever it comes back.
        assert!(stage.enter("claiming the job").is_err());
        assert!(stage.running().is_err());
    }

    #[test]
    fn a_stop_ends_a_start_that_waits_for_ever_even_where_no_limit_holds() {
        let stage = Stage::default();
        stage.enter_limited("publishing what the checkpoint lists").unwrap();
        assert_eq!(stage.watch(&SHORT, || true).unwrap(), Outcome::Stopped);
        assert!(stage.running().is_err());
    }

    #[test]
    fn a_life_that_is_over_is_left_alone_if_a_thread_does_not_leave() {
        let stage = Stage::default();
        stage.running().unwrap();
        stage.over(Ok(Outcome::Finished));
        stage.leaving("worker 1");
        assert_eq!(stage.watch(&SHORT, || false).unwrap(), Outcome::Finished);
    }

    #[test]
    fn an_error_while_threads_leave_wins_over_a_good_end_and_the_first_error_over_later_ones() {
        let ended = |outcome: Result<Outcome>, later: &str| {
            let stage = Arc::new(Stage::default());
            stage.running().unwrap();
            stage.over(outcome);
            stage.failed_too(Error::job(later));
            stage.left(None);
            stage.watch(&SHORT, || false).unwrap_err().to_string()
        };
        assert_eq!(ended(Ok(Outcome::Finished), "second"), "second");
        assert_eq!(ended(Err(Error::external("first")), "second"), "first");
    }
}
