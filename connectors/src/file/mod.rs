//! Files: as sources line by line, as sinks part by part.
//!
//! **Sources** ([`lines`], [`rows`], [`json_rows`]) read a file, or the files directly in a directory
//! (sorted by name; hidden files and unfinished ones such as `x.tmp` are passed over). Each file is a
//! split, so several workers read several files. With [`Files::follow`] they never end: files may grow
//! and new ones may appear. The position in a checkpoint carries fingerprints of the file, so that a
//! file that was replaced or cut is an error and never read from a wrong place.
//!
//! **Sinks** ([`json_lines`], [`csv()`]) write part files into a directory,
//! `part-<checkpoint>-<instance>.jsonl`. A part file appears when its checkpoint is decided, complete,
//! by renaming; until then it is in the hidden folder `.pending`. The directory belongs to one run of
//! one job: the file `.staunch` says which, and another run is refused.

mod descriptors;
mod listing;
mod mark;
mod opened;
mod part;
mod parts;
mod position;
mod reader;
mod source;
#[cfg(test)]
mod tests;
mod window;

pub use descriptors::FileId;
pub use part::{CsvPart, JsonPart, PartFile};
pub use parts::{Parts, PartsCommitter, PartsWriter};
pub use position::{FilePosition, WholeFile};
pub use reader::FileReader;
pub use source::{FileSplit, Files};

use crate::formats::{Csv, Framed, Json, Text};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Lines of text.
pub type Lines = Files<Text>;
/// Rows of CSV with a header line.
pub type Rows<T> = Files<Csv<T>>;
/// Rows of JSON Lines.
pub type JsonRows<T> = Files<Json<T>>;

/// Reads lines of UTF-8, without their line ends (`\n` or `\r\n`).
pub fn lines(path: impl AsRef<Path>) -> Lines {
    Files::new(path.as_ref(), Text)
}

/// Reads CSV with a header line into structs, by column name. Quoted fields may contain line breaks.
/// Empty lines are passed over.
pub fn rows<T: DeserializeOwned + Send + 'static>(path: impl AsRef<Path>) -> Rows<T> {
    Files::new(path.as_ref(), Csv::new())
}

/// Reads JSON Lines: one JSON value on each line. Empty lines are passed over.
pub fn json_rows<T: DeserializeOwned + Send + 'static>(path: impl AsRef<Path>) -> JsonRows<T> {
    Files::new(path.as_ref(), Json::new())
}

/// Reads records in any format whose records may lie one behind the other, one of your own too.
pub fn records<F: Framed>(path: impl AsRef<Path>, format: F) -> Files<F> {
    Files::new(path.as_ref(), format)
}

/// Writes JSON Lines into part files in a directory.
pub fn json_lines<T: Serialize + Send + 'static>(dir: impl AsRef<Path>) -> Parts<T, JsonPart> {
    Parts::new(dir.as_ref())
}

/// Writes CSV into part files in a directory. Structs get a header line in every part file; tuples and
/// single values get none.
pub fn csv<T: Serialize + Send + 'static>(dir: impl AsRef<Path>) -> Parts<T, CsvPart> {
    Parts::new(dir.as_ref())
}
