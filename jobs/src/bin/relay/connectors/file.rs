//! Files: lines of JSON, text or CSV in; part files of JSON or CSV out.

use super::{Connector, MakeSink, Options, Read, Role, add};
use crate::address::Address;
use crate::json;
use crate::record::{Beside, Cell, Content, Moved, Needs, Prepare, Row, Shape};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use staunch::file;
use staunch::formats::{Csv, Decoder, End, Format, Framed, Json, NotDecoded, Scan, Text, Undecodable};
use staunch::prelude::{Error, Job, Result, Stream};

pub const CONNECTOR: Connector = Connector {
    scheme: "file",
    like: "file:///PATH",
    what: "A file or the files of a directory; as a sink a directory of part files, which are never changed.",
    source: Some(source),
    sink: Some(MakeSink { needs, add: sink }),
    parameters: &[
        (
            "format=json|csv|text",
            Role::Both,
            "what is on a line; text is for sinks of bytes, and no sink itself",
        ),
        ("follow=true", Role::Source, "wait for more lines and files; without it the job ends"),
        (
            "numbers=A,B",
            Role::Source,
            "columns of CSV that hold numbers; empty is none. All others are texts",
        ),
        ("columns=A,B", Role::Sink, "columns of CSV, in their order"),
    ],
    passes_on: |_| false,
};

#[derive(Clone, Copy)]
enum Lines {
    Json,
    Csv,
    Text,
}

fn lines(address: &Address) -> Result<Lines> {
    address.one_of("format", &[("json", Lines::Json), ("csv", Lines::Csv), ("text", Lines::Text)])
}

fn path(address: &Address) -> Result<&str> {
    if !address.server.is_empty() {
        let text = "a path on this machine has three slashes, file:///data, or none, file:data";
        return Err(Error::job(format!("{address}: {text}")));
    }
    if address.path.is_empty() { Err(Error::job("file: has no path")) } else { Ok(&address.path) }
}

fn source<'s>(job: &Job<'s>, address: &Address, options: &Options) -> Result<Read<'s>> {
    let (path, follow, lines) = (path(address)?, address.is("follow")?, lines(address)?);
    let numbers = address.list("numbers");
    if !numbers.is_empty() && !matches!(lines, Lines::Csv) {
        return Err(Error::job(format!("{address}: numbers=... goes with format=csv")));
    }
    let content = if matches!(lines, Lines::Text) { Content::Raw } else { Content::Json };
    let prepare = Prepare::new(content, &options.needs)?;
    Ok(match lines {
        Lines::Csv => {
            add(job, file::records(path, Rows { csv: Csv::new(), numbers, prepare }).follow(follow), options)
        }
        Lines::Json => {
            let lines = Prepared { inner: Json::<serde::de::IgnoredAny>::new(), skips_empty: true, prepare };
            add(job, file::records(path, lines).follow(follow), options)
        }
        Lines::Text => {
            let lines = Prepared { inner: Text, skips_empty: false, prepare };
            add(job, file::records(path, lines).follow(follow), options)
        }
    })
}

/// Lines in the frame of another format.
#[derive(Clone, Debug)]
struct Prepared<F> {
    inner: F,
    /// Lines of white space are no records.
    skips_empty: bool,
    prepare: Prepare,
}

impl<F: Framed> Format for Prepared<F> {
    type Record = Moved;
    type Decoder = Self;

    fn decoder(&self) -> Result<Self> {
        Ok(self.clone())
    }
}

impl<F: Framed> Framed for Prepared<F> {
    const HEADER: bool = false;

    fn has_lone_return(&self, bytes: &[u8]) -> bool {
        self.inner.has_lone_return(bytes)
    }

    fn decoder_under(&self, _: &str) -> Result<Self, String> {
        Ok(self.clone())
    }
}

impl<F: Framed> Decoder for Prepared<F> {
    type Record = Moved;

    fn decode(&mut self, bytes: &[u8]) -> Result<Option<Moved>, NotDecoded> {
        if self.skips_empty && bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        self.prepare.record(bytes, Beside::default()).map(Some).map_err(|why| Undecodable::new(why).into())
    }
}

/// CSV with a header, each row as an object of texts and numbers.
#[derive(Clone, Debug)]
struct Rows {
    csv: Csv<Fields>,
    numbers: Vec<String>,
    prepare: Prepare,
}

