//! One client library for the partitions of a worker: its thread, its troubles, and the lag of what it reads.

use super::queue::Bell;
use crate::apart::Apart;
use crate::settings::{Settings, is_refusal};
use rdkafka::bindings as raw;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use staunch_core::context::{Figure, SourceContext};
use staunch_core::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How long the thread of a client waits for events before it looks whether it is still wanted.
const WAIT: Duration = Duration::from_millis(200);
/// Kilobytes that the library reads ahead for each partition. The engine bounds what is read beyond that.
const AHEAD_KB: &str = "4096";

/// The client library, with all partitions that a worker reads of one source.
pub(super) struct Client {
    consumer: Arc<Apart<BaseConsumer<Ears>>>,
    unwanted: Arc<AtomicBool>,
    lag: Mutex<HashMap<(String, i32), Lag>>,
    figures: [Figure; 2],
}

#[derive(Clone, Copy)]
pub(super) struct Lag {
    pub records: i64,
    pub seconds: f64,
}

/// What the library says beside records.
#[derive(Default)]
struct Ears {
    /// Why nothing will come any more.
    refused: Mutex<Option<String>>,
    bells: Mutex<Vec<Weak<Bell>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Ears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 {
            tracing::warn!(facility, "Kafka client: {message}");
        } else {
            tracing::debug!(facility, "Kafka client: {message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let certificate = reason.contains("certificate verify failed");
        // Groups are for others to look at; reading needs none.
        let group =
            error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::GroupAuthorizationFailed);
        if !group && (certificate || error.rdkafka_error_code().is_some_and(is_refusal)) {
            lock(&self.refused).get_or_insert_with(|| reason.to_owned());
            for bell in lock(&self.bells).drain(..).filter_map(|bell| bell.upgrade()) {
                bell.ring();
            }
        } else {
            tracing::warn!(%error, "Kafka: {reason}");
        }
    }
}

impl ConsumerContext for Ears {}

impl Client {
    pub fn new(settings: &Settings, group: &str, isolation: &str, context: &SourceContext) -> Result<Self> {
        let name = format!("staunch-{}-{}-{}", context.job, context.source, context.instance);
        let config = settings.client(
            &name,
            &[
                ("group.id", group),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", "error"),
                ("enable.partition.eof", "true"),
                ("isolation.level", isolation),
                ("check.crcs", "true"),
                ("queued.max.messages.kbytes", AHEAD_KB),
                ("fetch.queue.backoff.ms", "20"),
            ],
        )?;
        let consumer: BaseConsumer<Ears> =
            config.create_with_context(Ears::default()).map_err(|e| settings.not_made(e))?;
        let (consumer, unwanted) = (Arc::new(Apart::new(consumer)), Arc::new(AtomicBool::new(false)));
        let (polled, stop) = (Arc::clone(&consumer), Arc::clone(&unwanted));
        let poll = move || {
            while !stop.load(Ordering::Relaxed) {
                // Events go to the ears. Records have queues of their own.
                if let Some(Ok(_)) = polled.poll(WAIT) {
                    tracing::warn!("a Kafka record came on the queue of the client and not of its partition");
                }
            }
        };
        std::thread::Builder::new()
            .name("staunch-kafka".into())
            .spawn(poll)
            .map_err(|e| Error::external("no thread for a Kafka client").caused_by(e))?;
        let figures = ["lag_records", "lag_seconds"].map(|name| context.figure(name));
        Ok(Self { consumer, unwanted, lag: Mutex::default(), figures })
    }

    pub fn consumer(&self) -> &BaseConsumer<impl ConsumerContext> {
        &self.consumer
    }

    pub fn native(&self) -> *mut raw::rd_kafka_t {
        self.consumer.client().native_ptr()
    }

    /// The bell is rung if nothing will come any more.
    pub fn listen(&self, bell: &Arc<Bell>) {
        let mut bells = lock(&self.consumer.context().bells);
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(bell));
    }

    /// # Errors
    /// The brokers will not have us.
    pub fn check(&self) -> Result<()> {
        match &*lock(&self.consumer.context().refused) {
            None => Ok(()),
            Some(reason) => Err(Error::job(format!(
                "Kafka refuses this job: {reason}. Correct the credentials, the certificates or the access list"
            ))),
        }
    }

    /// Begins to read a partition.
    pub fn assign(&self, topic: &str, partition: i32, offset: i64) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        self.consumer.incremental_assign(&list)
    }

    /// Reads a partition no more.
    pub fn unassign(&self, topic: &str, partition: i32) {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::warn!(topic, partition, %error, "a Kafka partition could not be given back");
        }
        self.lag(topic, partition, None);
    }

    /// The end of a partition, as the last answer of the broker said it.
    pub fn end_of(&self, topic: &std::ffi::CStr, partition: i32) -> i64 {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: reads two numbers that the library keeps.
        unsafe {
            raw::rd_kafka_get_watermark_offsets(
                self.native(),
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        high
    }

    /// Tells how far behind a partition is; `None` when it is read no more.
    pub fn lag(&self, topic: &str, partition: i32, lag: Option<Lag>) {
        let mut all = lock(&self.lag);
        match lag {
            Some(lag) => all.insert((topic.to_owned(), partition), lag),
            None => all.remove(&(topic.to_owned(), partition)),
        };
        self.figures[0].set(all.values().map(|lag| lag.records as f64).sum());
        self.figures[1].set(all.values().map(|lag| lag.seconds).fold(0.0, f64::max));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The thread lets go of the library last, so that closing it holds nobody up.
        self.unwanted.store(true, Ordering::Relaxed);
    }
}
