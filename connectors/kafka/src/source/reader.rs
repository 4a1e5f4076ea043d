//! Reads one partition from its queue.

use super::client::{Client, Lag};
use super::queue::{Event, Queue, event};
use super::{Decode, Position, Split};
use crate::record::Incoming;
use rdkafka::error::RDKafkaErrorCode;
use staunch_core::source::{Progress, Records, SplitReader};
use staunch_core::{Error, Result};
use std::ffi::CString;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Most records of one poll, whatever room there is.
const MOST: usize = 2048;
/// How often a reader says how far behind it is.
const LAG_EVERY: Duration = Duration::from_secs(1);

/// Reads one partition.
pub struct Reader<T> {
    split: Split,
    next: i64,
    /// `None` once it has ended.
    queue: Option<Queue>,
    decode: Decode<T>,
    topic: CString,
    told: Option<Instant>,
}

impl<T> std::fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("split", &self.split).field("next", &self.next).finish_non_exhaustive()
    }
}

impl<T> Reader<T> {
    /// One that is at its end.
    pub(super) fn ended(split: Split, next: i64, decode: Decode<T>) -> Self {
        Self { split, next, queue: None, decode, topic: CString::default(), told: None }
    }

    /// Begins to read at `next`, which is there.
    pub(super) fn open(client: Arc<Client>, split: Split, next: i64, decode: Decode<T>) -> Result<Self> {
        let Split { topic, partition, .. } = &split;
        let what = || format!("topic {topic} partition {partition} cannot be read");
        let queue =
            Queue::new(Arc::clone(&client), topic, *partition).ok_or_else(|| Error::external(what()))?;
        client.assign(topic, *partition, next).map_err(|e| crate::settings::failed(what(), e))?;
        let name = CString::new(topic.as_str()).map_err(|e| Error::job(what()).caused_by(e))?;
        Ok(Self { split, next, queue: Some(queue), decode, topic: name, told: None })
    }

    fn close(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.client().unassign(&self.split.topic, self.split.partition);
        }
    }

    /// Everything before `next` was handed out. True if nothing more is wanted.
    fn reach(&mut self, next: i64) -> bool {
        self.next = self.next.max(next);
        self.split.end.is_some_and(|end| self.next >= end)
    }

    fn tell_lag(&mut self, last_ms: Option<i64>, at_end: bool) {
        let Some(queue) = &self.queue else { return };
        if !at_end && self.told.is_some_and(|told| told.elapsed() < LAG_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        let records =
            if at_end { 0 } else { queue.client().end_of(&self.topic, self.split.partition) - self.next };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let behind = last_ms.filter(|_| records > 0).map_or(0.0, |ms| (now - ms as f64 / 1000.0).max(0.0));
        let lag = Lag { records: records.max(0), seconds: behind };
        queue.client().lag(&self.split.topic, self.split.partition, Some(lag));
    }

    fn error(&self, code: RDKafkaErrorCode, text: &str) -> Error {
        let place =
            format!("topic {} partition {} at offset {}", self.split.topic, self.split.partition, self.next);
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                Error::external(format!(
                    "{place}: the broker no longer has what comes next ({text}). Run the job again: it says what is lost, and how \
                 to go on"
                ))
            }
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition => Error::external(format!(
                "{place}: the topic or the partition is gone ({text}). Was it deleted?"
            )),
            code if crate::settings::is_refusal(code) => Error::job(format!(
                "{place}: Kafka refuses to let this job read it: {text}. Correct the access list"
            )),
            _ => Error::external(format!("{place}: {text}")),
        }
    }
}

/// Whether the library goes on by itself.
fn passes(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::ReplicaNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::KafkaStorageError
    )
}

impl<T: Send + 'static> SplitReader for Reader<T> {
    type Record = T;
    type Position = Position;

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<T>) -> Result<Progress> {
        let Some(queue) = &mut self.queue else { return Ok(Progress::End) };
        queue.bell().set(cx.waker());
        queue.client().check()?;
        let most = out.room().min(MOST);
        if most == 0 {
            return Ok(Progress::Ready);
        }
        let taken = queue.take(most);
        if taken.len() == 0 {
            return Ok(Progress::Idle);
        }
        let topic = self.split.topic.clone();
        let (mut records, mut done, mut at_end) = (Vec::with_capacity(taken.len()), false, false);
        for message in taken.messages() {
            match event(message) {
                Some(Event::End(offset)) => {
                    at_end = true;
                    done |= self.reach(offset);
                }
                Some(Event::Error(code, _)) if passes(code) => {}
                // What came before it is handed out by another reader.
                Some(Event::Error(code, text)) => return Err(self.error(code, &text)),
                // Of a batch that began before the position.
                None if message.offset < self.next => {}
                None if self.split.end.is_some_and(|end| message.offset >= end) => done = true,
                None => {
                    at_end = false;
                    records.push(Incoming::new(message, &topic));
                    done |= self.reach(message.offset + 1);
                }
            }
            if done {
                break;
            }
        }
        let last_ms = records.last().and_then(Incoming::timestamp_ms);
        (self.decode)(&records, out);
        self.tell_lag(last_ms, at_end);
        if done {
            self.close();
            return Ok(Progress::End);
        }
        Ok(Progress::Ready)
    }

    fn position(&self) -> Position {
        Position { next: self.next }
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.close();
    }
}
