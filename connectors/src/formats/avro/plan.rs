//! How bytes that one schema wrote are read as another one: worked out once, by the rules of the specification.
//!
//! Stricter than the specification in one thing: a whole number that no `float` or `double` holds exactly is refused when it
//! comes, and not rounded.

use apache_avro::Schema;
use apache_avro::schema::{
    EnumSchema, FixedSchema, InnerDecimalSchema, Name, NamesRef, RecordField, RecordSchema, ResolvedSchema,
    UuidSchema,
};
use serde_json::Value;
use std::collections::HashMap;

/// A number as it is in the bytes, or as it is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Number {
    Int,
    Long,
    Float,
    Double,
}

/// What is at a place, and what becomes of it. Others are named by their index in the plan.
#[derive(Debug)]
pub(super) enum Node {
    /// On the way to be worked out.
    Open,
    Null,
    Boolean,
    Number {
        wire: Number,
        to: Number,
    },
    Bytes,
    Text,
    /// Text that is read as bytes is bytes; bytes that are read as text must be text.
    BytesAsText,
    Fixed(usize),
    Decimal {
        scale: usize,
        size: Option<usize>,
    },
    /// 16 bytes, of a length of their own or not.
    Uuid {
        sized: bool,
    },
    Enum(Vec<Result<String, String>>),
    Array(usize),
    Map(usize),
    Record(Record),
    /// The name of each branch, and what becomes of it.
    Union(Vec<(String, usize)>),
    /// A value that cannot be read as what is wanted: an error once it comes.
    Refused(String),
}

#[derive(Debug, Default)]
pub(super) struct Record {
    /// In the order of the bytes; without a name those that nobody wants.
    pub fields: Vec<(Option<String>, usize)>,
    /// What is not in the bytes.
    pub defaults: Vec<(String, Fallback)>,
}

/// The value of a field that is not in the bytes.
#[derive(Debug)]
pub(super) enum Fallback {
    Json(Value),
    Bytes(Vec<u8>),
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) nodes: Vec<Node>,
    pub(super) root: usize,
}

impl Plan {
    /// What `writer` wrote, read as `reader`.
    ///
    /// # Errors
    /// Why nothing of it can be read.
    pub(crate) fn new(writer: &Schema, reader: &Schema) -> Result<Self, String> {
        let names = |schema| ResolvedSchema::new(schema).map_err(|e| e.to_string());
        let (written, read) = (names(writer)?, names(reader)?);
        let mut making = Making {
            writer: written.get_names(),
            reader: read.get_names(),
            nodes: Vec::new(),
            known: HashMap::new(),
        };
        let root = making.node(writer, reader)?;
        Ok(Self { nodes: making.nodes, root })
    }
}

struct Making<'a> {
    writer: &'a NamesRef<'a>,
    reader: &'a NamesRef<'a>,
    nodes: Vec<Node>,
    /// Pairs of named types that were met: types may contain themselves.
    known: HashMap<(Name, Name), usize>,
}

fn looked_up<'a>(schema: &'a Schema, names: &'a NamesRef<'a>) -> Result<&'a Schema, String> {
    match schema {
        Schema::Ref { name } => {
            names.get(name).copied().ok_or_else(|| format!("the schema names `{name}`, which it has not"))
        }
        schema => Ok(schema),
    }
}

fn number(schema: &Schema) -> Option<Number> {
    Some(match schema {
        Schema::Int | Schema::Date | Schema::TimeMillis => Number::Int,
        Schema::Float => Number::Float,
        Schema::Double => Number::Double,
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Number::Long,
        _ => return None,
    })
}

/// What a type is called, in messages and in enums that stand for a union.
fn called(schema: &Schema) -> String {
    match schema {
        Schema::Ref { name } => name.name().to_owned(),
        schema => match schema.name() {
            Some(name) => name.name().to_owned(),
            None => match (number(schema), schema) {
                (Some(_), Schema::Int | Schema::Long | Schema::Float | Schema::Double) | (None, _) => {
                    schema.to_string().to_lowercase()
                }
                _ => schema.to_string(),
            },
        },
    }
}

/// Whether a named type of the writer is the one of the reader, by name or by alias.
fn same_name(writer: &Schema, reader: &Schema) -> bool {
    let (Some(old), Some(new)) = (writer.name(), reader.name()) else { return false };
    let is_alias = |alias: &apache_avro::schema::Alias| alias.name() == old.name();
    old.name() == new.name() || reader.aliases().is_some_and(|aliases| aliases.iter().any(is_alias))
}

