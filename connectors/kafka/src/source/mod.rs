//! Topics as a source: a partition is a split, its position the next offset.
//!
//! Promises that a position is never given up for another one: offsets that the broker no longer has are an error that
//! says what is lost. Positions are the engine's alone; a consumer group is told of them for others to look at. Knows no
//! format: it hands records to a decoder.

mod acknowledge;
mod client;
mod listing;
mod queue;
mod reader;

use crate::record::{Incoming, Record};
use crate::settings::{Settings, failed};
use acknowledge::Publisher;
use client::Client;
use rdkafka::consumer::Consumer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use staunch_core::background::blocking;
use staunch_core::context::SourceContext;
use staunch_core::place::Place;
use staunch_core::source::{Acknowledging, Records, Source};
use staunch_core::{Error, Result, Timestamp};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use reader::Reader;

/// How long one question to a broker may take before it is asked again.
const ASK: Duration = Duration::from_secs(5);
/// A broker that was killed may say for a moment that a partition ends before its true end.
const END_SETTLES: Duration = Duration::from_secs(5);
/// How often to look for new topics and partitions, unless told otherwise.
const DISCOVER_EVERY: Duration = Duration::from_secs(30);

/// Decodes a batch.
type Decode<T> = Arc<dyn Fn(&[Incoming<'_>], &mut Records<T>) + Send + Sync>;

/// Where reading begins, in partitions of which no position is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// At what is still there.
    #[default]
    Earliest,
    /// At the end as it is when the job starts from nothing. Partitions that appear later, also while the job does not run,
    /// are read from their beginning, so that nothing of them is missed.
    Latest,
    /// At the first record of this time or later.
    Time(Timestamp),
    /// At these offsets, by topic and partition; others at what is still there.
    Offsets(BTreeMap<(String, i32), i64>),
}

/// What to do if the broker no longer has what comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lost {
    /// The job ends with an error that says what is lost.
    #[default]
    Fail,
    /// What is lost is logged, and reading goes on at what is still there. Only where records may be missed.
    GoOn,
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Split {
    topic: String,
    partition: i32,
    /// Where it begins.
    start: i64,
    /// Where it ends, if it does.
    end: Option<i64>,
}

/// Where a reader stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The offset from which on nothing was handed out.
    next: i64,
}

/// Topics of a cluster; made by [`topics`].
pub struct Topics<T> {
    settings: Settings,
    /// Names, and patterns with `*`.
    topics: Vec<String>,
    start: Start,
    bounded: bool,
    uncommitted: bool,
    lost: Lost,
    group: Option<String>,
    discover_every: Duration,
    decode: Decode<T>,
}

impl<T> Clone for Topics<T> {
    fn clone(&self) -> Self {
        self.decoded_by(Arc::clone(&self.decode))
    }
}

impl<T> fmt::Debug for Topics<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics")
            .field("settings", &self.settings)
            .field("topics", &self.topics)
            .field("start", &self.start)
            .field("bounded", &self.bounded)
            .finish_non_exhaustive()
    }
}

/// Topics of a cluster, by name or by pattern (`orders-*`), as [`Record`]s; only what is committed. `brokers` are `host:port`
/// with commas between them, or [`Settings`] with options.
pub fn topics<B, I>(brokers: B, topics: I) -> Topics<Record>
where
    B: Into<Settings>,
    I: IntoIterator,
    I::Item: Into<String>,
{
    Topics {
        settings: brokers.into(),
        topics: topics.into_iter().map(Into::into).collect(),
        start: Start::default(),
        bounded: false,
        uncommitted: false,
        lost: Lost::default(),
        group: None,
        discover_every: DISCOVER_EVERY,
        decode: each(|record| Ok(record.to_record())),
    }
}

impl From<&str> for Settings {
    fn from(brokers: &str) -> Self {
        Self::new(brokers)
    }
}

impl From<String> for Settings {
    fn from(brokers: String) -> Self {
        Self::new(brokers)
    }
}

impl From<&String> for Settings {
    fn from(brokers: &String) -> Self {
        Self::new(brokers)
    }
}

