//! Hands out what the task has read.

use super::task::{Handed, Piece, Task};
use super::{Decode, Event, Position, Row};
use staunch_core::source::{DeadLetter, Progress, Records, SplitReader};
use staunch_core::{Change, Error, Result};
use std::collections::VecDeque;
use std::task::{Context, Poll};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

/// Reads the log, or a snapshot before it.
pub struct Reader<T> {
    position: Position,
    decode: Decode<T>,
    pieces: VecDeque<Piece>,
    /// `None` once it has ended.
    from: Option<(Receiver<Handed>, JoinHandle<()>)>,
}

impl<T> std::fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("position", &self.position).finish_non_exhaustive()
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.from {
            task.abort();
        }
    }
}

impl<T> Reader<T> {
    /// One that is at its end.
    pub(super) fn ended(position: Position, decode: Decode<T>) -> Self {
        Self { position, decode, pieces: VecDeque::new(), from: None }
    }

    /// Lets the task run.
    pub(super) fn start(
        (task, from): (Task, Receiver<Handed>),
        position: Position,
        decode: Decode<T>,
    ) -> Self {
        let from = Some((from, tokio::spawn(task.run())));
        Self { position, decode, pieces: VecDeque::new(), from }
    }

    /// Hands out a piece, all of it: what was committed together is not cut by a checkpoint.
    fn hand_out(&mut self, piece: Piece, out: &mut Records<T>) {
        if piece.events.is_empty() {
            out.moved();
        }
        for event in piece.events {
            match (self.decode)(&event) {
                Ok(record) => out.push(record, size(&event)),
                Err(reason) => out.bad(DeadLetter::new(place(&event), reason, &json(&event))),
            }
        }
        self.position = piece.position;
    }
}

/// Bytes that an event takes.
pub(super) fn size(event: &Event<Row>) -> usize {
    let rows = match &event.change {
        Change::Insert(row) | Change::Delete(row) => row.size(),
        Change::Update { before, after } => before.as_ref().map_or(0, Row::size) + after.size(),
        Change::Truncate => 0,
    };
    rows + size_of::<Event<Row>>()
}

fn place(event: &Event<Row>) -> String {
    format!("table {} at {} of the log", event.table, event.lsn)
}

fn json(event: &Event<Row>) -> Vec<u8> {
    let row = match &event.change {
        Change::Insert(row) | Change::Delete(row) | Change::Update { after: row, .. } => row,
        Change::Truncate => return Vec::new(),
    };
    serde_json::to_vec(row).unwrap_or_default()
}

impl<T: Send + 'static> SplitReader for Reader<T> {
    type Record = T;
    type Position = Position;

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<T>) -> Result<Progress> {
        let mut handed = false;
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                self.hand_out(piece, out);
                handed = true;
                if out.room() == 0 {
                    return Ok(Progress::Ready);
                }
                continue;
            }
            let Some((from, _)) = &mut self.from else { return Ok(Progress::End) };
            match from.poll_recv(cx) {
                Poll::Pending if handed => return Ok(Progress::Ready),
                Poll::Pending => return Ok(Progress::Idle),
                Poll::Ready(Some(Handed::Pieces(pieces))) => self.pieces.extend(pieces),
                Poll::Ready(Some(Handed::End)) => self.from = None,
                Poll::Ready(Some(Handed::Failed(error))) => return Err(error),
                Poll::Ready(None) => return Err(Error::internal("nobody reads the log any more")),
            }
        }
    }

    fn position(&self) -> Position {
        self.position.clone()
    }
}
