//! How records are written into a part file: CSV or JSON Lines.

use crate::exact::{Exact, Form};
use serde::Serialize;
use staunch_core::{Error, Result};
use std::fs::File;
use std::io::{self, BufWriter, Write};

const BUFFER_BYTES: usize = 256 << 10;
/// What readers leave out at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const MARKED: &str = "the first field begins with U+FEFF, which readers leave out at the beginning of a file";

/// A part file that is being written, and what is in it so far.
#[derive(Debug)]
pub struct PartFile {
    pub(super) file: File,
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
}

impl PartFile {
    pub(super) fn new(file: File) -> Self {
        Self { file, bytes: 0, crc32c: 0 }
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, MARKED));
        }
        let written = self.file.write(bytes)?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// How records become the bytes of a part file.
pub trait Encode: Sized + Send + 'static {
    /// What the names of part files end in.
    const EXTENSION: &'static str;

    /// Begins a part file.
    #[doc(hidden)]
    fn begin(file: PartFile) -> Self;

    /// Appends a record.
    ///
    /// # Errors
    /// The record has no such form (a mistake of the job), or the file cannot be written.
    #[doc(hidden)]
    fn append<T: Serialize>(&mut self, record: &T) -> Result<()>;

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// The file cannot be written.
    #[doc(hidden)]
    fn finish(self) -> Result<PartFile>;
}

/// JSON Lines.
#[derive(Debug)]
pub struct JsonPart {
    file: BufWriter<PartFile>,
    line: Vec<u8>,
}

impl Encode for JsonPart {
    const EXTENSION: &'static str = "jsonl";

    fn begin(file: PartFile) -> Self {
        Self { file: BufWriter::with_capacity(BUFFER_BYTES, file), line: Vec::new() }
    }

    fn append<T: Serialize>(&mut self, record: &T) -> Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, &Exact::new(record, Form::Json))
            .map_err(|e| Error::job("a record cannot be written as JSON").caused_by(e))?;
        // Possible with values that bring their own JSON text.
        if self.line.contains(&b'\n') {
            return Err(Error::job(
                "a record's JSON has a line break between its values, and would be two lines",
            ));
        }
        self.line.push(b'\n');
        self.file.write_all(&self.line).map_err(unwritable)
    }

    fn finish(self) -> Result<PartFile> {
        self.file.into_inner().map_err(|e| unwritable(e.into_error()))
    }
}

/// CSV; structs with a header line.
#[derive(Debug)]
pub struct CsvPart(csv::Writer<PartFile>);

impl Encode for CsvPart {
    const EXTENSION: &'static str = "csv";

    fn begin(file: PartFile) -> Self {
        Self(csv::WriterBuilder::new().buffer_capacity(BUFFER_BYTES).from_writer(file))
    }

    fn append<T: Serialize>(&mut self, record: &T) -> Result<()> {
        self.0.serialize(Exact::new(record, Form::Csv)).map_err(|e| match e.into_kind() {
            csv::ErrorKind::Io(e) => unwritable(e),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => Error::job(format!(
                "a record has {len} fields for CSV, but the ones before it had {expected_len}"
            )),
            csv::ErrorKind::Serialize(why) => {
                Error::job(format!("a record cannot be written as CSV (flat structs and tuples can): {why}"))
            }
            other => Error::job(format!("a record cannot be written as CSV: {other:?}")),
        })
    }

    fn finish(self) -> Result<PartFile> {
        self.0.into_inner().map_err(|e| unwritable(io::Error::new(e.error().kind(), e.error().to_string())))
    }
}

