//! Tables of PostgreSQL as a source: what is in them, and then every change, from the log (logical replication, pgoutput).
//!
//! Promises that each change counts once, in the order of commits, and that the server may forget its log only up to
//! positions that were decided. Promises that a position is never given up for another one: a slot that is gone, lost or
//! ahead is an error that says so.
//!
//! # The position, and why a snapshot survives a crash
//!
//! An exported snapshot dies with its session. So a job that crashes in the middle of it can neither go on reading it nor take
//! back what was published of it. The position is therefore a statement that does not mention any session: *of the rows with
//! keys up to K, the output shows the state at L; of the others it shows nothing.* L is a place in the log. It is made true
//! again by each way of going on:
//!
//! 1. A temporary slot is made. Its snapshot S shows exactly what was committed before its place M in the log.
//! 2. If something was handed out before, the log is read from L to M, and only changes of keys up to K are handed out; a row
//!    that changes its key over K appears or disappears. Then the output shows the keys up to K at M.
//! 3. Rows with keys above K are read from S, in the order of the keys. K rises with each of them.
//! 4. At the end K is everything, and the log is read from M on.
//!
//! A crash anywhere leaves a position with which 1 begins again, so nothing is read twice and nothing is left out. At the
//! first start K is nothing, and 2 falls away. Keys are compared by the server, by the rules of their types and collations:
//! a client that sorts text differently would lose rows. The permanent slot is made before anything is read, and keeps the
//! log from L on. The other known ways were not taken: holding all output back until the snapshot is complete needs room for
//! all of it; reading in pieces between two marks in the log (DBLog) hands a row out in a piece after its own change.
//!
//! Reading order: `lsn`, `pgoutput` (messages), `row`, `form`, `typed` (values), `wire` (the connection), `catalog` (what must be
//! there), `task` (reconnecting), `live` (reading the log), `snapshot`, `within` (what counts while a snapshot is incomplete),
//! `reader`, `acknowledge`.

mod acknowledge;
mod catalog;
mod form;
mod live;
mod lsn;
pub mod pgoutput;
mod reader;
mod row;
mod snapshot;
mod task;
mod typed;
mod wire;
mod within;

pub use lsn::Lsn;
pub use reader::Reader;
pub use row::{Field, Row};
pub use typed::Known;

use crate::address::Address;
use acknowledge::{Confirmer, Told};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use staunch_core::change::Change;
use staunch_core::context::SourceContext;
use staunch_core::place::Place;
use staunch_core::source::{Acknowledging, Source};
use staunch_core::{Error, Result, Timestamp};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use task::{Plan, Task};
use wire::{Purpose, Wire};

/// The identity of the one split: the log.
const SPLIT: &str = "log";
/// Bytes of a name that the server keeps.
const MOST_NAME: usize = 63;

/// What to do if the log no longer has what comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lost {
    /// The job ends with an error that says what is lost.
    #[default]
    Fail,
    /// What is lost is logged, and reading goes on at what is still there, with a new slot if need be. Only where changes may be
    /// missed.
    GoOn,
}

/// What to do if the columns of a table change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NewColumns {
    /// The job ends with an error that names the column.
    #[default]
    Refuse,
    /// Rows have the columns that the log says they have.
    Follow,
}

/// A change, and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event<T> {
    /// The table, as `schema.name`.
    pub table: Arc<str>,
    /// What happened.
    pub change: Change<T>,
    /// The place of its commit in the log; for a row of the snapshot, the place that the snapshot shows.
    pub lsn: Lsn,
    /// When it was committed; absent for a row of the snapshot.
    pub committed: Option<Timestamp>,
    /// The number of its transaction; 0 for a row of the snapshot.
    pub transaction: u32,
}

impl<T> Event<T> {
    /// Whether it is a row that was there when reading began, and no change.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.committed.is_none()
    }
}

/// A table, as it was when the job started from nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Table {
    schema: String,
    table: String,
    oid: u32,
    partitioned: bool,
    /// Condition of the publication for its rows.
    filter: Option<String>,
    columns: Vec<TableColumn>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct TableColumn {
    name: String,
    oid: u32,
    /// Its type, as SQL has it.
    declared: String,
    /// The type that a domain is over.
    base: u32,
    /// Its place in the key, from 1.
    key: Option<u32>,
    collation: Option<String>,
}

