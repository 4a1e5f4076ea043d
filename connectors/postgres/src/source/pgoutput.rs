//! The messages of pgoutput, version 1: what a logical slot sends, as bytes.
//!
//! Promises that whatever the bytes are, the answer is a message or an error that says what is wrong, and that no length
//! in them is believed before it is compared with what is there. Knows no tables: a row is cells in an order.

use super::lsn::Lsn;
use bytes::Bytes;

/// Columns that a table of the server can have.
const MOST_COLUMNS: usize = 1_664;
/// Tables that one TRUNCATE may name.
const MOST_TRUNCATED: usize = 1 << 16;

/// What is wrong with bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed(pub String);

/// One value of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cell {
    /// NULL.
    Null,
    /// A large value that was not changed, and was not sent.
    Unchanged,
    /// Not a part of what was sent.
    NotSent,
    /// Text, from where to where in the bytes of the row.
    Text(u32, u32),
}

/// The values of a row, in the order of the columns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tuple {
    /// Where the texts are.
    pub bytes: Bytes,
    /// One for each column.
    pub cells: Vec<Cell>,
}

/// What a row was before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Old {
    /// All of it is there, and not only the key: REPLICA IDENTITY FULL.
    pub whole: bool,
    /// Values that were not sent are NULL here if only the key is there.
    pub tuple: Tuple,
}

/// A column, as the log describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// It is a part of the replica identity.
    pub key: bool,
    /// Its name.
    pub name: String,
    /// Number of its type.
    pub oid: u32,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// A transaction begins. All of it was committed before anything of it is sent.
    Begin {
        /// Where its commit is in the log.
        commit: Lsn,
        /// When it was committed, in microseconds since 2000.
        time: i64,
        /// Its number.
        transaction: u32,
    },
    /// It was all of the transaction.
    Commit {
        /// Where its commit is in the log.
        commit: Lsn,
        /// Where the log goes on behind it.
        end: Lsn,
    },
    /// A table, described before the first change of it and after each change of the description.
    Relation {
        /// Number of the table.
        id: u32,
        /// Its schema.
        schema: String,
        /// Its name.
        name: String,
        /// Its columns.
        columns: Vec<Column>,
    },
    /// A new row.
    Insert {
        /// Number of the table.
        id: u32,
        /// The row.
        new: Tuple,
    },
    /// A row is another one.
    Update {
        /// Number of the table.
        id: u32,
        /// What it was; absent if the key is the same and the table has no REPLICA IDENTITY FULL.
        old: Option<Old>,
        /// What it is.
        new: Tuple,
    },
    /// A row is gone.
    Delete {
        /// Number of the table.
        id: u32,
        /// What it was.
        old: Old,
    },
    /// Tables are empty.
    Truncate {
        /// Their numbers.
        ids: Vec<u32>,
    },
    /// Nothing of ours: an origin, a type, a message that a program put into the log.
    Other,
}

struct Input {
    bytes: Bytes,
    at: usize,
}

type Read<T> = Result<T, Malformed>;

fn malformed<T>(what: impl Into<String>) -> Read<T> {
    Err(Malformed(what.into()))
}

