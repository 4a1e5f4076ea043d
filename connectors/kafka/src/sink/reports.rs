//! What librdkafka says to a producer: what became of what was sent, and whether a connection broke.

use super::message::shown;
use crate::settings::is_refusal;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use staunch_core::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What became of what was sent, since [`Reports::begin`].
#[derive(Default)]
pub(super) struct Reports {
    delivered: AtomicU64,
    /// The first message that was not delivered: its topic and key, and why.
    failed: Mutex<Option<(String, KafkaError)>>,
    /// Why the brokers will not have us.
    refused: Mutex<Option<String>>,
    troubled: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reports {
    /// Forgets what was before.
    pub fn begin(&self) {
        self.delivered.store(0, SeqCst);
        *lock(&self.failed) = None;
    }

    /// Messages that a broker has confirmed.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(SeqCst)
    }

    /// The first message that was not delivered: which, and why.
    pub fn failed(&self) -> Option<(String, KafkaError)> {
        lock(&self.failed).take()
    }

    /// Anything that the library has warned of. It says so of every connection that is lost, unless it was idle for a
    /// minute, before it sends again what had no answer.
    pub fn is_troubled(&self) -> bool {
        self.troubled.load(SeqCst)
    }

    /// What was warned of until now does not count.
    pub fn calm(&self) {
        self.troubled.store(false, SeqCst);
    }

    /// # Errors
    /// The brokers will not have us.
    pub fn check(&self) -> Result<()> {
        match &*lock(&self.refused) {
            None => Ok(()),
            Some(reason) => Err(Error::job(format!(
                "Kafka refuses this job: {reason}. Correct the credentials, the certificates or the access list"
            ))),
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let level = level as i32;
        if level <= RDKafkaLogLevel::Info as i32 {
            self.troubled.store(true, SeqCst);
        }
        if level <= RDKafkaLogLevel::Warning as i32 {
            tracing::warn!(facility, "Kafka client: {message}");
        } else {
            tracing::debug!(facility, "Kafka client: {message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.troubled.store(true, SeqCst);
        let certificate = reason.contains("certificate verify failed");
        if certificate || error.rdkafka_error_code().is_some_and(is_client_refusal) {
            lock(&self.refused).get_or_insert_with(|| reason.to_owned());
        } else {
            tracing::warn!(%error, "Kafka: {reason}");
        }
    }
}

/// Whether nothing will ever work. What is refused for one topic says so with its message.
fn is_client_refusal(code: RDKafkaErrorCode) -> bool {
    is_refusal(code) && code != RDKafkaErrorCode::TopicAuthorizationFailed
}

impl ConsumerContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => drop(self.delivered.fetch_add(1, SeqCst)),
            Err((error, message)) => {
                let which = format!("topic {}, key {}", message.topic(), shown(message.key()));
                lock(&self.failed).get_or_insert_with(|| (which, error.clone()));
            }
        }
    }
}
