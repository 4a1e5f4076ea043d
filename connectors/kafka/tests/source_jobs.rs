//! Jobs that read topics of a real broker: restarts, other numbers of workers, topics that change, and trouble.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use staunch::core::error::Kind;
use staunch::core::metrics::Metrics;
use staunch::memory::{Collected, collect};
use staunch::prelude::{Controls, Error, Outcome, Run, Summary};
use staunch_kafka::{Lost, Record, Settings, Start, Topics, topics};
use staunch_testing::servers::{self, Own};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{PATIENCE, Topic, fresh};
use tempfile::TempDir;

/// A job that copies topics, its checkpoints, and what came out over all its runs.
struct Copy {
    folder: TempDir,
    out: Collected<String>,
}

/// One run of it.
struct Running {
    controls: Controls,
    out: Collected<String>,
    thread: JoinHandle<Result<Summary, Error>>,
}

impl Copy {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), out: collect() }
    }

    fn run(&self, workers: usize, source: &Topics<String>) -> Running {
        let (controls, out, source) = (Controls::default(), self.out.clone(), source.clone());
        let run = Run::new("copy", self.folder.path())
            .workers(workers)
            .checkpoint_every(Duration::from_millis(50))
            .controls(&controls);
        let build = move |job: &staunch::core::Job<'_>| {
            job.source("in", source.clone()).sink("out", out.clone());
            Ok(())
        };
        Running { controls, out: self.out.clone(), thread: std::thread::spawn(move || run.run(build)) }
    }

    /// What came out, sorted.
    fn all(&self) -> Vec<String> {
        let mut all = self.out.committed();
        all.sort();
        all
    }
}

impl Running {
    /// Waits until so many records are out.
    fn until(&self, count: usize) {
        let limit = Instant::now() + PATIENCE;
        while self.out.committed().len() < count {
            let (now, over) = (self.out.committed().len(), self.thread.is_finished());
            assert!(!over, "the job ended with {now} of {count} records");
            assert!(Instant::now() < limit, "{now} of {count} records");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(self) {
        self.controls.stop();
        assert_eq!(self.thread.join().unwrap().unwrap().outcome, Outcome::Stopped);
    }

    fn end(self) -> Summary {
        self.thread.join().unwrap().unwrap()
    }

    fn fails(self) -> Error {
        self.thread.join().unwrap().unwrap_err()
    }
}

fn values(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|index| format!("{index:05}")).collect()
}

fn lines(topic: &Topic) -> Topics<String> {
    topics(&topic.broker, [&topic.name]).discover_every(Duration::from_millis(200)).text()
}

#[test]
fn a_restart_goes_on_at_the_positions_of_the_checkpoint_with_any_number_of_workers() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let (topic, copy, group) = (Topic::new(&broker, 4), Copy::new(), fresh("g"));
    let source = topics(&broker, [&topic.name]).group(&group).text();
    let mut written = 0;
    for workers in [1, 3, 2] {
        for partition in 0..4 {
            topic.produce(partition, &values(written, written + 50));
            written += 50;
        }
        let running = copy.run(workers, &source);
        running.until(written);
        running.stop();
        assert_eq!(copy.all(), values(0, written));
        let told: i64 = (0..4).map(|partition| topic.told(&group, partition).unwrap()).sum();
        assert_eq!(told, written as i64, "the group is told of what is committed");
    }
}

