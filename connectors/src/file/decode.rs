//! What is in a record: text, CSV fields, JSON.

use super::quotes::{self, End, Scan};
use csv::StringRecord;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::marker::PhantomData;

/// What is wrong with a CSV record that has a carriage return in the middle.
const LONE_RETURN: &str = "it has a carriage return without a line feed outside of quotes; lines must end in a line feed, \
     with a carriage return before it or without";
/// Lines that a CSV record may go over by default.
const MAX_RECORD_LINES: usize = 1000;

/// How the bytes of a file become records.
pub trait Format: Clone + Send + Sync + 'static {
    /// What a record is.
    type Record: Send + 'static;
    /// Turns text into records; knows the header.
    type Decoder: Decode<Record = Self::Record>;
    /// Whether the first record of a file is a header.
    const HEADER: bool;

    /// What is wrong with the settings, if anything.
    #[doc(hidden)]
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// The end of the first record in `bytes`; `scan` remembers what was looked through.
    #[doc(hidden)]
    fn end(&self, bytes: &[u8], scan: &mut Scan) -> End {
        scan.line_end(bytes)
    }

    /// Whether `bytes`, in which no line feed ends a record, are lines that end in carriage returns.
    #[doc(hidden)]
    fn has_lone_return(&self, _bytes: &[u8]) -> bool {
        false
    }

    /// Whether `bytes` are a whole record that lacks but its line end.
    #[doc(hidden)]
    fn is_whole(&self, _bytes: &[u8]) -> bool {
        true
    }

    /// Makes the decoder of a file. `header` is without its line end, empty if there is none.
    ///
    /// # Errors
    /// What is wrong with the header, for people.
    #[doc(hidden)]
    fn decoder(&self, header: &str) -> Result<Self::Decoder, String>;
}

/// Turns text into records.
pub trait Decode: Send + 'static {
    /// What a record is.
    type Record;

    /// Decodes one record without its line end; `None` if it is to be passed over.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    fn decode(&mut self, text: &str) -> Result<Option<Self::Record>, String>;
}

/// Lines of text.
#[derive(Clone, Copy, Debug)]
pub struct Text;

impl Format for Text {
    type Record = String;
    type Decoder = Self;
    const HEADER: bool = false;

    fn has_lone_return(&self, bytes: &[u8]) -> bool {
        bytes.contains(&b'\r')
    }

    fn decoder(&self, _header: &str) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Decode for Text {
    type Record = String;

    fn decode(&mut self, text: &str) -> Result<Option<String>, String> {
        Ok(Some(text.to_owned()))
    }
}

/// A JSON value on each line.
#[derive(Debug)]
pub struct Json<T> {
    record: PhantomData<fn() -> T>,
}

impl<T> Json<T> {
    pub(super) fn new() -> Self {
        Self { record: PhantomData }
    }
}

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T: DeserializeOwned + Send + 'static> Format for Json<T> {
    type Record = T;
    type Decoder = Self;
    const HEADER: bool = false;

    fn decoder(&self, _header: &str) -> Result<Self, String> {
        Ok(Self::new())
    }
}

impl<T: DeserializeOwned + Send + 'static> Decode for Json<T> {
    type Record = T;

    fn decode(&mut self, text: &str) -> Result<Option<T>, String> {
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        // The text is one line of many: "line 1" would mislead.
        serde_json::from_str(text)
            .map(Some)
            .map_err(|e| e.to_string().replace(" at line 1 column ", " at column "))
    }
}

/// CSV with a header line.
#[derive(Debug)]
pub struct Csv<T> {
    pub(super) delimiter: u8,
    pub(super) max_lines: usize,
    record: PhantomData<fn() -> T>,
}

impl<T> Csv<T> {
    pub(super) fn new() -> Self {
        Self { delimiter: b',', max_lines: MAX_RECORD_LINES, record: PhantomData }
    }
}

impl<T> Clone for Csv<T> {
    fn clone(&self) -> Self {
        Self { delimiter: self.delimiter, max_lines: self.max_lines, record: PhantomData }
    }
}

impl<T: DeserializeOwned + Send + 'static> Format for Csv<T> {
    type Record = T;
    type Decoder = CsvDecoder<T>;
    const HEADER: bool = true;

    fn check(&self) -> Result<(), String> {
        match self.delimiter {
            b'"' | b'\n' | b'\r' | 0x80.. => Err(format!(
                "{:?} cannot be the delimiter of CSV; use one ASCII character that is no quote and no line end",
                char::from(self.delimiter)
            )),
            _ => Ok(()),
        }
    }

    fn end(&self, bytes: &[u8], scan: &mut Scan) -> End {
        scan.record_end(bytes, self.delimiter, self.max_lines)
    }

    fn has_lone_return(&self, bytes: &[u8]) -> bool {
        quotes::has_lone_return(bytes, self.delimiter)
    }

    fn is_whole(&self, bytes: &[u8]) -> bool {
        !quotes::is_open(bytes, self.delimiter)
    }

    fn decoder(&self, header: &str) -> Result<CsvDecoder<T>, String> {
        let mut columns = StringRecord::new();
        quotes::split(header, self.delimiter, &mut columns);
        check_names(&columns)?;
        Ok(CsvDecoder {
            delimiter: self.delimiter,
            columns,
            fields: StringRecord::new(),
            record: PhantomData,
        })
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
    /// The row being decoded; kept for its memory.
    fields: StringRecord,
    record: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send + 'static> Decode for CsvDecoder<T> {
    type Record = T;

    fn decode(&mut self, text: &str) -> Result<Option<T>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        if quotes::has_lone_return(text.as_bytes(), self.delimiter) {
            return Err(LONE_RETURN.to_owned());
        }
        quotes::split(text, self.delimiter, &mut self.fields);
        let (found, wanted) = (self.fields.len(), self.columns.len());
        if found != wanted {
            return Err(format!("the number of fields is {found}, but the header has {wanted}"));
        }
        self.fields.deserialize(Some(&self.columns)).map(Some).map_err(|e| self.explain(e.kind()))
    }
}

impl<T> CsvDecoder<T> {
    fn explain(&self, error: &csv::ErrorKind) -> String {
        let csv::ErrorKind::Deserialize { err, .. } = error else {
            return format!("not readable: {error:?}");
        };
        let column = err.field().and_then(|field| usize::try_from(field).ok());
        match column.and_then(|column| Some((self.columns.get(column)?, self.fields.get(column)?))) {
            Some((name, value)) => format!("column `{name}`: {}: {value:?}", err.kind()),
            None => err.kind().to_string(),
        }
    }
}