/// The decoder of a batch, by that of a record.
fn each<T>(decode: impl Fn(&Incoming<'_>) -> Result<T, String> + Send + Sync + 'static) -> Decode<T> {
    Arc::new(move |batch, out| {
        for record in batch {
            match decode(record) {
                Ok(value) => out.push(value, record.size()),
                Err(reason) => {
                    out.bad(record.letter(reason));
                }
            }
        }
    })
}

impl<T> Topics<T> {
    fn decoded_by<U>(&self, decode: Decode<U>) -> Topics<U> {
        Topics {
            settings: self.settings.clone(),
            topics: self.topics.clone(),
            start: self.start.clone(),
            bounded: self.bounded,
            uncommitted: self.uncommitted,
            lost: self.lost,
            group: self.group.clone(),
            discover_every: self.discover_every,
            decode,
        }
    }

    /// Where reading begins; by default at what is still there.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Reads up to the ends that the partitions have when the job starts from nothing, and is complete then.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.bounded = true;
        self
    }

    /// Reads also what belongs to transactions that are open or were aborted.
    #[must_use]
    pub fn read_uncommitted(mut self) -> Self {
        self.uncommitted = true;
        self
    }

    /// What to do if the broker no longer has what comes next.
    #[must_use]
    pub fn on_lost(mut self, lost: Lost) -> Self {
        self.lost = lost;
        self
    }

    /// Tells this consumer group how far the job is, after each checkpoint, for others to look at. Nobody may consume with
    /// that group, and the job never reads it.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// How often to look for new topics and partitions.
    #[must_use]
    pub fn discover_every(mut self, every: Duration) -> Self {
        self.discover_every = every;
        self
    }

    /// Makes a value of each record. What it refuses is bad input, with the reason given.
    #[must_use]
    pub fn decode<U>(
        &self,
        decode: impl Fn(&Incoming<'_>) -> Result<U, String> + Send + Sync + 'static,
    ) -> Topics<U> {
        self.decoded_by(each(decode))
    }

    /// The values, as JSON. A tombstone is bad input.
    #[must_use]
    pub fn json<U: DeserializeOwned>(&self) -> Topics<U> {
        self.decode(|record| {
            let value = record.value().ok_or("it has no value (a tombstone)")?;
            serde_json::from_slice(value).map_err(|e| e.to_string())
        })
    }

    /// The values, as text. A tombstone is bad input.
    #[must_use]
    pub fn text(&self) -> Topics<String> {
        self.decode(|record| {
            let value = record.value().ok_or("it has no value (a tombstone)")?;
            std::str::from_utf8(value).map(str::to_owned).map_err(|e| e.to_string())
        })
    }

    fn group_of(&self, context: &SourceContext) -> String {
        self.group.clone().unwrap_or_else(|| format!("staunch-{}-{}", context.job, context.source))
    }

    fn isolation(&self) -> &'static str {
        if self.uncommitted { "read_uncommitted" } else { "read_committed" }
    }

    /// The client of this worker.
    async fn client(&self, context: &SourceContext) -> Result<Arc<Client>> {
        let (settings, group, isolation) = (self.settings.clone(), self.group_of(context), self.isolation());
        let key = format!("{} {isolation} {} {}", settings.key(), context.source, context.instance);
        let theirs = context.clone();
        let make = async move { blocking(move || Client::new(&settings, &group, isolation, &theirs)).await? };
        context.shared.get(&key, make).await
    }
}

/// Asks until there is an answer, or a refusal, or the time is over.
fn ask<A>(
    client: &Client,
    what: &str,
    limit: Duration,
    question: impl Fn(Duration) -> rdkafka::error::KafkaResult<A>,
) -> Result<A> {
    let began = Instant::now();
    loop {
        client.check()?;
        let left = limit.saturating_sub(began.elapsed());
        match question(left.min(ASK).max(Duration::from_millis(100))) {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                // The reason of a refusal comes on another way, a moment later.
                std::thread::sleep(Duration::from_millis(50));
                client.check()?;
                let error = failed(what, error);
                if error.kind() == staunch_core::error::Kind::Job || left.is_zero() {
                    return Err(error);
                }
                tracing::warn!(%error, "Kafka does not answer; asking again");
            }
        }
    }
}

