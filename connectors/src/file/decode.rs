//! What is in a record: text, CSV fields, JSON.

use super::quotes;
use csv::StringRecord;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

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

    /// Length of the first record in `bytes`, with its line end, if it is complete.
    #[doc(hidden)]
    fn end(&self, bytes: &[u8]) -> Option<usize> {
        quotes::line_end(bytes)
    }

    /// Whether `bytes` are a whole record that lacks but its line end.
    #[doc(hidden)]
    fn is_whole(&self, _bytes: &[u8]) -> bool {
        true
    }

    /// Makes the decoder of a file. `header` is without its line end, empty if there is none.
    #[doc(hidden)]
    fn decoder(&self, header: &str) -> Self::Decoder;
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

    fn decoder(&self, _header: &str) -> Self {
        Self
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

    fn decoder(&self, _header: &str) -> Self {
        Self::new()
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
    record: PhantomData<fn() -> T>,
}

impl<T> Csv<T> {
    pub(super) fn new() -> Self {
        Self { delimiter: b',', record: PhantomData }
    }
}

impl<T> Clone for Csv<T> {
    fn clone(&self) -> Self {
        Self { delimiter: self.delimiter, record: PhantomData }
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

    fn end(&self, bytes: &[u8]) -> Option<usize> {
        quotes::record_end(bytes, self.delimiter)
    }

    fn is_whole(&self, bytes: &[u8]) -> bool {
        !quotes::is_open(bytes, self.delimiter)
    }

    fn decoder(&self, header: &str) -> CsvDecoder<T> {
        let mut columns = StringRecord::new();
        quotes::split(header, self.delimiter, &mut columns);
        CsvDecoder { delimiter: self.delimiter, columns, fields: StringRecord::new(), record: PhantomData }
    }
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