impl<'a> Making<'a> {
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn node(&mut self, writer: &'a Schema, reader: &'a Schema) -> Result<usize, String> {
        let (writer, reader) = (looked_up(writer, self.writer)?, looked_up(reader, self.reader)?);
        if let Schema::Union(union) = writer {
            return self.union(union.variants(), reader);
        }
        if let Schema::Union(union) = reader {
            return self.branch(writer, union.variants());
        }
        let named = writer.name().cloned().zip(reader.name().cloned());
        if let Some(known) = named.as_ref().and_then(|pair| self.known.get(pair)) {
            return Ok(*known);
        }
        let (at, before) = (self.add(Node::Open), self.nodes.len());
        if let Some(pair) = &named {
            self.known.insert(pair.clone(), at);
        }
        match self.what(writer, reader) {
            Ok(node) => {
                self.nodes[at] = node;
                Ok(at)
            }
            Err(why) => {
                // What was worked out on the way may refer to this.
                self.nodes.truncate(before - 1);
                self.known.retain(|_, known| *known < at);
                Err(why)
            }
        }
    }

    /// Each branch that the writer may have chosen; those that cannot be read are refused when they come.
    fn union(&mut self, branches: &'a [Schema], reader: &'a Schema) -> Result<usize, String> {
        let (mut nodes, mut readable, mut last) = (Vec::new(), false, String::new());
        for branch in branches {
            let node = match self.node(branch, reader) {
                Ok(node) => {
                    readable = true;
                    node
                }
                Err(why) => {
                    last.clone_from(&why);
                    self.add(Node::Refused(why))
                }
            };
            nodes.push((called(branch), node));
        }
        match readable {
            true => Ok(self.add(Node::Union(nodes))),
            false => Err(last),
        }
    }

    /// The first branch of the reader that fits; one of the same type before one that the value is promoted to.
    fn branch(&mut self, writer: &'a Schema, branches: &'a [Schema]) -> Result<usize, String> {
        let same = |branch: &&Schema| {
            let branch = looked_up(branch, self.reader).ok();
            branch.is_some_and(|branch| std::mem::discriminant(branch) == std::mem::discriminant(writer))
        };
        let (first, then): (Vec<&Schema>, Vec<&Schema>) = branches.iter().partition(same);
        for branch in first.into_iter().chain(then) {
            if let Ok(node) = self.node(writer, branch) {
                return Ok(node);
            }
        }
        let wanted = branches.iter().map(called).collect::<Vec<_>>().join(", ");
        Err(format!("{} was written, and the reader's union has {wanted}", called(writer)))
    }

    fn what(&mut self, writer: &'a Schema, reader: &'a Schema) -> Result<Node, String> {
        let no = || Err(format!("{} was written, and {} is expected", called(writer), called(reader)));
        if let (Some(wire), Some(to)) = (number(writer), number(reader)) {
            let plain = |schema: &Schema| {
                matches!(schema, Schema::Int | Schema::Long | Schema::Float | Schema::Double)
            };
            let same = std::mem::discriminant(writer) == std::mem::discriminant(reader);
            // Milliseconds that are read as microseconds would be another moment.
            let fits = wire <= to && (same || plain(writer) || plain(reader));
            return if fits { Ok(Node::Number { wire, to }) } else { no() };
        }
        Ok(match (writer, reader) {
            (Schema::Null, Schema::Null) => Node::Null,
            (Schema::Boolean, Schema::Boolean) => Node::Boolean,
            (Schema::Bytes | Schema::String, Schema::Bytes) => Node::Bytes,
            (Schema::String, Schema::String) => Node::Text,
            (Schema::Bytes, Schema::String) => Node::BytesAsText,
            (Schema::Fixed(old), Schema::Fixed(new)) if same_name(writer, reader) && old.size == new.size => {
                Node::Fixed(old.size)
            }
            (Schema::Decimal(old), Schema::Decimal(new))
                if old.scale == new.scale && old.precision <= new.precision =>
            {
                let size = match &old.inner {
                    InnerDecimalSchema::Bytes => None,
                    InnerDecimalSchema::Fixed(FixedSchema { size, .. }) => Some(*size),
                };
                Node::Decimal { scale: old.scale, size }
            }
            (Schema::Uuid(old), Schema::Uuid(_)) => match old {
                UuidSchema::String => Node::Text,
                UuidSchema::Bytes => Node::Uuid { sized: true },
                UuidSchema::Fixed(_) => Node::Uuid { sized: false },
            },
            (Schema::Uuid(UuidSchema::String), Schema::String) | (Schema::String, Schema::Uuid(_)) => {
                Node::Text
            }
            (Schema::Array(old), Schema::Array(new)) => Node::Array(self.node(&old.items, &new.items)?),
            (Schema::Map(old), Schema::Map(new)) => Node::Map(self.node(&old.types, &new.types)?),
            (Schema::Enum(old), Schema::Enum(new)) if same_name(writer, reader) => symbols(old, new),
            (Schema::Record(old), Schema::Record(new)) if same_name(writer, reader) => {
                self.record(old, new)?
            }
            (Schema::BigDecimal | Schema::Duration(_), _) => {
                return Err(format!("{} is a type that is not read here", called(writer)));
            }
            _ => return no(),
        })
    }

