//! The table that most tests write to, with a proxy before it.

use super::{Proxy, Schema};
use staunch_core::sink::CommitError;
use staunch_postgres::{Table, table};
use staunch_testing::conformance::Can;
use staunch_testing::conformance::sink::{Row, Target, row};
use staunch_testing::storage::MemoryStorage;

pub const SERVER: &str = "STAUNCH_POSTGRES";

/// A table behind a proxy.
pub struct Orders {
    pub schema: Schema,
    pub proxy: Proxy,
    pub key: &'static [&'static str],
    /// How the address goes on.
    pub options: String,
}

pub fn orders(url: &str, key: &'static [&'static str]) -> Orders {
    let schema = Schema::new(url);
    schema.run("CREATE TABLE rows (id bigint NOT NULL, name varchar(40) NOT NULL)");
    if !key.is_empty() {
        schema.run("ALTER TABLE rows ADD PRIMARY KEY (id)");
    }
    // The proxy looks for words in what passes.
    let options = "?sslmode=disable".to_owned();
    Orders { proxy: Proxy::start(url), schema, key, options }
}

impl Target for Orders {
    type Record = Row;
    type Sink = Table<Row>;

    fn sink(&self) -> Table<Row> {
        let sink = table(self.proxy.url(&self.schema.url) + &self.options, self.schema.table("rows"));
        if self.key.is_empty() { sink } else { sink.upsert(self.key.iter().copied()) }
    }

    fn record(&self, n: u64) -> Row {
        row(n)
    }

    fn visible(&self) -> Vec<Row> {
        let found = self.schema.rows("SELECT id, name FROM rows");
        found.iter().map(|r| Row { id: r.get::<_, i64>(0) as u64, name: r.get(1) }).collect()
    }

    fn lose_next_answer(&self, _: &MemoryStorage) -> Can {
        self.proxy.lose_next_commit();
        Can::Done(())
    }
}

pub fn refused(result: Result<(), CommitError>) -> String {
    match result {
        Err(CommitError::Refused(error)) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}
