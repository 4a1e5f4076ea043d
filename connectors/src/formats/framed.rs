//! Where one record ends and the next begins, in a stream of bytes that has many.

use super::decoder::Format;
use super::quotes::{End, Scan};

/// A format whose records may lie one behind the other in one stream of bytes, such as a file. Only a line feed ends a
/// record; which one, the format says.
pub trait Framed: Format {
    /// Whether the first record of a stream is a header.
    const HEADER: bool;

    /// The end of the first record in `bytes`; `scan` remembers what was looked through.
    fn end(&self, bytes: &[u8], scan: &mut Scan) -> End {
        scan.line_end(bytes)
    }

    /// Whether `bytes`, in which no line feed ends a record, are lines that end in carriage returns.
    fn has_lone_return(&self, _bytes: &[u8]) -> bool {
        false
    }

    /// Whether `bytes` are a whole record that lacks but its line end.
    fn is_whole(&self, _bytes: &[u8]) -> bool {
        true
    }

    /// Makes the decoder of a stream. `header` is without its line end, empty if there is none. The decoder gets records
    /// without their line ends.
    ///
    /// # Errors
    /// What is wrong with the header, for people; the stream's name goes before it.
    fn decoder_under(&self, header: &str) -> Result<Self::Decoder, String>;
}