/// A little less than the engine waits, so that the error is ours and says what was asked.
fn patience(context: &SourceContext) -> Duration {
    context.deadline.mul_f32(0.8)
}

/// Where reading goes on: the position, if the broker still has it.
fn position(
    client: &Client,
    split: &Split,
    at: Option<Position>,
    lost: Lost,
    limit: Duration,
) -> Result<i64> {
    let Split { topic, partition, start, .. } = split;
    let next = at.map_or(*start, |at| at.next);
    let place = format!("topic {topic} partition {partition}");
    let what = format!("{place}: the broker does not say which offsets it has");
    let bounds = |wait: Duration| client.consumer().fetch_watermarks(topic, *partition, wait);
    let (mut low, mut high) = ask(client, &what, limit, bounds)?;
    let began = Instant::now();
    while next > high && began.elapsed() < END_SETTLES.min(limit / 2) {
        std::thread::sleep(Duration::from_millis(200));
        (low, high) = ask(client, &what, limit, bounds)?;
    }
    if (low..=high).contains(&next) {
        return Ok(next);
    }
    let story = if next < low {
        format!(
            "{place}: the broker has deleted offsets {next} to {}, which this job has not read (up to {} records)",
            low - 1,
            low - next
        )
    } else {
        format!(
            "{place}: the partition ends at offset {high}, and this job has read up to {next}: it was truncated, or the topic \
             was made anew"
        )
    };
    match lost {
        Lost::Fail => Err(Error::job(format!(
            "{story}. To go on at offset {low} without them, use .on_lost(Lost::GoOn); to start over, --from none"
        ))),
        Lost::GoOn => {
            tracing::warn!("{story}; going on at offset {low}");
            Ok(low)
        }
    }
}

impl<T: Send + 'static> Source for Topics<T> {
    type Record = T;
    type Split = Split;
    type Position = Position;
    type Reader = Reader<T>;

    async fn splits(&self, context: &SourceContext) -> Result<Vec<(String, Split)>> {
        let client = self.client(context).await?;
        let wanted = listing::Wanted {
            topics: self.topics.clone(),
            start: self.start.clone(),
            bounded: self.bounded,
            limit: patience(context),
        };
        let key = format!("{} {}", self.settings.key(), context.source);
        let known = context.shared.get(&key, async { Ok(listing::Known::new(context.fresh)) }).await?;
        blocking(move || known.list(&client, &wanted)).await?
    }

    async fn acknowledger(&self, context: &SourceContext) -> Result<Option<Acknowledging<Position>>> {
        let Some(group) = self.group.clone() else { return Ok(None) };
        let (settings, context) = (self.settings.clone(), context.clone());
        let made = blocking(move || {
            Client::new(&settings, &group, "read_committed", &context)
                .map(|client| Publisher::new(client, group))
        });
        Ok(Some(Acknowledging::by(made.await??)))
    }

    fn discover_every(&self) -> Option<Duration> {
        (!self.bounded).then_some(self.discover_every)
    }

    async fn open(&self, split: Split, at: Option<Position>, context: &SourceContext) -> Result<Reader<T>> {
        let client = self.client(context).await?;
        let (decode, lost, limit) = (Arc::clone(&self.decode), self.lost, patience(context));
        blocking(move || {
            let stands = at.map_or(split.start, |at| at.next);
            if split.end.is_some_and(|end| stands >= end) {
                return Ok(Reader::ended(split, stands, decode));
            }
            let next = position(&client, &split, at, lost, limit)?;
            Reader::open(client, split, next, decode)
        })
        .await?
    }

    fn places(&self) -> Vec<Place> {
        let place = |topic: &String| Place::Named(format!("kafka://{}/{topic}", self.settings.brokers()));
        self.topics.iter().map(place).collect()
    }
}
