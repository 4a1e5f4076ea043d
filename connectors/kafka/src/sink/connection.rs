//! A producer with transactions: it takes the sink over, and writes messages with a token.
//!
//! **When a producer is used for another transaction.** The library sends again what had no answer, over a new
//! connection. An end of a transaction that was sent twice could come to the broker late, and end the next one under the
//! same producer epoch: half of it would be committed. So a producer goes on only if no connection broke while it was used
//! and no request had time to be sent again. Otherwise the next one is fenced off from it by a new epoch.

use super::message::{Outgoing, shown};
use super::reports::Reports;
use super::staged::commit_error;
use super::tokens::{Held, Key, Tokens, Value};
use crate::apart::Apart;
use crate::settings::{Settings, failed};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use staunch_core::owner::{Mark, Owner, Words};
use staunch_core::sink::{CommitError, SinkContext};
use staunch_core::staged::{Applied, Token};
use staunch_core::{Error, Result};
use std::fmt;
use std::time::{Duration, Instant};

/// How long one step of a transaction may take before its outcome counts as unknown.
const STEP: Duration = Duration::from_secs(30);
/// How long an attempt to abort may take. If it does not work, whoever takes over ends the transaction.
const ABORT: Duration = Duration::from_secs(5);
/// A transaction that took longer may have had requests that were sent twice (`socket.timeout.ms` is 60 s).
const SHORT: Duration = Duration::from_secs(10);
/// After a pause as long as this a connection that closes is not spoken of any more.
const PAUSE: Duration = Duration::from_secs(30);
/// How often it is looked whether all is confirmed.
const LOOK: Duration = Duration::from_millis(2);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// What must be found in the topic of tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// Nothing, or the tokens of any start.
    Any,
    /// Nothing, or the tokens of an earlier start.
    Earlier,
    /// Our own fence.
    Ours,
}

/// A producer that has taken the sink over.
struct Active {
    producer: Apart<BaseProducer<Reports>>,
    held: Held,
    used: Instant,
    was_short: bool,
}

impl Active {
    fn may_go_on(&self) -> bool {
        self.producer.poll(Duration::ZERO);
        self.was_short && self.used.elapsed() < PAUSE && !self.producer.context().is_troubled()
    }
}

/// The way to the brokers, under the transactional id of the sink.
pub(super) struct Connection {
    config: ClientConfig,
    settings: Settings,
    tokens: Tokens,
    topic: String,
    context: SinkContext,
    /// `None` before it has taken over, and after an error.
    active: Option<Active>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("topic", &self.topic)
            .field("sink", &self.context.sink)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Takes nothing over yet.
    pub fn new(
        config: ClientConfig,
        settings: &Settings,
        topic: &str,
        tokens: Tokens,
        context: &SinkContext,
    ) -> Self {
        let (settings, topic, context) = (settings.clone(), topic.to_owned(), context.clone());
        Self { config, settings, tokens, topic, context, active: None }
    }

    /// Whether these tokens are ours to go on with.
    fn is_ours(&self, held: &Held, context: &SinkContext, expect: Expect) -> Result<()> {
        let Tokens { topic, .. } = &self.tokens;
        let place = format!(
            "topic {topic} at Kafka {}, with the tokens of topic {},",
            self.settings.brokers(),
            self.topic
        );
        let start_over = format!("delete topic {topic} and the output");
        let words = Words { place: &place, start_over: &start_over };
        let (owner, found, needed) = (Owner::from(context), held.mark.as_ref(), context.taken_over_by);
        match expect {
            // What is not there may be about to be there: the markers of a transaction are written after its end is answered.
            _ if !held.settled => owner.takes_over(found, None, words),
            Expect::Any => owner.may_write(found, needed, words),
            Expect::Earlier => owner.takes_over(found, needed, words),
            Expect::Ours => owner.still_has(found, words),
        }
    }

    /// Whether the sink could be taken over; changes nothing. Without the topic of tokens nobody had it before.
    pub fn check(&self, context: &SinkContext, tokens_exist: bool) -> Result<()> {
        let held = match tokens_exist {
            true => self.tokens.read(&context.job, &context.sink, false)?,
            false => Held { settled: true, ..Held::default() },
        };
        self.is_ours(&held, context, Expect::Any)
    }

    /// Fences earlier producers of the sink and reads what they committed. Looked at before, so that an older start
    /// that comes late does not fence the newer one for nothing, and after, when nobody else can write any more.
    fn take_over(&mut self, context: &SinkContext, expect: Expect) -> Result<&mut Active> {
        self.active = None;
        let read = |settled| self.tokens.read(&context.job, &context.sink, settled);
        self.is_ours(&Held { settled: false, ..read(false)? }, context, expect)?;
        let producer = self.config.create_with_context(Reports::default());
        let producer: Apart<BaseProducer<Reports>> =
            Apart::new(producer.map_err(|e| self.settings.not_made(e))?);
        self.init(&producer, context)?;
        let held = read(true)?;
        self.is_ours(&held, context, expect)?;
        producer.context().calm();
        Ok(self.active.insert(Active { producer, held, used: Instant::now(), was_short: true }))
    }

