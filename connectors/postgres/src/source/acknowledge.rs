//! Tells the server which of its log it may forget: what decided checkpoints cover.
//!
//! The session that reads the slot is the only one that may say so. It is told by way of [`Told`]; if there is none, because the
//! split is at its end or not opened yet, the slot is moved by a statement.

use super::lsn::Lsn;
use super::wire::{Trouble, Wire, literal};
use super::{Position, Who, catalog};
use crate::address::Address;
use staunch_core::Error;
use staunch_core::sink::CommitError;
use staunch_core::source::Acknowledger;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// What the acknowledger and the task that reads say to each other.
#[derive(Debug)]
pub(super) struct Told {
    /// The place up to which the server may forget.
    pub upto: watch::Sender<Lsn>,
    pub state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct State {
    /// Tasks that read, or are about to.
    pub tasks: u32,
    /// Whether one of them has the slot.
    pub reading: bool,
    /// The place that was told to the server.
    pub told: Lsn,
}

impl Default for Told {
    fn default() -> Self {
        Self { upto: watch::Sender::new(Lsn::default()), state: watch::Sender::default() }
    }
}

/// Says that a task is there, for as long as it is.
pub(super) struct Present(pub Arc<Told>);

impl Present {
    pub fn new(told: &Arc<Told>) -> Self {
        told.state.send_modify(|state| state.tasks += 1);
        Self(Arc::clone(told))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| {
            state.tasks -= 1;
            state.reading = false;
        });
    }
}

pub(super) struct Confirmer {
    pub who: Who,
    pub told: Arc<Told>,
    pub address: Address,
    pub slot: String,
}

impl Confirmer {
    /// True once it is told; false if nobody reads. While the task has no connection, what is to be told is kept, and is the first
    /// that the server hears.
    async fn tell(&self, lsn: Lsn) -> bool {
        let mut state = self.told.state.subscribe();
        loop {
            let now = *state.borrow_and_update();
            if now.tasks == 0 {
                return false;
            }
            if !now.reading || now.told >= lsn || state.changed().await.is_err() {
                return true;
            }
        }
    }

    /// Moves the slot by a statement.
    async fn advance(&self, lsn: Lsn) -> Result<(), Trouble> {
        let mut wire = Wire::connect(&self.address, &self.who.purpose(false)).await?;
        loop {
            let Some(state) = catalog::state(&mut wire, &self.slot).await? else {
                tracing::warn!(
                    slot = self.slot,
                    "there is no such replication slot any more: nothing to acknowledge"
                );
                return Ok(());
            };
            if state.confirmed >= lsn || state.lost {
                return Ok(());
            }
            // One of an older start, or of this one, that was given up and is not gone yet.
            let ours =
                |_, name: &str| self.who.start_of(name).is_some_and(|start| start <= self.who.generation);
            if let Some((pid, name)) = catalog::free(&mut wire, &self.slot, ours, ATTEMPT / 2).await? {
                return Err(Trouble::Link(format!(
                    "replication slot {} is in use by {name} (process {pid})",
                    self.slot
                )));
            }
            let slot = literal(&self.slot);
            match wire.query(&format!("SELECT pg_replication_slot_advance({slot}, '{lsn}')")).await {
                Ok(_) => return Ok(()),
                // Somebody was quicker.
                Err(Trouble::Server { code, .. }) if code == "55006" => {}
                Err(trouble) => return Err(trouble),
            }
        }
    }
}

impl Acknowledger for Confirmer {
    type Position = Position;

    async fn acknowledge(&mut self, upto: &[(String, Position)]) -> Result<(), CommitError> {
        let Some(lsn) = upto.iter().map(|(_, position)| position.lsn).max() else { return Ok(()) };
        self.told.upto.send_if_modified(|known| {
            let newer = lsn > *known;
            *known = lsn.max(*known);
            newer
        });
        let telling = async { if self.tell(lsn).await { Ok(()) } else { self.advance(lsn).await } };
        let what =
            format!("replication slot {} cannot be told that its log up to {lsn} is done with", self.slot);
        match tokio::time::timeout(ATTEMPT, telling).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(trouble)) if trouble.passes() => Err(CommitError::Retry(trouble.into_error(what))),
            Ok(Err(trouble)) => Err(CommitError::Refused(trouble.into_error(what))),
            Err(_) => Err(CommitError::Retry(Error::external(what).caused_by("no answer"))),
        }
    }
}
