//! CSV: fields by column name.
//!
//! In a stream the names are in a header; a message that stands alone has none, so that its columns are named in the
//! settings.

use super::decoder::{Decoder, Format, NotDecoded, Undecodable};
use super::encoder::{Destination, Encoder, Encoding};
use super::exact::{Exact, Form};
use super::framed::Framed;
use super::quotes::{self, End, Scan};
use super::text::text;
use csv::StringRecord;
use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch_core::{Error, Result};
use std::collections::HashMap;
use std::marker::PhantomData;

/// What is wrong with a CSV record that has a carriage return in the middle.
const LONE_RETURN: &str = "it has a carriage return without a line feed outside of quotes; lines must end in a line feed, \
     with a carriage return before it or without";
/// Lines that a CSV record may go over by default.
const MAX_RECORD_LINES: usize = 1000;
/// Bytes that a message is first given room for.
const MESSAGE_BYTES: usize = 256;

/// CSV: rows of a stream with a header line, or messages of one row each.
#[derive(Debug)]
pub struct Csv<T> {
    pub(crate) delimiter: u8,
    pub(crate) max_lines: usize,
    /// Names for messages, which have no header.
    columns: Option<StringRecord>,
    record: PhantomData<fn() -> T>,
}

impl<T> Csv<T> {
    /// Rows of this type, separated by commas.
    #[must_use]
    pub fn new() -> Self {
        Self { delimiter: b',', max_lines: MAX_RECORD_LINES, columns: None, record: PhantomData }
    }

    /// What separates the fields; a comma by default.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// The names of the columns of messages, in their order. Where there is a header, that counts.
    #[must_use]
    pub fn columns<C: AsRef<str>>(mut self, names: impl IntoIterator<Item = C>) -> Self {
        let mut columns = StringRecord::new();
        names.into_iter().for_each(|name| columns.push_field(name.as_ref()));
        self.columns = Some(columns);
        self
    }

    fn decoder_of(&self, columns: StringRecord, alone: bool) -> Result<CsvDecoder<T>, String> {
        check_names(&columns)?;
        Ok(CsvDecoder {
            delimiter: self.delimiter,
            columns,
            alone,
            fields: StringRecord::new(),
            record: PhantomData,
        })
    }
}

impl<T> Default for Csv<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Csv<T> {
    fn clone(&self) -> Self {
        Self { columns: self.columns.clone(), ..*self }
    }
}

impl<T: DeserializeOwned + Send + 'static> Format for Csv<T> {
    type Record = T;
    type Decoder = CsvDecoder<T>;

    fn check(&self) -> Result<()> {
        check_delimiter(self.delimiter)
    }

    fn decoder(&self) -> Result<CsvDecoder<T>> {
        self.check()?;
        let Some(columns) = self.columns.clone() else {
            return Err(Error::job(
                "a message in CSV has no header: name its columns with `.columns([...])`",
            ));
        };
        self.decoder_of(columns, true).map_err(|why| Error::job(format!("the list of columns {why}")))
    }
}

fn check_delimiter(delimiter: u8) -> Result<()> {
    match delimiter {
        b'"' | b'\n' | b'\r' | 0x80.. => Err(Error::job(format!(
            "{:?} cannot be the delimiter of CSV; use one ASCII character that is no quote and no line end",
            char::from(delimiter)
        ))),
        _ => Ok(()),
    }
}

impl<T: DeserializeOwned + Send + 'static> Framed for Csv<T> {
    const HEADER: bool = true;

    fn end(&self, bytes: &[u8], scan: &mut Scan) -> End {
        scan.record_end(bytes, self.delimiter, self.max_lines)
    }

    fn has_lone_return(&self, bytes: &[u8]) -> bool {
        quotes::has_lone_return(bytes, self.delimiter)
    }

    fn is_whole(&self, bytes: &[u8]) -> bool {
        !quotes::is_open(bytes, self.delimiter)
    }

    fn decoder_under(&self, header: &str) -> Result<CsvDecoder<T>, String> {
        let mut columns = StringRecord::new();
        quotes::split(header, self.delimiter, &mut columns);
        self.decoder_of(columns, false)
    }
}

/// Rows are read by name, so that each column needs one of its own. One may be without: tables with an index are
/// often written so.
fn check_names(columns: &StringRecord) -> Result<(), String> {
    let (mut seen, mut unnamed) = (HashMap::new(), Vec::new());
    for (name, number) in columns.iter().zip(1_usize..) {
        if name.contains('\0') {
            return Err(format!(
                "has a zero byte in the name of column {number}: this is no text in UTF-8 (perhaps UTF-16; convert it)"
            ));
        }
        if name.trim().is_empty() {
            unnamed.push(number.to_string());
        } else if let Some(first) = seen.insert(name, number) {
            return Err(format!(
                "names column {first} and column {number} `{name}`: a row is read by name and would lose one of the \
                 two values; rename one"
            ));
        }
    }
    if unnamed.len() > 1 || unnamed.len() == columns.len() {
        return Err(format!(
            "has no name for column {}; rows are read by name: name them",
            unnamed.join(", ")
        ));
    }
    Ok(())
}

