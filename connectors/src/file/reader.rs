//! Reads one file: finds records, decodes them, and knows where it stands.

use super::decode::{Decode, Format};
use super::opened::{self, Opened};
use super::position::{FilePosition, GOES_ON};
use super::quotes::line_end;
use super::window::Window;
use staunch_core::background::BlockingReader;
use staunch_core::source::{DeadLetter, Progress, Records};
use staunch_core::{Error, Result};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A call returns after so many bytes, so that batches of long records stay small and a call short.
const CALL_BYTES: u64 = if cfg!(test) { 32 } else { 4 << 20 };
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What the user chose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub follow: bool,
    pub max_line_bytes: usize,
}

/// Reads one file.
#[derive(Debug)]
pub struct FileReader<F: Format> {
    path: PathBuf,
    /// For messages: the file's name.
    name: String,
    format: F,
    settings: Settings,
    /// Says to others that the file is open; given up before it is closed.
    opened: Option<Arc<Opened>>,
    window: Window,
    /// `None` until the beginning of the file, with the header if there is one, is read.
    decoder: Option<F::Decoder>,
    header: Option<u32>,
    line: u64,
    unterminated: bool,
    skip: Option<Skip>,
    /// True once a followed file is known to be deleted: its end is the end.
    deleted: bool,
    /// True once the end of a file that is not waited for is found: what is appended later is never read.
    ended: bool,
}

/// A line that is too long, on the way to its end.
#[derive(Debug)]
struct Skip {
    /// Where it begins: a restart begins there again.
    position: FilePosition,
    raw: Vec<u8>,
}