    fn record(&mut self, writer: &'a RecordSchema, reader: &'a RecordSchema) -> Result<Node, String> {
        let within = |field: &RecordField, why: String| format!("field `{}`: {why}", field.name);
        let by_name = |name: &str| reader.fields.iter().find(|new| new.name == name);
        // An alias counts where the writer has no field of the new name.
        let by_alias = |old: &str| {
            let is_new = |new: &&RecordField| writer.fields.iter().all(|field| field.name != new.name);
            reader.fields.iter().filter(is_new).find(|new| new.aliases.iter().any(|alias| alias == old))
        };
        let (mut record, mut there) = (Record::default(), Vec::new());
        for old in &writer.fields {
            let Some(new) = by_name(&old.name).or_else(|| by_alias(&old.name)) else {
                let mut skipping = Making {
                    writer: self.writer,
                    reader: self.writer,
                    nodes: Vec::new(),
                    known: HashMap::new(),
                };
                let root = skipping.node(&old.schema, &old.schema).map_err(|why| within(old, why))?;
                let moved = self.nodes.len();
                self.nodes.extend(skipping.nodes.into_iter().map(|node| node.moved_by(moved)));
                record.fields.push((None, root + moved));
                continue;
            };
            if there.contains(&&new.name) {
                return Err(within(new, "two fields of the writer are this one, by its aliases".to_owned()));
            }
            there.push(&new.name);
            let node = self.node(&old.schema, &new.schema).map_err(|why| within(new, why))?;
            record.fields.push((Some(new.name.clone()), node));
        }
        for new in reader.fields.iter().filter(|new| !there.contains(&&new.name)) {
            let Some(default) = &new.default else {
                return Err(within(new, "it was not written, and has no default".to_owned()));
            };
            let default = self.default_of(default, &new.schema).map_err(|why| within(new, why))?;
            record.defaults.push((new.name.clone(), default));
        }
        Ok(Node::Record(record))
    }

    fn default_of(&self, default: &Value, schema: &Schema) -> Result<Fallback, String> {
        match (looked_up(schema, self.reader)?, default) {
            (Schema::Bytes | Schema::Fixed(_), Value::String(text)) => {
                let bytes: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
                bytes
                    .map(Fallback::Bytes)
                    .map_err(|_| "its default has characters that are no bytes".to_owned())
            }
            (Schema::Decimal(_), _) => Err("a default of a decimal is not read here".to_owned()),
            _ => Ok(Fallback::Json(default.clone())),
        }
    }
}

impl Node {
    /// The same, in a plan where all that it names is further behind.
    fn moved_by(self, by: usize) -> Self {
        match self {
            Node::Array(of) => Node::Array(of + by),
            Node::Map(of) => Node::Map(of + by),
            Node::Union(branches) => {
                Node::Union(branches.into_iter().map(|(name, of)| (name, of + by)).collect())
            }
            Node::Record(Record { fields, defaults }) => {
                let fields = fields.into_iter().map(|(name, of)| (name, of + by)).collect();
                Node::Record(Record { fields, defaults })
            }
            node => node,
        }
    }
}

fn symbols(writer: &EnumSchema, reader: &EnumSchema) -> Node {
    let read = |symbol: &String| match (reader.symbols.contains(symbol), &reader.default) {
        (true, _) => Ok(symbol.clone()),
        (false, Some(default)) => Ok(default.clone()),
        (false, None) => Err(format!(
            "the symbol `{symbol}` was written, and the reader has {} and no default",
            reader.symbols.join(", ")
        )),
    };
    Node::Enum(writer.symbols.iter().map(read).collect())
}