impl Input {
    fn take<const N: usize>(&mut self, what: &str) -> Read<[u8; N]> {
        let Some(found) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) else {
            return malformed(format!("it ends in {what}"));
        };
        self.at += N;
        Ok(*found)
    }

    fn byte(&mut self, what: &str) -> Read<u8> {
        Ok(self.take::<1>(what)?[0])
    }

    fn int32(&mut self, what: &str) -> Read<u32> {
        Ok(u32::from_be_bytes(self.take(what)?))
    }

    fn int64(&mut self, what: &str) -> Read<u64> {
        Ok(u64::from_be_bytes(self.take(what)?))
    }

    fn text(&mut self, what: &str) -> Read<String> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|byte| *byte == 0) else {
            return malformed(format!("it ends in {what}"));
        };
        let Ok(text) = std::str::from_utf8(&rest[..end]) else {
            return malformed(format!("{what} is no text in UTF-8"));
        };
        let text = text.to_owned();
        self.at += end + 1;
        Ok(text)
    }

    /// A number of things that follow, each of at least a byte.
    fn count(&mut self, found: i64, most: usize, what: &str) -> Read<usize> {
        let count = usize::try_from(found).ok().filter(|count| *count <= most);
        match count {
            Some(count) if count <= self.bytes.len() - self.at => Ok(count),
            _ => malformed(format!("there cannot be {found} {what}")),
        }
    }

    fn columns(&mut self) -> Read<usize> {
        let found = i16::from_be_bytes(self.take("the number of columns")?);
        self.count(i64::from(found), MOST_COLUMNS, "columns")
    }

    fn tuple(&mut self) -> Read<Tuple> {
        let count = self.columns()?;
        let mut cells = Vec::with_capacity(count);
        for _ in 0..count {
            cells.push(match self.byte("the kind of a value")? {
                b'n' => Cell::Null,
                b'u' => Cell::Unchanged,
                b't' => {
                    let length = self.int32("the length of a value")? as usize;
                    let (from, to) = (self.at, self.at.saturating_add(length));
                    let Some(text) = self.bytes.get(from..to) else { return malformed("it ends in a value") };
                    if std::str::from_utf8(text).is_err() {
                        return malformed("a value is no text in UTF-8");
                    }
                    self.at = to;
                    let place =
                        |at: usize| u32::try_from(at).map_err(|_| Malformed("it is too long".to_owned()));
                    Cell::Text(place(from)?, place(to)?)
                }
                other => {
                    return malformed(format!(
                        "a value of kind {:?}, which was not asked for",
                        char::from(other)
                    ));
                }
            });
        }
        Ok(Tuple { bytes: self.bytes.clone(), cells })
    }

    fn relation(&mut self) -> Read<Message> {
        let (id, schema) = (self.int32("the number of a table")?, self.text("the name of a schema")?);
        let name = self.text("the name of a table")?;
        self.byte("the replica identity")?;
        let count = self.columns()?;
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let key = self.byte("the flags of a column")? & 1 == 1;
            let name = self.text("the name of a column")?;
            let oid = self.int32("the type of a column")?;
            self.int32("the modifier of a type")?;
            columns.push(Column { key, name, oid });
        }
        // What is written for the tables of the system has no schema.
        let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
        Ok(Message::Relation { id, schema, name, columns })
    }

    fn old(&mut self, kind: u8) -> Read<Old> {
        Ok(Old { whole: kind == b'O', tuple: self.tuple()? })
    }

    fn update(&mut self) -> Read<Message> {
        let id = self.int32("the number of a table")?;
        let (mut old, mut kind) = (None, self.byte("the kind of a row")?);
        if matches!(kind, b'K' | b'O') {
            old = Some(self.old(kind)?);
            kind = self.byte("the kind of a row")?;
        }
        match kind {
            b'N' => Ok(Message::Update { id, old, new: self.tuple()? }),
            other => malformed(format!("an update with a row of kind {:?}", char::from(other))),
        }
    }

    fn message(&mut self) -> Read<Message> {
        match self.byte("its kind")? {
            b'B' => Ok(Message::Begin {
                commit: Lsn(self.int64("the place of a commit")?),
                time: i64::from_be_bytes(self.take("the time of a commit")?),
                transaction: self.int32("the number of a transaction")?,
            }),
            b'C' => {
                self.byte("the flags of a commit")?;
                let commit = Lsn(self.int64("the place of a commit")?);
                let end = Lsn(self.int64("the end of a commit")?);
                self.int64("the time of a commit")?;
                Ok(Message::Commit { commit, end })
            }
            b'R' => self.relation(),
            b'I' => {
                let id = self.int32("the number of a table")?;
                match self.byte("the kind of a row")? {
                    b'N' => Ok(Message::Insert { id, new: self.tuple()? }),
                    other => malformed(format!("an insert with a row of kind {:?}", char::from(other))),
                }
            }
            b'U' => self.update(),
            b'D' => {
                let id = self.int32("the number of a table")?;
                match self.byte("the kind of a row")? {
                    kind @ (b'K' | b'O') => Ok(Message::Delete { id, old: self.old(kind)? }),
                    other => malformed(format!("a delete with a row of kind {:?}", char::from(other))),
                }
            }
            b'T' => {
                let found = self.int32("the number of tables")?;
                self.byte("the flags of a truncate")?;
                let count = self.count(i64::from(found), MOST_TRUNCATED, "tables")?;
                let ids = (0..count).map(|_| self.int32("the number of a table")).collect::<Read<_>>()?;
                Ok(Message::Truncate { ids })
            }
            b'O' | b'Y' | b'M' => {
                self.at = self.bytes.len();
                Ok(Message::Other)
            }
            other => malformed(format!("it is of kind {:?}, which was not asked for", char::from(other))),
        }
    }
}

/// Reads one message.
///
/// # Errors
/// The bytes are none, or there are more than one.
pub fn decode(bytes: Bytes) -> Result<Message, Malformed> {
    let mut input = Input { bytes, at: 0 };
    let message = input.message()?;
    match input.bytes.len() - input.at {
        0 => Ok(message),
        more => malformed(format!("it has {more} bytes too many")),
    }
}
