//! Where a record ends, and what the fields of a CSV record are: quotes may hide delimiters and line ends.
//!
//! A quote opens a quoted field only at the field's beginning; inside, two quotes are one; after the
//! closing quote anything up to the delimiter is taken as it is. This is how the `csv` crate reads, except
//! that here only a line feed ends a record.

use csv::StringRecord;
use std::io::BufRead;

const QUOTE: u8 = b'"';

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum At {
    #[default]
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
pub(crate) fn line_end(bytes: &[u8]) -> Option<usize> {
    // Reading from memory cannot fail; this is the standard library's way to its fast byte search.
    let mut rest = bytes;
    let length = rest.skip_until(b'\n').unwrap_or(0);
    (length > 0 && bytes[length - 1] == b'\n').then_some(length)
}

/// How far a record that is not complete yet was looked through, so that it is not looked through again each
/// time that more of it has come.
#[derive(Clone, Copy, Default, Debug)]
pub struct Scan {
    /// Bytes of its whole lines.
    whole: usize,
    /// Bytes in which no more line ends are.
    seen: usize,
    /// Its whole lines, each of which ends inside a quoted field.
    lines: usize,
    at: At,
}

impl Scan {
    /// Lines that the quoted field at its end goes over so far.
    pub(crate) fn open_lines(&self) -> usize {
        self.lines
    }

    fn next_line<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let found = line_end(&bytes[self.seen..]);
        let Some(length) = found else {
            self.seen = bytes.len();
            return None;
        };
        let line = &bytes[self.whole..self.seen + length];
        self.seen += length;
        self.whole = self.seen;
        Some(line)
    }
}

/// Where a record ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// So many bytes with the line end.
    At(usize),
    /// Not in these bytes.
    Later,
    /// A quoted field goes over more lines than a record may have.
    TooManyLines,
}

impl Scan {
    /// The end of the first line.
    pub(super) fn line_end(&mut self, bytes: &[u8]) -> End {
        self.next_line(bytes).map_or(End::Later, |line| End::At(line.len()))
    }

    /// The end of the first record: the first line end outside quotes.
    pub(super) fn record_end(&mut self, bytes: &[u8], delimiter: u8, max_lines: usize) -> End {
        while self.lines < max_lines {
            let Some(line) = self.next_line(bytes) else { return End::Later };
            if self.at == At::Quoted || line.contains(&QUOTE) {
                self.at = line.iter().fold(self.at, |at, byte| at.step(*byte, delimiter));
            }
            if self.at != At::Quoted {
                return End::At(self.whole);
            }
            self.lines += 1;
        }
        End::TooManyLines
    }
}

/// Whether there is a carriage return outside quotes that no line feed follows. One at the end of `bytes` is not
/// followed by any.
pub(super) fn has_lone_return(bytes: &[u8], delimiter: u8) -> bool {
    if !bytes.contains(&b'\r') {
        return false;
    }
    let (mut at, mut returned) = (At::FieldStart, false);
    for byte in bytes {
        if returned && *byte != b'\n' {
            return true;
        }
        at = at.step(*byte, delimiter);
        returned = *byte == b'\r' && at != At::Quoted;
    }
    returned
}

/// Whether these bytes end inside a quoted field.
pub(super) fn is_open(bytes: &[u8], delimiter: u8) -> bool {
    bytes.iter().fold(At::FieldStart, |at, byte| at.step(*byte, delimiter)) == At::Quoted
}

/// How many fields a record has, without its line end.
pub(super) fn count(record: &[u8], delimiter: u8) -> usize {
    let (mut at, mut fields) = (At::FieldStart, 1);
    for byte in record {
        fields += usize::from(*byte == delimiter && at != At::Quoted);
        at = at.step(*byte, delimiter);
    }
    fields
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
            let found = Scan::default().record_end(rest.as_bytes(), b',', usize::MAX);
            let (end, record) = match found {
                End::At(end) => (end, &rest[..end - 1]),
                _ => (rest.len(), rest),
            };
            if !record.is_empty() {
                split(record, b',', &mut fields);
                assert_eq!(count(record.as_bytes(), b','), fields.len(), "{record:?}");
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
        assert_eq!(Scan::default().record_end(b"a,\"b\nc", b',', 5), End::Later);
        assert!(is_open(b"a,\"b\nc", b',') && !is_open(b"a\"b\n", b','));
    }

    #[test]
    fn a_record_over_too_many_lines_is_given_up_at_the_same_line_however_it_comes() {
        let text = b"\"a\nb\nc\nd\"\n";
        for max in 0..6 {
            let whole = Scan::default().record_end(text, b',', max);
            assert_eq!(whole, if max <= 3 { End::TooManyLines } else { End::At(text.len()) }, "{max}");
            let (mut scan, mut piecewise) = (Scan::default(), End::Later);
            for length in 0..=text.len() {
                if piecewise == End::Later {
                    piecewise = scan.record_end(&text[..length], b',', max);
                }
            }
            assert_eq!(piecewise, whole, "{max}");
        }
    }

    #[test]
    fn a_carriage_return_is_a_lone_one_unless_it_is_quoted_or_a_line_feed_follows() {
        for (text, lone) in [
            ("a\r\nb\r\n", false),
            ("a\rb\n", true),
            ("a\r\r\n", true),
            ("a\r", true),
            ("\"a\rb\",c\r\n", false),
            ("\"a\"\rb\n", true),
            ("", false),
        ] {
            assert_eq!(has_lone_return(text.as_bytes(), b','), lone, "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn records_are_those_of_the_csv_crate(text in "[a\"\",é\n]{0,30}") {
            prop_assert_eq!(ours(&text), theirs(&text));
        }
    }
}
