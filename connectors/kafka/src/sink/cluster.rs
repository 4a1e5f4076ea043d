//! What is asked of the brokers before anything is decided: whether a topic is there, and what it takes.

use super::message::{Outgoing, shown};
use super::reports::Reports;
use crate::apart::Apart;
use crate::settings::{Settings, failed, is_refusal};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use staunch_core::background::blocking;
use staunch_core::sink::SinkContext;
use staunch_core::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long one question may take before it is asked again.
const ASK: Duration = Duration::from_secs(5);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(50);
/// What brokers add to a message that is alone in its batch, and some more.
const AROUND_A_MESSAGE: usize = 512;
/// Bytes of a message if a topic does not say what it takes: what the client library sends.
pub(super) const MOST_MESSAGE_BYTES: usize = 1_000_000 - AROUND_A_MESSAGE;

/// What a topic takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Takes {
    pub partitions: usize,
    /// Bytes of a batch (`max.message.bytes`), if the broker tells us.
    pub most_batch_bytes: Option<usize>,
    /// Whether each message needs a key.
    pub compacted: bool,
}

/// A client that only asks. One for a process.
pub(super) struct Cluster {
    // A consumer: asking as a producer makes topics, where brokers are told to.
    pub client: Arc<Apart<BaseConsumer<Reports>>>,
    /// Reads tokens. Kept, because closing one takes half a second.
    pub reader: Mutex<Apart<BaseConsumer<Reports>>>,
    pub admin: Apart<AdminClient<DefaultClientContext>>,
    limit: Duration,
}

/// Part of a deadline that one step may take, so that its own error comes first.
pub(super) fn limit(context: &SinkContext) -> Duration {
    context.deadline.mul_f32(0.8)
}

impl Cluster {
    pub async fn shared(settings: &Settings, context: &SinkContext) -> Result<Arc<Self>> {
        let make = async {
            let config = settings.client("staunch-sink", &[("isolation.level", "read_uncommitted")])?;
            let consumer = |config: &ClientConfig| -> Result<Apart<BaseConsumer<Reports>>> {
                let made = config.create_with_context(Reports::default());
                made.map(Apart::new).map_err(|e| settings.not_made(e))
            };
            let admin = config.create().map(Apart::new).map_err(|e| settings.not_made(e))?;
            let options = [
                // For show: nobody asks for it.
                ("group.id", "staunch-tokens"),
                ("enable.auto.commit", "false"),
                ("enable.partition.eof", "true"),
                ("auto.offset.reset", "error"),
                // Where there is nothing to read it shall say so at once.
                ("fetch.wait.max.ms", "10"),
                ("isolation.level", "read_committed"),
            ];
            let reader = consumer(&settings.client("staunch-tokens", &options)?)?;
            let (client, reader) = (Arc::new(consumer(&config)?), Mutex::new(reader));
            Ok(Self { client, reader, admin, limit: limit(context) })
        };
        context.shared.get(&settings.key(), make).await
    }

    pub fn options(&self) -> AdminOptions {
        AdminOptions::new().operation_timeout(Some(self.limit)).request_timeout(Some(self.limit))
    }

    /// The number of partitions of a topic, if it is there.
    pub async fn partitions(&self, topic: &str) -> Result<Option<usize>> {
        let (client, name, limit) = (Arc::clone(&self.client), topic.to_owned(), self.limit);
        blocking(move || partitions(&client, &name, limit)).await?
    }

    /// What a topic takes.
    ///
    /// # Errors
    /// It is not there, or not for us.
    pub async fn takes(&self, topic: &str) -> Result<Takes> {
        let Some(partitions) = self.partitions(topic).await? else {
            return Err(Error::job(format!(
                "topic {topic} cannot be written: the brokers do not know it. Create it, or correct the name"
            )));
        };
        // Some may write a topic and not look at its settings: then the broker refuses later what it does not take.
        let config = self.config(topic).await.unwrap_or_else(|error| {
            tracing::debug!(%error, topic, "the settings of a topic are not known");
            HashMap::new()
        });
        let most_batch_bytes = config.get("max.message.bytes").and_then(|bytes| bytes.parse().ok());
        let compacted = config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
        Ok(Takes { partitions, most_batch_bytes, compacted })
    }

