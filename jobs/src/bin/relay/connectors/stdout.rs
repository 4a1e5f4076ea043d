//! Standard output.

use super::{Connector, MakeSink, Role};
use crate::address::Address;
use crate::record::{Moved, Needs, Shape};
use staunch::prelude::{Error, Result, Stream};
use staunch::stdout;

pub const CONNECTOR: Connector = Connector {
    scheme: "stdout",
    like: "stdout:",
    what: "A line each, at once: after a crash lines since the last checkpoint come again.",
    source: None,
    sink: Some(MakeSink { needs, add: sink }),
    parameters: &[("format=json|raw", Role::Sink, "what records are; what is no text is replaced")],
    passes_on: |_| false,
};

fn needs(address: &Address) -> Result<Needs> {
    if !address.server.is_empty() || !address.path.is_empty() {
        return Err(Error::job("stdout: has no path"));
    }
    Ok(Needs::new(address.one_of("format", &[("json", Shape::Json), ("raw", Shape::Bytes)])?))
}

fn sink(records: Stream<'_, Moved>, name: &str, address: &Address) -> Result<()> {
    if needs(address)?.shape == Shape::Json {
        records.map(Moved::into_json).sink(name, stdout::json());
        return Ok(());
    }
    let text =
        |record: Moved| String::from_utf8_lossy(&record.into_bytes().0.unwrap_or_default()).into_owned();
    records.map(text).sink(name, stdout::lines());
    Ok(())
}
