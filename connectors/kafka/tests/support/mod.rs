//! What the tests do at the broker, as any other client of it would. Knows nothing of the connector.
#![allow(dead_code, clippy::unwrap_used)]

pub mod proxy;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Generous: a broker beside a compiler is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A topic of a test's own.
pub struct Topic {
    pub broker: String,
    pub name: String,
    /// Looks at it as a reader does. Kept, because closing one takes half a second.
    observer: OnceLock<BaseConsumer>,
}

fn config(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    config
}

/// On a thread of its own: also for callers that are in a runtime.
fn wait<F: Future<Output: Send> + Send>(work: F) -> F::Output {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::scope(|scope| scope.spawn(|| runtime().block_on(work)).join().unwrap())
}

fn admin(broker: &str) -> (AdminClient<DefaultClientContext>, AdminOptions) {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    (config(broker).create().unwrap(), options)
}

/// A name that no other test has.
pub fn fresh(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Closing a client may never end once a broker was restarted, and no test is about that.
fn close<T: Send + 'static>(client: T) {
    std::thread::spawn(move || drop(client));
}

impl Drop for Topic {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            close(observer);
        }
    }
}

impl Topic {
    pub fn new(broker: &str, partitions: i32) -> Self {
        Self::named(broker, fresh("t"), partitions)
    }

    pub fn named(broker: &str, name: String, partitions: i32) -> Self {
        let (admin, options) = admin(broker);
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let done = wait(admin.create_topics([&new], &options)).unwrap();
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        let topic = Self::other(broker, name);
        topic.settle(partitions);
        topic
    }

    /// One that is there already, or is not.
    pub fn other(broker: &str, name: String) -> Self {
        Self { broker: broker.to_owned(), name, observer: OnceLock::new() }
    }

    /// Waits until the broker shows so many partitions, each with a leader.
    fn settle(&self, partitions: i32) {
        let consumer: BaseConsumer = config(&self.broker).create().unwrap();
        loop {
            let all = consumer.fetch_metadata(Some(&self.name), PATIENCE).unwrap();
            let leaders = all.topics()[0].partitions().iter().filter(|partition| partition.leader() >= 0);
            if leaders.count() == usize::try_from(partitions).unwrap() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn grow_to(&self, partitions: i32) {
        let (admin, options) = admin(&self.broker);
        let new = NewPartitions::new(&self.name, usize::try_from(partitions).unwrap());
        let done = wait(admin.create_partitions([&new], &options)).unwrap();
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        self.settle(partitions);
    }

    /// Deletes what is before an offset.
    pub fn delete_before(&self, partition: i32, offset: i64) {
        let (admin, options) = admin(&self.broker);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(offset)).unwrap();
        wait(admin.delete_records(&list, &options)).unwrap();
    }

    /// Deletes all that is in a partition; what comes later has higher offsets.
    pub fn delete_all(&self, partition: i32) {
        let consumer: BaseConsumer = config(&self.broker).create().unwrap();
        let (_, high) = consumer.fetch_watermarks(&self.name, partition, PATIENCE).unwrap();
        self.delete_before(partition, high);
    }

    pub fn delete(&self) {
        let (admin, options) = admin(&self.broker);
        wait(admin.delete_topics(&[&self.name], &options)).unwrap();
    }

    /// Appends values, and waits until the broker has them.
    pub fn produce<V: AsRef<[u8]>>(&self, partition: i32, values: &[V]) {
        let producer: BaseProducer = config(&self.broker).create().unwrap();
        self.send(&producer, partition, values);
        producer.flush(PATIENCE).unwrap();
        assert_eq!(producer.in_flight_count(), 0);
    }

    /// Appends values in a transaction, which is committed or aborted.
    pub fn transact<V: AsRef<[u8]>>(&self, partition: i32, values: &[V], commit: bool) {
        let id = fresh("tests");
        let producer: BaseProducer = config(&self.broker).set("transactional.id", id).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        self.send(&producer, partition, values);
        producer.flush(PATIENCE).unwrap();
        if commit {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }

    fn send<V: AsRef<[u8]>>(&self, producer: &BaseProducer, partition: i32, values: &[V]) {
        for value in values {
            let record = BaseRecord::<(), [u8]>::to(&self.name).partition(partition).payload(value.as_ref());
            producer.send(record).map_err(|(error, _)| error).unwrap();
            producer.poll(Duration::ZERO);
        }
    }

    /// Appends one record with everything a record has.
    pub fn produce_whole(
        &self,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
        header: (&str, &[u8]),
        ms: i64,
    ) {
        let producer: BaseProducer = config(&self.broker).create().unwrap();
        let headers = OwnedHeaders::new().insert(Header { key: header.0, value: Some(header.1) });
        let mut record =
            BaseRecord::to(&self.name).partition(partition).key(key).headers(headers).timestamp(ms);
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(PATIENCE).unwrap();
    }

    /// What a group has been told of a partition.
    pub fn told(&self, group: &str, partition: i32) -> Option<i64> {
        let consumer: BaseConsumer = config(&self.broker).set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name, partition);
        let told = consumer.committed_offsets(list, PATIENCE).unwrap();
        match told.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// All messages of a partition, as a reader with read_committed sees them once no transaction is open.
    pub fn settled(&self, partition: i32) -> Vec<OwnedMessage> {
        let end = |isolation: &str| {
            let consumer: BaseConsumer =
                config(&self.broker).set("isolation.level", isolation).create().unwrap();
            let (_, end) = consumer.fetch_watermarks(&self.name, partition, PATIENCE).unwrap();
            close(consumer);
            end
        };
        let (high, limit) = (end("read_uncommitted"), Instant::now() + PATIENCE);
        while end("read_committed") < high {
            assert!(Instant::now() < limit, "a transaction stays open in {}", self.name);
            std::thread::sleep(Duration::from_millis(10));
        }
        self.messages(partition)
    }

    /// All messages of a partition that a reader with read_committed sees just now.
    pub fn messages(&self, partition: i32) -> Vec<OwnedMessage> {
        let consumer = self.observer.get_or_init(|| {
            config(&self.broker)
                .set("group.id", "observer")
                .set("enable.auto.commit", "false")
                .set("enable.partition.eof", "true")
                .set("fetch.wait.max.ms", "10")
                .set("isolation.level", "read_committed")
                .create()
                .unwrap()
        });
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut messages = Vec::new();
        let limit = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < limit, "no end of {}", self.name);
            match consumer.poll(PATIENCE) {
                Some(Ok(message)) => messages.push(message.detach()),
                Some(Err(KafkaError::PartitionEOF(_))) => return messages,
                other => assert!(other.is_some(), "no end of {}", self.name),
            }
        }
    }

    /// Changes settings of the topic.
    pub fn configure(&self, name: &str, value: &str) {
        let (admin, options) = admin(&self.broker);
        let change = AlterConfig::new(ResourceSpecifier::Topic(&self.name)).set(name, value);
        let done = wait(admin.alter_configs([&change], &options)).unwrap();
        assert!(done.iter().all(Result::is_ok), "{done:?}");
    }
}

/// The values of messages.
pub fn values(messages: &[OwnedMessage]) -> Vec<String> {
    let text = |m: &OwnedMessage| String::from_utf8(m.payload().unwrap_or_default().to_vec()).unwrap();
    messages.iter().map(text).collect()
}