/// The log of a database, as far as some tables are concerned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Split {
    slot: String,
    publication: String,
    /// Which server it is.
    system: String,
    start: Lsn,
    end: Option<Lsn>,
    snapshot: bool,
    tables: Vec<Table>,
}

/// Where a reader stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// All that was committed before this place is handed out, or lies before the beginning.
    lsn: Lsn,
    /// Of the next transaction, so many changes are handed out as well.
    #[serde(default)]
    done: u64,
    /// Which transaction that is: the place of its commit.
    #[serde(default)]
    of: Option<Lsn>,
    /// Rows of which that is true; `None` if it is true of all.
    #[serde(default)]
    snapshot: Option<Cursor>,
}

/// How far a snapshot is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Cursor {
    /// Tables before this one are complete.
    table: usize,
    /// The key of the last row of this one.
    after: Option<Vec<String>>,
}

impl Cursor {
    fn is_begun(&self) -> bool {
        self.table > 0 || self.after.is_some()
    }
}

impl Position {
    fn at(lsn: Lsn) -> Self {
        Self { lsn, done: 0, of: None, snapshot: None }
    }
}

/// What is to be followed, with all names made.
#[derive(Clone, Debug)]
struct Wanted {
    place: String,
    slot: String,
    publication: String,
    makes_publication: bool,
    tables: Vec<String>,
    snapshot: bool,
    bounded: bool,
}

type Decode<T> = Arc<dyn Fn(&Event<Row>) -> Result<T, String> + Send + Sync>;

/// Tables that are followed; made by [`follow`].
pub struct Follow<T> {
    url: String,
    tables: Vec<String>,
    slot: Option<String>,
    publication: Option<String>,
    snapshot: bool,
    bounded: bool,
    lost: Lost,
    columns: NewColumns,
    decode: Decode<T>,
}

impl<T> Clone for Follow<T> {
    fn clone(&self) -> Self {
        self.decoded_by(Arc::clone(&self.decode))
    }
}

impl<T> fmt::Debug for Follow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("tables", &self.tables)
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

/// Follows tables of a database: first all their rows, then every change. `url` is as for [`table`](crate::table()), of a user
/// who may replicate; `tables` are `name` or `schema.name`.
pub fn follow<I>(url: impl Into<String>, tables: I) -> Follow<Event<Row>>
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    Follow {
        url: url.into(),
        tables: tables.into_iter().map(Into::into).collect(),
        slot: None,
        publication: None,
        snapshot: true,
        bounded: false,
        lost: Lost::default(),
        columns: NewColumns::default(),
        decode: Arc::new(|event: &Event<Row>| Ok(event.clone())),
    }
}

impl<T> Follow<T> {
    fn decoded_by<U>(&self, decode: Decode<U>) -> Follow<U> {
        Follow {
            url: self.url.clone(),
            tables: self.tables.clone(),
            slot: self.slot.clone(),
            publication: self.publication.clone(),
            snapshot: self.snapshot,
            bounded: self.bounded,
            lost: self.lost,
            columns: self.columns,
            decode,
        }
    }

    /// The replication slot; by default `staunch_JOB_SOURCE`. It is made if it is not there when the job starts from nothing.
    #[must_use]
    pub fn slot(mut self, name: impl Into<String>) -> Self {
        self.slot = Some(name.into());
        self
    }

    /// The publication, which must be there and have all tables. By default one of the name of the slot, which is made.
    #[must_use]
    pub fn publication(mut self, name: impl Into<String>) -> Self {
        self.publication = Some(name.into());
        self
    }

    /// Only changes from now on, not what is in the tables when the job starts from nothing.
    #[must_use]
    pub fn changes_only(mut self) -> Self {
        self.snapshot = false;
        self
    }

