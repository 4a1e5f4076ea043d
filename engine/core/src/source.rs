//! The contract of a source: splits, and readers that say where they stand.
//!
//! A [`Source`] is a description; it opens nothing until the job runs. Its input is divided into
//! *splits* (a file, a partition, a shard): the unit that is read by one worker at a time and has a
//! position of its own. The engine owns everything else: which worker reads which split, barriers,
//! flow control, event time, what happens to bad input, and where a restart seeks to.

use crate::context::SourceContext;
use crate::error::Result;
use crate::place::Place;
use crate::sink::CommitError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

/// Describes an input that can be read again from a position.
pub trait Source: Send + Sync + 'static {
    /// What it yields.
    type Record: Send + 'static;
    /// What is needed to open one split; kept in the checkpoint.
    type Split: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static;
    /// Where a reader stands; kept in the checkpoint.
    type Position: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static;
    /// Reads one split.
    type Reader: SplitReader<Record = Self::Record, Position = Self::Position>;

    /// The splits there are now, each with an identity that stays the same over restarts. Called once
    /// at start, and then every [`Source::discover_every`]. Known identities are skipped, unless the split was read
    /// to its end and is now listed with another description: then it is another one of that name, and is read. Later, an error
    /// ends the job if it is one of the job ([`Error::job`](crate::Error::job)); after any other one the
    /// engine looks again.
    ///
    /// # Errors
    /// The input cannot be listed (a missing file, a server that refuses).
    fn splits(
        &self,
        context: &SourceContext,
    ) -> impl Future<Output = Result<Vec<(String, Self::Split)>>> + Send;

    /// Whether a split that has ended, and is no longer listed, is forgotten. If its identity is listed again later,
    /// that is a new split, read from its beginning. So only say so if a listing has *everything*, and an identity
    /// never comes back for something that was read. Otherwise every split that ever was stays in the checkpoints.
    fn forgets(&self) -> bool {
        false
    }

    /// How many splits one instance has open at a time. If there are more, they take turns: one that has had nothing
    /// for a quarter of a second, or was read for long, is dropped and later opened again where it stood.
    fn open_at_once(&self) -> usize {
        64
    }

    /// Opens what tells the outside how far it may forget, if that is wanted; one for the whole source, before any
    /// split is opened. See [`Acknowledger`].
    ///
    /// # Errors
    /// The outside cannot be reached, or refuses.
    fn acknowledger(
        &self,
        _context: &SourceContext,
    ) -> impl Future<Output = Result<Option<Acknowledging<Self::Position>>>> + Send {
        async { Ok(None) }
    }

    /// How often to look for new splits; `None` if the set is fixed at start. A source that looks for
    /// new splits never ends by itself.
    fn discover_every(&self) -> Option<Duration> {
        None
    }

    /// Opens a split at a position, or at its beginning. May connect: it runs on the engine's I/O threads. Work
    /// that blocks belongs into [`crate::background::blocking`]. One that takes longer than
    /// [`SourceContext::deadline`] ends the job.
    ///
    /// # Errors
    /// The split cannot be opened, or the position is no longer there: an error, never a silent
    /// "nearest" position.
    fn open(
        &self,
        split: Self::Split,
        at: Option<Self::Position>,
        context: &SourceContext,
    ) -> impl Future<Output = Result<Self::Reader>> + Send;

    /// What has become of splits that an earlier run read to their end, and that are listed again: called once at a
    /// start, with the splits as they are listed now and the positions of their ends. One answer for each.
    ///
    /// # Errors
    /// One of them is not what was read, and what to do about it only a person knows.
    fn revisit(
        &self,
        finished: Vec<(Self::Split, Self::Position)>,
        _context: &SourceContext,
    ) -> impl Future<Output = Result<Vec<Revisit>>> + Send {
        async move { Ok(vec![Revisit::Finished; finished.len()]) }
    }

    /// Where it reads, so that a job that would read its own output is refused before anything is claimed.
    fn places(&self) -> Vec<Place> {
        Vec::new()
    }
}

/// What has become of a split that was read to its end by an earlier run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revisit {
    /// It is as it was: nothing of it is read any more.
    Finished,
    /// It may go on behind its end, and is read on from there.
    GoesOn,
    /// Another one has its name, and is read from its beginning.
    New,
}

