//! Records on standard output, as they come. At least once: what was printed since the last checkpoint
//! is printed again after a crash.

use crate::formats::{Exact, Form};
use crate::nothing::Nothing;
use serde::Serialize;
use staunch_core::sink::{Guarantee, Prepared, Sink, SinkContext, SinkWriter};
use staunch_core::{CheckpointId, Error, Result};
use std::fmt::{Display, Write as _};
use std::future::Future;
use std::io::Write as _;
use std::marker::PhantomData;

/// Prints each record on a line of its own.
pub fn lines<T: Display + Send + 'static>() -> Stdout<T> {
    Stdout { print: print_line, record: PhantomData }
}

/// Prints each record as JSON on a line of its own.
pub fn json<T: Serialize + Send + 'static>() -> Stdout<T> {
    Stdout { print: print_json, record: PhantomData }
}

type Print<T> = fn(&T, &mut String) -> Result<()>;

/// Prints records; made by [`lines`] or [`json`].
#[derive(Clone, Copy, Debug)]
pub struct Stdout<T> {
    print: Print<T>,
    record: PhantomData<fn(T)>,
}

fn print_line<T: Display>(record: &T, out: &mut String) -> Result<()> {
    writeln!(out, "{record}").map_err(|e| Error::job("a record cannot be printed").caused_by(e))
}

fn print_json<T: Serialize>(record: &T, out: &mut String) -> Result<()> {
    let line = serde_json::to_string(&Exact::new(record, Form::Json))
        .map_err(|e| Error::job("a record cannot be written as JSON").caused_by(e))?;
    out.push_str(&line);
    out.push('\n');
    Ok(())
}

impl<T: Send + 'static> Sink for Stdout<T> {
    type Record = T;
    type Writer = StdoutWriter<T>;
    type Committer = Nothing;

    async fn writer(&self, _context: &SinkContext) -> Result<Self::Writer> {
        Ok(StdoutWriter { print: self.print, text: String::new() })
    }

    async fn committer(&self, context: &SinkContext) -> Result<Nothing> {
        Ok(Nothing::new(&context.sink))
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }
}

/// Prints the records of one instance.
#[derive(Debug)]
pub struct StdoutWriter<T> {
    print: Print<T>,
    /// One batch: printed in one piece, so that lines of two instances do not mix.
    text: String,
}

impl<T: Send + 'static> SinkWriter for StdoutWriter<T> {
    type Record = T;

    async fn write(&mut self, records: Vec<T>) -> Result<()> {
        self.text.clear();
        for record in &records {
            (self.print)(record, &mut self.text)?;
        }
        drop(records);
        std::io::stdout().lock().write_all(self.text.as_bytes()).map_err(failed)
    }

    fn cut(
        &mut self,
        _checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        std::io::stdout().lock().flush().map_err(failed)?;
        Ok(async { Ok(Vec::new()) })
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::external("cannot print to standard output").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_printed_one_a_line() {
        let mut out = String::new();
        (lines::<u32>().print)(&7, &mut out).unwrap();
        (json::<(u32, &str)>().print)(&(1, "a\nb"), &mut out).unwrap();
        assert_eq!(out, "7\n[1,\"a\\nb\"]\n");
    }
}