    fn init(&self, producer: &BaseProducer<Reports>, context: &SinkContext) -> Result<()> {
        let what = || format!("sink `{}` cannot begin transactions", context.sink);
        let until = Instant::now() + self.tokens.limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let error = match producer.init_transactions(left.min(STEP)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            producer.poll(Duration::ZERO);
            producer.context().check()?;
            match &error {
                KafkaError::Transaction(e) if e.code() == RDKafkaErrorCode::InvalidTransactionTimeout => {
                    return Err(Error::job(format!(
                        "{}: the brokers allow no transaction that long; set the option transaction.timeout.ms to at most \
                         their transaction.max.timeout.ms",
                        what()
                    )));
                }
                KafkaError::Transaction(e) if e.is_retriable() && Instant::now() < until => {
                    tracing::warn!(%error, sink = context.sink, "asking again to begin transactions");
                    std::thread::sleep(BETWEEN_ATTEMPTS);
                }
                _ => return Err(failed(what(), error)),
            }
        }
    }

    /// Takes the sink over, durably.
    pub fn fence(&mut self, context: &SinkContext) -> Result<()> {
        let value =
            Value { lineage: context.lineage.clone(), generation: context.generation, checkpoint: None };
        let key = Key { job: context.job.clone(), sink: context.sink.clone(), instance: None };
        let until = Instant::now() + self.tokens.limit;
        loop {
            self.take_over(context, Expect::Earlier)?;
            match self.transact(std::iter::empty(), &key, &value) {
                Ok(()) => break,
                // The start before, which did not know yet that it is over, may have taken it back.
                Err(CommitError::Retry(error)) if Instant::now() < until => {
                    tracing::warn!(%error, sink = context.sink, "taking over again");
                    std::thread::sleep(BETWEEN_ATTEMPTS);
                }
                Err(CommitError::Retry(error) | CommitError::Refused(error)) => return Err(error),
            }
        }
        if let Some(active) = &mut self.active {
            active.held.mark = Some(Mark { lineage: value.lineage, generation: value.generation });
        }
        Ok(())
    }

    /// What is committed, and that it is still ours.
    pub fn held(&mut self, context: &SinkContext) -> Result<&Held> {
        if self.active.as_ref().is_none_or(|active| !active.may_go_on()) {
            self.take_over(context, Expect::Ours)?;
        }
        let active = self.active.as_ref();
        active.map(|active| &active.held).ok_or_else(|| Error::internal("the tokens were not read"))
    }

    /// Writes what one instance has for one checkpoint, unless it is there.
    pub fn apply(
        &mut self,
        token: &Token,
        rows: impl Iterator<Item = Result<Outgoing, CommitError>>,
    ) -> Result<Applied, CommitError> {
        let context = self.context.clone();
        let held = self.held(&context).map_err(commit_error)?;
        if held.newest.get(&token.instance) >= Some(&token.checkpoint) {
            return Ok(Applied::Before);
        }
        let key = Key { job: token.job.clone(), sink: token.sink.clone(), instance: Some(token.instance) };
        let value = Value {
            lineage: token.lineage.clone(),
            generation: token.generation,
            checkpoint: Some(token.checkpoint),
        };
        if let Err(error) = self.transact(rows, &key, &value) {
            return Err(match (self.active.take(), error) {
                // Who was fenced hears at once whether it is over.
                (Some(active), CommitError::Retry(error))
                    if active.producer.client().fatal_error().is_some() =>
                {
                    drop(active);
                    let held = self.tokens.read(&context.job, &context.sink, false);
                    let is_ours =
                        |held| self.is_ours(&Held { settled: false, ..held }, &context, Expect::Ours);
                    held.and_then(is_ours).err().map_or(CommitError::Retry(error), commit_error)
                }
                (_, error) => error,
            });
        }
        if let Some(active) = &mut self.active {
            active.held.newest.insert(token.instance, token.checkpoint);
        }
        Ok(Applied::Now)
    }

    /// One transaction with messages and a token. After an error its producer is not used again.
    fn transact(
        &mut self,
        rows: impl Iterator<Item = Result<Outgoing, CommitError>>,
        key: &Key,
        value: &Value,
    ) -> Result<(), CommitError> {
        let Some(active) = &mut self.active else {
            return Err(CommitError::Retry(Error::internal("a transaction before the sink was taken over")));
        };
        let transaction = Transaction {
            producer: &active.producer,
            topic: &self.topic,
            tokens: &self.tokens.topic,
            sink: &self.context.sink,
        };
        let began = Instant::now();
        let done = transaction.run(rows, key, value);
        active.used = Instant::now();
        active.was_short = began.elapsed() < SHORT;
        done
    }
}

