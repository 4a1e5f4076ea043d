//! Records one behind the other in a stream of bytes, so that a reader finds where each ends.

use super::csv::unwritable;
use super::exact::{Exact, Form};
use super::json;
use serde::Serialize;
use staunch_core::Error;
use std::io::{self, BufWriter, Write};

const BUFFER_BYTES: usize = 256 << 10;

/// Writes records of any type into a stream of bytes.
pub trait StreamEncoder: Sized + Send + 'static {
    /// What the bytes go to.
    type Out: Write;
    /// What the names of files with such bytes end in.
    const EXTENSION: &'static str;

    /// Begins a stream.
    fn begin(out: Self::Out) -> Self;

    /// Appends a record.
    ///
    /// # Errors
    /// The record has no such form, or the bytes cannot be written. What the stream has got by then is not to be used.
    fn append<T: Serialize>(&mut self, record: &T) -> Result<(), Unwritten>;

    /// Writes what is not written yet, and gives back what the bytes went to.
    ///
    /// # Errors
    /// The bytes cannot be written.
    fn finish(self) -> io::Result<Self::Out>;
}

/// Why a stream does not have a record.
#[derive(Debug)]
pub enum Unwritten {
    /// The record has no such form: a mistake of the job.
    Record(Error),
    /// Its bytes cannot be written.
    Out(io::Error),
}

/// JSON, a line each.
#[derive(Debug)]
pub struct JsonLines<W: Write> {
    out: BufWriter<W>,
    line: Vec<u8>,
}

impl<W: Write + Send + 'static> StreamEncoder for JsonLines<W> {
    type Out = W;
    const EXTENSION: &'static str = "jsonl";

    fn begin(out: W) -> Self {
        Self { out: BufWriter::with_capacity(BUFFER_BYTES, out), line: Vec::new() }
    }

    fn append<T: Serialize>(&mut self, record: &T) -> Result<(), Unwritten> {
        self.line.clear();
        json::encode(record, &mut self.line).map_err(Unwritten::Record)?;
        // Possible with values that bring their own JSON text.
        if self.line.contains(&b'\n') {
            return Err(Unwritten::Record(Error::job(
                "a record's JSON has a line break between its values, and would be two lines",
            )));
        }
        self.line.push(b'\n');
        self.out.write_all(&self.line).map_err(Unwritten::Out)
    }

    fn finish(self) -> io::Result<W> {
        self.out.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// CSV; structs with a header line.
#[derive(Debug)]
pub struct CsvRecords<W: Write>(csv::Writer<W>);

impl<W: Write + Send + 'static> StreamEncoder for CsvRecords<W> {
    type Out = W;
    const EXTENSION: &'static str = "csv";

    fn begin(out: W) -> Self {
        Self(csv::WriterBuilder::new().buffer_capacity(BUFFER_BYTES).from_writer(out))
    }

    fn append<T: Serialize>(&mut self, record: &T) -> Result<(), Unwritten> {
        self.0.serialize(Exact::new(record, Form::Csv)).map_err(|e| match e.into_kind() {
            csv::ErrorKind::Io(e) => Unwritten::Out(e),
            other => Unwritten::Record(unwritable(other)),
        })
    }

    fn finish(self) -> io::Result<W> {
        self.0.into_inner().map_err(|e| io::Error::new(e.error().kind(), e.error().to_string()))
    }
}
