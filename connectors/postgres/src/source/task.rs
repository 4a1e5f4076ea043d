//! What reads in the background: connects, looks whether the slot still has what comes next, reads, and connects again.
//!
//! Promises that what it hands over is in order and without a hole, however often the connection is lost; and that it gives up
//! only when waiting cannot help.

use super::acknowledge::{Present, Told};
use super::catalog::{self, SlotState};
use super::live::Live;
use super::lsn::Lsn;
use super::row::{Layout, Row};
use super::wire::{Trouble, Wire};
use super::{Event, Lost, NewColumns, Position, Split, Who};
use crate::address::Address;
use staunch_core::context::Figure;
use staunch_core::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// First wait before connecting again; doubled each time up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long to wait for a slot that somebody else reads before it is looked for again.
const BUSY: Duration = Duration::from_secs(2);
/// Lists of pieces that may wait for the worker.
const AHEAD: usize = 2;
/// Bytes after which pieces are handed over, though more is at hand.
pub(super) const ENOUGH: usize = 256 << 10;

/// Events that are handed out at one go, and where the reader stands behind them.
#[derive(Debug)]
pub(super) struct Piece {
    pub events: Vec<Event<Row>>,
    pub position: Position,
}

/// What the task says to the reader.
#[derive(Debug)]
pub(super) enum Handed {
    Pieces(Vec<Piece>),
    End,
    Failed(Error),
}

/// What does not change while it reads.
pub(super) struct Plan {
    pub address: Address,
    pub place: String,
    pub split: Split,
    pub layouts: Vec<Arc<Layout>>,
    pub who: Who,
    pub told: Arc<Told>,
    pub lost: Lost,
    pub columns: NewColumns,
    pub behind: Figure,
}

/// How reading ended, if not by trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    /// There is nothing more.
    End,
    /// Nobody wants more.
    Unwanted,
    /// What was asked for is read.
    Enough,
}

pub(super) struct Task {
    pub plan: Plan,
    pub out: Sender<Handed>,
    /// Read, and not handed over yet.
    pub ready: Vec<Piece>,
    pub bytes: usize,
    /// Where it stands behind what is ready.
    pub at: Position,
    /// Where it stands behind what was handed over.
    pub sent: Position,
    /// The server's process of the session before.
    pid: Option<i32>,
    _present: Present,
}

impl Task {
    /// One that has looked at the slot, and taken it from an older start.
    pub async fn open(plan: Plan, at: Position, limit: Duration) -> Result<(Self, Receiver<Handed>)> {
        let (out, from) = channel(AHEAD);
        let present = Present::new(&plan.told);
        let sent = at.clone();
        let mut task =
            Self { plan, out, ready: Vec::new(), bytes: 0, at, sent, pid: None, _present: present };
        let what = format!("{} cannot be followed", task.plan.place);
        let generation = task.plan.who.generation;
        let opening = async {
            let mut wire = Wire::connect(&task.plan.address, &task.plan.who.purpose(true)).await?;
            let older = |_, name: &str| task.plan.who.start_of(name).is_some_and(|start| start <= generation);
            if let Some((pid, name)) =
                catalog::free(&mut wire, &task.plan.split.slot, older, limit / 2).await?
            {
                return Err(Trouble::Known(Error::external(format!(
                    "replication slot {} is in use by another session (process {pid}, {name:?}): give each source a slot of its own \
                     (.slot(..)), or end that one",
                    task.plan.split.slot
                ))));
            }
            task.check(&mut wire).await
        };
        match tokio::time::timeout(limit, opening).await {
            Ok(Ok(())) => Ok((task, from)),
            Ok(Err(trouble)) => Err(trouble.into_error(what)),
            Err(_) => Err(Error::external(what).caused_by("no answer")),
        }
    }

