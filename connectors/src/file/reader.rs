//! Reads one file: finds records, decodes them, and knows where it stands.

use super::descriptors::{FileId, cannot_open, should_let_go};
use super::opened::{self, Opened};
use super::position::{FilePosition, GOES_ON, WholeFile};
use super::window::Window;
use crate::formats::{Decoder, End, Framed, NotDecoded, Scan, Undecodable, line_end};
use staunch_core::background::BlockingReader;
use staunch_core::error::Kind;
use staunch_core::source::{DeadLetter, Progress, Records};
use staunch_core::{Error, Result};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A call returns after so many bytes, so that batches of long records stay small and a call short.
const CALL_BYTES: u64 = if cfg!(test) { 32 } else { 4 << 20 };
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// What is wrong with a file that was written where lines end in carriage returns.
const NO_LINE_FEED: &str = ", but in no line feed: its lines seem to end in carriage returns only; convert it \
     (`tr '\\r' '\\n'`)";
/// An open quote is told of once it has hidden so many line ends, or has been waited for so long.
const OPEN_LINES: usize = 10;
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// What the user chose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub follow: bool,
    pub max_line_bytes: usize,
}

/// Reads one file.
#[derive(Debug)]
pub struct FileReader<F: Framed> {
    path: PathBuf,
    /// How far the record at the beginning of the window was looked through.
    scan: Scan,
    /// Since when a closing quote is waited for, and whether the log says so.
    open: Option<(Instant, bool)>,
    /// For messages: the file's name.
    name: String,
    format: F,
    settings: Settings,
    /// Says to others that the file is open; given up before it is closed.
    opened: Option<Opened>,
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
    /// What the file was like when all of it was read.
    whole: Option<WholeFile>,
    /// Since when a followed file has had nothing, and what it was like when that was found.
    quiet: Option<(Instant, WholeFile)>,
    /// The file was read to its end by an earlier run, and is gone: this is where that was.
    gone: Option<FilePosition>,
    /// Since when its name is missing while nothing else tells whether it was deleted or renamed.
    missing: Option<Instant>,
}

/// A line that is too long, on the way to its end.
#[derive(Debug)]
struct Skip {
    /// Where it begins: a restart begins there again.
    position: FilePosition,
    raw: Vec<u8>,
}

impl<F: Framed> FileReader<F> {
    /// Opens a file at a position. One that was read to its end and is gone has nothing more to say.
    pub(super) fn open(
        path: PathBuf,
        format: F,
        settings: Settings,
        at: Option<&FilePosition>,
    ) -> Result<Self> {
        let window = match Window::open(&path) {
            Ok(window) => window,
            Err(e) => {
                let whole = at.and_then(|at| at.whole.map(|whole| (at, whole)));
                if let (ErrorKind::NotFound, Some((at, whole))) = (e.kind(), whole) {
                    tracing::info!(file = %path.display(), "gone since it was read to its end: it is done");
                    return Ok(Self::new(path, format, settings, Window::of_nothing(whole.id()), Some(at)));
                }
                if e.kind() == ErrorKind::NotFound && at.is_none() && settings.follow {
                    tracing::warn!(file = %path.display(), "was deleted before anything of it was read");
                    let (window, nothing) =
                        (Window::of_nothing(FileId::default()), FilePosition::beginning());
                    return Ok(Self::new(path, format, settings, window, Some(&nothing)));
                }
                let advice = match at {
                    Some(_) => {
                        " It was there at the last checkpoint, and was not read to its end: put it back."
                    }
                    None => "",
                };
                return Err(cannot_open(&path, e, advice));
            }
        };
        let mut reader = Self::new(path, format, settings, window, None);
        reader.begin()?;
        if let Some(at) = at.filter(|at| at.offset > 0) {
            let length = reader.metadata()?.len();
            at.seek(&mut reader.window, length, reader.header).map_err(|e| reader.not_the_same(e))?;
            (reader.line, reader.unterminated) = (at.line, at.unterminated);
            reader.ended = at.unterminated && !settings.follow;
        }
        reader.note_whole()?;
        if should_let_go(Duration::ZERO) {
            reader.window.let_go();
        }
        Ok(reader)
    }

