//! What the tests do at the broker, as any other client of it would. Knows nothing of the connector.
#![allow(dead_code, clippy::unwrap_used)]

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Generous: a broker beside a compiler is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A topic of a test's own.
pub struct Topic {
    pub broker: String,
    pub name: String,
}

fn config(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    config
}

fn wait<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
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

impl Topic {
    pub fn new(broker: &str, partitions: i32) -> Self {
        Self::named(broker, fresh("t"), partitions)
    }

    pub fn named(broker: &str, name: String, partitions: i32) -> Self {
        let (admin, options) = admin(broker);
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let done = wait(admin.create_topics([&new], &options)).unwrap();
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        let topic = Self { broker: broker.to_owned(), name };
        topic.settle(partitions);
        topic
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
}
