//! Reads the log from a slot, over a connection that must be kept alive.
//!
//! Promises that the server hears of us however long the worker takes, and that it is never told more than was decided.

use super::lsn::Lsn;
use super::pgoutput::{self, Message, Old, Tuple};
use super::row::{Layout, Named, Row};
use super::task::{ENOUGH, Over, Task};
use super::wire::{self, Trouble, Wire};
use super::within::Within;
use super::{Event, NewColumns, Position};
use bytes::{BufMut, Bytes, BytesMut};
use staunch_core::{Change, Error, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Bytes of one transaction that are kept together. What is larger is handed out in parts, between which a checkpoint may come.
const MOST_TOGETHER: usize = 8 << 20;
/// Longest time between two words to the server.
const WORD_EVERY: Duration = Duration::from_secs(5);
/// How often a position without records is worth a checkpoint: the tables are quiet, and the log of others grows.
const MOVE_EVERY: Duration = Duration::from_secs(10);
/// After so long without a word the server is asked whether it is there, and after twice that it is taken for gone.
const SILENCE: Duration = Duration::from_secs(30);
/// From 1970 to 2000, in seconds.
const EPOCH: u64 = 946_684_800;

/// What a number of a table stands for.
enum Relation {
    Ours(Arc<Layout>),
    Other,
}

/// A transaction that is being read.
struct Transaction {
    commit: Lsn,
    committed: Timestamp,
    number: u32,
    /// Changes of our tables so far.
    seen: u64,
    /// So many of them were handed out by an earlier reader.
    skip: u64,
    events: Vec<Event<Row>>,
    bytes: usize,
}

pub(super) struct Live<'a> {
    task: &'a mut Task,
    wire: Wire,
    within: Option<Within<'a>>,
    relations: HashMap<u32, Relation>,
    transaction: Option<Transaction>,
    /// The end of what was received.
    received: Lsn,
    heard: Instant,
    moved: Instant,
    ticks: Interval,
    upto: watch::Receiver<Lsn>,
}

