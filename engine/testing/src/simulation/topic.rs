//! A simulated input: splits of numbered records that come in pieces of random size, with pauses.

use super::fate::{FAILED_EFFECT, Fate, Verdict};
use serde::{Deserialize, Serialize};
use staunch::core::context::SourceContext;
use staunch::core::sink::CommitError;
use staunch::core::source::{Acknowledger, Acknowledging, Progress, Records, Source, SplitReader};
use staunch::core::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

/// A record: where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its split.
    pub split: u32,
    /// Its index in the split.
    pub index: u64,
}

/// What the outside knows of the input; clones are the same. It forgets what is acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Broker(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Records that are forgotten, by split.
    forgotten: BTreeMap<u32, u64>,
    /// How far each process has read, by its name.
    read: BTreeMap<String, BTreeMap<u32, u64>>,
    /// How often somebody went back.
    turns: u32,
}

impl Broker {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_read(&self, process: &str, split: u32, next: u64) {
        self.known().read.entry(process.to_owned()).or_default().insert(split, next);
    }

    /// Somebody goes back to an older checkpoint, and has the outside deliver everything again. What processes from
    /// before that acknowledge does not count any more.
    pub fn deliver_again(&self) {
        let mut known = self.known();
        known.forgotten.clear();
        known.turns += 1;
    }

    /// Whether just so much is forgotten of each split.
    ///
    /// # Errors
    /// Says what is not.
    pub fn check_all_forgotten(&self, lengths: &[u64]) -> Result<(), String> {
        let known = self.known();
        for (split, length) in lengths.iter().enumerate() {
            let forgotten = known.forgotten.get(&(split as u32)).copied().unwrap_or(0);
            if forgotten != *length {
                return Err(format!(
                    "{forgotten} of {length} records of split {split} are acknowledged at the end"
                ));
            }
        }
        Ok(())
    }

    /// Whether everything that this process has read is forgotten.
    ///
    /// # Errors
    /// Says what is not.
    pub fn check_stopped(&self, process: &str) -> Result<(), String> {
        let known = self.known();
        for (split, read) in known.read.get(process).into_iter().flatten() {
            let forgotten = known.forgotten.get(split).copied().unwrap_or(0);
            if forgotten != *read {
                return Err(format!(
                    "{forgotten} of {read} records of split {split} are acknowledged after a stop"
                ));
            }
        }
        Ok(())
    }
}

/// The input, as the process with this fate sees it.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Number of the first split.
    pub first: u32,
    /// Records of each split.
    pub lengths: Vec<u64>,
    /// Polls that find nothing, out of a thousand.
    pub pauses: u64,
    /// What the outside knows.
    pub broker: Broker,
    /// Of the process that reads.
    pub fate: Fate,
}

impl Source for Topic {
    type Record = Record;
    type Split = u32;
    type Position = u64;
    type Reader = Reader;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, u32)>> {
        let end = self.first + self.lengths.len() as u32;
        Ok((self.first..end).map(|split| (format!("split-{split:03}"), split)).collect())
    }

    async fn open(&self, split: u32, at: Option<u64>, _: &SourceContext) -> Result<Reader> {
        tokio::time::sleep(Duration::from_millis(self.fate.below(4))).await;
        let end = split.checked_sub(self.first).and_then(|place| self.lengths.get(place as usize)).copied();
        let end = end.ok_or_else(|| Error::external(format!("there is no split {split}")))?;
        let next = at.unwrap_or(0);
        self.fate.note(format_args!("reads split {split} from {next}"));
        let forgotten = self.broker.known().forgotten.get(&split).copied().unwrap_or(0);
        if next < forgotten {
            let gone = format!(
                "split {split} is to be read from {next}: what is before {forgotten} is acknowledged and gone"
            );
            return Err(Error::external(gone));
        }
        self.broker.note_read(&self.fate.name(), split, next);
        let (broker, fate) = (self.broker.clone(), self.fate.clone());
        Ok(Reader { split, next, end, pauses: self.pauses, broker, fate })
    }

    async fn acknowledger(&self, _: &SourceContext) -> Result<Option<Acknowledging<u64>>> {
        let (broker, fate) = (self.broker.clone(), self.fate.clone());
        let turns = broker.known().turns;
        Ok(Some(Acknowledging::by(Forgetting { broker, turns, fate })))
    }
}

/// Acknowledges for one process.
struct Forgetting {
    broker: Broker,
    turns: u32,
    fate: Fate,
}

impl Acknowledger for Forgetting {
    type Position = u64;

    async fn acknowledge(&mut self, upto: &[(String, u64)]) -> Result<(), CommitError> {
        tokio::task::yield_now().await;
        let verdict = self.fate.decide(format_args!("acknowledge {upto:?}"));
        if verdict.takes_place() {
            let mut known = self.broker.known();
            let counts = known.turns == self.turns;
            for (id, at) in upto.iter().filter(|_| counts) {
                let split = id.trim_start_matches("split-").parse();
                let split =
                    split.map_err(|_| CommitError::Refused(Error::internal(format!("no split {id}"))))?;
                let forgotten = known.forgotten.entry(split).or_default();
                *forgotten = (*forgotten).max(*at);
            }
        }
        match verdict {
            Verdict::Done => Ok(()),
            verdict => Err(CommitError::Retry(Error::external(format!("{FAILED_EFFECT} {verdict:?}")))),
        }
    }
}

/// Reads one split.
#[derive(Debug)]
pub struct Reader {
    split: u32,
    next: u64,
    end: u64,
    pauses: u64,
    broker: Broker,
    fate: Fate,
}

impl SplitReader for Reader {
    type Record = Record;
    type Position = u64;

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<Record>) -> Result<Progress> {
        if self.next == self.end {
            return Ok(Progress::End);
        }
        if self.fate.below(1000) < self.pauses {
            // In a simulation nothing comes by itself: the next poll finds it.
            cx.waker().wake_by_ref();
            return Ok(Progress::Idle);
        }
        let most = (self.end - self.next).min(out.room() as u64).min(12);
        let count = 1 + self.fate.below(most.max(1));
        for index in self.next..self.next + count {
            out.push(Record { split: self.split, index }, size_of::<Record>());
        }
        self.next += count;
        self.broker.note_read(&self.fate.name(), self.split, self.next);
        Ok(if self.next == self.end { Progress::End } else { Progress::Ready })
    }

    fn position(&self) -> u64 {
        self.next
    }
}
