//! Messages that go out at once. Promises that all of an epoch are confirmed before its checkpoint.

use super::message::{Outgoing, shown};
use super::staged::Target;
use crate::apart::Apart;
use crate::settings::failed;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use staunch_core::background::blocking;
use staunch_core::sink::{Prepared, SinkContext};
use staunch_core::{Committable, Error, Result};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long to wait for news before looking again.
const WAIT: Duration = Duration::from_millis(20);

/// The first message that was not confirmed: its topic and key, and why.
#[derive(Default)]
struct Confirmed(Mutex<Option<(String, KafkaError)>>);

impl ClientContext for Confirmed {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, "Kafka: {reason}");
    }
}

impl ProducerContext for Confirmed {
    /// Messages of the epoch that are on their way.
    type DeliveryOpaque = Arc<AtomicU64>;

    fn delivery(&self, result: &DeliveryResult<'_>, open: Arc<AtomicU64>) {
        if let Err((error, message)) = result {
            let which = format!("topic {}, key {}", message.topic(), shown(message.key()));
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(|| (which, error.clone()));
        }
        open.fetch_sub(1, SeqCst);
    }
}

impl Confirmed {
    fn check(&self, sink: &str) -> Result<()> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some((which, error)) => {
                Err(failed(format!("sink `{sink}`: the message of {which} was not written"), error.clone()))
            }
        }
    }
}

/// Sends what comes.
pub(super) struct Writer {
    producer: Arc<Apart<BaseProducer<Confirmed>>>,
    topic: String,
    sink: String,
    open: Arc<AtomicU64>,
}

impl Writer {
    pub fn open(target: &Target, context: &SinkContext) -> Result<Self> {
        let name = format!("staunch-{}-{}-{}", context.job, context.sink, context.instance);
        let config = target.producer(&name, &[("enable.idempotence", "true")], None)?;
        let producer: BaseProducer<Confirmed> =
            config.create_with_context(Confirmed::default()).map_err(|e| target.settings.not_made(e))?;
        let (topic, sink) = (target.topic.clone(), context.sink.clone());
        Ok(Self { producer: Arc::new(Apart::new(producer)), topic, sink, open: Arc::default() })
    }

    pub async fn write(&mut self, messages: Vec<Outgoing>) -> Result<()> {
        let (producer, topic) = (Arc::clone(&self.producer), self.topic.clone());
        let (sink, open) = (self.sink.clone(), Arc::clone(&self.open));
        let send_all = move || {
            for message in &messages {
                open.fetch_add(1, SeqCst);
                let mut record = message.record(&topic, Arc::clone(&open));
                while let Err((error, back)) = producer.send(record) {
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                        let which = format!("topic {}, key {}", back.topic, shown(message.key.as_deref()));
                        return Err(failed(
                            format!("sink `{sink}`: the message of {which} was not written"),
                            error,
                        ));
                    }
                    record = back;
                    producer.poll(WAIT);
                }
            }
            producer.poll(Duration::ZERO);
            producer.context().check(&sink)
        };
        blocking(send_all).await?
    }

    pub fn cut(&mut self) -> impl Future<Output = Result<Vec<Prepared>>> + Send + 'static {
        let (producer, sink) = (Arc::clone(&self.producer), self.sink.clone());
        let open = std::mem::take(&mut self.open);
        let wait = move || {
            loop {
                producer.context().check(&sink)?;
                if open.load(SeqCst) == 0 {
                    return Ok(Vec::new());
                }
                producer.poll(WAIT);
            }
        };
        async move { blocking(wait).await? }
    }
}

/// Has nothing to commit, and says so if it is given something.
#[derive(Debug)]
pub(super) struct Nothing {
    sink: String,
}

impl Nothing {
    pub fn new(sink: &str) -> Self {
        Self { sink: sink.to_owned() }
    }

    pub fn refuse_any(&self, listed: &[Committable]) -> Result<()> {
        let Some(first) = listed.first() else { return Ok(()) };
        Err(Error::job(format!(
            "the checkpoint lists {} records of sink `{}` (checkpoint {}) that are not committed, but this kind of sink \
             prepares nothing; was .at_least_once() added under the same name? Run the old program until it stops cleanly, \
             or give the new sink a new name",
            first.records, self.sink, first.checkpoint
        )))
    }
}