    /// Reads what there is when the job starts from nothing, and is complete then: the tables as they are, or with
    /// [`changes_only`](Self::changes_only) what is in a slot that was there already.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.bounded = true;
        self
    }

    /// What to do if the log no longer has what comes next.
    #[must_use]
    pub fn on_lost(mut self, lost: Lost) -> Self {
        self.lost = lost;
        self
    }

    /// What to do if the columns of a table change.
    #[must_use]
    pub fn on_new_columns(mut self, columns: NewColumns) -> Self {
        self.columns = columns;
        self
    }

    fn names(&self, context: &SourceContext) -> Result<Wanted> {
        let slot = self.slot.clone().unwrap_or_else(|| slot_name(&context.job, &context.source));
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if slot.is_empty() || slot.len() > MOST_NAME || !slot.chars().all(is_name) {
            return Err(Error::job(format!(
                "{slot:?} is no name of a replication slot: use a-z, 0-9 and _, up to {MOST_NAME}"
            )));
        }
        Ok(Wanted {
            place: format!("PostgreSQL at {}", Address::parse(&self.url)?.place()),
            publication: self.publication.clone().unwrap_or_else(|| slot.clone()),
            slot,
            makes_publication: self.publication.is_none(),
            tables: self.tables.clone(),
            snapshot: self.snapshot,
            bounded: self.bounded,
        })
    }

    async fn told(&self, context: &SourceContext, slot: &str) -> Result<Arc<Told>> {
        let key = format!("{} {slot}", Address::parse(&self.url)?.place());
        context.shared.get(&key, async { Ok(Told::default()) }).await
    }
}

impl Follow<Event<Row>> {
    /// Makes a value of each event. What it refuses is bad input, with the reason given.
    #[must_use]
    pub fn decode<U>(
        &self,
        decode: impl Fn(&Event<Row>) -> Result<U, String> + Send + Sync + 'static,
    ) -> Follow<U> {
        self.decoded_by(Arc::new(decode))
    }

    /// Rows as structs, each column in the field of its name; what has no field is passed over. See [`Known`] for large values.
    #[must_use]
    pub fn rows<U: DeserializeOwned>(&self) -> Follow<Event<U>> {
        self.decode(|event| {
            let Event { table, change, lsn, committed, transaction } = event;
            let change = change.as_ref().try_map(typed::decode)?;
            Ok(Event {
                table: Arc::clone(table),
                change,
                lsn: *lsn,
                committed: *committed,
                transaction: *transaction,
            })
        })
    }

    /// The same, without where it comes from.
    #[must_use]
    pub fn changes<U: DeserializeOwned>(&self) -> Follow<Change<U>> {
        self.decode(|event| event.change.as_ref().try_map(typed::decode))
    }
}

/// The name of a slot, from names that may have other characters and be longer.
fn slot_name(job: &str, source: &str) -> String {
    let wish = format!("staunch_{job}_{source}");
    let plain: String = wish
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => c,
            _ => '_',
        })
        .collect();
    if plain == wish && plain.len() <= MOST_NAME {
        return plain;
    }
    // What was changed must not meet another name.
    let kept: String = plain.chars().take(MOST_NAME - 17).collect();
    format!("{kept}_{:016x}", hash(&wish))
}

/// FNV-1a: the same for every build of the program.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Who a session is, for sessions of other starts: only newer ones may end it.
#[derive(Clone, Debug)]
struct Who {
    family: String,
    generation: u64,
}

impl Who {
    fn of(context: &SourceContext, slot: &str) -> Self {
        let family = format!("{:016x}", hash(&format!("{}\0{}\0{slot}", context.job, context.source)));
        Self { family, generation: context.generation.0 }
    }

    fn name(&self) -> String {
        format!("staunch-follow {} {}", self.family, self.generation)
    }

    /// The start that a session of this name is of, if it is one of ours.
    fn start_of(&self, name: &str) -> Option<u64> {
        let rest = name.strip_prefix("staunch-follow ")?.strip_prefix(&self.family)?;
        rest.trim().parse().ok()
    }

    fn purpose(&self, replication: bool) -> Purpose {
        Purpose { replication, name: self.name() }
    }
}

/// A little less than the engine waits, so that the error is ours and says what was asked.
fn patience(context: &SourceContext) -> Duration {
    context.deadline.mul_f32(0.8)
}