/// A transaction that is open, or is about to be.
struct Transaction<'a> {
    producer: &'a BaseProducer<Reports>,
    topic: &'a str,
    tokens: &'a str,
    sink: &'a str,
}

impl Transaction<'_> {
    fn run(
        &self,
        rows: impl Iterator<Item = Result<Outgoing, CommitError>>,
        key: &Key,
        value: &Value,
    ) -> Result<(), CommitError> {
        let producer = self.producer;
        let wrong = |what: &str, error: KafkaError| {
            commit_error(failed(format!("sink `{}`: a transaction could not be {what}", self.sink), error))
        };
        producer.context().begin();
        producer.begin_transaction().map_err(|e| wrong("begun", e))?;
        let sent = self.send_all(rows, key, value).and_then(|sent| {
            flush(producer, STEP).map_err(|e| wrong("written", e))?;
            Ok(sent)
        });
        if let Err(error) = sent.and_then(|sent| self.all_delivered(sent)) {
            if producer.client().fatal_error().is_none()
                && let Err(error) = producer.abort_transaction(ABORT)
            {
                tracing::warn!(%error, sink = self.sink, "a transaction could not be aborted; the next start ends it");
            }
            return Err(error);
        }
        // If there is an error it may have been committed all the same: the tokens tell whoever takes over.
        producer.commit_transaction(STEP).map_err(|e| wrong("committed", e))
    }

    fn send_all(
        &self,
        rows: impl Iterator<Item = Result<Outgoing, CommitError>>,
        key: &Key,
        value: &Value,
    ) -> Result<u64, CommitError> {
        let mut sent = 0;
        for row in rows {
            self.send(&row?, self.topic)?;
            sent += 1;
        }
        let token = Outgoing { partition: Some(0), ..Outgoing::keyed(json(key)?, json(value)?) };
        self.send(&token, self.tokens)?;
        Ok(sent + 1)
    }

    fn send(&self, message: &Outgoing, topic: &str) -> Result<(), CommitError> {
        let mut record = message.record(topic, ());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(20));
                }
                Err((error, back)) => {
                    let which = format!("topic {}, key {}", back.topic, shown(message.key.as_deref()));
                    return Err(self.not_delivered(&which, error));
                }
            }
        }
    }

    /// Every message that was sent has a report, and all are good.
    fn all_delivered(&self, sent: u64) -> Result<(), CommitError> {
        let reports = self.producer.context();
        if let Some((which, error)) = reports.failed() {
            return Err(self.not_delivered(&which, error));
        }
        let delivered = reports.delivered();
        if delivered != sent {
            let text = format!("sink `{}`: of {sent} messages {delivered} are confirmed", self.sink);
            return Err(CommitError::Retry(Error::external(text)));
        }
        Ok(())
    }

    fn not_delivered(&self, which: &str, error: KafkaError) -> CommitError {
        use RDKafkaErrorCode as Code;
        let never = matches!(
            error.rdkafka_error_code(),
            Some(
                Code::MessageSizeTooLarge
                    | Code::TopicAuthorizationFailed
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownTopic
                    | Code::UnknownPartition
                    | Code::InvalidMessage
                    | Code::InvalidRecord
                    | Code::InvalidTopic
                    | Code::InvalidTimestamp
                    | Code::PolicyViolation
            )
        );
        let what = format!("sink `{}`: the message of {which} was not written", self.sink);
        if never {
            CommitError::Refused(
                Error::job(format!(
                    "{what}. Nothing of its checkpoint is, and it stays staged in the checkpoint: correct the topic or the \
                     access list, and run the job again"
                ))
                .caused_by(error),
            )
        } else {
            commit_error(failed(what, error))
        }
    }
}

/// Waits until all is confirmed or not. The library's own function looks every tenth of a second only.
fn flush(producer: &BaseProducer<Reports>, limit: Duration) -> Result<(), KafkaError> {
    let until = Instant::now() + limit;
    loop {
        match producer.flush(Duration::ZERO) {
            Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) if Instant::now() < until => {
                producer.poll(LOOK);
            }
            done => return done,
        }
    }
}

fn json<T: serde::Serialize>(token: &T) -> Result<Vec<u8>, CommitError> {
    let failed = |e: serde_json::Error| {
        CommitError::Refused(Error::internal("a token has no form as JSON").caused_by(e))
    };
    serde_json::to_vec(token).map_err(failed)
}