    fn new(
        path: PathBuf,
        format: F,
        settings: Settings,
        window: Window,
        gone: Option<&FilePosition>,
    ) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self {
            path,
            name,
            format,
            settings,
            opened: None,
            window,
            scan: Scan::default(),
            open: None,
            decoder: None,
            header: None,
            line: 1,
            unterminated: false,
            skip: None,
            deleted: false,
            ended: false,
            whole: None,
            quiet: None,
            gone: gone.cloned(),
            missing: None,
        }
    }

    /// Notes that the file is open, until the reader is dropped.
    pub(super) fn register(&mut self) -> Result<()> {
        match opened::add(&self.path, self.window.id(), &self.name) {
            Ok(opened) => self.opened = Some(opened),
            // The directory may be gone with the file.
            Err(error) if self.gone.is_none() || error.kind() == Kind::Job => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    fn metadata(&self) -> Result<Metadata> {
        let file = self.window.metadata().unwrap_or_else(|| self.path.metadata());
        file.map_err(|e| self.unreadable(e))
    }

    /// Takes note if all that the file has now was read.
    fn note_whole(&mut self) -> Result<()> {
        if self.window.rest().is_empty() && !self.window.is_let_go() {
            let whole = WholeFile::of(&self.metadata()?);
            self.whole = Some(whole).filter(|whole| whole.bytes() == self.window.offset());
        }
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
        Error::external(format!("cannot read {}; is the disk that it is on there?", self.path.display()))
            .caused_by(error)
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
        match self.window.take_up(&self.path) {
            Ok(true) => {}
            Ok(false) => return Err(self.changed("was renamed or replaced")),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(self.changed("was deleted or renamed before it was read to its end"));
            }
            Err(e) => return Err(cannot_open(&self.path, e, "")),
        }
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

    /// Reads the byte order mark, empty lines and the header, if they are there; if not, the decoder stays `None`.
    /// They are consumed together, so that a position is before all of them or behind.
    fn begin(&mut self) -> Result<()> {
        let mut at_end = false;
        loop {
            let rest = self.window.rest();
            self.check_encoding(rest)?;
            let text = rest.strip_prefix(BYTE_ORDER_MARK).unwrap_or(rest);
            let known = rest.len() >= BYTE_ORDER_MARK.len() || !BYTE_ORDER_MARK.starts_with(rest);
            let text = if F::HEADER { without_empty_lines(text) } else { text };
            let before = rest.len() - text.len();
            let whole = if F::HEADER { self.format.end(text, &mut Scan::default()) } else { End::At(0) };
            let last = at_end && !self.settings.follow && !rest.is_empty();
            match whole {
                End::At(length) if known => return self.begin_with(before, length),
                End::TooManyLines => return Err(self.bad_header("has a quote that is not closed".to_owned())),
                // A file of empty lines has no header and no rows.
                _ if last && F::HEADER && text.is_empty() => return Ok(()),
                _ if last => return self.begin_with(before, if F::HEADER { text.len() } else { 0 }),
                _ => {}
            }
            let limit = self.settings.max_line_bytes;
            if text.len() > limit {
                let returns =
                    if self.format.has_lone_return(text) { ", and has carriage returns" } else { "" };
                return Err(self.bad_header(format!("is longer than {limit} bytes{returns}")));
            }
            // The last byte may be half of a line end.
            if self.format.has_lone_return(&text[..text.len().saturating_sub(1)]) {
                return Err(self.bad_header(format!("ends in a carriage return{NO_LINE_FEED}")));
            }
            if at_end {
                return Ok(());
            }
            at_end = self.fill()? == 0;
        }
    }

    /// Text of 16 bits a character would be read as other text, or as nothing but bad input.
    fn check_encoding(&self, rest: &[u8]) -> Result<()> {
        let marked = rest.starts_with(b"\xff\xfe") || rest.starts_with(b"\xfe\xff");
        let looks = matches!(rest, [0, 1..=255, 0, 1..=255, ..] | [1..=255, 0, 1..=255, 0, ..]);
        if marked || looks {
            return Err(Error::job(format!(
                "{} is text in UTF-16, and is to be in UTF-8; convert it (`iconv -f UTF-16 -t UTF-8`)",
                self.path.display()
            )));
        }
        Ok(())
    }

    fn bad_header(&self, why: String) -> Error {
        Error::job(format!("{}: the header {why}", self.path.display()))
    }

    /// Takes the header, which is `before` bytes behind the beginning of the file.
    fn begin_with(&mut self, before: usize, header: usize) -> Result<()> {
        let bytes = &self.window.rest()[before..before + header];
        if !self.format.is_whole(bytes) {
            return Err(self.bad_header("has a quote that is not closed".to_owned()));
        }
        if self.format.has_lone_return(bytes) {
            return Err(self.bad_header(format!("ends in a carriage return{NO_LINE_FEED}")));
        }
        let text = std::str::from_utf8(trim(bytes));
        let text = text.map_err(|e| self.bad_header(format!("is not UTF-8: {e}")))?;
        self.decoder = Some(self.format.decoder_under(text).map_err(|why| self.bad_header(why))?);
        self.header = F::HEADER.then(|| crc32c::crc32c(text.as_bytes()));
        self.line += newlines(&self.window.rest()[..before + header]);
        self.unterminated = F::HEADER && !bytes.ends_with(b"\n");
        // Only the end of the file can have cut the header off.
        self.ended = self.unterminated;
        self.window.consume(before + header);
        Ok(())
    }

    /// Takes the first `length` bytes of the rest as a record, or as bad input if `bad` says why.
    fn take(&mut self, length: usize, bad: Option<String>, out: &mut Records<F::Record>) {
        let bytes = &self.window.rest()[..length];
        let record = trim(bytes);
        let decoded = match (bad, &mut self.decoder) {
            (Some(why), _) => Err(Undecodable::new(why)),
            (None, None) => Ok(None),
            (None, Some(decoder)) => decoder.decode(record).map_err(NotDecoded::into_bad),
        };
        match decoded {
            Ok(Some(value)) => out.push(value, length + size_of::<F::Record>()),
            Ok(None) => {}
            Err(why) => out.bad(why.letter(format!("{} line {}", self.name, self.line), record)),
        }
        self.unterminated = !bytes.ends_with(b"\n");
        self.line += newlines(bytes);
        self.window.consume(length);
        (self.scan, self.open) = (Scan::default(), None);
    }

    /// Takes the next whole record from the window, or begins to skip it if it is too long. False if there is
    /// none.
    fn take_next(&mut self, out: &mut Records<F::Record>) -> bool {
        if self.decoder.is_none() {
            return false;
        }
        let limit = self.settings.max_line_bytes;
        let rest = self.window.rest();
        let end = self.format.end(rest, &mut self.scan);
        match end {
            End::At(end) if end <= limit => {
                self.take(end, None, out);
                return true;
            }
            End::Later if rest.len() <= limit => return false,
            _ => {}
        }
        if let Some(first) = line_end(rest).filter(|first| *first <= limit) {
            let within = match end {
                End::TooManyLines => {
                    format!("{} lines (the limit of max_record_lines)", self.scan.open_lines())
                }
                _ => format!("{limit} bytes (the limit of max_line_bytes)"),
            };
            self.take(first, Some(format!("a quote is not closed within {within}")), out);
        } else {
            self.skip = Some(Skip { position: self.here(), raw: Vec::new() });
            (self.scan, self.open) = (Scan::default(), None);
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
        let letter = DeadLetter::new(format!("{} line {}", self.name, self.line), why, trim(&skip.raw));
        out.bad(DeadLetter { cut: true, ..letter });
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
        debug_assert_eq!(
            self.format.end(rest, &mut self.scan),
            End::Later,
            "a whole record is not the last line"
        );
        if self.line == 1 && self.format.has_lone_return(rest) {
            self.take(rest.len(), Some(format!("it ends in carriage returns{NO_LINE_FEED}")), out);
        } else if self.format.is_whole(rest) {
            self.take(rest.len(), None, out);
        } else {
            let first = line_end(rest).unwrap_or(rest.len());
            self.take(first, Some("a quote is not closed before the end of the file".to_owned()), out);
        }
        true
    }

    /// Whether a followed file that was found to have nothing is as it was then, by its name alone: so that
    /// thousands of quiet ones cost one look each. If it is deleted while the file is let go, its end is the end.
    fn is_quiet(&mut self) -> Result<bool> {
        let Some((_, then)) = self.quiet else { return Ok(false) };
        match self.path.metadata() {
            Ok(now) if WholeFile::of(&now) == then => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound && self.window.is_let_go() => {
                self.ended = !self.may_be_renamed();
                Ok(!self.ended)
            }
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.unreadable(e)),
            _ => Ok(false),
        }
    }

    /// Whether a file that is missing and not open may still turn up under another name: then it must not be at its
    /// end, or it would be read again as another one.
    fn may_be_renamed(&mut self) -> bool {
        let missing = *self.missing.get_or_insert_with(Instant::now);
        self.opened.as_ref().is_some_and(|opened| !opened.was_not_renamed(missing))
    }

    /// At the end of a file that may grow: idle, unless it can no longer be the same file. Ready means to
    /// look once more, because the file was deleted.
    fn wait(&mut self) -> Result<Progress> {
        // The path first: a file that is deleted in between is seen to be deleted the next time.
        let path = self.path.metadata();
        let open = self.metadata()?;
        match path {
            Ok(now) if FileId::of(&now) == FileId::of(&open) => {
                let end = self.window.offset() + self.window.rest().len() as u64;
                let found = WholeFile::of(&open);
                // One that has grown in between is looked at again at once.
                self.quiet = (found.bytes() == end).then(|| (Instant::now(), found));
                self.note_whole()?;
                self.window.rest_a_while();
                Ok(Progress::Idle)
            }
            Err(e) if e.kind() == ErrorKind::NotFound && open.nlink() == 0 => {
                self.deleted = true;
                Ok(Progress::Ready)
            }
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.unreadable(e)),
            _ => Err(self.changed("was renamed or replaced")),
        }
    }

    /// A look at a file that has nothing new.
    fn stay_quiet(&mut self) -> Progress {
        self.tell_of_open_quote();
        if let Some((since, _)) = self.quiet
            && should_let_go(since.elapsed())
        {
            self.window.let_go();
        }
        Progress::Idle
    }

    /// A quote too many would hold all later rows back without a word.
    fn tell_of_open_quote(&mut self) {
        let lines = self.scan.open_lines();
        if lines == 0 {
            return;
        }
        let (since, said) = self.open.get_or_insert_with(|| (Instant::now(), false));
        if !*said && (lines >= OPEN_LINES || since.elapsed() >= OPEN_WAIT) {
            *said = true;
            tracing::warn!(
                file = %self.path.display(),
                line = self.line,
                lines,
                bytes = self.window.rest().len(),
                "a quote is open and holds these lines back until it is closed or the record is given up \
                 (max_record_lines, max_line_bytes); is it a quote too many?"
            );
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
            whole: self.whole.filter(|whole| whole.bytes() == self.window.offset()),
        }
    }

    fn read_some(&mut self, out: &mut Records<F::Record>) -> Result<Progress> {
        let from = self.window.offset();
        while out.room() > 0 && self.window.offset() - from < CALL_BYTES {
            let taken = if self.skip.is_some() { self.skip_on(out, false) } else { self.take_next(out) };
            if taken {
                continue;
            }
            // The window has no whole record: more is read, or what it has is the last line.
            if !self.ended {
                self.quiet = None;
                if self.fill()? > 0 {
                    if self.decoder.is_none() {
                        self.begin()?;
                    }
                    continue;
                }
                if self.settings.follow && !self.deleted {
                    let progress = self.wait()?;
                    return Ok(if progress == Progress::Idle { self.stay_quiet() } else { progress });
                }
                self.ended = true;
            }
            if self.decoder.is_none() || !self.take_last(out) {
                return Ok(Progress::End);
            }
        }
        Ok(Progress::Ready)
    }
}

