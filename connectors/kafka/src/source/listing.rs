//! Which partitions there are, and where each begins and ends: worked out once, and the same for ever after.

use super::client::Client;
use super::{Split, Start, ask};
use crate::glob;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use staunch_core::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Names that brokers use for themselves begin so; a pattern does not mean them.
const INTERNAL: &str = "__";

/// What is to be listed.
pub(super) struct Wanted {
    pub topics: Vec<String>,
    pub start: Start,
    pub bounded: bool,
    pub limit: Duration,
}

/// The partitions that this process has listed.
pub(super) struct Known {
    /// Whether the job starts from nothing.
    fresh: bool,
    listed: Mutex<Option<BTreeMap<String, Split>>>,
}

impl Known {
    pub fn new(fresh: bool) -> Self {
        Self { fresh, listed: Mutex::new(None) }
    }

    /// Blocks.
    pub fn list(&self, client: &Client, wanted: &Wanted) -> Result<Vec<(String, Split)>> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let first = listed.is_none();
        let mut known = listed.clone().unwrap_or_default();
        let mut now = Vec::new();
        for (topic, partition) in partitions(client, wanted, first)? {
            let id = format!("{topic}/{partition}");
            let split = match known.get(&id) {
                Some(split) => split.clone(),
                None => resolve(client, wanted, topic, partition, first && self.fresh)?,
            };
            known.insert(id.clone(), split.clone());
            now.push((id, split));
        }
        // Only whole listings count: after an error the next one is the first again.
        *listed = Some(known);
        Ok(now)
    }
}

/// All partitions that are wanted.
fn partitions(client: &Client, wanted: &Wanted, first: bool) -> Result<Vec<(String, i32)>> {
    let mut found = BTreeMap::new();
    let names: Vec<&String> = wanted.topics.iter().filter(|name| !glob::is_pattern(name)).collect();
    if wanted.topics.is_empty() {
        return Err(Error::job("no topic of Kafka is named; name one, or a pattern like orders-*"));
    }
    for name in names {
        let what = format!("topic {name} cannot be looked up");
        let metadata =
            ask(client, &what, wanted.limit, |wait| client.consumer().fetch_metadata(Some(name), wait))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let error = topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
        match topic.filter(|_| error.is_none()) {
            Some(topic) => drop(found.insert(name.clone(), topic.partitions().len())),
            None => return Err(no_topic(name, error, first)),
        }
    }
    let patterns: Vec<&String> = wanted.topics.iter().filter(|name| glob::is_pattern(name)).collect();
    if !patterns.is_empty() {
        let all = ask(client, "topics cannot be listed", wanted.limit, |wait| {
            client.consumer().fetch_metadata(None, wait)
        })?;
        let meant =
            |name: &str| !name.starts_with(INTERNAL) && patterns.iter().any(|p| glob::matches(p, name));
        let all = all.topics().iter().filter(|topic| topic.error().is_none() && meant(topic.name()));
        found.extend(all.map(|topic| (topic.name().to_owned(), topic.partitions().len())));
    }
    let each = |(topic, count): (String, usize)| {
        (0..i32::try_from(count).unwrap_or(i32::MAX)).map(move |partition| (topic.clone(), partition))
    };
    Ok(found.into_iter().flat_map(each).collect())
}

fn no_topic(name: &str, error: Option<RDKafkaErrorCode>, first: bool) -> Error {
    let why = error.map_or_else(|| "the brokers do not know it".to_owned(), |error| error.to_string());
    let text =
        format!("topic {name} cannot be read: {why}. Create it, or correct the name or the access list");
    match error {
        // A topic that was there and is not for a moment is looked for again.
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) | None if !first => {
            Error::external(text)
        }
        Some(RDKafkaErrorCode::LeaderNotAvailable) => Error::external(text),
        _ => Error::job(text),
    }
}

/// Where a partition begins and ends for this job.
fn resolve(
    client: &Client,
    wanted: &Wanted,
    topic: String,
    partition: i32,
    from_nothing: bool,
) -> Result<Split> {
    let what = format!("topic {topic} partition {partition}: the broker does not say which offsets it has");
    let (low, high) =
        ask(client, &what, wanted.limit, |wait| client.consumer().fetch_watermarks(&topic, partition, wait))?;
    let start = match &wanted.start {
        Start::Latest if from_nothing => high,
        Start::Earliest | Start::Latest => low,
        Start::Offsets(offsets) => match offsets.get(&(topic.clone(), partition)) {
            Some(offset) => *offset,
            None => low,
        },
        Start::Time(time) => {
            let found = ask(client, &what, wanted.limit, |wait| {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(&topic, partition, Offset::Offset(time.as_millis()))?;
                client.consumer().offsets_for_times(list, wait)
            })?;
            match found.elements().first().map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offset,
                // No record is that young.
                _ => high,
            }
        }
    };
    Ok(Split { topic, partition, start, end: wanted.bounded.then_some(high) })
}
