//! How a record becomes a message.

use super::message::Outgoing;
use staunch_connectors::formats::{Destination, Encoder, Encoding};
use staunch_core::Result;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

/// How records become messages: a description, which opens nothing.
pub trait Form: Clone + Send + Sync + 'static {
    /// What the sink takes.
    type Record: Send + 'static;
    /// Makes the messages.
    type Maker: Maker<Self::Record>;

    /// What makes messages for a topic.
    ///
    /// # Errors
    /// The settings of a format do not suffice.
    fn maker(&self, topic: &str) -> Result<Self::Maker>;
}

/// Makes messages on one worker.
pub trait Maker<T>: Send + 'static {
    /// Called once, before the first record.
    ///
    /// # Errors
    /// Something outside, such as a registry of schemas, refuses or cannot be reached.
    fn open(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Puts a record into an empty message.
    ///
    /// # Errors
    /// The format has no form for it.
    fn make(&mut self, record: T, message: &mut Outgoing) -> Result<()>;
}

/// Records are messages.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Form for Plain {
    type Record = Outgoing;
    type Maker = Self;

    fn maker(&self, _: &str) -> Result<Self> {
        Ok(Self)
    }
}

impl Maker<Outgoing> for Plain {
    async fn open(&mut self) -> Result<()> {
        Ok(())
    }

    fn make(&mut self, record: Outgoing, message: &mut Outgoing) -> Result<()> {
        *message = record;
        Ok(())
    }
}

/// Records are values in a format.
pub struct Values<T, E> {
    pub(super) values: E,
    pub(super) record: PhantomData<fn(T)>,
}

impl<T, E: Clone> Clone for Values<T, E> {
    fn clone(&self) -> Self {
        Self { values: self.values.clone(), record: PhantomData }
    }
}

impl<T, E: fmt::Debug> fmt::Debug for Values<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("values", &self.values).finish_non_exhaustive()
    }
}

impl<T: Send + 'static, E: Encoding<T>> Form for Values<T, E> {
    type Record = T;
    type Maker = Values<T, E::Encoder>;

    fn maker(&self, topic: &str) -> Result<Self::Maker> {
        Ok(Values { values: self.values.encoder(&Destination::value(topic))?, record: PhantomData })
    }
}

impl<T: Send + 'static, E: Encoder<T>> Maker<T> for Values<T, E> {
    async fn open(&mut self) -> Result<()> {
        self.values.open().await
    }

    fn make(&mut self, record: T, message: &mut Outgoing) -> Result<()> {
        self.values.encode(&record, message.value.insert(Vec::new()))
    }
}

/// Records are keys with values, or without one if it is gone.
pub struct Upserts<K, V, A, B> {
    pub(super) keys: A,
    pub(super) values: B,
    pub(super) record: PhantomData<fn(K, V)>,
}

impl<K, V, A: Clone, B: Clone> Clone for Upserts<K, V, A, B> {
    fn clone(&self) -> Self {
        Self { keys: self.keys.clone(), values: self.values.clone(), record: PhantomData }
    }
}

impl<K, V, A: fmt::Debug, B: fmt::Debug> fmt::Debug for Upserts<K, V, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upserts")
            .field("keys", &self.keys)
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}

impl<K, V, A, B> Form for Upserts<K, V, A, B>
where
    K: Send + 'static,
    V: Send + 'static,
    A: Encoding<K>,
    B: Encoding<V>,
{
    type Record = (K, Option<V>);
    type Maker = Upserts<K, V, A::Encoder, B::Encoder>;

    fn maker(&self, topic: &str) -> Result<Self::Maker> {
        let keys = self.keys.encoder(&Destination::key(topic))?;
        let values = self.values.encoder(&Destination::value(topic))?;
        Ok(Upserts { keys, values, record: PhantomData })
    }
}

impl<K, V, A, B> Maker<(K, Option<V>)> for Upserts<K, V, A, B>
where
    K: Send + 'static,
    V: Send + 'static,
    A: Encoder<K>,
    B: Encoder<V>,
{
    async fn open(&mut self) -> Result<()> {
        self.keys.open().await?;
        self.values.open().await
    }

    fn make(&mut self, (key, value): (K, Option<V>), message: &mut Outgoing) -> Result<()> {
        self.keys.encode(&key, message.key.insert(Vec::new()))?;
        match value {
            Some(value) => self.values.encode(&value, message.value.insert(Vec::new())),
            None => Ok(()),
        }
    }
}

/// A form with more in its messages.
#[derive(Clone)]
pub struct With<F, S> {
    pub(super) form: F,
    pub(super) set: S,
}

impl<F: fmt::Debug, S> fmt::Debug for With<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("With").field("form", &self.form).finish_non_exhaustive()
    }
}

impl<F: Form, S> Form for With<F, S>
where
    S: Fn(&F::Record, &mut Outgoing) + Clone + Send + Sync + 'static,
{
    type Record = F::Record;
    type Maker = With<F::Maker, S>;

    fn maker(&self, topic: &str) -> Result<Self::Maker> {
        Ok(With { form: self.form.maker(topic)?, set: self.set.clone() })
    }
}

impl<T: Send + 'static, M: Maker<T>, S> Maker<T> for With<M, S>
where
    S: Fn(&T, &mut Outgoing) + Clone + Send + Sync + 'static,
{
    async fn open(&mut self) -> Result<()> {
        self.form.open().await
    }

    fn make(&mut self, record: T, message: &mut Outgoing) -> Result<()> {
        (self.set)(&record, message);
        self.form.make(record, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use staunch_connectors::formats::{Json, Text};

    fn made<F: Form>(form: &F, record: F::Record) -> Outgoing {
        let mut message = Outgoing::default();
        form.maker("t").unwrap().make(record, &mut message).unwrap();
        message
    }

    #[test]
    fn a_value_that_is_gone_is_a_tombstone_and_an_empty_one_is_not() {
        let form = Upserts { keys: Text, values: Text, record: PhantomData::<fn(String, String)> };
        assert_eq!(made(&form, ("k".into(), None)), Outgoing::tombstone("k"));
        assert_eq!(made(&form, ("k".into(), Some(String::new()))), Outgoing::keyed("k", ""));
    }

    #[test]
    fn a_record_says_topic_partition_key_and_headers_and_the_format_says_the_value() {
        let values = Values { values: Json::new(), record: PhantomData::<fn(u32)> };
        let set = |record: &u32, message: &mut Outgoing| {
            message.topic = Some(format!("t{record}"));
            message.partition = Some(3);
            message.key = Some(record.to_be_bytes().to_vec());
            message.headers.push(("h".into(), None));
            message.value = Some(b"the format has the last word".to_vec());
        };
        let message = made(&With { form: values, set }, 7);
        let expected = Outgoing {
            topic: Some("t7".into()),
            partition: Some(3),
            headers: vec![("h".into(), None)],
            ..Outgoing::keyed([0, 0, 0, 7], "7")
        };
        assert_eq!(message, expected);
    }
}
