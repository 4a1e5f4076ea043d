//! All connectors, in one table: what they are called, what their parameters are, and what makes them.
//!
//! A new one joins by an entry in [`CONNECTORS`]. The help and the refusal of unknown parameters come from here, and
//! `docs/relay.md` is compared with it.

mod file;
mod kafka;
mod postgres;
mod sqlite;
mod stdout;

use crate::address::Address;
use crate::record::{Moved, Needs};
use staunch::core::{IntoSource, SourceExt, source::Source};
use staunch::prelude::{DeadLetter, Error, Job, Result, Stream};

/// What a source is told.
#[derive(Debug)]
pub struct Options {
    /// What the sink asks of records.
    pub needs: Needs,
    /// Records a second, on each worker.
    pub rate: Option<u64>,
    pub dead_letters: bool,
}

/// The records, and those that were refused if they are wanted.
pub type Read<'s> = (Stream<'s, Moved>, Option<Stream<'s, DeadLetter>>);
/// Makes a source.
pub type MakeSource = for<'s> fn(&Job<'s>, &Address, &Options) -> Result<Read<'s>>;

/// Makes a sink.
#[derive(Clone, Copy)]
pub struct MakeSink {
    pub needs: fn(&Address) -> Result<Needs>,
    pub add: for<'s> fn(Stream<'s, Moved>, &str, &Address) -> Result<()>,
}

/// What a connector is used as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Source,
    Sink,
    Both,
}

impl Role {
    fn covers(self, other: Role) -> bool {
        self == Role::Both || self == other
    }

    fn name(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Sink => "sink",
            Role::Both => "source, sink",
        }
    }
}

/// A connector.
pub struct Connector {
    pub scheme: &'static str,
    /// What an address looks like, without parameters.
    pub like: &'static str,
    /// What it is, in a sentence.
    pub what: &'static str,
    pub source: Option<MakeSource>,
    pub sink: Option<MakeSink>,
    /// In their order in the help: name, with its values; for what; what it does.
    pub parameters: &'static [(&'static str, Role, &'static str)],
    /// Parameters of the client behind it, which go there as they are.
    pub passes_on: fn(&str) -> bool,
}

/// All there are.
const CONNECTORS: &[Connector] =
    &[file::CONNECTOR, kafka::CONNECTOR, postgres::CONNECTOR, sqlite::CONNECTOR, stdout::CONNECTOR];

/// The source of an address.
///
/// # Errors
/// There is none, or it has no such parameter.
pub fn source(address: &Address) -> Result<MakeSource> {
    let connector = find(address, Role::Source)?;
    connector.source.ok_or_else(|| Error::job(format!("{}: is a sink only; see --help", connector.scheme)))
}

/// The sink of an address.
///
/// # Errors
/// There is none, or it has no such parameter.
pub fn sink(address: &Address) -> Result<MakeSink> {
    let connector = find(address, Role::Sink)?;
    connector.sink.ok_or_else(|| Error::job(format!("{}: is a source only; see --help", connector.scheme)))
}

fn find(address: &Address, role: Role) -> Result<&'static Connector> {
    let found = CONNECTORS.iter().find(|connector| connector.scheme == address.scheme);
    let connector = found.ok_or_else(|| {
        let known: Vec<&str> = CONNECTORS.iter().map(|connector| connector.scheme).collect();
        let text = format!("there is no connector `{}`", address.scheme);
        Error::job(format!("{text}{}; there are {}", near(&address.scheme, &known), known.join(", ")))
    })?;
    for (name, _) in address.parameters().filter(|(name, _)| !(connector.passes_on)(name)) {
        let known = connector.parameters.iter().map(|(name, role, _)| (parameter(name), *role));
        if known.clone().any(|(known, of)| known == name && of.covers(role)) {
            continue;
        }
        let (scheme, role) = (connector.scheme, role);
        let other = known.clone().find(|(known, _)| *known == name);
        let hint = match other {
            Some((_, other)) => format!(" as a {}; it is one as a {}", role.name(), other.name()),
            None => {
                let fit: Vec<&str> = known.filter(|(_, of)| of.covers(role)).map(|(name, _)| name).collect();
                let near = near(name, &fit);
                format!("{near}; as a {} it has {}", role.name(), fit.join(", "))
            }
        };
        return Err(Error::job(format!("{scheme} has no parameter `{name}`{hint}")));
    }
    Ok(connector)
}