    /// The settings of a topic, by name.
    pub async fn config(&self, topic: &str) -> Result<HashMap<String, String>> {
        let what = || format!("the settings of topic {topic} cannot be read");
        let named = ResourceSpecifier::Topic(topic);
        let described = self.admin.describe_configs([&named], &self.options()).await;
        match described.map_err(|e| failed(what(), e))?.into_iter().next() {
            Some(Ok(all)) => {
                Ok(all.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
            }
            Some(Err(code)) => Err(failed(what(), rdkafka::error::KafkaError::Global(code))),
            None => Err(Error::external(what())),
        }
    }
}

fn partitions(client: &BaseConsumer<Reports>, topic: &str, limit: Duration) -> Result<Option<usize>> {
    let began = Instant::now();
    loop {
        let asked = client.fetch_metadata(Some(topic), ASK);
        // What else it has to say comes by this way.
        client.poll(Duration::ZERO);
        client.context().check()?;
        match asked {
            Ok(metadata) => {
                let found = metadata.topics().first();
                match found.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from) {
                    None => return Ok(found.map(|topic| topic.partitions().len())),
                    Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                        return Ok(None);
                    }
                    Some(code) if is_refusal(code) || code == RDKafkaErrorCode::InvalidTopic => {
                        return Err(Error::job(format!(
                            "topic {topic} cannot be written: {code}. Correct the name or the access list"
                        )));
                    }
                    Some(code) if began.elapsed() > limit => {
                        return Err(Error::external(format!("topic {topic} cannot be looked up: {code}")));
                    }
                    Some(code) => tracing::debug!(%code, topic, "asking again"),
                }
            }
            Err(error) if began.elapsed() > limit => {
                return Err(failed(format!("topic {topic} cannot be looked up"), error));
            }
            Err(error) => tracing::warn!(%error, "Kafka does not answer; asking again"),
        }
        std::thread::sleep(BETWEEN_QUESTIONS);
    }
}

/// Refuses messages that their topics would not take, on a writer's side: before anything is decided.
pub(super) struct Gate {
    cluster: Arc<Cluster>,
    topic: String,
    /// What the user says that topics take.
    most_bytes: Option<usize>,
    /// The sink's own topic.
    own: Takes,
    others: HashMap<String, Takes>,
}

impl Gate {
    pub async fn new(cluster: Arc<Cluster>, topic: &str, most_bytes: Option<usize>) -> Result<Self> {
        let own = cluster.takes(topic).await?;
        Ok(Self { cluster, topic: topic.to_owned(), most_bytes, own, others: HashMap::new() })
    }

    /// # Errors
    /// Its topic does not take it, or is not there.
    pub async fn check(&mut self, message: &Outgoing) -> Result<()> {
        message.check()?;
        let mut takes = match &message.topic {
            None => self.own,
            Some(other) => match self.others.get(other) {
                Some(known) => *known,
                None => self.ask(other).await.map_err(|e| unwritten(message, &e))?,
            },
        };
        let topic = message.topic.as_ref().unwrap_or(&self.topic).clone();
        let beyond = |takes: &Takes| {
            message
                .partition
                .is_some_and(|partition| usize::try_from(partition).unwrap_or(0) >= takes.partitions)
        };
        if beyond(&takes) {
            // It may have grown.
            takes = self.ask(&topic).await?;
        }
        let limit = match (self.most_bytes, takes.most_batch_bytes) {
            (Some(most), _) => most,
            (None, Some(batch)) => batch.saturating_sub(AROUND_A_MESSAGE),
            (None, None) => MOST_MESSAGE_BYTES,
        };
        let bytes = message.bytes();
        let wrong = if bytes > limit {
            format!(
                "it is too large: {bytes} bytes, and the limit is {limit} (max.message.bytes of the topic, or .most_message_bytes(..))"
            )
        } else if takes.compacted && message.key.is_none() {
            "the topic is compacted, and needs keys".to_owned()
        } else if beyond(&takes) {
            let partition = message.partition.unwrap_or_default();
            format!("the topic has no partition {partition}; it has {}", takes.partitions)
        } else {
            return Ok(());
        };
        Err(Error::job(format!(
            "topic {topic} does not take the message with key {}: {wrong}",
            shown(message.key.as_deref())
        )))
    }

    async fn ask(&mut self, topic: &str) -> Result<Takes> {
        let takes = self.cluster.takes(topic).await?;
        if topic == self.topic {
            self.own = takes;
        } else {
            self.others.insert(topic.to_owned(), takes);
        }
        Ok(takes)
    }
}

fn unwritten(message: &Outgoing, error: &Error) -> Error {
    let text = format!("the message with key {} cannot be written: {error}", shown(message.key.as_deref()));
    match error.kind() {
        staunch_core::error::Kind::Job => Error::job(text),
        _ => Error::external(text),
    }
}
