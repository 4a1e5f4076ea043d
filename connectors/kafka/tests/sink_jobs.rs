//! Jobs that write into topics of a real broker: what messages are made of, restarts, and what is refused and when.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use rdkafka::message::{Headers, Message, OwnedMessage};
use serde::{Deserialize, Serialize};
use staunch::core::error::Kind;
use staunch::memory::collection;
use staunch::prelude::{Controls, Error, Job, Outcome, Run, Summary};
use staunch_connectors::formats::{Json, Text};
use staunch_kafka::sink::{Form, Outgoing, Topic, sink};
use staunch_kafka::{Settings, topics};
use staunch_testing::servers;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{PATIENCE, fresh, values};
use tempfile::TempDir;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Order {
    id: u64,
    country: String,
}

fn order(id: u64, country: &str) -> Order {
    Order { id, country: country.to_owned() }
}

/// Runs a job that writes these records.
fn write<F: Form<Record: Clone + Serialize + for<'a> Deserialize<'a> + Sync>>(
    records: Vec<F::Record>,
    to: Topic<F>,
) -> Result<Summary, Error> {
    let folder = tempfile::tempdir().unwrap();
    let job = fresh("write");
    let run = Run::new(&job, folder.path());
    run.run(move |job| {
        job.source("in", collection(records.clone())).sink("out", to.clone());
        Ok(())
    })
}

fn refused<F: Form<Record: Clone + Serialize + for<'a> Deserialize<'a> + Sync>>(
    records: Vec<F::Record>,
    to: Topic<F>,
) -> String {
    let error = write(records, to).unwrap_err();
    assert_eq!(error.kind(), Kind::Job, "{error}");
    error.to_string()
}

fn pairs(messages: &[OwnedMessage]) -> Vec<(Option<String>, Option<String>)> {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    messages.iter().map(|m| (text(m.key()), text(m.payload()))).collect()
}

#[test]
fn a_record_chooses_topic_partition_key_and_headers_and_its_value_has_the_format() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let (orders, other) = (support::Topic::new(&broker, 3), support::Topic::new(&broker, 1));
    let elsewhere = other.name.clone();
    // Not long ago: the broker deletes what is old.
    let minute_ago = staunch::prelude::Timestamp::from(std::time::SystemTime::now()).as_millis() - 60_000;
    let to = sink(&*broker, &orders.name).json().with(move |order: &Order, message: &mut Outgoing| {
        message.key = Some(order.id.to_string().into());
        message.partition = Some(2);
        message.headers.push(("country".into(), Some(order.country.clone().into())));
        message.timestamp_ms = Some(minute_ago);
        if order.country == "fr" {
            (message.topic, message.partition) = (Some(elsewhere.clone()), None);
        }
    });
    write(vec![order(1, "de"), order(2, "fr"), order(3, "it")], to).unwrap();
    let here = orders.settled(2);
    let json = |id, country| serde_json::to_string(&order(id, country)).unwrap();
    let pair = |id: u64, country| (Some(id.to_string()), Some(json(id, country)));
    assert_eq!(pairs(&here), [pair(1, "de"), pair(3, "it")]);
    assert_eq!(here[0].timestamp().to_millis(), Some(minute_ago));
    let header = here[0].headers().unwrap().get(0);
    assert_eq!((header.key, header.value), ("country", Some(&b"de"[..])));
    assert_eq!(pairs(&other.settled(0)), [pair(2, "fr")]);
}

#[test]
fn upserts_are_keys_with_values_and_tombstones_and_equal_keys_share_a_partition_with_java_clients() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let totals = support::Topic::new(&broker, 4);
    totals.configure("cleanup.policy", "compact");
    let records = [("de", Some(1)), ("fr", Some(2)), ("de", None), ("it", Some(3))];
    let records = records.map(|(key, value): (&str, Option<u32>)| (key.to_owned(), value)).to_vec();
    write(records, sink(&*broker, &totals.name).upserts(Text, Json::new())).unwrap();
    let all: Vec<Vec<_>> = (0..4).map(|partition| pairs(&totals.settled(partition))).collect();
    let some = |key: &str, value: Option<&str>| (Some(key.to_owned()), value.map(str::to_owned));
    let holders = |key: &str| -> Vec<usize> {
        (0..4).filter(|at| all[*at].iter().any(|(k, _)| k.as_deref() == Some(key))).collect()
    };
    // The partitions of murmur2, as Java's `DefaultPartitioner` gives them.
    assert_eq!(["de", "fr", "it"].map(holders), JAVA_PARTITIONS.map(|partition| vec![partition]));
    let de: Vec<_> =
        all[holders("de")[0]].iter().filter(|(k, _)| k.as_deref() == Some("de")).cloned().collect();
    assert_eq!(de, [some("de", Some("1")), some("de", None)]);
}

/// Of four, for `de`, `fr`, `it`: (murmur2(key) & 0x7fffffff) % 4, computed apart from the library.
const JAVA_PARTITIONS: [usize; 3] = [1, 3, 1];

