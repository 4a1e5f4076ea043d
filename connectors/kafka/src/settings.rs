//! Where the brokers are and how to talk to them; and what their errors mean for a job.
//!
//! Promises that options which would break what the connector promises are refused, and that an error says whether
//! running again helps.

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use staunch_core::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;

/// Options of librdkafka that are the connector's own, and what to use in their place.
const OWN: &[(&str, &str)] = &[
    ("bootstrap.servers", "the first argument"),
    ("auto.offset.reset", ".start(..) and .on_lost(..)"),
    ("enable.auto.commit", "positions are in the checkpoints; .group(..) publishes them"),
    ("enable.auto.offset.store", "positions are in the checkpoints; .group(..) publishes them"),
    ("enable.partition.eof", "it is always on"),
    ("group.id", ".group(..)"),
    ("group.instance.id", "positions are in the checkpoints"),
    ("isolation.level", ".read_uncommitted()"),
    ("transactional.id", "the name of the job and of the sink"),
    ("enable.idempotence", "it is always on"),
];

/// Where the brokers are, and options of the client library.
#[derive(Clone)]
pub struct Settings {
    brokers: String,
    options: BTreeMap<String, String>,
}

// Options may have passwords in them.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.options.keys().collect();
        f.debug_struct("Settings").field("brokers", &self.brokers).field("options", &names).finish()
    }
}

impl Settings {
    /// Brokers as `host:port`, with commas between them; some of the cluster suffice.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), options: BTreeMap::new() }
    }

    /// An option of librdkafka, such as `security.protocol` or `sasl.password`.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }

    /// Where the brokers are.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// What tells two clients apart.
    pub(crate) fn key(&self) -> String {
        format!("{} {:?}", self.brokers, self.options)
    }

    /// The configuration of a client: these defaults, then the options of the user.
    pub(crate) fn client(&self, name: &str, defaults: &[(&str, &str)]) -> Result<ClientConfig> {
        if self.brokers.trim().is_empty() {
            return Err(Error::job("no Kafka broker is given; name some, like kafka-1:9092,kafka-2:9092"));
        }
        if let Some((option, instead)) = OWN.iter().find(|(own, _)| self.options.contains_key(*own)) {
            return Err(Error::job(format!(
                "option {option} of Kafka cannot be set here: {instead}. Remove it"
            )));
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", name);
        // A broker that is back shall not be noticed ten seconds later only.
        config.set("reconnect.backoff.max.ms", "1000").set("socket.keepalive.enable", "true");
        for (option, value) in defaults {
            config.set(*option, *value);
        }
        for (option, value) in &self.options {
            config.set(option, value);
        }
        Ok(config)
    }

    /// An error of making a client: nothing was connected yet.
    pub(crate) fn not_made(&self, error: KafkaError) -> Error {
        match error {
            KafkaError::ClientConfig(_, why, option, value) => {
                let shown =
                    if option.contains("password") { "(not shown)".to_owned() } else { format!("{value:?}") };
                Error::job(format!("option {option} of Kafka is {shown}: {why}"))
            }
            other => {
                Error::job(format!("a client for Kafka at {} cannot be made", self.brokers)).caused_by(other)
            }
        }
    }
}

/// Whether an error says that who we are, or what we may do, will not be accepted the next time either.
pub(crate) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// An error of a request, with what was asked for.
pub(crate) fn failed(what: impl Into<String>, error: KafkaError) -> Error {
    let refused = error.rdkafka_error_code().is_some_and(is_refusal);
    let what = what.into();
    if refused { Error::job(what).caused_by(error) } else { Error::external(what).caused_by(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_would_break_a_promise_are_refused_and_passwords_are_not_shown() {
        let settings = Settings::new("b:1").option("sasl.password", "secret");
        assert!(!format!("{settings:?}").contains("secret"));
        let error = settings.clone().option("auto.offset.reset", "latest").client("a", &[]).unwrap_err();
        assert!(error.to_string().contains(".on_lost(..)"), "{error}");
        let error = Settings::new(" ").client("a", &[]).unwrap_err();
        assert!(error.to_string().contains("no Kafka broker"), "{error}");
        assert!(settings.client("a", &[]).is_ok());
    }
}
