//! Topics as a sink: what goes into a message, and when it is there for readers.
//!
//! Promises that a reader with read_committed sees each record once, whatever dies when; that no transaction is open
//! between checkpoints, so that none can expire, however long an outage lasts; and that what a topic would never take is
//! refused before anything is decided. Knows no format: it hands records to an encoder.
//!
//! Reading order: `message` (what goes out), `form` (how a record becomes one), `staged` (the target of the staged
//! strategy), `connection` (one transaction), `tokens` (the topic that remembers), `cluster` (what is asked of the
//! brokers beforehand), `at_least_once`, `halves` (which of them a job gets).

mod at_least_once;
mod cluster;
mod connection;
mod form;
mod halves;
mod message;
mod reports;
mod staged;
mod tokens;

pub use form::{Form, Maker, Plain, Upserts, Values, With};
pub use halves::{Halves, Writing};
pub use message::Outgoing;
pub use staged::Target;

use crate::settings::Settings;
use halves::Promise;
use serde::Serialize;
use staunch_connectors::formats::{Encoding, Json, Text};
use staunch_core::Result;
use staunch_core::place::Place;
use staunch_core::sink::{Guarantee, Sink, SinkContext};
use std::marker::PhantomData;

/// A sink into a topic, exactly once for readers with read_committed. `brokers` as for [`topics`](crate::topics()). As it
/// is made here it takes [`Outgoing`] messages; [`Topic::json`], [`Topic::text`], [`Topic::encode`] and
/// [`Topic::upserts`] make one that takes other records.
pub fn sink<B: Into<Settings>>(brokers: B, topic: impl Into<String>) -> Topic<Plain> {
    Topic { target: Target::new(brokers.into(), topic.into()), form: Plain, promise: Promise::Staged }
}

/// A topic that a job writes; made by [`sink`].
#[derive(Clone, Debug)]
pub struct Topic<F> {
    target: Target,
    form: F,
    promise: Promise,
}

impl Topic<Plain> {
    /// Each record is the value of a message, as JSON.
    #[must_use]
    pub fn json<T: Serialize + Send + 'static>(self) -> Topic<Values<T, Json<T>>> {
        self.encode(Json::new())
    }

    /// Each record is the value of a message, as text.
    #[must_use]
    pub fn text<T: AsRef<str> + Send + 'static>(self) -> Topic<Values<T, Text>> {
        self.encode(Text)
    }

    /// Each record is the value of a message, in any format.
    #[must_use]
    pub fn encode<T: Send + 'static, E: Encoding<T>>(self, values: E) -> Topic<Values<T, E>> {
        self.of(Values { values, record: PhantomData })
    }

    /// Each record is a key and, unless it is gone, its newest value; what is gone is a tombstone.
    #[must_use]
    pub fn upserts<K, V, A, B>(self, keys: A, values: B) -> Topic<Upserts<K, V, A, B>>
    where
        K: Send + 'static,
        V: Send + 'static,
        A: Encoding<K>,
        B: Encoding<V>,
    {
        self.of(Upserts { keys, values, record: PhantomData })
    }
}

impl<F: Form> Topic<F> {
    /// The key of a message, by its record. What has the same key goes to the same partition.
    #[must_use]
    pub fn key<K: Into<Vec<u8>>>(
        self,
        key: impl Fn(&F::Record) -> K + Clone + Send + Sync + 'static,
    ) -> Topic<With<F, impl Fn(&F::Record, &mut Outgoing) + Clone + Send + Sync + 'static>> {
        self.with(move |record, message| message.key = Some(key(record).into()))
    }

    /// What else is in a message, by its record: topic, partition, key, headers, time. The value comes from the format.
    #[must_use]
    pub fn with<S>(self, set: S) -> Topic<With<F, S>>
    where
        S: Fn(&F::Record, &mut Outgoing) + Clone + Send + Sync + 'static,
    {
        let Self { target, form, promise } = self;
        Topic { target, form: With { form, set }, promise }
    }
}

impl<F> Topic<F> {
    fn of<G>(self, form: G) -> Topic<G> {
        Topic { target: self.target, form, promise: self.promise }
    }

    /// The topic for tokens, one for each sink; by default `staunch-JOB-SINK-commits`. If it is not there it is made. Its
    /// name is also the transactional id.
    #[must_use]
    pub fn tokens(mut self, topic: impl Into<String>) -> Self {
        self.target.tokens = Some(topic.into());
        self
    }

    /// Bytes of a message that its topic takes, key and headers included; larger ones are refused before anything is
    /// decided. Without it the `max.message.bytes` of the topic counts.
    #[must_use]
    pub fn most_message_bytes(mut self, bytes: usize) -> Self {
        self.target.most_bytes = Some(bytes);
        self
    }

    /// Messages go out at once, without a transaction: those since the last checkpoint come again after a crash.
    #[must_use]
    pub fn at_least_once(mut self) -> Self {
        self.promise = Promise::AtLeastOnce;
        self
    }
}

impl<F: Form> Sink for Topic<F> {
    type Record = F::Record;
    type Writer = Writing<F::Maker, F::Record>;
    type Committer = Halves;

    async fn writer(&self, context: &SinkContext) -> Result<Self::Writer> {
        Writing::open(&self.target, self.promise, self.form.maker(&self.target.topic)?, context).await
    }

    async fn committer(&self, context: &SinkContext) -> Result<Self::Committer> {
        Halves::open(&self.target, self.promise, context).await
    }

    fn places(&self) -> Vec<Place> {
        // Several sinks may write into one topic, but each needs tokens of its own.
        self.target.tokens.iter().map(|topic| Place::Named(format!("kafka-tokens:{topic}"))).collect()
    }

    fn guarantee(&self) -> Guarantee {
        match self.promise {
            Promise::Staged => Guarantee::ExactlyOnce,
            Promise::AtLeastOnce => Guarantee::AtLeastOnce,
        }
    }
}