    /// Reads until nobody wants more.
    pub async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            let before = self.sent.clone();
            let over = self.read().await;
            self.plan.told.state.send_modify(|state| state.reading = false);
            match over {
                Ok(Over::End) => {
                    self.out.send(Handed::End).await.ok();
                    return;
                }
                Ok(_) => return,
                Err(trouble) if trouble.passes() => {
                    if self.sent != before {
                        wait = FIRST_WAIT;
                    }
                    tracing::warn!(slot = self.plan.split.slot, %trouble, ?wait, "PostgreSQL cannot be read; connecting again");
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.out.closed() => return,
                    }
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                Err(trouble) => {
                    let what = format!("{} cannot be followed any more", self.plan.place);
                    self.out.send(Handed::Failed(trouble.into_error(what))).await.ok();
                    return;
                }
            }
            // What was not handed over is read again.
            (self.ready, self.bytes, self.at) = (Vec::new(), 0, self.sent.clone());
        }
    }

    async fn read(&mut self) -> Result<Over, Trouble> {
        let mut wire = self.connect().await?;
        if self.sent.snapshot.is_some() {
            if self.snapshot(&mut wire).await? == Over::Unwanted {
                return Ok(Over::Unwanted);
            }
            wire = self.connect().await?;
        }
        if self.plan.split.end.is_some_and(|end| self.sent.lsn >= end) {
            return Ok(Over::End);
        }
        Live::begin(self, wire, None).await?.read().await
    }

    /// A connection to a server whose slot has what comes next, and is free.
    pub async fn connect(&mut self) -> Result<Wire, Trouble> {
        let mut wire = Wire::connect(&self.plan.address, &self.plan.who.purpose(true)).await?;
        let (who, before) = (&self.plan.who, self.pid);
        let ours = |pid, name: &str| {
            who.start_of(name).is_some_and(|start| start < who.generation || Some(pid) == before)
        };
        if let Some((pid, name)) = catalog::free(&mut wire, &self.plan.split.slot, ours, BUSY).await? {
            let slot = &self.plan.split.slot;
            return Err(Trouble::Link(format!(
                "replication slot {slot} is in use by {name:?} (process {pid})"
            )));
        }
        self.check(&mut wire).await?;
        self.pid = Some(wire.pid);
        Ok(wire)
    }

    /// The server is the one that was read, and its slot has what comes next.
    async fn check(&mut self, wire: &mut Wire) -> Result<(), Trouble> {
        let row = wire.row("SELECT pg_is_in_recovery()").await?;
        if row.is_some_and(|row| row[0] == "t") {
            return Err(Trouble::Link("the server is a standby".to_owned()));
        }
        let look = "SELECT system_identifier, pg_current_wal_flush_lsn() FROM pg_control_system()";
        let row = wire.row(look).await?.ok_or_else(|| Trouble::Link("an empty answer".to_owned()))?;
        if row[0] != self.plan.split.system {
            return Err(Trouble::Known(Error::job(format!(
                "{} is another server than the one that the checkpoint is about: places in its log mean nothing here. Give the \
                 address of that one, or start over with --from none",
                self.plan.place
            ))));
        }
        let ends: Lsn = row[1].parse().unwrap_or_default();
        let state = catalog::state(wire, &self.plan.split.slot).await?;
        let Some(story) = self.lost(state.as_ref(), ends) else { return Ok(()) };
        if self.plan.lost == Lost::Fail {
            return Err(Trouble::Known(Error::job(format!(
                "{story}. To go on with what is still there, without them, use .on_lost(Lost::GoOn); to read the tables anew, start \
                 over with --from none"
            ))));
        }
        let slot = &self.plan.split.slot;
        let lsn = match state {
            Some(state) if !state.lost => state.confirmed,
            found => {
                if found.is_some() {
                    let slot = super::wire::literal(slot);
                    wire.query(&format!("SELECT pg_drop_replication_slot({slot})")).await?;
                }
                catalog::make_slot(wire, slot, LONGEST_WAIT * 6).await.map_err(Trouble::Known)?
            }
        };
        tracing::warn!(slot, at = %lsn, "{story}; going on with what is still there");
        let snapshot = self.sent.snapshot.take();
        self.sent = Position { snapshot, ..Position::at(lsn) };
        self.at = self.sent.clone();
        // So that the next checkpoint knows.
        self.add(Vec::new());
        Ok(())
    }

    /// What is lost, if something is.
    fn lost(&self, state: Option<&SlotState>, ends: Lsn) -> Option<String> {
        let (slot, at) = (&self.plan.split.slot, self.sent.lsn);
        let Some(state) = state else {
            return Some(format!(
                "{}: replication slot {slot} is gone (dropped, or the server was replaced by a standby): all changes since {at} that \
                 were not read are lost",
                self.plan.place
            ));
        };
        // A snapshot that was not begun needs nothing of the past.
        let begun = self.sent.snapshot.as_ref().is_none_or(super::Cursor::is_begun);
        if state.lost {
            return Some(format!(
                "{}: replication slot {slot} was invalidated (wal_status = lost): the server has deleted its log, because the job was \
                 away for too long (max_slot_wal_keep_size). All changes since {at} that were not read are lost",
                self.plan.place
            ));
        }
        if begun && state.confirmed > at {
            return Some(format!(
                "{}: replication slot {slot} stands at {}, and this job has read up to {at}: somebody else has read it, or the job \
                 goes on from an older checkpoint. The changes in between are lost",
                self.plan.place, state.confirmed
            ));
        }
        if begun && at > ends {
            return Some(format!(
                "{}: its log ends at {ends}, and this job has read up to {at}: the server went back, and changes that were read are \
                 not in it",
                self.plan.place
            ));
        }
        None
    }

    /// Adds to what is ready. It belongs to `at`.
    pub fn add(&mut self, events: Vec<Event<Row>>) {
        self.bytes += events.iter().map(super::reader::size).sum::<usize>();
        self.ready.push(Piece { events, position: self.at.clone() });
    }

    /// Takes what is ready, to be handed over, and where it leads.
    pub fn take(&mut self) -> Handed {
        self.bytes = 0;
        Handed::Pieces(std::mem::take(&mut self.ready))
    }

    /// Hands over what is ready, while there is no connection to be kept alive. False if nobody wants it.
    pub async fn hand_over(&mut self) -> bool {
        if self.ready.is_empty() {
            return true;
        }
        let handed = self.take();
        let done = self.out.send(handed).await.is_ok();
        self.sent = self.at.clone();
        done
    }
}