impl Format for Rows {
    type Record = Moved;
    type Decoder = RowDecoder;

    fn decoder(&self) -> Result<RowDecoder> {
        self.made(self.csv.decoder()?)
    }
}

impl Rows {
    fn made(&self, csv: <Csv<Fields> as Format>::Decoder) -> Result<RowDecoder> {
        Ok(RowDecoder { csv, numbers: self.numbers.clone(), prepare: self.prepare.clone() })
    }
}

impl Framed for Rows {
    const HEADER: bool = true;

    fn end(&self, bytes: &[u8], scan: &mut Scan) -> End {
        self.csv.end(bytes, scan)
    }

    fn has_lone_return(&self, bytes: &[u8]) -> bool {
        self.csv.has_lone_return(bytes)
    }

    fn is_whole(&self, bytes: &[u8]) -> bool {
        self.csv.is_whole(bytes)
    }

    fn decoder_under(&self, header: &str) -> Result<RowDecoder, String> {
        self.made(self.csv.decoder_under(header)?).map_err(|e| e.to_string())
    }
}

#[derive(Debug)]
struct RowDecoder {
    csv: <Csv<Fields> as Format>::Decoder,
    numbers: Vec<String>,
    prepare: Prepare,
}

impl Decoder for RowDecoder {
    type Record = Moved;

    fn decode(&mut self, bytes: &[u8]) -> Result<Option<Moved>, NotDecoded> {
        let Some(Fields(fields)) = self.csv.decode(bytes)? else { return Ok(None) };
        let mut object = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            let is_number = self.numbers.contains(&name);
            let value = match (is_number, value.trim()) {
                (false, _) => json::quoted(&value),
                (true, "") => "null".to_owned(),
                (true, number) if json::is_number(number) => number.to_owned(),
                (true, _) => {
                    let why = format!("column `{name}` holds no number: {value:?}");
                    return Err(Undecodable { field: Some(name), ..Undecodable::new(why) }.into());
                }
            };
            object.push(format!("{}:{value}", json::quoted(&name)));
        }
        let object = format!("{{{}}}", object.join(","));
        let made = self.prepare.record(object.as_bytes(), Beside::default());
        made.map(Some).map_err(|why| Undecodable::new(why).into())
    }
}

/// Names and values of a row, in their order.
#[derive(Debug)]
struct Fields(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Each)
    }
}

fn needs(address: &Address) -> Result<Needs> {
    let columns = address.list("columns");
    match lines(address)? {
        Lines::Json if columns.is_empty() => Ok(Needs::new(Shape::Json)),
        Lines::Json => Err(Error::job(format!("{address}: columns=... goes with format=csv"))),
        Lines::Csv if columns.is_empty() => {
            Err(Error::job(format!("{address}: format=csv needs columns=a,b,c")))
        }
        Lines::Csv => Ok(Needs { fields: columns, ..Needs::new(Shape::Csv) }),
        Lines::Text => Err(Error::job(format!("{address}: a sink writes format=json or format=csv"))),
    }
}

fn sink(records: Stream<'_, Moved>, name: &str, address: &Address) -> Result<()> {
    let path = path(address)?;
    if !matches!(lines(address)?, Lines::Csv) {
        records.map(Moved::into_json).sink(name, file::json_lines(path));
        return Ok(());
    }
    // Columns have names of the program's life, as those of a struct have; they are few.
    let columns: Vec<&'static str> =
        address.list("columns").into_iter().map(|name| &*Box::leak(name.into_boxed_str())).collect();
    let columns: &'static [&'static str] = Box::leak(columns.into_boxed_slice());
    let rows = records.map(move |record| CsvRow { columns, row: record.into_row() });
    rows.sink(name, file::csv(path));
    Ok(())
}

/// A row with the fields of the columns, in their order.
struct CsvRow {
    columns: &'static [&'static str],
    row: Row,
}

impl Serialize for CsvRow {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut row = to.serialize_struct("Row", self.columns.len())?;
        for (name, (_, cell)) in self.columns.iter().zip(&self.row.0) {
            let text = if let Cell::Text(text) = cell { Some(text) } else { None };
            row.serialize_field(name, &text)?;
        }
        row.end()
    }
}