#[test]
fn what_a_topic_would_not_take_is_refused_with_its_key_before_anything_is_decided() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let topic = support::Topic::new(&broker, 2);
    let plain = || sink(&*broker, &topic.name);
    let keyed = |value: &[u8]| Outgoing::keyed("the-key", value);
    let large = vec![Outgoing::keyed("a", "b"), keyed(&vec![0; 1_048_588])];
    let says = refused(large, plain());
    assert!(says.contains("\"the-key\"") && says.contains("too large"), "{says}");
    assert!(says.contains(&topic.name), "{says}");
    let says = refused(vec![keyed(&[0; 200])], plain().most_message_bytes(100));
    assert!(says.contains("\"the-key\"") && says.contains("the limit is 100"), "{says}");
    let says = refused(vec![Outgoing { partition: Some(2), ..keyed(b"v") }], plain());
    assert!(says.contains("\"the-key\"") && says.contains("no partition 2; it has 2"), "{says}");
    let says = refused(vec![Outgoing { topic: Some(fresh("nowhere")), ..keyed(b"v") }], plain());
    assert!(says.contains("\"the-key\"") && says.contains("nowhere"), "{says}");
    let says = refused(vec![Outgoing { timestamp_ms: Some(-1), ..keyed(b"v") }], plain());
    assert!(says.contains("\"the-key\"") && says.contains("1970"), "{says}");
    topic.configure("cleanup.policy", "compact");
    let says = refused(vec![Outgoing::value("v")], plain());
    assert!(says.contains("compacted"), "{says}");
    let says = refused(vec![keyed(b"v")], sink(&*broker, fresh("nowhere")));
    assert!(says.contains("cannot be written") && says.contains("Create it"), "{says}");
    assert!(topic.settled(0).is_empty() && topic.settled(1).is_empty());
    // As large as the topic takes.
    topic.configure("max.message.bytes", "3000000");
    write(vec![keyed(&vec![0; 2_900_000])], plain()).unwrap();
    let sizes = |partition| {
        topic.settled(partition).iter().map(|m| m.payload().unwrap_or_default().len()).sum::<usize>()
    };
    assert_eq!(sizes(0) + sizes(1), 2_900_000);
}

#[test]
fn a_transaction_longer_than_the_brokers_allow_is_refused_at_the_start() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let topic = support::Topic::new(&broker, 1);
    // Brokers allow 15 minutes unless told otherwise.
    let settings = Settings::new(&broker).option("transaction.timeout.ms", "1800000");
    let says = refused(vec![Outgoing::value("v")], sink(settings, &topic.name));
    assert!(says.contains("transaction.max.timeout.ms"), "{says}");
}

#[test]
fn a_topic_of_tokens_that_would_forget_is_refused() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let (topic, tokens) = (support::Topic::new(&broker, 1), support::Topic::new(&broker, 1));
    let to = sink(&*broker, &topic.name).tokens(&tokens.name);
    let says = refused(vec![Outgoing::value("v")], to);
    assert!(says.contains("would forget") && says.contains("set it to compact"), "{says}");
}

#[test]
fn at_least_once_needs_no_transaction_and_says_so() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let topic = support::Topic::new(&broker, 1);
    let many: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    let to = sink(&*broker, &topic.name).text::<String>().at_least_once();
    use staunch::core::sink::{Guarantee, Sink};
    assert_eq!(to.guarantee(), Guarantee::AtLeastOnce);
    write(many.clone(), to).unwrap();
    assert_eq!(values(&topic.settled(0)), many);
}

/// A job that copies the values of one topic into another one, with its checkpoints.
struct Copy {
    job: String,
    folder: TempDir,
    from: support::Topic,
    to: support::Topic,
}

impl Copy {
    fn run(&self, workers: usize) -> (Controls, JoinHandle<Result<Summary, Error>>) {
        let controls = Controls::default();
        let run = Run::new(&self.job, self.folder.path())
            .workers(workers)
            .checkpoint_every(Duration::from_millis(50))
            .controls(&controls);
        let from = topics(&*self.from.broker, [&self.from.name]).text();
        let to = sink(&*self.to.broker, &self.to.name).text::<String>().key(|line| line.clone());
        let build = move |job: &Job<'_>| {
            job.source("in", from.clone()).sink("out", to.clone());
            Ok(())
        };
        (controls, std::thread::spawn(move || run.run(build)))
    }

    /// What a reader sees, sorted.
    fn out(&self) -> Vec<String> {
        let mut all: Vec<String> =
            (0..2).flat_map(|partition| values(&self.to.messages(partition))).collect();
        all.sort();
        all
    }

    fn until(&self, count: usize) {
        let limit = Instant::now() + PATIENCE * 2;
        while self.out().len() < count {
            assert!(Instant::now() < limit, "{} of {count}", self.out().len());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|index| format!("{index:05}")).collect()
}

#[test]
fn output_goes_on_over_restarts_and_over_a_broker_that_is_killed_in_between() {
    let Some(mut own) = servers::Own::up("kafka") else { return };
    let broker = own.address("STAUNCH_KAFKA");
    let (folder, job) = (tempfile::tempdir().unwrap(), fresh("copy"));
    let (from, to) = (support::Topic::new(&broker, 2), support::Topic::new(&broker, 2));
    let copy = Copy { job, folder, from, to };
    copy.from.produce(0, &numbers(0, 100));
    let (controls, running) = copy.run(2);
    copy.until(100);
    // Commits are under way while the broker dies.
    copy.from.produce(1, &numbers(100, 2000));
    own.kill();
    own.start();
    copy.from.produce(0, &numbers(2000, 2100));
    copy.until(2100);
    controls.stop();
    assert_eq!(running.join().unwrap().unwrap().outcome, Outcome::Stopped);
    copy.from.produce(1, &numbers(2100, 2200));
    let (controls, running) = copy.run(3);
    copy.until(2200);
    controls.stop();
    running.join().unwrap().unwrap();
    assert_eq!(copy.out(), numbers(0, 2200));
}