fn unwritable(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::InvalidData {
        return Error::job("a record cannot be written as CSV").caused_by(error);
    }
    Error::external("cannot write a part file").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        name: &'static str,
        count: Option<u32>,
    }

    fn write<E: Encode>(records: &[impl Serialize]) -> Result<String> {
        let path = tempfile::NamedTempFile::new().unwrap();
        let mut part = E::begin(PartFile::new(path.reopen().unwrap()));
        records.iter().try_for_each(|record| part.append(record))?;
        let file = part.finish()?;
        let text = std::fs::read_to_string(path.path()).unwrap();
        assert_eq!((file.bytes, file.crc32c), (text.len() as u64, crc32c::crc32c(text.as_bytes())));
        Ok(text)
    }

    #[test]
    fn structs_have_a_header_in_csv_and_tuples_have_none() {
        let rows = [Row { name: "a,b", count: Some(1) }, Row { name: "c", count: None }];
        assert_eq!(write::<CsvPart>(&rows).unwrap(), "name,count\n\"a,b\",1\nc,\n");
        assert_eq!(write::<CsvPart>(&[("x", 1), ("y", 2)]).unwrap(), "x,1\ny,2\n");
        assert_eq!(
            write::<JsonPart>(&rows).unwrap(),
            "{\"name\":\"a,b\",\"count\":1}\n{\"name\":\"c\",\"count\":null}\n"
        );
    }

    #[test]
    fn a_record_without_a_csv_form_is_a_mistake_of_the_job() {
        let error = write::<CsvPart>(&[std::collections::BTreeMap::from([("a", 1)])]).unwrap_err();
        assert_eq!(error.kind(), staunch_core::error::Kind::Job, "{error}");
    }

    fn refused<E: Encode>(record: impl Serialize) -> String {
        let error = write::<E>(&[record]).unwrap_err();
        assert_eq!(error.kind(), staunch_core::error::Kind::Job, "{error}");
        error.to_string()
    }

    #[test]
    fn what_a_format_would_hold_as_something_else_is_refused() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(refused::<JsonPart>(("x", Some(number))).contains("would be written as null"));
            assert!(
                refused::<JsonPart>(std::collections::BTreeMap::from([("x", vec![number as f32])]))
                    .contains("null")
            );
        }
        assert_eq!(write::<CsvPart>(&[(f64::NAN, f64::INFINITY)]).unwrap(), "NaN,inf\n");
        assert!(refused::<CsvPart>((Some(""), 1)).contains("looks like None"));
        assert!(refused::<CsvPart>((Some(None::<u8>), 1)).contains("looks like None"));
        assert_eq!(write::<CsvPart>(&[("", None::<u8>)]).unwrap(), ",\n");
        #[derive(Serialize)]
        enum Shape {
            Point,
            Circle(u32),
        }
        assert!(refused::<CsvPart>((1, Shape::Circle(2))).contains("`Circle`"));
        assert_eq!(write::<CsvPart>(&[(1, Shape::Point)]).unwrap(), "1,Point\n");
        assert!(refused::<CsvPart>((vec![1], vec![2, 3])).contains("a list in a record"));
        assert_eq!(write::<CsvPart>(&[(("a", 1u8), 2u64)]).unwrap(), "a,1,2\n");
        assert!(refused::<CsvPart>(("\u{feff}x", 1)).contains("U+FEFF"));
        assert_eq!(write::<CsvPart>(&[("x\u{feff}", 1)]).unwrap(), "x\u{feff},1\n");
    }

    #[test]
    fn numbers_are_written_with_all_their_digits() {
        let wide = (u128::MAX, i128::MIN, u64::MAX, 0.1 + 0.2, 1e300);
        let digits = "340282366920938463463374607431768211455,-170141183460469231731687303715884105728,\
                      18446744073709551615,0.30000000000000004,";
        assert!(write::<CsvPart>(&[wide]).unwrap().starts_with(digits));
        assert!(write::<JsonPart>(&[wide]).unwrap().starts_with(&format!("[{digits}")));
    }

    #[test]
    fn a_full_disk_is_an_error_before_the_part_is_prepared() {
        for big in [10, 1 << 20] {
            let full = || PartFile::new(File::options().write(true).open("/dev/full").unwrap());
            let record = "x".repeat(big);
            let mut json = JsonPart::begin(full());
            let json = json.append(&record).and_then(|()| json.finish().map(drop));
            let mut csv = CsvPart::begin(full());
            let csv = csv.append(&record).and_then(|()| csv.finish().map(drop));
            for error in [json.unwrap_err(), csv.unwrap_err()] {
                assert!(error.to_string().contains("No space left"), "{error}");
                assert_eq!(error.kind(), staunch_core::error::Kind::External);
            }
        }
    }
}
