//! Tables of PostgreSQL.

use super::{Connector, MakeSink, Role};
use crate::address::Address;
use crate::record::{Moved, Needs, Row, Shape};
use staunch::postgres;
use staunch::prelude::{Result, Stream};

/// Parameters of the address that the client reads itself.
const CLIENTS: &[&str] =
    &["sslmode", "sslrootcert", "connect_timeout", "application_name", "options", "target_session_attrs"];

pub const CONNECTOR: Connector = Connector {
    scheme: "postgres",
    like: "postgres://USER:PASSWORD@HOST:PORT/DATABASE",
    what: "A table; fields go into the columns of their names. Also sslmode, sslrootcert and connect_timeout.",
    source: None,
    sink: Some(MakeSink { needs, add: sink }),
    parameters: &[
        ("table=NAME", Role::Sink, "the table, or schema.table"),
        (
            "key=A,B",
            Role::Sink,
            "replace the row that has the same values in these columns; without it rows are added",
        ),
        ("create=STATEMENT", Role::Sink, "run at every start, such as CREATE TABLE IF NOT EXISTS ..."),
    ],
    passes_on: |name| CLIENTS.contains(&name),
};

fn needs(address: &Address) -> Result<Needs> {
    address.needs("table")?;
    Ok(Needs::new(Shape::Columns).keyed(address.list("key")))
}

fn sink(records: Stream<'_, Moved>, name: &str, address: &Address) -> Result<()> {
    let own: Vec<&str> = ["table", "key", "create"].to_vec();
    let mut table =
        postgres::table::<Row>(address.without(&own), address.needs("table")?).upsert(address.list("key"));
    if let Some(statement) = address.get("create") {
        table = table.create(statement);
    }
    records.map(Moved::into_row).sink(name, table);
    Ok(())
}
