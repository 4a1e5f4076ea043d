//! The topic that remembers what was committed: one record a sink for the fence, one an instance for its newest checkpoint.

use super::cluster::Cluster;
use super::reports::Reports;
use crate::settings::{failed, is_refusal};
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use staunch_core::background::blocking;
use staunch_core::error::Kind;
use staunch_core::owner::Mark;
use staunch_core::{CheckpointId, Error, Generation, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

const ASK: Duration = Duration::from_secs(5);
/// How the topic is made. A start reads all of it, so its segments are small, and compacted soon.
const CONFIG: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "16777216"),
    ("segment.ms", "3600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
];
/// The only partition of a topic of tokens.
const PARTITION: i32 = 0;

/// The key of a record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct Key {
    pub job: String,
    pub sink: String,
    /// None for the fence.
    pub instance: Option<u32>,
}

/// The value of a record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Value {
    pub lineage: String,
    pub generation: Generation,
    /// None for the fence.
    pub checkpoint: Option<CheckpointId>,
}

/// What the topic holds of one sink.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    /// Whose it is, and which start has it.
    pub mark: Option<Mark>,
    pub newest: BTreeMap<u32, CheckpointId>,
    /// No transaction was open: what is not there is not about to be there either.
    pub settled: bool,
}

/// The topic.
pub(super) struct Tokens {
    cluster: Arc<Cluster>,
    pub topic: String,
    pub limit: Duration,
}

impl Tokens {
    pub fn new(cluster: &Arc<Cluster>, topic: String, limit: Duration) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(allowed) {
            return Err(Error::job(format!(
                "{topic:?} cannot be the name of a topic; name the topic for tokens with .tokens(..)"
            )));
        }
        Ok(Self { cluster: Arc::clone(cluster), topic, limit })
    }

    /// Makes the topic if it is not there, and refuses one that forgets.
    pub async fn provide(&self) -> Result<()> {
        let what = |doing: &str| format!("topic {} for the tokens of a sink cannot be {doing}", self.topic);
        let cluster = &self.cluster;
        if cluster.partitions(&self.topic).await?.is_none() {
            let new = CONFIG
                .iter()
                .fold(NewTopic::new(&self.topic, 1, TopicReplication::Fixed(-1)), |new, (name, value)| {
                    new.set(name, value)
                });
            let made = cluster.admin.create_topics([&new], &cluster.options()).await;
            match made.map_err(|e| failed(what("made"), e))?.into_iter().next() {
                Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
                    return Err(failed(what("made"), KafkaError::Global(code)));
                }
                _ => {}
            }
        }
        let until = Instant::now() + self.limit;
        let policy = loop {
            let known = match cluster.config(&self.topic).await {
                Ok(all) => Ok(all.get("cleanup.policy").cloned()),
                Err(error) if error.kind() == Kind::Job => return Err(error),
                Err(error) => Err(error),
            };
            match known {
                Ok(Some(policy)) => break Some(policy),
                // One that was made a moment ago is not known everywhere yet.
                Ok(None) | Err(_) if Instant::now() < until => {
                    blocking(|| std::thread::sleep(Duration::from_millis(50))).await?;
                }
                Ok(None) => break None,
                Err(error) => return Err(error),
            }
        };
        if policy.as_deref() != Some("compact") {
            return Err(Error::job(format!(
                "topic {} has cleanup.policy {}, and would forget what was committed; set it to compact",
                self.topic,
                policy.unwrap_or_else(|| "unknown".to_owned())
            )));
        }
        Ok(())
    }

    /// Reads all of the topic that is of a sink. With `settled` it waits until no transaction is open in it. Blocks.
    pub fn read(&self, job: &str, sink: &str, settled: bool) -> Result<Held> {
        let what = || format!("the tokens of sink `{sink}` in topic {} cannot be read", self.topic);
        let until = Instant::now() + self.limit;
        let reader = self.cluster.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let (low, high) = self.ends(&self.cluster.client, until).map_err(|e| failed(what(), e))?;
        let is_settled = loop {
            let is_settled = self.ends(&reader, until).map_err(|e| failed(what(), e))?.1 >= high;
            if is_settled || !settled {
                break is_settled;
            }
            if Instant::now() > until {
                return Err(Error::external(format!("{}: a transaction is open in it", what())));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut list = TopicPartitionList::new();
        let assigned = list.add_partition_offset(&self.topic, PARTITION, Offset::Offset(low));
        assigned.and_then(|()| reader.assign(&list)).map_err(|e| failed(what(), e))?;
        let mut held = Held { settled: is_settled, ..Held::default() };
        let read = loop {
            if Instant::now() > until {
                break Err(Error::external(format!("{} in {:?}", what(), self.limit)));
            }
            match reader.poll(ASK) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => break Ok(()),
                Some(Err(error)) if is_refused(&error) => break Err(failed(what(), error)),
                Some(Err(error)) => tracing::debug!(%error, "reading tokens"),
                Some(Ok(record)) => {
                    if let Err(error) = self.note(&mut held, job, sink, record.key(), record.payload()) {
                        break Err(error);
                    }
                }
            }
        };
        reader.unassign().map_err(|e| failed(what(), e))?;
        read.map(|()| held)
    }

    /// Where the topic begins, and where it ends for this reader.
    fn ends(&self, client: &BaseConsumer<Reports>, until: Instant) -> Result<(i64, i64), KafkaError> {
        loop {
            match client.fetch_watermarks(&self.topic, PARTITION, ASK) {
                // A topic that was made a moment ago may not be known everywhere.
                Err(error) if Instant::now() < until && !is_refused(&error) => {
                    tracing::debug!(%error, "asking again");
                    std::thread::sleep(Duration::from_millis(50));
                }
                ends => return ends,
            }
        }
    }

    fn note(
        &self,
        held: &mut Held,
        job: &str,
        sink: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<()> {
        let strange = |e: serde_json::Error| {
            Error::job(format!(
                "topic {} has a record that is no token; give the sink a topic of its own",
                self.topic
            ))
            .caused_by(e)
        };
        let key: Key = serde_json::from_slice(key.unwrap_or_default()).map_err(strange)?;
        let value: Value = serde_json::from_slice(value.unwrap_or_default()).map_err(strange)?;
        if key.job != job || key.sink != sink {
            return Err(Error::job(format!(
                "topic {} has tokens of job `{}`, sink `{}`; give each sink a topic of its own (.tokens(..))",
                self.topic, key.job, key.sink
            )));
        }
        match (key.instance, value.checkpoint) {
            (Some(instance), Some(checkpoint)) => drop(held.newest.insert(instance, checkpoint)),
            _ => held.mark = Some(Mark { lineage: value.lineage, generation: value.generation }),
        }
        Ok(())
    }
}

/// The group is for show, so it does not matter who may not use it.
fn is_refused(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    code.is_some_and(|code| is_refusal(code) && code != RDKafkaErrorCode::GroupAuthorizationFailed)
}
