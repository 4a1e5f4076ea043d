//! What the columns of a table hold as it was given, and what they would change.
//!
//! SQLite converts by the declared type of a column: text that looks like a number becomes one in a column of numbers, a
//! number becomes text in a column of text, a large whole number is rounded in a column of reals. Such values are refused
//! while records are written, when nothing is decided yet. The rules are those of sqlite.org/datatype3.html and
//! sqlite.org/stricttables.html.

use super::row::{Cell, Row};

/// Bytes of one row: below SQLite's own limit, which counts a few more.
const MOST_ROW_BYTES: usize = 1_000_000_000 - (1 << 20);
/// Characters of a value that an error shows.
const MOST_SHOWN: usize = 60;

/// The columns of a table.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    strict: bool,
}

#[derive(Debug)]
struct Column {
    name: String,
    declared: String,
    affinity: Affinity,
    /// NULL is refused.
    required: bool,
    /// What a row without it gets, if that is anything but NULL.
    fills_itself: bool,
    /// The number of the row itself: takes whole numbers only, and makes one of NULL.
    is_row_id: bool,
}

/// What a column makes of what it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Affinity {
    /// Nothing else.
    AsGiven,
    Text,
    Real,
    /// INTEGER and NUMERIC.
    Number,
}

impl Affinity {
    fn of(declared: &str, strict: bool) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        match () {
            () if strict && declared == "ANY" => Self::AsGiven,
            () if has(&["INT"]) => Self::Number,
            () if has(&["CHAR", "CLOB", "TEXT"]) => Self::Text,
            () if declared.is_empty() || has(&["BLOB"]) => Self::AsGiven,
            () if has(&["REAL", "FLOA", "DOUB"]) => Self::Real,
            () => Self::Number,
        }
    }
}

impl Columns {
    /// Reads them; empty if there is no such table.
    pub fn read(connection: &rusqlite::Connection, table: &str) -> rusqlite::Result<Self> {
        let (mut without_rowid, mut strict) = (false, false);
        let mut kinds = connection.prepare(
            "SELECT wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE",
        )?;
        for kind in kinds.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))? {
            (without_rowid, strict) = kind?;
        }
        let mut listed = connection.prepare(
            "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk FROM pragma_table_info(?, 'main')",
        )?;
        type Listed = (String, String, bool, bool, u32);
        let read =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
        let listed: Vec<Listed> = listed.query_map([table], read)?.collect::<rusqlite::Result<_>>()?;
        let keys = listed.iter().filter(|(.., key)| *key > 0).count();
        let column = |(name, declared, not_null, has_default, key): Listed| {
            let is_row_id =
                key == 1 && keys == 1 && !without_rowid && declared.eq_ignore_ascii_case("INTEGER");
            Column {
                affinity: Affinity::of(&declared, strict),
                required: not_null || (without_rowid && key > 0),
                fills_itself: has_default || is_row_id,
                is_row_id,
                name,
                declared,
            }
        };
        Ok(Self { columns: listed.into_iter().map(column).collect(), strict })
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// Why a row cannot be held as it is.
    pub fn refuse(&self, row: &Row) -> Option<String> {
        let mut given = vec![false; self.columns.len()];
        for (name, cell) in row.columns.iter().zip(&row.cells) {
            let at = self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
            let Some(at) = at else {
                return Some(format!("has no column `{name}`; its columns are {}", self.names().join(", ")));
            };
            if std::mem::replace(&mut given[at], true) {
                return Some(format!("gets two values for column `{}`", self.columns[at].name));
            }
            if let Some(why) = self.refuse_cell(&self.columns[at], cell) {
                let declared = &self.columns[at].declared;
                return Some(format!("cannot hold {} in column `{name}` {declared}: {why}", shown(cell)));
            }
        }
        let lacks = |(column, given): &(&Column, &bool)| column.required && !**given && !column.fills_itself;
        if let Some((column, _)) = self.columns.iter().zip(&given).find(lacks) {
            return Some(format!(
                "needs a value for column `{}`, and a record has no such field",
                column.name
            ));
        }
        let bytes: usize = row.cells.iter().map(size).sum();
        (bytes > MOST_ROW_BYTES).then(|| format!("cannot hold a row of {bytes} bytes"))
    }

    fn refuse_cell(&self, column: &Column, cell: &Cell) -> Option<&'static str> {
        match (column.affinity, cell) {
            (_, Cell::Null) if column.is_row_id => Some("it would make a number of its own of it"),
            (_, Cell::Null) => column.required.then_some("it must have a value"),
            (_, Cell::Real(number)) if !number.is_finite() => Some("it would become NULL"),
            (Affinity::AsGiven, _) if self.strict && column.declared.eq_ignore_ascii_case("BLOB") => {
                Some("only bytes fit there")
            }
            (Affinity::AsGiven, _) | (Affinity::Text, Cell::Text(_)) | (Affinity::Real, Cell::Real(_)) => {
                None
            }
            (Affinity::Text, _) => Some("it would become text; declare the column as a number, or give text"),
            (Affinity::Real, Cell::Integer(number)) => {
                (!is_exact_real(*number)).then_some("it would be rounded")
            }
            (Affinity::Number, Cell::Integer(_)) => None,
            (Affinity::Number, Cell::Real(number)) => {
                let whole_only = self.strict || column.is_row_id;
                (whole_only && !is_whole(*number)).then_some("only whole numbers fit there")
            }
            (Affinity::Real | Affinity::Number, Cell::Text(text)) if looks_like_a_number(text) => {
                Some("it would become a number; declare the column as TEXT, or give a number")
            }
            (Affinity::Real | Affinity::Number, Cell::Text(_)) => {
                (self.strict || column.is_row_id).then_some("only numbers fit there")
            }
        }
    }
}