/// Reads one split.
pub trait SplitReader: Send + 'static {
    /// What it yields.
    type Record;
    /// Where it stands.
    type Position;

    /// Appends what is there, up to about `out.room()` records. **Never blocks**: a reader that must
    /// wait does its waiting elsewhere (see [`crate::background`]) and returns [`Progress::Idle`] after
    /// arranging that `cx`'s waker is called when there is more.
    ///
    /// # Errors
    /// The split can no longer be read. Input that was read and is malformed is no error: give it to
    /// [`Records::bad`].
    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<Self::Record>) -> Result<Progress>;

    /// The job drains: it is complete with what was read, and cannot be continued. Appends what is held back only
    /// because more of it might come, such as a last line without its end. Called instead of
    /// [`SplitReader::poll`], and as it, until the answer is [`Progress::End`]. What was not read yet stays unread.
    ///
    /// # Errors
    /// As for [`SplitReader::poll`].
    fn drain(&mut self, _cx: &mut Context<'_>, _out: &mut Records<Self::Record>) -> Result<Progress> {
        Ok(Progress::End)
    }

    /// The position of the *next* record: what [`Source::open`] gets after a restart. It covers exactly
    /// what [`SplitReader::poll`] has handed out.
    fn position(&self) -> Self::Position;
}

/// Tells the outside what it may forget: a queue, a consumer group, a replication slot.
///
/// It is told of a checkpoint only after all output up to that checkpoint is committed, so nothing that is forgotten
/// can be needed again. It is told of every split that has changed, ended ones too, and the last checkpoint of a run
/// is acknowledged before the run ends. After a crash it is told again of everything that the restored checkpoint
/// knows; meanwhile the outside may deliver again what was not acknowledged, and a reader that is opened at a position
/// passes over what is before that.
pub trait Acknowledger: Send + 'static {
    /// Where a reader stands.
    type Position;

    /// What is before these positions, each in its split, is done with. Idempotent: that is a success too if it
    /// was acknowledged already.
    ///
    /// # Errors
    /// [`CommitError::Retry`] if it may have happened or may yet work: the engine asks again, with a limit.
    /// [`CommitError::Refused`] if it never will: the job stops.
    fn acknowledge(
        &mut self,
        upto: &[(String, Self::Position)],
    ) -> impl Future<Output = Result<(), CommitError>> + Send;
}

type Acknowledged<'a> = Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send + 'a>>;

/// An [`Acknowledger`] of any type; see [`Source::acknowledger`].
pub struct Acknowledging<P>(Box<dyn ErasedAcknowledger<P>>);

impl<P> Debug for Acknowledging<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acknowledging")
    }
}

impl<P: Send + Sync + 'static> Acknowledging<P> {
    /// By this one.
    pub fn by(acknowledger: impl Acknowledger<Position = P>) -> Self {
        Self(Box::new(acknowledger))
    }

    /// See [`Acknowledger::acknowledge`].
    ///
    /// # Errors
    /// As there.
    pub async fn acknowledge(&mut self, upto: &[(String, P)]) -> Result<(), CommitError> {
        self.0.acknowledge_boxed(upto).await
    }
}

trait ErasedAcknowledger<P>: Send {
    fn acknowledge_boxed<'a>(&'a mut self, upto: &'a [(String, P)]) -> Acknowledged<'a>;
}

impl<A: Acknowledger> ErasedAcknowledger<A::Position> for A {
    fn acknowledge_boxed<'a>(&'a mut self, upto: &'a [(String, A::Position)]) -> Acknowledged<'a> {
        Box::pin(self.acknowledge(upto))
    }
}

/// What a reader has to say after a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Records were appended, or more can be read at once.
    Ready,
    /// Nothing now; the waker will be called.
    Idle,
    /// Nothing ever again.
    End,
}

/// What happens to input that cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BadInput {
    /// The job stops with an error that says where and why.
    #[default]
    Fail,
    /// It is counted and passed over.
    Skip,
    /// It goes to the dead-letter stream of
    /// [`Job::source_with_dead_letters`](crate::Job::source_with_dead_letters).
    DeadLetter,
}

/// A piece of input that could not be understood. Flat, so that every format can hold it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct DeadLetter {
    /// Where it was, for people: `file.csv line 17`, `orders[3] offset 1204`.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
    /// The input itself, as text: what is not UTF-8 is replaced, see [`raw_base64`](Self::raw_base64).
    pub raw: String,
    /// The input itself, exactly, in Base64, if [`raw`](Self::raw) is not exactly it.
    pub raw_base64: Option<String>,
    /// Whether the input was longer than [`DeadLetter::MAX_RAW`] bytes, and only its beginning is here.
    pub cut: bool,
    /// What came with it, as a JSON object: the key, headers and time of a message.
    pub beside: Option<String>,
}