#[test]
fn topics_and_partitions_that_appear_are_read_from_their_beginning_even_after_a_start_at_the_end() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let name = fresh("found");
    let (topic, copy) = (Topic::named(&broker, name.clone(), 1), Copy::new());
    topic.produce(0, &["before the start"]);
    let source = topics(&broker, [format!("{name}*")]).discover_every(Duration::from_millis(200));
    let source = source.start(Start::Latest).text();
    let running = copy.run(2, &source);
    // It is at the end once the first checkpoint knows the partition; an appended record shows that.
    let until = Instant::now() + PATIENCE;
    let mut appended = 0;
    while copy.out.committed().is_empty() && Instant::now() < until {
        topic.produce(0, &values(appended, appended + 1));
        appended += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    topic.grow_to(2);
    topic.produce(1, &["in a new partition"]);
    let other = Topic::named(&broker, format!("{name}-other"), 1);
    other.produce(0, &["in a new topic"]);
    let has = |what: &str| copy.out.committed().iter().any(|value| value == what);
    while !(has("in a new partition") && has("in a new topic")) {
        assert!(Instant::now() < until, "{:?}", copy.all());
        std::thread::sleep(Duration::from_millis(10));
    }
    running.stop();
    // What appears while the job does not run is not missed either.
    topic.grow_to(3);
    topic.produce(2, &["while it was stopped"]);
    let running = copy.run(1, &source);
    while !has("while it was stopped") {
        assert!(Instant::now() < until, "{:?}", copy.all());
        std::thread::sleep(Duration::from_millis(10));
    }
    running.stop();
    assert!(!has("before the start"));
    let all = copy.all();
    let mut once = all.clone();
    once.dedup();
    assert_eq!(all, once);
}

#[test]
fn deleted_records_are_an_error_that_says_what_is_lost_and_how_to_go_on() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let (topic, copy) = (Topic::new(&broker, 1), Copy::new());
    topic.produce(0, &values(0, 100));
    let running = copy.run(1, &lines(&topic));
    running.until(100);
    running.stop();
    topic.produce(0, &values(100, 150));
    topic.delete_before(0, 120);
    let error = copy.run(1, &lines(&topic)).fails();
    assert_eq!(error.kind(), Kind::Job, "{error}");
    let text = error.to_string();
    assert!(text.contains("deleted offsets 100 to 119") && text.contains("Lost::GoOn"), "{text}");
    let running = copy.run(1, &lines(&topic).on_lost(Lost::GoOn));
    running.until(130);
    running.stop();
    assert_eq!(copy.all(), [values(0, 100), values(120, 150)].concat());
}

#[test]
fn a_topic_that_was_made_anew_is_an_error() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let (topic, copy) = (Topic::new(&broker, 1), Copy::new());
    topic.produce(0, &values(0, 100));
    let running = copy.run(1, &lines(&topic));
    running.until(100);
    running.stop();
    topic.delete();
    let again = Topic::named(&broker, topic.name.clone(), 1);
    again.produce(0, &values(0, 7));
    let error = copy.run(1, &lines(&topic)).fails();
    assert!(error.to_string().contains("made anew"), "{error}");
}

#[test]
fn a_broker_that_is_killed_and_comes_back_is_waited_for() {
    let Some(mut own) = Own::up("kafka") else { return };
    let broker = own.address("STAUNCH_KAFKA");
    let (topic, copy) = (Topic::new(&broker, 2), Copy::new());
    topic.produce(0, &values(0, 100));
    let running = copy.run(2, &lines(&topic));
    running.until(100);
    own.kill();
    own.start();
    topic.produce(1, &values(100, 200));
    running.until(200);
    running.stop();
    assert_eq!(copy.all(), values(0, 200));
}

#[test]
fn a_wrong_password_ends_the_job_at_once_with_the_reason() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let Some(sasl) = servers::address("STAUNCH_KAFKA_SASL") else { return };
    let topic = Topic::new(&broker, 1);
    topic.produce(0, &values(0, 10));
    let with = |password: &str| {
        let settings = Settings::new(&sasl)
            .option("security.protocol", "SASL_PLAINTEXT")
            .option("sasl.mechanism", "PLAIN")
            .option("sasl.username", "staunch")
            .option("sasl.password", password);
        topics(settings, [&topic.name]).bounded().text()
    };
    let (copy, began) = (Copy::new(), Instant::now());
    let error = copy.run(1, &with("wrong")).fails();
    assert_eq!(error.kind(), Kind::Job, "{error}");
    assert!(error.to_string().contains("Kafka refuses this job"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30), "the limit of a start is not waited for");
    assert_eq!(copy.run(1, &with("staunch-secret")).end().outcome, Outcome::Finished);
    assert_eq!(copy.all(), values(0, 10));
}