impl<'a> Live<'a> {
    /// Begins to read behind what was handed over.
    pub async fn begin(
        task: &'a mut Task,
        mut wire: Wire,
        within: Option<Within<'a>>,
    ) -> Result<Self, Trouble> {
        let row = wire.row("SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'").await?;
        let timeout = row.and_then(|row| row[0].parse().ok()).map_or(Duration::ZERO, Duration::from_millis);
        let split = &task.plan.split;
        if split.end.is_some() {
            // So that there is something behind the end, and it is passed.
            wire.query("SELECT pg_logical_emit_message(false, 'staunch', '')").await?;
        }
        let publication = wire::identifier(&split.publication).replace('\'', "''");
        let start = format!(
            "START_REPLICATION SLOT {} LOGICAL {} (\"proto_version\" '1', \"publication_names\" '{publication}')",
            wire::identifier(&split.slot),
            task.sent.lsn
        );
        wire.copy(&start).await?;
        let mut upto = task.plan.told.upto.subscribe();
        upto.mark_changed();
        let every = if timeout.is_zero() { WORD_EVERY } else { WORD_EVERY.min(timeout / 4) };
        let mut ticks = interval(every.max(Duration::from_millis(20)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        task.plan.told.state.send_modify(|state| (state.reading, state.told) = (true, Lsn::default()));
        let received = task.sent.lsn;
        Ok(Self {
            task,
            wire,
            within,
            relations: HashMap::new(),
            transaction: None,
            received,
            heard: Instant::now(),
            moved: Instant::now(),
            ticks,
            upto,
        })
    }

    /// Reads on.
    pub async fn read(mut self) -> Result<Over, Trouble> {
        loop {
            // All that is here, then what is ready goes, and only then is there waiting.
            while self.task.bytes < ENOUGH {
                let Some((kind, body)) = self.wire.here()? else { break };
                if let Some(over) = self.frame(kind, body).await? {
                    return if self.hand_over().await? { Ok(over) } else { Ok(Over::Unwanted) };
                }
            }
            if !self.hand_over().await? {
                return Ok(Over::Unwanted);
            }
            tokio::select! {
                frame = self.wire.frame() => {
                    let (kind, body) = frame?;
                    if let Some(over) = self.frame(kind, body).await? {
                        return if self.hand_over().await? { Ok(over) } else { Ok(Over::Unwanted) };
                    }
                }
                _ = self.ticks.tick() => {
                    self.say(self.heard.elapsed() > SILENCE).await?;
                    if self.heard.elapsed() > SILENCE * 2 {
                        return Err(Trouble::Link("the server has not been heard for a minute".to_owned()));
                    }
                    self.note_quiet_progress();
                }
                _ = self.upto.changed() => self.say(false).await?,
                () = self.task.out.closed() => return Ok(Over::Unwanted),
            }
        }
    }

    /// Hands over what is ready, and keeps the connection alive meanwhile. False if nobody wants it.
    async fn hand_over(&mut self) -> Result<bool, Trouble> {
        if self.task.ready.is_empty() {
            return Ok(true);
        }
        loop {
            let out = self.task.out.clone();
            tokio::select! {
                permit = out.reserve() => {
                    let Ok(permit) = permit else { return Ok(false) };
                    permit.send(self.task.take());
                    // `at` may be further: of that nothing was read that counts.
                    self.task.sent = self.task.at.clone();
                    self.moved = Instant::now();
                    return Ok(true);
                }
                _ = self.ticks.tick() => self.say(false).await?,
                _ = self.upto.changed() => self.say(false).await?,
            }
            // While the worker holds us up, it is not the server's fault that it is not heard.
            self.heard = Instant::now();
        }
    }

    /// Tells the server how far we are; `ask` wants an answer.
    async fn say(&mut self, ask: bool) -> Result<(), Trouble> {
        let upto = *self.upto.borrow_and_update();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut out = BytesMut::with_capacity(48);
        out.put_slice(b"d");
        out.put_u32(4 + 1 + 8 * 4 + 1);
        out.put_slice(b"r");
        for place in [self.received.max(upto), upto, upto] {
            out.put_u64(place.0);
        }
        out.put_u64(now.saturating_sub(Duration::from_secs(EPOCH)).as_micros() as u64);
        out.put_u8(u8::from(ask));
        self.wire.send(&out).await?;
        self.task.plan.told.state.send_if_modified(|state| {
            let newer = upto > state.told;
            state.told = upto.max(state.told);
            newer
        });
        Ok(())
    }

    /// The tables are quiet and the log grows: the position moves on, so that the server may forget.
    fn note_quiet_progress(&mut self) {
        let quiet = self.transaction.is_none() && self.task.ready.is_empty() && self.within.is_none();
        if quiet && self.task.at.lsn > self.task.sent.lsn && self.moved.elapsed() >= MOVE_EVERY {
            self.task.add(Vec::new());
        }
    }

    /// Takes one message of the connection.
    async fn frame(&mut self, kind: u8, body: Bytes) -> Result<Option<Over>, Trouble> {
        self.heard = Instant::now();
        match kind {
            b'd' => {}
            b'E' => return Err(wire::error(&body)),
            b'N' | b'S' => return Ok(None),
            _ => return Err(Trouble::Link("the server ended the stream".to_owned())),
        }
        let number = |at: usize| {
            let found = body.get(at..).and_then(|rest| rest.first_chunk::<8>());
            found.map(|bytes| u64::from_be_bytes(*bytes)).ok_or_else(|| broken("a message that is too short"))
        };
        match body.first() {
            Some(b'w') => {
                // Where the data begin, where the log of the server ends, and when that was.
                let (from, end) = (Lsn(number(1)?), Lsn(number(9)?));
                number(17)?;
                self.received = self.received.max(from);
                self.task.plan.behind.set(end.0.saturating_sub(self.task.at.lsn.0) as f64);
                let message = pgoutput::decode(body.slice(25..)).map_err(|why| {
                    broken(&format!("a message of the log at {from} cannot be read: {}", why.0))
                })?;
                self.message(message).await
            }
            Some(b'k') => {
                let end = Lsn(number(1)?);
                number(9)?;
                self.received = self.received.max(end);
                if body.get(17) == Some(&1) {
                    self.say(false).await?;
                }
                if self.transaction.is_some() {
                    return Ok(None);
                }
                // All that was committed before this place has been sent.
                self.pass(end);
                self.task.plan.behind.set(0.0);
                Ok(self.is_over(self.task.at.lsn))
            }
            _ => Err(broken("a message of replication of an unknown kind")),
        }
    }

    /// Nothing that counts is before this place.
    fn pass(&mut self, lsn: Lsn) {
        if self.task.at.done == 0 && lsn > self.task.at.lsn {
            self.task.at.lsn = lsn;
        }
    }

    /// Whether everything that was asked for lies before this place.
    fn is_over(&mut self, lsn: Lsn) -> Option<Over> {
        let (limit, over) = match &self.within {
            Some(within) => (Some(within.until), Over::Enough),
            None => (self.task.plan.split.end, Over::End),
        };
        let limit = limit.filter(|limit| lsn >= *limit)?;
        // Not beyond it: the snapshot shows what is there at this place.
        self.task.at.lsn = limit;
        self.task.add(Vec::new());
        Some(over)
    }

    async fn message(&mut self, message: Message) -> Result<Option<Over>, Trouble> {
        match message {
            Message::Begin { commit, time, transaction } => {
                return self.begin_transaction(commit, time, transaction);
            }
            Message::Commit { end, .. } => {
                self.flush().await?;
                self.transaction = None;
                let snapshot = self.task.at.snapshot.take();
                self.task.at = Position { snapshot, ..Position::at(end) };
                match self.task.ready.last_mut() {
                    // It is of this transaction: behind it, all of it is done.
                    Some(last) if last.position.done > 0 => last.position = self.task.at.clone(),
                    // The beginning of it was handed over, and there was no more.
                    _ if self.task.sent.done > 0 => self.task.add(Vec::new()),
                    _ => {}
                }
                return Ok(None);
            }
            Message::Relation { id, schema, name, columns } => self.relation(id, &schema, &name, columns)?,
            Message::Insert { id, new } => {
                if let Some(layout) = self.layout(id)? {
                    let row = whole(&layout, new)?;
                    self.change(&layout, Change::Insert(row)).await?;
                }
            }
            Message::Update { id, old, new } => {
                if let Some(layout) = self.layout(id)? {
                    let (before, mut after) =
                        (old.map(|old| before(&layout, old)).transpose()?, whole(&layout, new)?);
                    if let Some(before) = &before {
                        after.fill(before);
                    }
                    self.change(&layout, Change::Update { before, after }).await?;
                }
            }
            Message::Delete { id, old } => {
                if let Some(layout) = self.layout(id)? {
                    let row = before(&layout, old)?;
                    self.change(&layout, Change::Delete(row)).await?;
                }
            }
            Message::Truncate { ids } => {
                for id in ids {
                    if let Some(layout) = self.layout(id)? {
                        self.change(&layout, Change::Truncate).await?;
                    }
                }
            }
            Message::Other => {}
        }
        Ok(None)
    }

    fn begin_transaction(&mut self, commit: Lsn, time: i64, number: u32) -> Result<Option<Over>, Trouble> {
        if self.task.at.done == 0
            && let Some(over) = self.is_over(commit)
        {
            return Ok(Some(over));
        }
        let skip = self.task.at.done;
        if skip > 0 && self.task.at.of != Some(commit) {
            return Err(Trouble::Known(Error::job(format!(
                "{}: the transaction committed at {} was read in part, and the log has another one there ({commit}); the rest of \
                 it is lost. Start over with --from none",
                self.task.plan.place,
                self.task.at.of.unwrap_or_default()
            ))));
        }
        let millis = time.div_euclid(1_000).saturating_add(EPOCH as i64 * 1_000);
        self.transaction = Some(Transaction {
            commit,
            committed: Timestamp::from_millis(millis),
            number,
            seen: 0,
            skip,
            events: Vec::new(),
            bytes: 0,
        });
        Ok(None)
    }

    /// The table, if it is one of ours.
    fn layout(&self, id: u32) -> Result<Option<Arc<Layout>>, Trouble> {
        match self.relations.get(&id) {
            Some(Relation::Ours(layout)) => Ok(Some(Arc::clone(layout))),
            Some(Relation::Other) => Ok(None),
            None => Err(broken("a change of a table that was not described")),
        }
    }

    async fn change(&mut self, layout: &Layout, change: Change<Row>) -> Result<(), Trouble> {
        let Some(transaction) = &mut self.transaction else {
            return Err(broken("a change outside of a transaction"));
        };
        transaction.seen += 1;
        if transaction.seen <= transaction.skip {
            return Ok(());
        }
        let event = Event {
            table: Arc::clone(&layout.table),
            change,
            lsn: transaction.commit,
            committed: Some(transaction.committed),
            transaction: transaction.number,
        };
        transaction.bytes += super::reader::size(&event);
        transaction.events.push(event);
        if transaction.bytes >= MOST_TOGETHER {
            self.flush().await?;
            self.hand_over().await?;
        }
        Ok(())
    }

    /// Makes what was read of the transaction ready.
    async fn flush(&mut self) -> Result<(), Trouble> {
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        if transaction.seen <= transaction.skip {
            return Ok(());
        }
        transaction.bytes = 0;
        let mut events = std::mem::take(&mut transaction.events);
        if let Some(within) = &mut self.within {
            events = within.only(events).await?;
        }
        self.task.at.done = transaction.seen;
        self.task.at.of = Some(transaction.commit);
        if !events.is_empty() {
            self.task.add(events);
        }
        Ok(())
    }

    /// A table is described: it has the columns that are known, or that is an error.
    fn relation(
        &mut self,
        id: u32,
        schema: &str,
        name: &str,
        columns: Vec<pgoutput::Column>,
    ) -> Result<(), Trouble> {
        let plan = &self.task.plan;
        let known = plan.split.tables.iter().position(|table| table.schema == schema && table.table == name);
        let Some(index) = known else {
            self.relations.insert(id, Relation::Other);
            return Ok(());
        };
        let (table, layout) = (&plan.split.tables[index], &plan.layouts[index]);
        let layout = match plan.columns {
            NewColumns::Refuse => {
                if let Some(what) = difference(table, &columns) {
                    return Err(Trouble::Known(Error::job(format!(
                        "table {schema}.{name}: {what}. What was read before has other columns. If the job can do with that, use \
                         .on_new_columns(NewColumns::Follow); else change the table back, or start over with --from none"
                    ))));
                }
                Arc::clone(layout)
            }
            NewColumns::Follow => {
                let base = |column: &pgoutput::Column| {
                    let known = table.columns.iter().find(|known| known.oid == column.oid);
                    known.map_or(column.oid, |known| known.base)
                };
                let place = |at: &usize| columns.iter().position(|c| c.name == layout.columns[*at].name);
                Arc::new(Layout {
                    table: Arc::clone(&layout.table),
                    index,
                    key: layout.key.iter().filter_map(place).collect(),
                    columns: columns.iter().map(|column| Named::new(&column.name, base(column))).collect(),
                })
            }
        };
        self.relations.insert(id, Relation::Ours(layout));
        Ok(())
    }
}

/// How the columns differ from those that are known, if they do.
fn difference(table: &super::Table, columns: &[pgoutput::Column]) -> Option<String> {
    if let Some(new) =
        columns.iter().find(|column| table.columns.iter().all(|known| known.name != column.name))
    {
        return Some(format!("column `{}` is new", new.name));
    }
    for known in &table.columns {
        let Some(now) = columns.iter().find(|column| column.name == known.name) else {
            return Some(format!("column `{}` is gone", known.name));
        };
        if now.oid != known.oid {
            return Some(format!("column `{}` is no longer of type {}", known.name, known.declared));
        }
    }
    let same = columns.iter().zip(&table.columns).all(|(now, known)| now.name == known.name);
    (!same || columns.len() != table.columns.len()).then(|| "its columns have another order".to_owned())
}

fn broken(what: &str) -> Trouble {
    Trouble::Known(Error::internal(format!("the log of PostgreSQL: {what}")))
}

fn whole(layout: &Arc<Layout>, tuple: Tuple) -> Result<Row, Trouble> {
    Row::new(layout, tuple).ok_or_else(|| broken("a row that has not as many values as there are columns"))
}

fn before(layout: &Arc<Layout>, old: Old) -> Result<Row, Trouble> {
    Row::old(layout, old).ok_or_else(|| broken("a row that has not as many values as there are columns"))
}
