//! The table as it is: its columns, their types, what fills itself.

use crate::kind::{self, Kind};
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// What a table is called: quoted, with its schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Names {
    /// `"schema"."table"`.
    pub table: String,
    /// `"schema"`, where the sink's own tables are too.
    pub schema: String,
}

/// The columns of a table, in its order.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Columns {
    pub all: Vec<Column>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Column {
    pub name: String,
    /// The type as the server writes it, with its modifier.
    pub declared: String,
    /// None if the sink cannot fill such a type.
    pub kind: Option<Kind>,
    pub not_null: bool,
    pub fills_itself: bool,
    /// Texts are equal if their bytes are.
    pub plain_texts: bool,
    /// Why no value may be given.
    pub generated: Option<&'static str>,
}

/// A table that was asked for.
#[derive(Debug)]
pub(crate) enum Found {
    Table(Names, Columns),
    /// There is no such table.
    Missing,
    /// Nothing can be written there; why.
    Unfit(String),
}

/// A name in quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

const TABLE: &str = "
    SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
           has_any_column_privilege(c.oid, 'INSERT'), c.relrowsecurity AND NOT r.rolbypassrls AND NOT r.rolsuper
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, pg_roles r
     WHERE c.oid = to_regclass($1) AND r.rolname = current_user";

const COLUMNS: &str = "
    SELECT attname, format_type(atttypid, atttypmod), attnotnull, atthasdef, attidentity::text, attgenerated::text,
           atttypid, atttypmod,
           COALESCE((SELECT collisdeterministic FROM pg_collation WHERE pg_collation.oid = attcollation), true)
      FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";

/// The types of the columns, and those that they are made of.
const TYPES: &str = "
    WITH RECURSIVE used(oid) AS (
        SELECT atttypid FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
        UNION
        SELECT part FROM used JOIN pg_type t ON t.oid = used.oid, LATERAL (VALUES (t.typbasetype), (t.typelem)) v(part)
         WHERE part <> 0)
    SELECT t.oid, t.typname, t.typtype::text, t.typcategory = 'A' AND t.typlen = -1, t.typbasetype, t.typtypmod, t.typelem,
           t.typnotnull, t.typdefault IS NOT NULL, t.typnamespace = 'pg_catalog'::regnamespace,
           ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder)
      FROM pg_type t JOIN used ON used.oid = t.oid";

struct Type {
    name: String,
    category: String,
    is_array: bool,
    base: u32,
    modifier: i32,
    element: u32,
    not_null: bool,
    has_default: bool,
    built_in: bool,
    labels: Vec<String>,
}

/// Looks a table up: `name` or `schema.name`.
pub(crate) async fn find(client: &Client, table: &str) -> Result<Found, tokio_postgres::Error> {
    let path = match table.split_once('.') {
        Some((schema, name)) => format!("{}.{}", quoted(schema), quoted(name)),
        None => quoted(table),
    };
    if table.is_empty() || table.contains('\0') {
        return Ok(Found::Unfit("is no name of a table".into()));
    }
    let Some(row) = client.query_opt(TABLE, &[&path]).await? else {
        return Ok(Found::Missing);
    };
    let (oid, schema, name): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
    let (kind, persistence): (String, String) = (row.get(3), row.get(4));
    let (may_insert, has_policies): (bool, bool) = (row.get(5), row.get(6));
    let unfit = match (kind.as_str(), persistence.as_str()) {
        ("r" | "p", "p") if !may_insert => Some("may not be written by this user: GRANT INSERT"),
        ("r" | "p", "p") if has_policies => {
            Some("has policies for rows, and COPY does not go through them: write as a user with BYPASSRLS")
        }
        ("r" | "p", "p") => None,
        (_, "t") => Some("is temporary, and gone with the connection"),
        ("r" | "p", _) => {
            Some("is UNLOGGED: a crash of the server empties it, and what was committed is gone")
        }
        ("v" | "m", _) => Some("is a view; write to its table"),
        ("f", _) => Some("is in another server, which does not commit with this one"),
        _ => Some("is no table"),
    };
    if let Some(why) = unfit {
        return Ok(Found::Unfit(why.to_owned()));
    }
    let names = Names { table: format!("{}.{}", quoted(&schema), quoted(&name)), schema: quoted(&schema) };
    let mut types = BTreeMap::new();
    for row in client.query(TYPES, &[&oid]).await? {
        let found = Type {
            name: row.get(1),
            category: row.get(2),
            is_array: row.get(3),
            base: row.get(4),
            modifier: row.get(5),
            element: row.get(6),
            not_null: row.get(7),
            has_default: row.get(8),
            built_in: row.get(9),
            labels: row.get(10),
        };
        types.insert(row.get::<_, u32>(0), found);
    }
    let all = client.query(COLUMNS, &[&oid]).await?.iter().map(|row| column(row, &types)).collect();
    Ok(Found::Table(names, Columns { all }))
}

fn column(row: &tokio_postgres::Row, types: &BTreeMap<u32, Type>) -> Column {
    let (identity, generated): (String, String) = (row.get(4), row.get(5));
    let oid: u32 = row.get(6);
    let own = types.get(&oid);
    Column {
        name: row.get(0),
        declared: row.get(1),
        kind: kind_of(oid, row.get(7), types),
        not_null: row.get::<_, bool>(2) || own.is_some_and(|own| own.not_null),
        fills_itself: row.get::<_, bool>(3) || !identity.is_empty() || own.is_some_and(|own| own.has_default),
        plain_texts: row.get(8),
        generated: match (identity.as_str(), generated.as_str()) {
            ("a", _) => Some("GENERATED ALWAYS AS IDENTITY"),
            (_, "") => None,
            _ => Some("GENERATED"),
        },
    }
}

fn kind_of(oid: u32, modifier: i32, types: &BTreeMap<u32, Type>) -> Option<Kind> {
    let found = types.get(&oid)?;
    if found.category == "d" {
        return kind_of(found.base, found.modifier, types);
    }
    if found.category == "e" {
        return Some(Kind::Enum(found.labels.clone()));
    }
    if found.is_array {
        let element = Box::new(kind_of(found.element, modifier, types)?);
        return Some(Kind::Array { element, oid: found.element });
    }
    found.built_in.then(|| kind::built_in(&found.name, modifier)).flatten()
}

impl Columns {
    pub fn names(&self) -> String {
        self.all.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Where a column is; looks first at `near`, since fields mostly have the order of columns.
    pub fn position(&self, name: &str, near: usize) -> Option<usize> {
        if self.all.get(near).is_some_and(|column| column.name == name) {
            return Some(near);
        }
        self.all.iter().position(|column| column.name == name)
    }

    /// What is said about a field that no column has the name of.
    pub fn no_column(&self, name: &str) -> String {
        let like = self.all.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        match like {
            Some(like) => {
                format!("no column `{name}`, but `{}`: names are compared with their case", like.name)
            }
            None => format!("no column `{name}`; its columns are {}", self.names()),
        }
    }
}