/// Turns CSV rows into records, by the names in the header.
#[derive(Debug)]
pub struct CsvDecoder<T> {
    delimiter: u8,
    columns: StringRecord,
    /// Each row stands alone, and nobody has looked where it ends.
    alone: bool,
    /// The row being decoded; kept for its memory.
    fields: StringRecord,
    record: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send + 'static> Decoder for CsvDecoder<T> {
    type Record = T;

    fn decode(&mut self, bytes: &[u8]) -> Result<Option<T>, NotDecoded> {
        let mut text = text(bytes)?;
        if self.alone {
            text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
            check_bounds(text, self.delimiter)?;
        } else if text.is_empty() {
            return Ok(None);
        }
        if quotes::has_lone_return(text.as_bytes(), self.delimiter) {
            return Err(Undecodable::new(LONE_RETURN).into());
        }
        quotes::split(text, self.delimiter, &mut self.fields);
        let (found, wanted) = (self.fields.len(), self.columns.len());
        if found != wanted {
            let header = if self.alone { "list of columns" } else { "header" };
            let reason = format!("the number of fields is {found}, but the {header} has {wanted}");
            return Err(Undecodable::new(reason).into());
        }
        self.fields.deserialize(Some(&self.columns)).map(Some).map_err(|e| self.explain(e.kind()).into())
    }
}

/// A message is one record, whatever it holds.
fn check_bounds(text: &str, delimiter: u8) -> Result<(), Undecodable> {
    match Scan::default().record_end(text.as_bytes(), delimiter, usize::MAX) {
        End::At(end) => {
            Err(Undecodable::new("a line end outside of quotes: more than one record").at(end - 1))
        }
        _ if quotes::is_open(text.as_bytes(), delimiter) => Err(Undecodable::new("a quote is not closed")),
        _ => Ok(()),
    }
}

impl<T> CsvDecoder<T> {
    fn explain(&self, error: &csv::ErrorKind) -> Undecodable {
        let csv::ErrorKind::Deserialize { err, .. } = error else {
            return Undecodable::new(format!("not readable: {error:?}"));
        };
        let column = err.field().and_then(|field| usize::try_from(field).ok());
        match column.and_then(|column| Some((self.columns.get(column)?, self.fields.get(column)?))) {
            Some((name, value)) => {
                let reason = format!("column `{name}`: {}: {value:?}", err.kind());
                Undecodable { field: Some(name.to_owned()), ..Undecodable::new(reason) }
            }
            None => Undecodable::new(err.kind().to_string()),
        }
    }
}

impl<T: Serialize + Send + 'static> Encoding<T> for Csv<T> {
    type Encoder = CsvEncoder;

    fn encoder(&self, _: &Destination<'_>) -> Result<CsvEncoder> {
        check_delimiter(self.delimiter)?;
        Ok(CsvEncoder { delimiter: self.delimiter, fields: None })
    }
}

/// Turns records into rows that stand alone: without header, without line end.
#[derive(Debug)]
pub struct CsvEncoder {
    delimiter: u8,
    /// How many the rows before had.
    fields: Option<usize>,
}

impl<T: Serialize> Encoder<T> for CsvEncoder {
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> Result<()> {
        let mut builder = csv::WriterBuilder::new();
        builder.has_headers(false).delimiter(self.delimiter).buffer_capacity(MESSAGE_BYTES);
        let mut writer = builder.from_writer(Vec::new());
        writer.serialize(Exact::new(record, Form::Csv)).map_err(|e| unwritable(e.into_kind()))?;
        let row = writer.into_inner().map_err(|e| Error::internal(format!("a row in memory: {e}")))?;
        let row = row.strip_suffix(b"\n").unwrap_or(&row);
        let fields = quotes::count(row, self.delimiter);
        let wanted = *self.fields.get_or_insert(fields);
        if fields != wanted {
            return Err(unequal(wanted, fields));
        }
        out.extend_from_slice(row);
        Ok(())
    }
}

/// Why a record has no form in CSV.
pub(super) fn unwritable(error: csv::ErrorKind) -> Error {
    match error {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => unequal(expected_len, len),
        csv::ErrorKind::Serialize(why) => {
            Error::job(format!("a record cannot be written as CSV (flat structs and tuples can): {why}"))
        }
        other => Error::job(format!("a record cannot be written as CSV: {other:?}")),
    }
}

fn unequal(before: impl std::fmt::Display, now: impl std::fmt::Display) -> Error {
    Error::job(format!("a record has {now} fields for CSV, but the ones before it had {before}"))
}
