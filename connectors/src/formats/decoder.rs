//! Bytes to records: the contract of a format that is read.

use staunch_core::source::DeadLetter;
use staunch_core::{Error, Result};
use std::fmt::{self, Display};
use std::future::{Future, ready};

/// How bytes become records: a description, which opens nothing.
pub trait Format: Clone + Send + Sync + 'static {
    /// What a record is.
    type Record: Send + 'static;
    /// Turns bytes into records.
    type Decoder: Decoder<Record = Self::Record>;

    /// Looks at the settings; called before anything is read.
    ///
    /// # Errors
    /// What is wrong with them: a mistake of the job.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Makes a decoder of messages: of records that stand alone, each in bytes of its own.
    ///
    /// # Errors
    /// The settings do not suffice for records that stand alone.
    fn decoder(&self) -> Result<Self::Decoder>;
}

/// Turns the bytes of one record into the record.
pub trait Decoder: Send + 'static {
    /// What a record is.
    type Record: Send + 'static;

    /// Decodes one record; `None` if it is to be passed over. Never waits.
    ///
    /// # Errors
    /// [`NotDecoded::Bad`] says what is wrong with it. After [`NotDecoded::Lacks`] the caller awaits
    /// [`fetch`](Self::fetch) and asks again, with the same bytes.
    fn decode(&mut self, bytes: &[u8]) -> Result<Option<Self::Record>, NotDecoded>;

    /// Decodes a message that has a key and no value, as compacted topics have them for what is deleted.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); by default such a message is bad input.
    fn decode_deletion(&mut self, key: Option<&[u8]>) -> Result<Option<Self::Record>, NotDecoded> {
        let _ = key;
        Err(Undecodable::new("the message has no value (a tombstone), and this format has no record for it")
            .into())
    }

    /// Fetches from outside what the last [`decode`](Self::decode) lacked, such as a schema. Repeats what may pass.
    ///
    /// # Errors
    /// Only if it cannot be known whether it is there. If it is known not to be there, this succeeds, and `decode` says
    /// so of the record.
    fn fetch(&mut self) -> impl Future<Output = Result<()>> + Send {
        ready(Ok(()))
    }
}

/// Why there is no record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotDecoded {
    /// The bytes are no record, and never will be.
    Bad(Undecodable),
    /// Something must be fetched first, see [`Decoder::fetch`].
    Lacks,
}

impl NotDecoded {
    /// What is wrong, where nothing can be fetched.
    pub fn into_bad(self) -> Undecodable {
        match self {
            NotDecoded::Bad(why) => why,
            NotDecoded::Lacks => Undecodable::new("needs a schema, which cannot be fetched here"),
        }
    }
}

impl From<Undecodable> for NotDecoded {
    fn from(why: Undecodable) -> Self {
        NotDecoded::Bad(why)
    }
}

/// What is wrong with the bytes of a record, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undecodable {
    /// What was found, what was expected, and where.
    pub reason: String,
    /// For programs: the field it is in, as `order.items[3].price`.
    pub field: Option<String>,
    /// For programs: the byte of the record that it was found at, from 0.
    pub offset: Option<usize>,
}

impl Undecodable {
    /// Of which nothing is known but this.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), field: None, offset: None }
    }

    /// The same, in this field; the reason says so.
    #[must_use]
    pub fn in_field(mut self, field: impl Into<String>) -> Self {
        let field = self.field.insert(field.into());
        self.reason.push_str(&format!(", in field `{field}`"));
        self
    }

    /// The same, at this byte; the reason says so.
    #[must_use]
    pub fn at(mut self, offset: usize) -> Self {
        self.offset = Some(offset);
        self.reason.push_str(&format!(", at byte {offset}"));
        self
    }

    /// The dead letter of the record with these bytes, which was found at `place`. A transport with a limit of its own
    /// for records makes it of all of them, by [`DeadLetter::whole`].
    pub fn letter(&self, place: impl Into<String>, raw: &[u8]) -> DeadLetter {
        DeadLetter::new(place, self.to_string(), raw)
    }

    /// An error of the job, for records that are not input but part of its settings.
    pub fn into_error(self, what: &str) -> Error {
        Error::job(format!("{what}: {self}"))
    }
}

impl Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