#[cfg(feature = "ssl")]
#[test]
fn a_topic_is_read_over_tls_and_another_authority_is_refused() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let (Some(tls), Some(ca)) = (servers::address("STAUNCH_KAFKA_TLS"), servers::address("STAUNCH_KAFKA_CA"))
    else {
        panic!("a broker without TLS")
    };
    let topic = Topic::new(&broker, 1);
    topic.produce(0, &values(0, 10));
    let settings = Settings::new(&tls).option("security.protocol", "SSL");
    let copy = Copy::new();
    let error = copy.run(1, &topics(settings.clone(), [&topic.name]).bounded().text()).fails();
    assert!(error.to_string().contains("certificate verify failed"), "{error}");
    let settings = settings.option("ssl.ca.location", ca);
    let ended = copy.run(1, &topics(settings, [&topic.name]).bounded().text()).end();
    assert_eq!((ended.outcome, copy.all()), (Outcome::Finished, values(0, 10)));
}

#[test]
fn a_job_up_to_the_end_is_complete_and_stays_so_when_the_topic_grows() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let (topic, copy) = (Topic::new(&broker, 2), Copy::new());
    topic.transact(0, &values(0, 20), true);
    topic.transact(0, &["aborted"], false);
    topic.produce(1, &values(20, 30));
    let source = lines(&topic).bounded();
    assert_eq!(copy.run(2, &source).end().outcome, Outcome::Finished);
    topic.produce(1, &["later"]);
    assert_eq!(copy.run(2, &source).end().outcome, Outcome::AlreadyFinished);
    assert_eq!(copy.all(), values(0, 30));
}

#[test]
fn a_record_has_all_that_kafka_says_of_it_and_a_start_by_time_or_offset_is_exact() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let topic = Topic::new(&broker, 1);
    // Not long ago: the broker deletes what is old.
    let base = staunch::prelude::Timestamp::from(std::time::SystemTime::now()).as_millis() - 60_000;
    for (index, value) in [Some(&b"one"[..]), None, Some(&b""[..])].into_iter().enumerate() {
        topic.produce_whole(0, b"key", value, ("trace", b"7"), base + index as i64 * 1000);
    }
    let read = |start: Start| {
        let (folder, out) = (tempfile::tempdir().unwrap(), collect::<Record>());
        let (source, to, metrics) =
            (topics(&broker, [&topic.name]).bounded().start(start), out.clone(), Metrics::new("copy"));
        let run = Run::new("copy", folder.path()).metrics(&metrics);
        run.run(move |job| {
            job.source("in", source.clone()).sink("out", to.clone());
            Ok(())
        })
        .unwrap();
        (out.committed(), metrics.render().unwrap())
    };
    let (all, metrics) = read(Start::Earliest);
    let first = Record {
        topic: topic.name.clone(),
        partition: 0,
        offset: 0,
        timestamp_ms: Some(base),
        key: Some(b"key".to_vec()),
        value: Some(b"one".to_vec()),
        headers: vec![("trace".to_owned(), Some(b"7".to_vec()))],
    };
    assert_eq!(all[0], first);
    let values: Vec<Option<&[u8]>> = all.iter().map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"one"[..]), None, Some(&b""[..])]);
    assert!(metrics.contains("figure=\"lag_records\""), "{metrics}");
    let from = |start: Start| read(start).0.first().map(|record| record.offset);
    assert_eq!(from(Start::Time(staunch::prelude::Timestamp::from_millis(base + 500))), Some(1));
    assert_eq!(from(Start::Time(staunch::prelude::Timestamp::from_millis(base + 3_600_000))), None);
    assert_eq!(from(Start::Offsets([((topic.name.clone(), 0), 2)].into())), Some(2));
    assert_eq!(from(Start::Latest), None);
}

#[test]
fn a_topic_that_is_not_there_is_an_error_of_the_job() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let error = Copy::new().run(1, &topics(&broker, [fresh("nowhere")]).text()).fails();
    assert_eq!(error.kind(), Kind::Job, "{error}");
    assert!(error.to_string().contains("Create it, or correct the name"), "{error}");
}