impl DeadLetter {
    /// Most bytes of the input that a dead letter keeps, unless it is made by [`whole`](Self::whole).
    pub const MAX_RAW: usize = 4096;

    /// Makes one of the beginning of the input.
    pub fn new(place: impl Into<String>, reason: impl Into<String>, raw: &[u8]) -> Self {
        let kept = &raw[..raw.len().min(Self::MAX_RAW)];
        Self { cut: kept.len() < raw.len(), ..Self::whole(place, reason, kept) }
    }

    /// Makes one of all of the input. For transports that have a limit of their own for it.
    pub fn whole(place: impl Into<String>, reason: impl Into<String>, raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw);
        let raw_base64 = (text.as_bytes() != raw).then(|| base64(raw));
        let (place, reason, raw) = (place.into(), reason.into(), text.into_owned());
        Self { place, reason, raw, raw_base64, cut: false, beside: None }
    }

    /// The same, with what came with it.
    #[must_use]
    pub fn with(mut self, beside: &serde_json::Map<String, serde_json::Value>) -> Self {
        self.beside = serde_json::to_string(beside).ok();
        self
    }

    /// Bytes of memory that its texts take.
    fn bytes(&self) -> usize {
        [&self.raw_base64, &self.beside].into_iter().flatten().map(String::len).sum::<usize>()
            + self.raw.len()
    }
}

/// Base64 with padding (RFC 4648).
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let six = (bits >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= three.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    text
}

/// Where a reader puts what it read.
#[derive(Debug)]
pub struct Records<T> {
    pub(crate) records: Vec<T>,
    pub(crate) bad: Vec<DeadLetter>,
    pub(crate) bytes: usize,
    pub(crate) moved: bool,
    limit: usize,
}

impl<T> Records<T> {
    /// An empty buffer for about `limit` records. For tests of readers; the engine makes its own.
    pub fn with_limit(limit: usize) -> Self {
        Self { records: Vec::new(), bad: Vec::new(), bytes: 0, moved: false, limit }
    }

    /// How many more records are wanted. A reader may go over it by a batch that it has already.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.records.len() + self.bad.len())
    }

    /// Appends a record that took `bytes` bytes of memory or input, whichever is more; flow control
    /// counts them.
    pub fn push(&mut self, record: T, bytes: usize) {
        self.records.push(record);
        self.bytes += bytes;
    }

    /// Appends many records that took `bytes` bytes together.
    pub fn extend(&mut self, records: impl IntoIterator<Item = T>, bytes: usize) {
        self.records.extend(records);
        self.bytes += bytes;
    }

    /// Reports a piece of input that could not be understood. The engine applies the source's policy.
    pub fn bad(&mut self, letter: DeadLetter) {
        self.bytes += letter.bytes();
        self.bad.push(letter);
    }

    /// Says that the position moved although there is no record, and that this is worth a checkpoint even in a job that is
    /// otherwise idle: the outside keeps what it may forget. Each call may cost one, so not more often than every few seconds.
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// The records so far.
    pub fn records(&self) -> &[T] {
        &self.records
    }

    /// The bad input so far.
    pub fn bad_input(&self) -> &[DeadLetter] {
        &self.bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_keeps_the_exact_bytes_and_says_if_it_is_cut() {
        let letter = DeadLetter::new("in line 1", "no number", b"x1");
        assert_eq!((letter.raw.as_str(), letter.raw_base64, letter.cut), ("x1", None, false));
        for (bytes, text) in [
            (b"\xff".as_slice(), "/w=="),
            (b"\xff\x00", "/wA="),
            (b"\xff\x00\xfe", "/wD+"),
            (b"\x00\x00\x00\x00\x01\x80", "AAAAAAGA"),
        ] {
            let letter = DeadLetter::whole("", "", bytes);
            assert_eq!(letter.raw_base64.as_deref(), Some(text), "{bytes:?}");
        }
        let long = vec![b'x'; DeadLetter::MAX_RAW + 1];
        let (cut, whole) = (DeadLetter::new("", "", &long), DeadLetter::whole("", "", &long));
        assert_eq!((cut.raw.len(), cut.cut), (DeadLetter::MAX_RAW, true));
        assert_eq!((whole.raw.len(), whole.cut), (long.len(), false));
        let beside = serde_json::json!({"key": "a", "headers": [["h", "1"]]});
        let letter = whole.with(beside.as_object().unwrap());
        assert_eq!(letter.beside.as_deref(), Some(beside.to_string().as_str()));
    }
}