impl<F: Framed> BlockingReader for FileReader<F> {
    type Record = F::Record;
    type Position = FilePosition;

    fn read(&mut self, out: &mut Records<F::Record>) -> Result<Progress> {
        if self.gone.is_some() {
            let waits = self.settings.follow && self.may_be_renamed();
            return Ok(if waits { Progress::Idle } else { Progress::End });
        }
        if self.is_quiet()? {
            return Ok(self.stay_quiet());
        }
        let progress = self.read_some(out)?;
        if progress != Progress::Idle {
            self.note_whole()?;
        }
        Ok(progress)
    }

    /// A last line without a line end, if all before it was handed out and it is still the last one.
    fn drain(&mut self, out: &mut Records<F::Record>) -> Result<()> {
        if self.gone.is_some() || self.ended || self.decoder.is_none() {
            return Ok(());
        }
        let is_behind = self.format.end(self.window.rest(), &mut self.scan) != End::Later;
        if is_behind || (!self.is_quiet()? && !self.ended && self.fill()? > 0) {
            return Ok(());
        }
        self.ended = true;
        while (self.skip.is_none() && self.take_next(out)) || self.take_last(out) {}
        Ok(())
    }

    fn position(&self) -> FilePosition {
        if let Some(position) = &self.gone {
            return position.clone();
        }
        self.skip.as_ref().map_or_else(|| self.here(), |skip| skip.position.clone())
    }
}

/// Without the empty lines at its beginning.
fn without_empty_lines(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_prefix(b"\r\n").or_else(|| text.strip_prefix(b"\n")) {
        text = rest;
    }
    text
}

/// Without the line end.
fn trim(bytes: &[u8]) -> &[u8] {
    let Some(line) = bytes.strip_suffix(b"\n") else { return bytes };
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
