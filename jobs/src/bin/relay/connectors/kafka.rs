//! Topics of Kafka.

use super::{Connector, Options, Read, Role, add};
use crate::address::Address;
use crate::record::{Beside, Content, Prepare};
use staunch::kafka::source::Start;
use staunch::kafka::{self, Incoming, Lost, Settings};
use staunch::prelude::{Error, Job, Result, Timestamp};

pub const CONNECTOR: Connector = Connector {
    scheme: "kafka",
    like: "kafka://BROKER:PORT,.../TOPIC,...",
    what: "Topics, by name or pattern (orders-*). Names with a dot are options of librdkafka: sasl.password=${PW}.",
    source: Some(source),
    sink: None,
    parameters: &[
        ("format=json|raw", Role::Both, "what values are"),
        (
            "start=earliest|latest|TIME",
            Role::Source,
            "where a new partition begins; TIME as 2026-01-31T12:00:00Z",
        ),
        ("bounded=true", Role::Source, "end at the ends that partitions have at the start"),
        ("lost=fail|go-on", Role::Source, "what to do if the broker has deleted what comes next"),
        ("group=NAME", Role::Source, "tell this consumer group how far the job is"),
    ],
    passes_on: |name| name.contains('.'),
};

fn settings(address: &Address) -> Settings {
    let options = address.parameters().filter(|(name, _)| name.contains('.'));
    options.fold(Settings::new(&address.server), |settings, (name, value)| settings.option(name, value))
}

fn content(address: &Address) -> Result<Content> {
    address.one_of("format", &[("json", Content::Json), ("raw", Content::Raw)])
}

fn start(address: &Address) -> Result<Start> {
    match address.get("start") {
        None | Some("earliest") => Ok(Start::Earliest),
        Some("latest") => Ok(Start::Latest),
        Some(text) => {
            let time: jiff::Timestamp = text.parse().map_err(|e: jiff::Error| {
                let form = "earliest, latest, or a time as 2026-01-31T12:00:00Z";
                Error::job(format!("{address}: start={text} is none of {form}")).caused_by(e)
            })?;
            Ok(Start::Time(Timestamp::from_millis(time.as_millisecond())))
        }
    }
}

fn source<'s>(job: &Job<'s>, address: &Address, options: &Options) -> Result<Read<'s>> {
    let names: Vec<&str> =
        address.path.trim_start_matches('/').split(',').filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(Error::job(format!("{address} names no topic")));
    }
    let prepare = Prepare::new(content(address)?, &options.needs)?;
    let mut topics = kafka::topics(settings(address), names).start(start(address)?);
    topics = topics.on_lost(address.one_of("lost", &[("fail", Lost::Fail), ("go-on", Lost::GoOn)])?);
    if address.is("bounded")? {
        topics = topics.bounded();
    }
    if let Some(group) = address.get("group") {
        topics = topics.group(group);
    }
    let records = topics.decode(move |record: &Incoming<'_>| {
        let beside = Beside {
            key: record.key().map(<[u8]>::to_vec),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            timestamp_ms: record.timestamp_ms(),
        };
        match record.value() {
            Some(value) => prepare.record(value, beside),
            None => prepare.tombstone(beside),
        }
    });
    Ok(add(job, records, options))
}
