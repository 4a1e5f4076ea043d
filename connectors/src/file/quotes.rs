//! Where a CSV record ends, and what its fields are: quotes may hide delimiters and line ends.
//!
//! A quote opens a quoted field only at the field's beginning; inside, two quotes are one; after the
//! closing quote anything up to the delimiter is taken as it is. This is how the `csv` crate reads.

use csv::StringRecord;
use std::io::BufRead;

const QUOTE: u8 = b'"';

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote in a quoted field: its end, or the first half of a doubled quote.
    Quote,
}

impl At {
    fn step(self, byte: u8, delimiter: u8) -> Self {
        match (self, byte) {
            (At::FieldStart, QUOTE) | (At::Quote, QUOTE) => At::Quoted,
            (At::Quoted, QUOTE) => At::Quote,
            (At::Quoted, _) => At::Quoted,
            (_, b'\n') => At::FieldStart,
            (_, byte) if byte == delimiter => At::FieldStart,
            _ => At::Plain,
        }
    }
}

/// Length of the first line with its line end, if it has one.
pub(super) fn line_end(bytes: &[u8]) -> Option<usize> {
    // Reading from memory cannot fail; this is the standard library's way to its fast byte search.
    let mut rest = bytes;
    let length = rest.skip_until(b'\n').unwrap_or(0);
    (length > 0 && bytes[length - 1] == b'\n').then_some(length)
}

/// Length of the first record with its line end: the first line end outside quotes.
pub(super) fn record_end(bytes: &[u8], delimiter: u8) -> Option<usize> {
    let (mut end, mut at) = (0, At::FieldStart);
    loop {
        let line = &bytes[end..end + line_end(&bytes[end..])?];
        end += line.len();
        if at != At::Quoted && !line.contains(&QUOTE) {
            return Some(end);
        }
        at = line.iter().fold(at, |at, byte| at.step(*byte, delimiter));
        if at != At::Quoted {
            return Some(end);
        }
    }
}

/// Whether these bytes end inside a quoted field.
pub(super) fn is_open(bytes: &[u8], delimiter: u8) -> bool {
    bytes.iter().fold(At::FieldStart, |at, byte| at.step(*byte, delimiter)) == At::Quoted
}

/// Takes a record, without its line end, apart.
pub(super) fn split(record: &str, delimiter: u8, fields: &mut StringRecord) {
    fields.clear();
    if !record.as_bytes().contains(&QUOTE) {
        record.split(char::from(delimiter)).for_each(|field| fields.push_field(field));
        return;
    }
    let (mut field, mut at) = (String::new(), At::FieldStart);
    // The bytes from `copied` on belong to the field and are not in `field` yet.
    let mut copied = 0;
    for (index, byte) in record.bytes().enumerate() {
        let next = at.step(byte, delimiter);
        match (at, next) {
            // An opening quote, or the closing one: not part of the field. A doubled quote leaves its
            // second half, because only the first goes from `Quoted` to `Quote`.
            (At::FieldStart, At::Quoted) | (At::Quoted, At::Quote) => {
                field.push_str(&record[copied..index]);
                copied = index + 1;
            }
            (_, At::FieldStart) if byte == delimiter => {
                field.push_str(&record[copied..index]);
                fields.push_field(&field);
                field.clear();
                copied = index + 1;
            }
            _ => {}
        }
        at = next;
    }
    field.push_str(&record[copied..]);
    fields.push_field(&field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ours(text: &str) -> Vec<Vec<String>> {
        let (mut rest, mut rows, mut fields) = (text, Vec::new(), StringRecord::new());
        while !rest.is_empty() {
            let found = record_end(rest.as_bytes(), b',');
            let end = found.unwrap_or(rest.len());
            let record = &rest[..end - usize::from(found.is_some())];
            if !record.is_empty() {
                split(record, b',', &mut fields);
                rows.push(fields.iter().map(str::to_owned).collect());
            }
            rest = &rest[end..];
        }
        rows
    }

    fn theirs(text: &str) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .terminator(csv::Terminator::Any(b'\n'))
            .from_reader(text.as_bytes());
        reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn quotes_hide_delimiters_and_line_ends() {
        assert_eq!(ours("a,\"b,\n\"\"c\"\"\",d\ne\n"), [vec!["a", "b,\n\"c\"", "d"], vec!["e"]]);
        assert_eq!(record_end(b"a,\"b\nc", b','), None);
        assert!(is_open(b"a,\"b\nc", b',') && !is_open(b"a\"b\n", b','));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn records_are_those_of_the_csv_crate(text in "[a\"\",é\n]{0,30}") {
            prop_assert_eq!(ours(&text), theirs(&text));
        }
    }
}
