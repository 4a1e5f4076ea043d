//! Tables of SQLite.

use super::{Connector, MakeSink, Role};
use crate::address::Address;
use crate::record::{Moved, Needs, Row, Shape};
use staunch::prelude::{Error, Result, Stream};
use staunch::sqlite;

pub const CONNECTOR: Connector = Connector {
    scheme: "sqlite",
    like: "sqlite:///PATH",
    what: "A table of a database file; fields go into the columns of their names, nested ones as JSON text.",
    source: None,
    sink: Some(MakeSink { needs, add: sink }),
    parameters: &[
        ("table=NAME", Role::Sink, "the table"),
        (
            "key=A,B",
            Role::Sink,
            "replace the row that has the same values in these columns; without it rows are added",
        ),
        ("create=STATEMENT", Role::Sink, "run at every start, such as CREATE TABLE IF NOT EXISTS ..."),
    ],
    passes_on: |_| false,
};

fn needs(address: &Address) -> Result<Needs> {
    if !address.server.is_empty() || address.path.is_empty() {
        let text = "a path on this machine has three slashes, sqlite:///data/x.db, or none, sqlite:x.db";
        return Err(Error::job(format!("{address}: {text}")));
    }
    address.needs("table")?;
    Ok(Needs::new(Shape::SqliteColumns).keyed(address.list("key")))
}

fn sink(records: Stream<'_, Moved>, name: &str, address: &Address) -> Result<()> {
    let mut table = sqlite::table::<Row>(&address.path, address.needs("table")?).upsert(address.list("key"));
    if let Some(statement) = address.get("create") {
        table = table.create(statement);
    }
    records.map(Moved::into_row).sink(name, table);
    Ok(())
}