impl<F: Format> FileReader<F> {
    /// Opens a file at a position.
    pub(super) fn open(
        path: PathBuf,
        format: F,
        settings: Settings,
        at: Option<&FilePosition>,
    ) -> Result<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let file = File::open(&path).map_err(|e| {
            let since = if at.is_some() { " It was there at the last checkpoint: put it back." } else { "" };
            Error::job(format!("cannot open {}; check the path and its permissions.{since}", path.display()))
                .caused_by(e)
        })?;
        let mut reader = Self {
            path,
            name,
            format,
            settings,
            opened: None,
            window: Window::new(file),
            decoder: None,
            header: None,
            line: 1,
            unterminated: false,
            skip: None,
            deleted: false,
            ended: false,
        };
        reader.begin()?;
        if let Some(at) = at.filter(|at| at.offset > 0) {
            at.seek(&mut reader.window, reader.header).map_err(|e| reader.not_the_same(e))?;
            (reader.line, reader.unterminated) = (at.line, at.unterminated);
            reader.ended = at.unterminated && !settings.follow;
        }
        Ok(reader)
    }

    /// Notes that the file is open, until the reader is dropped.
    pub(super) fn register(&mut self) -> Result<()> {
        let open = self.window.file().metadata().map_err(|e| self.unreadable(e))?;
        self.opened = Some(opened::add(&self.path, &open, &self.name)?);
        Ok(())
    }

    fn not_the_same(&self, why: Result<String, std::io::Error>) -> Error {
        match why {
            Err(e) => self.unreadable(e),
            Ok(what) => Error::job(format!(
                "{} is not the file that was read before the last checkpoint: {what}. Put the original back, or \
                 start without the checkpoint",
                self.path.display()
            )),
        }
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        Error::external(format!("cannot read {}", self.path.display())).caused_by(error)
    }

    fn changed(&self, what: &str) -> Error {
        let (reading, rule) = if self.settings.follow {
            ("followed", "a followed file must only grow (begin a new file instead)")
        } else {
            ("read", "until its end is read, a file must only grow (put the original back)")
        };
        Error::job(format!("{} {what} while it was {reading}; {rule}", self.path.display()))
    }

    /// Reads more; 0 at the end of the file. What was read before must still be there, or the new bytes do
    /// not follow it: the file may have been cut, and may have grown again, while nobody looked.
    fn fill(&mut self) -> Result<usize> {
        let new = self.window.fill().map_err(|e| self.unreadable(e))?;
        if let Some(what) = self.window.change(new).map_err(|e| self.unreadable(e))? {
            return Err(self.changed(what));
        }
        // It was read to its end when nobody followed it, and now somebody does.
        if new > 0 && self.unterminated {
            return Err(self.not_the_same(Ok(GOES_ON.to_owned())));
        }
        Ok(new)
    }

    /// Reads the byte order mark and the header, if they are there; if not, the decoder stays `None`.
    fn begin(&mut self) -> Result<()> {
        let mut at_end = false;
        loop {
            let rest = self.window.rest();
            let text = rest.strip_prefix(BYTE_ORDER_MARK).unwrap_or(rest);
            let known = rest.len() >= BYTE_ORDER_MARK.len() || !BYTE_ORDER_MARK.starts_with(rest);
            let whole = if !F::HEADER { Some(0) } else { self.format.end(text) };
            let last = at_end && !self.settings.follow && !rest.is_empty();
            let all = if F::HEADER { text.len() } else { 0 };
            if let Some(header) = whole.filter(|_| known).or_else(|| last.then_some(all)) {
                let mark = rest.len() - text.len();
                self.begin_with(mark, header)?;
                // Only the end of the file can have cut the header off.
                self.ended = self.unterminated;
                return Ok(());
            }
            if text.len() > self.settings.max_line_bytes {
                let limit = self.settings.max_line_bytes;
                return Err(Error::job(format!(
                    "{}: the header is longer than {limit} bytes",
                    self.path.display()
                )));
            }
            if at_end {
                return Ok(());
            }
            at_end = self.fill()? == 0;
        }
    }

    fn begin_with(&mut self, mark: usize, header: usize) -> Result<()> {
        let bytes = &self.window.rest()[mark..mark + header];
        let bad = |why: String| Error::job(format!("{}: the header {why}", self.path.display()));
        if !self.format.is_whole(bytes) {
            return Err(bad("has a quote that is not closed".to_owned()));
        }
        let text = std::str::from_utf8(trim(bytes)).map_err(|e| bad(format!("is not UTF-8: {e}")))?;
        self.decoder = Some(self.format.decoder(text));
        self.header = F::HEADER.then(|| crc32c::crc32c(text.as_bytes()));
        self.line += newlines(bytes);
        self.unterminated = F::HEADER && !bytes.ends_with(b"\n");
        self.window.consume(mark + header);
        Ok(())
    }

    /// Takes the first `length` bytes of the rest as a record, or as bad input if `bad` says why.
    fn take(&mut self, length: usize, bad: Option<String>, out: &mut Records<F::Record>) {
        let bytes = &self.window.rest()[..length];
        let record = trim(bytes);
        let decoded = match (bad, &mut self.decoder) {
            (Some(why), _) => Err(why),
            (None, None) => Ok(None),
            (None, Some(decoder)) => std::str::from_utf8(record)
                .map_err(|e| format!("not UTF-8: {e}"))
                .and_then(|text| decoder.decode(text)),
        };
        match decoded {
            Ok(Some(value)) => out.push(value, length + size_of::<F::Record>()),
            Ok(None) => {}
            Err(why) => out.bad(DeadLetter::new(format!("{} line {}", self.name, self.line), why, record)),
        }
        self.unterminated = !bytes.ends_with(b"\n");
        self.line += newlines(bytes);
        self.window.consume(length);
    }

    /// Takes the next whole record from the window, or begins to skip it if it is too long. False if there is
    /// none.
    fn take_next(&mut self, out: &mut Records<F::Record>) -> bool {
        if self.decoder.is_none() {
            return false;
        }
        let limit = self.settings.max_line_bytes;
        let rest = self.window.rest();
        let end = self.format.end(rest);
        if let Some(end) = end.filter(|end| *end <= limit) {
            self.take(end, None, out);
        } else if end.is_none() && rest.len() <= limit {
            return false;
        } else if let Some(first) = line_end(rest).filter(|first| *first <= limit) {
            let why = format!("a quote is not closed within {limit} bytes (the limit of max_line_bytes)");
            self.take(first, Some(why), out);
        } else {
            self.skip = Some(Skip { position: self.here(), raw: Vec::new() });
        }
        true
    }

    /// Throws away what the window has of a line that is too long. True if that was its end.
    fn skip_on(&mut self, out: &mut Records<F::Record>, at_end: bool) -> bool {
        let Some(skip) = &mut self.skip else { return true };
        let rest = self.window.rest();
        let end = line_end(rest);
        let line = &rest[..end.unwrap_or(rest.len())];
        let room = DeadLetter::MAX_RAW - skip.raw.len();
        skip.raw.extend_from_slice(&line[..line.len().min(room)]);
        self.window.consume(line.len());
        if end.is_none() && !at_end {
            return false;
        }
        let limit = self.settings.max_line_bytes;
        let why = format!("longer than {limit} bytes (the limit of max_line_bytes)");
        out.bad(DeadLetter::new(format!("{} line {}", self.name, self.line), why, trim(&skip.raw)));
        self.line += u64::from(end.is_some());
        self.unterminated = end.is_none();
        self.skip = None;
        true
    }

    /// At the end of a file that is not waited for, when the window has no whole record: takes the last line,
    /// which has no line end. False if there is nothing more.
    fn take_last(&mut self, out: &mut Records<F::Record>) -> bool {
        if self.skip.is_some() {
            return self.skip_on(out, true);
        }
        let rest = self.window.rest();
        if rest.is_empty() {
            return false;
        }
        debug_assert!(self.format.end(rest).is_none(), "a whole record is not the last line");
        if self.format.is_whole(rest) {
            self.take(rest.len(), None, out);
        } else {
            let first = line_end(rest).unwrap_or(rest.len());
            self.take(first, Some("a quote is not closed before the end of the file".to_owned()), out);
        }
        true
    }

    /// At the end of a file that may grow: idle, unless it can no longer be the same file. Ready means to
    /// look once more, because the file was deleted.
    fn wait(&mut self) -> Result<Progress> {
        // The path first: a file that is deleted in between is seen to be deleted the next time.
        let path = self.path.metadata();
        let open = self.window.file().metadata().map_err(|e| self.unreadable(e))?;
        match path {
            Ok(now) if (now.dev(), now.ino()) == (open.dev(), open.ino()) => Ok(Progress::Idle),
            Err(e) if e.kind() == ErrorKind::NotFound && open.nlink() == 0 => {
                self.deleted = true;
                Ok(Progress::Ready)
            }
            _ => Err(self.changed("was renamed or replaced")),
        }
    }

    fn here(&self) -> FilePosition {
        FilePosition {
            offset: self.window.offset(),
            line: self.line,
            header: self.header,
            head: crc32c::crc32c(self.window.head()),
            before: crc32c::crc32c(self.window.before()),
            unterminated: self.unterminated,
        }
    }
}

impl<F: Format> BlockingReader for FileReader<F> {
    type Record = F::Record;
    type Position = FilePosition;

    fn read(&mut self, out: &mut Records<F::Record>) -> Result<Progress> {
        let from = self.window.offset();
        while out.room() > 0 && self.window.offset() - from < CALL_BYTES {
            let taken = if self.skip.is_some() { self.skip_on(out, false) } else { self.take_next(out) };
            if taken {
                continue;
            }
            // The window has no whole record: more is read, or what it has is the last line.
            if !self.ended {
                if self.fill()? > 0 {
                    if self.decoder.is_none() {
                        self.begin()?;
                    }
                    continue;
                }
                if self.settings.follow && !self.deleted {
                    return self.wait();
                }
                self.ended = true;
            }
            if self.decoder.is_none() || !self.take_last(out) {
                return Ok(Progress::End);
            }
        }
        Ok(Progress::Ready)
    }

    fn position(&self) -> FilePosition {
        self.skip.as_ref().map_or_else(|| self.here(), |skip| skip.position.clone())
    }
}

/// Without the line end.
fn trim(bytes: &[u8]) -> &[u8] {
    let Some(line) = bytes.strip_suffix(b"\n") else { return bytes };
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