fn size(cell: &Cell) -> usize {
    match cell {
        Cell::Text(text) => text.len() + 9,
        _ => 9,
    }
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => format!("{number:?}"),
        Cell::Text(text) if text.chars().count() > MOST_SHOWN => {
            format!("{:?} and so on", text.chars().take(MOST_SHOWN).collect::<String>())
        }
        Cell::Text(text) => format!("{text:?}"),
    }
}

fn is_exact_real(number: i64) -> bool {
    // Through a wider integer: the nearest real may be one above the largest integer.
    number as f64 as i128 == i128::from(number)
}

fn is_whole(number: f64) -> bool {
    number.fract() == 0.0 && number >= -(2f64.powi(63)) && number < 2f64.powi(63)
}

/// Whether SQLite takes a text for a number, spaces around it included. It reads to the first NUL.
fn looks_like_a_number(text: &str) -> bool {
    let text = text.split('\0').next().unwrap_or_default();
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    let text = text.trim_matches(is_space);
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    is_number && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(table: &str) -> (rusqlite::Connection, Columns) {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch(table).unwrap();
        let columns = Columns::read(&connection, "t").unwrap();
        (connection, columns)
    }

    fn row(name: &str, cell: &Cell) -> Row {
        Row { columns: vec![name.to_owned()], cells: vec![cell.clone()] }
    }

    /// What SQLite holds afterwards; none if it refuses.
    fn held(connection: &rusqlite::Connection, cell: &Cell) -> Option<rusqlite::types::Value> {
        connection.execute("DELETE FROM t", []).unwrap();
        connection.execute("INSERT INTO t (c) VALUES (?)", [cell]).ok()?;
        Some(connection.query_row("SELECT c FROM t", [], |row| row.get(0)).unwrap())
    }

    fn is_as_given(cell: &Cell, held: Option<rusqlite::types::Value>) -> bool {
        use rusqlite::types::Value;
        match (cell, held) {
            (Cell::Null, Some(Value::Null)) => true,
            (Cell::Integer(given), Some(Value::Integer(held))) => *given == held,
            (Cell::Integer(given), Some(Value::Real(held))) => held as i128 == i128::from(*given),
            (Cell::Real(given), Some(Value::Real(held))) => *given == held,
            (Cell::Real(given), Some(Value::Integer(held))) => *given == held as f64,
            (Cell::Text(given), Some(Value::Text(held))) => *given == held,
            _ => false,
        }
    }

    fn cells() -> Vec<Cell> {
        let texts = [
            "",
            " ",
            "a",
            "1",
            "-1",
            "+1",
            "1e3",
            "1E+3",
            "1e",
            "e3",
            ".5",
            "5.",
            ".",
            "-.",
            "1.5",
            " 7 ",
            "7\n",
            "\u{b}7",
            "\u{a0}7",
            "0x10",
            "1_000",
            "nan",
            "inf",
            "Infinity",
            "1e999",
            "00042",
            "9223372036854775808",
            "1 2",
            "--1",
            "+",
            "1e3.5",
            "12abc",
            "\0",
            "1\0",
            "1\0x",
            "1 \0",
            "\x001",
            "true",
            "٣",
            "1e-",
            "1.e5",
            "\u{feff}1",
        ];
        let mut cells: Vec<Cell> = texts.iter().map(|text| Cell::Text((*text).to_owned())).collect();
        let whole = [0, 1, -1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, i64::MAX, i64::MIN, i64::MAX - 511];
        cells.extend(whole.map(Cell::Integer));
        let reals =
            [0.0, -0.0, 0.5, 1.0, 1e15, 9.2e18, 9.3e18, 1e300, 0.1 + 0.2, f64::MIN_POSITIVE, 2f64.powi(63)];
        cells.extend(reals.map(Cell::Real));
        cells.extend([Cell::Real(f64::NAN), Cell::Null]);
        cells
    }

    #[test]
    fn a_value_is_held_exactly_or_refused_before_it_is_staged() {
        let kinds = [
            "",
            "BLOB",
            "TEXT",
            "VARCHAR(3)",
            "INTEGER",
            "BIGINT",
            "REAL",
            "DOUBLE PRECISION",
            "NUMERIC",
            "DECIMAL(4,2)",
            "BOOLEAN",
            "DATETIME",
            "INTEGER NOT NULL",
            "INTEGER PRIMARY KEY",
            "INT PRIMARY KEY",
            "FLOATING POINT",
            "STRING",
        ];
        let strict =
            ["INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY", "INTEGER PRIMARY KEY", "TEXT NOT NULL"];
        let tables = kinds.map(|kind| format!("CREATE TABLE t (c {kind})"));
        let tables = tables.into_iter().chain(strict.map(|kind| format!("CREATE TABLE t (c {kind}) STRICT")));
        for table in tables {
            let (connection, columns) = columns(&table);
            for cell in cells() {
                let refused = columns.refuse(&row("c", &cell));
                let as_given = is_as_given(&cell, held(&connection, &cell));
                assert_eq!(refused.is_none(), as_given, "{table}: {cell:?}: {refused:?}");
            }
        }
    }

    #[test]
    fn a_row_must_have_what_the_table_needs_and_nothing_twice() {
        let (_, columns) =
            columns("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL, b NOT NULL DEFAULT 1, c)");
        let row = |names: &[&str]| Row {
            columns: names.iter().map(|name| (*name).to_owned()).collect(),
            cells: names.iter().map(|_| Cell::Text("x".into())).collect(),
        };
        assert_eq!(columns.refuse(&row(&["A", "c"])), None);
        assert!(columns.refuse(&row(&["c"])).unwrap().contains("needs a value for column `a`"));
        assert!(columns.refuse(&row(&["a", "A"])).unwrap().contains("two values for column `a`"));
        assert!(
            columns.refuse(&row(&["a", "d"])).unwrap().contains("no column `d`; its columns are id, a, b, c")
        );
    }
}
