//! What a job's process writes for people: its log and its last words on standard error, a plan on standard output.
//!
//! Nothing of the log is worth a job: if standard error is closed or full, what cannot be written is dropped, and the
//! exit code is what it would have been.

use staunch_core::{Error, Result};
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Whether the last line of the terminal is one that is written over again and again.
static LINE_SHOWN: AtomicBool = AtomicBool::new(false);
/// Back to the beginning of the line, and away with it.
const CLEAR: &str = "\r\x1b[2K";

/// Standard error for the log: it takes everything.
#[derive(Debug, Default)]
pub(crate) struct Log;

/// Writes the terminal's last line anew; the log goes before it. An empty one takes it away.
pub(crate) fn show_line(line: &str) {
    let mut terminal = io::stderr().lock();
    LINE_SHOWN.store(!line.is_empty(), SeqCst);
    let _ = terminal.write_all(format!("{CLEAR}{line}").as_bytes()).and_then(|()| terminal.flush());
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr().lock();
        if LINE_SHOWN.swap(false, SeqCst) {
            let _ = stderr.write_all(CLEAR.as_bytes());
        }
        let _ = stderr.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = io::stderr().flush();
        Ok(())
    }
}

/// A line on standard error.
pub(crate) fn say(text: &str) {
    let _ = Log.write(format!("{text}\n").as_bytes());
}

/// A text on standard output, for whoever asked for it.
///
/// # Errors
/// It cannot be written. A reader that has seen enough, as `head` has, is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::external("cannot print to standard output").caused_by(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// From now on a panic is an entry of the log. What it means for the job is said by the error that comes of it.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let (thread, text) = (thread.name().unwrap_or("?"), panic_text(panic.payload()));
        // RUST_BACKTRACE=1 has it captured.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!(thread, place, %backtrace, "panicked: {text}");
        } else {
            tracing::error!(thread, place, "panicked: {text}");
        }
    }));
}

/// Runs a process's work; a panic that nobody has taken for somebody's is a bug of ours.
pub(crate) fn caught(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Error::internal(format!("panicked: {}", panic_text(&*panic)))))
}

fn panic_text(panic: &dyn Any) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
