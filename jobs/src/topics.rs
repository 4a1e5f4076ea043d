//! Topics of Kafka as any other client fills and reads them.

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Waiting, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Longest that a broker may take for an answer: it may be starting just now.
const PATIENCE: Duration = Duration::from_secs(90);

/// A message as it is in a topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Found {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

fn config(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker).set("reconnect.backoff.max.ms", "500");
    config
}

/// Makes a topic, and waits until it can be used.
///
/// # Errors
/// The broker refuses, or does not answer.
pub fn create(broker: &str, topic: &str, partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(broker).create()?;
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for made in wait(admin.create_topics([&new], &options))? {
        made.map_err(|(name, code)| anyhow::anyhow!("topic {name} cannot be made: {code}"))?;
    }
    let consumer: BaseConsumer = config(broker).create()?;
    let began = Instant::now();
    while partitions_of(&consumer, topic)?.len() < usize::try_from(partitions)? {
        ensure!(began.elapsed() < PATIENCE, "topic {topic} has no leaders after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Appends messages, each to a partition, and waits until the broker has them.
///
/// # Errors
/// It does not take them.
pub fn produce<'a>(
    broker: &str,
    topic: &str,
    messages: impl IntoIterator<Item = (i32, Option<&'a [u8]>, Option<&'a [u8]>)>,
) -> Result<()> {
    let producer: BaseProducer = config(broker).set("enable.idempotence", "true").create()?;
    for (partition, key, value) in messages {
        loop {
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
            (record.key, record.payload) = (key, value);
            match producer.send(record) {
                Ok(()) => break,
                Err((error, _))
                    if error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull) =>
                {
                    producer.poll(Duration::from_millis(50));
                }
                Err((error, _)) => return Err(error).context("a message cannot be sent"),
            }
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE).context("messages are not written")?;
    Ok(())
}

/// All that is committed in a topic up to its ends of now.
///
/// # Errors
/// It cannot be read.
pub fn committed(broker: &str, topic: &str) -> Result<Vec<Found>> {
    let mut settings = config(broker);
    settings
        .set("group.id", "observer")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = settings.create()?;
    let partitions = partitions_of(&consumer, topic)?;
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut found, mut open, began) = (Vec::new(), partitions.len(), Instant::now());
    while open > 0 {
        ensure!(began.elapsed() < PATIENCE, "topic {topic} is not read to its end after {PATIENCE:?}");
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Ok(message)) => found.push(Found {
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
            }),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(passes) => {}
            Some(Err(error)) => bail!("topic {topic}: {error}"),
        }
    }
    Ok(found)
}

fn passes(code: rdkafka::types::RDKafkaErrorCode) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(code, Code::BrokerTransportFailure | Code::AllBrokersDown | Code::NotLeaderForPartition)
}

/// Partitions that have a leader.
fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).context("the broker does not answer")?;
    let partitions = metadata.topics().first().map(rdkafka::metadata::MetadataTopic::partitions);
    Ok(partitions.into_iter().flatten().filter(|one| one.leader() >= 0).map(|one| one.id()).collect())
}

/// Waits for a future on this thread: the client library has threads of its own.
fn wait<F: Future>(work: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut work = pin!(work);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Waiting::from_waker(&waker)) {
            return done;
        }
        std::thread::park();
    }
}
