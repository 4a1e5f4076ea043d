//! A schema with a table `items`, and the slot and publication that go with it.

use super::Schema;
use super::copy::{Copy, Item, drop_slot};
use staunch_postgres::source::{Field, Row};
use staunch_postgres::{Event, Follow, follow};

pub struct Items {
    pub schema: Schema,
    /// The address for the job: perhaps through a proxy.
    pub through: String,
}

impl Items {
    pub fn new(url: &str) -> Self {
        let schema = Schema::new(url);
        schema.run("CREATE TABLE items (id bigint PRIMARY KEY, n bigint, note text)");
        Self { through: url.to_owned(), schema }
    }

    pub fn table(&self) -> String {
        self.schema.table("items")
    }

    /// With a slot of its own, of the name of the schema.
    pub fn source(&self) -> Follow<Event<Row>> {
        follow(&self.through, [self.table()]).slot(&self.schema.name)
    }

    pub fn copy(&self) -> Copy {
        Copy::new(self.source().rows())
    }

    pub fn insert(&self, from: i64, to: i64) {
        let last = to - 1;
        self.schema.run(&format!(
            "INSERT INTO items SELECT i, 0, 'row ' || i FROM generate_series({from}, {last}) i"
        ));
    }

    pub fn rows(&self) -> Vec<Item> {
        let rows = self.schema.rows("SELECT id, n, note FROM items ORDER BY id");
        rows.iter().map(|row| Item { id: row.get(0), n: row.get(1), note: row.get(2) }).collect()
    }

    /// What came out is what is there.
    pub fn holds(&self, copy: &Copy) {
        assert_eq!(copy.state(&self.table()), self.rows());
    }

    /// A question about the slot.
    pub fn slot(&self, what: &str) -> String {
        let rows = self.schema.rows(&format!(
            "SELECT ({what})::text FROM pg_replication_slots WHERE slot_name = '{}'",
            self.schema.name
        ));
        rows.first().and_then(|row| row.get::<_, Option<String>>(0)).unwrap_or_default()
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        drop_slot(&self.schema.url, &self.schema.name);
    }
}

/// Only the key of each row, for rows that are too large to be kept.
pub fn narrow(event: &Event<Row>) -> Result<Event<Item>, String> {
    let change = event.change.as_ref().try_map(|row| match row.get("id") {
        Some(Field::Text(id)) => {
            let id = id.parse().map_err(|why| format!("{id}: {why}"))?;
            Ok::<_, String>(Item { id, n: None, note: None })
        }
        other => Err(format!("{other:?}")),
    })?;
    let Event { table, lsn, committed, transaction, .. } = event;
    Ok(Event { table: table.clone(), change, lsn: *lsn, committed: *committed, transaction: *transaction })
}
