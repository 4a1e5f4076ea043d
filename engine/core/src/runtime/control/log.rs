//! The checkpoint log in the checkpoint storage: reading it, and creating slots in it.

use crate::crash;
use crate::error::{Error, Result};
use staunch_checkpoint::{Generation, Manifest, Published, Record, Slot, log, parse_slot, slot_name};
use staunch_state::storage::{Put, Storage, StorageError};
use std::sync::Arc;

/// Times that a listing is repeated until two agree.
const LISTINGS: usize = 20;

#[derive(Clone, Debug)]
pub(crate) struct Log {
    storage: Arc<dyn Storage>,
}

impl Log {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    pub(crate) fn name(&self, slot: Slot) -> String {
        slot_name(slot)
    }

    /// The slots there are. Listed until two listings have the same newest: one that runs beside a
    /// creation and a deletion may miss both.
    fn slots(&self) -> Result<Vec<Slot>, StorageError> {
        let mut before = self.listed()?;
        for _ in 0..LISTINGS {
            let now = self.listed()?;
            if now.last() == before.last() {
                return Ok(now);
            }
            before = now;
        }
        Ok(before)
    }

    fn listed(&self) -> Result<Vec<Slot>, StorageError> {
        let mut slots: Vec<Slot> =
            self.storage.list("log/")?.iter().filter_map(|name| parse_slot(name)).collect();
        slots.sort_unstable();
        Ok(slots)
    }

    /// All records, oldest first.
    pub(crate) fn read(&self) -> Result<Vec<(Slot, Record)>> {
        'again: for _ in 0..LISTINGS {
            let mut records = Vec::new();
            for slot in self.slots()? {
                let name = slot_name(slot);
                let bytes = match self.storage.get(&name) {
                    Ok(bytes) => bytes,
                    // Expired by an older generation that is still alive.
                    Err(StorageError::NotFound { .. }) => continue 'again,
                    Err(error) => return Err(error.into()),
                };
                let record = Record::decode(&name, &bytes).map_err(|e| {
                    Error::job(format!(
                        "{e}. Nothing was changed. Restore the file from a backup, or, to give up what it stands for, move the directory {} away",
                        self.storage.place()
                    ))
                })?;
                records.push((slot, record));
            }
            return Ok(records);
        }
        Err(Error::external(format!(
            "the checkpoint log in {} changes faster than it can be read; is another process running this job?",
            self.storage.place()
        )))
    }

    /// Whether there are newer records than these.
    pub(crate) fn has_grown(&self, records: &[(Slot, Record)]) -> Result<bool> {
        Ok(self.slots()?.last() > records.last().map(|(slot, _)| slot))
    }

    /// Who has taken the job over from this generation, if anybody has.
    pub(crate) fn holder_after(&self, generation: Generation) -> Result<Option<String>> {
        let newer = self.read()?.into_iter().find(|(_, record)| record.generation() > generation);
        Ok(newer.map(|(slot, record)| match record {
            Record::Fence(fence) => {
                format!("start {}, {} ({})", fence.generation, fence.holder, slot_name(slot))
            }
            Record::Checkpoint(manifest) => format!("start {} ({})", manifest.generation, slot_name(slot)),
        }))
    }

    /// Creates a slot with a checkpoint: the decision.
    pub(crate) fn publish(&self, slot: Slot, manifest: &Manifest) -> Published {
        let record = Record::Checkpoint(Box::new(manifest.clone()));
        match self.create(slot, &record) {
            Ok(Put::Created) => self.confirm(slot),
            Ok(Put::Exists) if crash::bug("fencing_skipped") => Published::Created,
            Ok(Put::Exists) => self.recognise(slot, manifest),
            Err(StorageError::Unknown { source, .. }) => Published::Unknown(source.to_string()),
            Err(error) => Published::Failed(error.to_string()),
        }
    }

    /// Finds out what became of a creation whose outcome is unknown.
    pub(crate) fn recognise(&self, slot: Slot, manifest: &Manifest) -> Published {
        // Trying again, and not only looking: what is there may be visible without being durable yet, and the
        // storage promises to make it so before it says that it exists.
        let record = Record::Checkpoint(Box::new(manifest.clone()));
        match self.create(slot, &record) {
            Ok(Put::Created) => return self.confirm(slot),
            Ok(Put::Exists) => {}
            Err(error) => return Published::Unknown(error.to_string()),
        }
        let name = slot_name(slot);
        let found = self.storage.get(&name).map_err(|error| error.to_string());
        let found = found.and_then(|bytes| Record::decode(&name, &bytes).map_err(|error| error.to_string()));
        let found = match found {
            Ok(record) => record,
            Err(error) => return Published::Unknown(error),
        };
        match log::recognise(Some(&found), manifest) {
            Published::Created => self.confirm(slot),
            other => other,
        }
    }

    /// Claims a slot with a fence; false if somebody else has it, or may have.
    pub(crate) fn claim(&self, slot: Slot, record: &Record) -> Result<bool> {
        match self.create(slot, record) {
            Ok(Put::Created) => Ok(self.confirm(slot) == Published::Created),
            Ok(Put::Exists) | Err(StorageError::Unknown { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn create(&self, slot: Slot, record: &Record) -> Result<Put, StorageError> {
        self.storage.put_if_absent(&slot_name(slot), &record.encode(slot))
    }

    fn confirm(&self, slot: Slot) -> Published {
        match self.slots() {
            Ok(_) if crash::bug("fencing_skipped") => Published::Created,
            Ok(listed) => log::confirm(slot, &listed),
            Err(error) => Published::Unknown(error.to_string()),
        }
    }
}
