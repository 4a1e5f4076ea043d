//! A part file that is being written, and what a format may not write into it.

use crate::formats::{CsvRecords, JsonLines, StreamEncoder, Unwritten};
use serde::Serialize;
use staunch_core::{Error, Result};
use std::fs::File;
use std::io::{self, Write};

/// What readers leave out at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const MARKED: &str = "the first field begins with U+FEFF, which readers leave out at the beginning of a file";

/// Part files of JSON Lines.
pub type JsonPart = JsonLines<PartFile>;
/// Part files of CSV; structs have a header line.
pub type CsvPart = CsvRecords<PartFile>;

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

/// Appends a record to a part file.
pub(super) fn append<E: StreamEncoder<Out = PartFile>>(part: &mut E, record: &impl Serialize) -> Result<()> {
    part.append(record).map_err(|why| match why {
        Unwritten::Record(why) => why,
        Unwritten::Out(why) => unwritable(why),
    })
}

/// Hands all of a part file to the operating system.
pub(super) fn finish<E: StreamEncoder<Out = PartFile>>(part: E) -> Result<PartFile> {
    part.finish().map_err(unwritable)
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

    fn write<E: StreamEncoder<Out = PartFile>>(records: &[impl Serialize]) -> Result<String> {
        let path = tempfile::NamedTempFile::new().unwrap();
        let mut part = E::begin(PartFile::new(path.reopen().unwrap()));
        records.iter().try_for_each(|record| append(&mut part, record))?;
        let file = finish(part)?;
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

    fn refused<E: StreamEncoder<Out = PartFile>>(record: impl Serialize) -> String {
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
            let json = append(&mut json, &record).and_then(|()| finish(json).map(drop));
            let mut csv = CsvPart::begin(full());
            let csv = append(&mut csv, &record).and_then(|()| finish(csv).map(drop));
            for error in [json.unwrap_err(), csv.unwrap_err()] {
                assert!(error.to_string().contains("No space left"), "{error}");
                assert_eq!(error.kind(), staunch_core::error::Kind::External);
            }
        }
    }
}