/// The name in `name=values`.
fn parameter(shown: &'static str) -> &'static str {
    shown.split('=').next().unwrap_or(shown)
}

/// The name that was meant, if one is close.
fn near(given: &str, known: &[&str]) -> String {
    let close = known.iter().map(|name| (distance(given, name), name)).min();
    match close {
        Some((away, name)) if away <= 2 || name.starts_with(given) || given.starts_with(*name) => {
            format!(" (did you mean `{name}`?)")
        }
        _ => String::new(),
    }
}

/// How many characters to change, to add or to leave out.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.chars().enumerate() {
        let mut before = row[0];
        row[0] = line + 1;
        for (column, b) in other.iter().enumerate() {
            let change = before + usize::from(a != *b);
            before = row[column + 1];
            row[column + 1] = change.min(before + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

/// What `--help` says of connectors.
pub fn help() -> String {
    let mut text = "Connectors:".to_owned();
    for connector in CONNECTORS {
        let role = match (connector.source, connector.sink) {
            (Some(_), Some(_)) => Role::Both,
            (Some(_), None) => Role::Source,
            _ => Role::Sink,
        };
        text.push_str(&format!("\n\n  {}  ({})\n      {}", connector.like, role.name(), connector.what));
        for (name, of, what) in connector.parameters {
            let only = if *of == role { String::new() } else { format!(" ({} only)", of.name()) };
            text.push_str(&format!("\n      {name:<28} {what}{only}"));
        }
    }
    text
}

/// Adds a source to a job, as the options say.
fn add<'s, S>(job: &Job<'s>, source: S, options: &Options) -> Read<'s>
where
    S: Source<Record = Moved>,
{
    let source = source.limit_rate(options.rate);
    read(job, source, options.dead_letters)
}

fn read<'s>(job: &Job<'s>, source: impl IntoSource<Record = Moved>, dead_letters: bool) -> Read<'s> {
    if dead_letters {
        let (records, letters) = job.source_with_dead_letters("from", source);
        return (records, Some(letters));
    }
    (job.source("from", source), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, role: Role) -> String {
        let address = Address::read(text, |_| None).unwrap();
        find(&address, role).err().unwrap().to_string()
    }

    #[test]
    fn an_unknown_parameter_or_connector_is_refused_and_the_one_that_was_meant_is_named() {
        let error = refusal("kafka://b/t?fromat=json", Role::Source);
        assert!(error.contains("no parameter `fromat` (did you mean `format`?)"), "{error}");
        let error = refusal("postgres://h/d?tabel=t", Role::Sink);
        assert!(error.contains("did you mean `table`?") && error.contains("as a sink it has"), "{error}");
        let error = refusal("kafka://b/t?start=latest", Role::Sink);
        assert!(error.contains("no parameter `start` as a sink; it is one as a source"), "{error}");
        let error = refusal("postgresql://h/d", Role::Sink);
        assert!(error.contains("did you mean `postgres`?"), "{error}");
        let error = refusal("mongodb://h/d", Role::Sink);
        assert!(error.contains("no connector `mongodb`; there are file, kafka"), "{error}");
        let error = refusal("file:x?nonsense=1", Role::Source);
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn the_help_and_the_page_name_every_connector_and_parameter() {
        let page = include_str!("../../../../../docs/relay.md");
        let help = help();
        for connector in CONNECTORS {
            assert!(help.contains(connector.like) && page.contains(connector.like), "{}", connector.like);
            for (name, ..) in connector.parameters {
                assert!(help.contains(name), "{name} is not in the help");
                let name = parameter(name);
                assert!(
                    page.contains(&format!("`{name}")),
                    "`{name}` of {} is not in docs/relay.md",
                    connector.scheme
                );
            }
        }
    }
}
