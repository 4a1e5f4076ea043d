//! Tells a consumer group how far the job is, for others to look at. The job itself never asks it.

use super::Position;
use super::client::Client;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use staunch_core::Error;
use staunch_core::background::blocking;
use staunch_core::error::Kind;
use staunch_core::sink::CommitError;
use staunch_core::source::Acknowledger;
use std::sync::Arc;

pub(super) struct Publisher {
    client: Arc<Client>,
    group: String,
}

impl Publisher {
    pub fn new(client: Client, group: String) -> Self {
        Self { client: Arc::new(client), group }
    }
}

impl Acknowledger for Publisher {
    type Position = Position;

    async fn acknowledge(&mut self, upto: &[(String, Position)]) -> Result<(), CommitError> {
        if upto.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (id, position) in upto {
            let parts =
                id.rsplit_once('/').and_then(|(topic, partition)| Some((topic, partition.parse().ok()?)));
            let added = parts.map(|(topic, partition)| {
                list.add_partition_offset(topic, partition, Offset::Offset(position.next))
            });
            if !matches!(added, Some(Ok(()))) {
                return Err(CommitError::Refused(Error::internal(format!("{id} is no partition of Kafka"))));
            }
        }
        let client = Arc::clone(&self.client);
        let committed = blocking(move || {
            client.check()?;
            let what = "the positions cannot be told to the group";
            client.consumer().commit(&list, CommitMode::Sync).map_err(|e| crate::settings::failed(what, e))
        });
        let committed = committed.await.and_then(|committed| committed);
        committed.map_err(|error| {
            let hint = format!(
                "consumer group {}; nobody else may consume with it, and the job needs the right to read it",
                self.group
            );
            match error.kind() {
                Kind::Job => CommitError::Refused(Error::job(hint).caused_by(error)),
                Kind::External | Kind::Internal => CommitError::Retry(Error::external(hint).caused_by(error)),
            }
        })
    }
}