impl<T: Send + 'static> Source for Follow<T> {
    type Record = T;
    type Split = Split;
    type Position = Position;
    type Reader = Reader<T>;

    async fn splits(&self, context: &SourceContext) -> Result<Vec<(String, Split)>> {
        let (wanted, address) = (self.names(context)?, Address::parse(&self.url)?);
        let who = Who::of(context, &wanted.slot);
        let connecting = Wire::connect(&address, &who.purpose(false)).await;
        let mut wire =
            connecting.map_err(|trouble| trouble.into_error(format!("{} cannot be used", wanted.place)))?;
        let split = catalog::prepare(&mut wire, &wanted, context.fresh, patience(context)).await?;
        Ok(vec![(SPLIT.to_owned(), split)])
    }

    async fn acknowledger(&self, context: &SourceContext) -> Result<Option<Acknowledging<Position>>> {
        let slot = self.names(context)?.slot;
        let (told, address) = (self.told(context, &slot).await?, Address::parse(&self.url)?);
        Ok(Some(Acknowledging::by(Confirmer { who: Who::of(context, &slot), told, address, slot })))
    }

    async fn open(&self, split: Split, at: Option<Position>, context: &SourceContext) -> Result<Reader<T>> {
        let wanted = self.names(context)?;
        same_as_before(&wanted, &split)?;
        let position = at.unwrap_or_else(|| Position {
            snapshot: split.snapshot.then(Cursor::default),
            ..Position::at(split.start)
        });
        if position.snapshot.is_none() && split.end.is_some_and(|end| position.lsn >= end) {
            return Ok(Reader::ended(position, Arc::clone(&self.decode)));
        }
        let plan = Plan {
            layouts: split.tables.iter().enumerate().map(|(index, table)| table.layout(index)).collect(),
            told: self.told(context, &split.slot).await?,
            address: Address::parse(&self.url)?,
            who: Who::of(context, &split.slot),
            place: wanted.place,
            lost: self.lost,
            columns: self.columns,
            behind: context.figure("lag_bytes"),
            split,
        };
        let task = Task::open(plan, position.clone(), patience(context)).await?;
        Ok(Reader::start(task, position, Arc::clone(&self.decode)))
    }

    fn places(&self) -> Vec<Place> {
        let Ok(address) = Address::parse(&self.url) else { return Vec::new() };
        let place = |table: &String| Place::Named(format!("postgres://{}/{table}", address.place()));
        self.tables.iter().map(place).collect()
    }
}

/// The program wants what the checkpoint is about.
fn same_as_before(wanted: &Wanted, split: &Split) -> Result<()> {
    let mut now: Vec<String> = wanted
        .tables
        .iter()
        .map(|name| if name.contains('.') { name.clone() } else { format!("public.{name}") })
        .collect();
    let mut then: Vec<String> = split.tables.iter().map(Table::name).collect();
    now.sort_unstable();
    then.sort_unstable();
    let differs = |what: &str, then: &str, now: &str| {
        Err(Error::job(format!(
            "the checkpoint is about {what} {then}, and the program names {now}. Name the same, read new tables with a source of \
             their own, or start over with --from none"
        )))
    };
    if now != then {
        return differs("tables", &then.join(", "), &now.join(", "));
    }
    if wanted.slot != split.slot {
        return differs("slot", &split.slot, &wanted.slot);
    }
    if wanted.publication != split.publication {
        return differs("publication", &split.publication, &wanted.publication);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_slots_are_such_as_the_server_takes_and_do_not_meet() {
        assert_eq!(slot_name("orders", "in"), "staunch_orders_in");
        let odd = slot_name("Orders", "in-1");
        assert!(odd.starts_with("staunch_orders_in_1_"), "{odd}");
        assert_ne!(odd, slot_name("orders", "in-1"));
        let long = slot_name(&"x".repeat(100), &"y".repeat(100));
        assert_eq!(long.len(), MOST_NAME);
        assert_ne!(long, slot_name(&"x".repeat(100), &"z".repeat(100)));
    }

    #[test]
    fn a_session_is_told_from_those_of_other_sources_and_its_start_is_known() {
        let context = SourceContext::alone("in");
        let (who, other) = (Who::of(&context, "a"), Who::of(&context, "b"));
        assert_eq!(who.start_of(&who.name()), Some(1));
        assert_eq!(who.start_of(&other.name()), None);
        assert_eq!(who.start_of("psql"), None);
    }
}
