//! A sink in memory that keeps the contract but for one mistake.

use staunch::core::sink::{CommitError, Committer, Guarantee, Prepared, Sink, SinkContext, SinkWriter};
use staunch::core::{CheckpointId, Committable, Error, Result};
use staunch_testing::conformance::Can;
use staunch_testing::conformance::sink::{Row, Target, row};
use staunch_testing::storage::MemoryStorage;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    None,
    WritesThrough,
    CommitsInPrepare,
    LeavesOrphans,
    RemovesInSilence,
    KeepsTheFirstOfAName,
    DropsOlderCheckpoints,
    PublishesAtRecovery,
    RemovesWhatIsListed,
    PassesOverOlderStarts,
    CommitsAllThatIsPrepared,
    KeepsOneTokenForAllInstances,
    AllOrNothing,
    RefusesAfterALostAnswer,
    DoublesAfterALostAnswer,
    RefusesWhatIsCommitted,
    CommitsAgain,
    CommitsTheLastOnly,
    HasNoFence,
    FencesOnlyItsOwnOutput,
    NumbersByTheCommittingStart,
    LetsAnOlderStartTakeOver,
    RemovesAfterManyStarts,
    FencesAtCheck,
    FencesWhenOpened,
    IgnoresForeignInstances,
    PreparesEmptyParts,
    IgnoresTheLineage,
    ForgetsTheLineageOfHigherStarts,
    AbortsWhenDropped,
    CommitsWhenDropped,
    IsAtLeastOnce,
    AnswersOkForLostOutput,
    RetriesLostOutput,
    LosesInFewWords,
    CountsAllEpochs,
    KeepsRecordsAfterPrepare,
    TakesRecordsWhenAnswering,
    AnswersBeforeItIsDurable,
    HasOnePlaceForOpenCuts,
    CommitsAnOpenCutWhenDropped,
    Hangs,
    Panics,
}

/// Checkpoint, instance, generation.
type Key = (u32, u32, u64);

#[derive(Debug, Default)]
struct Inside {
    owner: Option<String>,
    fence: u64,
    recoveries: u32,
    prepared: BTreeMap<Key, Vec<Row>>,
    committed: BTreeMap<Key, Vec<Row>>,
    /// Rows that were written past the protocol.
    loose: Vec<Row>,
    lose_answer: bool,
}

/// The target, and the sink into it.
#[derive(Clone, Debug)]
pub struct Wrong {
    mistake: Mistake,
    inside: Arc<Mutex<Inside>>,
}

pub fn wrong(mistake: Mistake) -> Wrong {
    Wrong { mistake, inside: Arc::default() }
}

impl Wrong {
    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }
}

impl Target for Wrong {
    type Record = Row;
    type Sink = Self;

    fn sink(&self) -> Self {
        self.clone()
    }

    fn record(&self, n: u64) -> Row {
        row(n)
    }

    fn visible(&self) -> Vec<Row> {
        let inside = self.lock();
        inside.committed.values().flatten().chain(&inside.loose).cloned().collect()
    }

    fn leftovers(&self, _: &MemoryStorage) -> usize {
        self.lock().prepared.len()
    }

    fn lose_prepared(&self, _: &MemoryStorage) -> Can {
        self.lock().prepared.clear();
        Can::Done(())
    }

    fn lose_next_answer(&self, _: &MemoryStorage) -> Can {
        self.lock().lose_answer = true;
        Can::Done(())
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(3)
    }
}

#[derive(Debug)]
pub struct Writer {
    sink: Wrong,
    context: SinkContext,
    open: Rows,
    /// Of the newest cut.
    cut: Rows,
    written: u64,
    mine: Arc<Mutex<Vec<Key>>>,
}

type Rows = Arc<Mutex<Vec<Row>>>;

/// An open cut.
struct Open {
    sink: Wrong,
    key: Key,
    rows: Rows,
    /// What was written since.
    later: Rows,
    is_done: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_done && self.sink.is(Mistake::CommitsAnOpenCutWhenDropped) {
            let rows = std::mem::take(&mut *self.rows.lock().unwrap());
            self.sink.lock().committed.insert(self.key, rows);
        }
    }
}

impl Open {
    /// Prepares the rows; returns how many they are.
    fn prepare(&mut self) -> u64 {
        self.is_done = true;
        let rows = std::mem::take(&mut *self.rows.lock().unwrap());
        let count = rows.len() as u64;
        if count == 0 && !self.sink.is(Mistake::PreparesEmptyParts) {
            return 0;
        }
        let mut inside = self.sink.lock();
        match self.sink.mistake {
            Mistake::CommitsInPrepare => drop(inside.committed.insert(self.key, rows)),
            Mistake::AnswersBeforeItIsDurable if !self.later.lock().unwrap().is_empty() => {}
            _ => drop(inside.prepared.entry(self.key).or_insert(rows)),
        }
        count
    }
}

#[derive(Debug)]
pub struct Publisher {
    sink: Wrong,
    context: SinkContext,
}

impl Sink for Wrong {
    type Record = Row;
    type Writer = Writer;
    type Committer = Publisher;

    async fn writer(&self, context: &SinkContext) -> Result<Writer> {
        let (sink, context) = (self.clone(), context.clone());
        Ok(Writer {
            sink,
            context,
            open: Rows::default(),
            cut: Rows::default(),
            written: 0,
            mine: Arc::default(),
        })
    }

    async fn committer(&self, context: &SinkContext) -> Result<Publisher> {
        if self.is(Mistake::FencesWhenOpened) {
            self.lock().fence = context.generation.0;
        }
        Ok(Publisher { sink: self.clone(), context: context.clone() })
    }

    fn guarantee(&self) -> Guarantee {
        if self.is(Mistake::IsAtLeastOnce) { Guarantee::AtLeastOnce } else { Guarantee::ExactlyOnce }
    }
}

impl SinkWriter for Writer {
    type Record = Row;

    async fn write(&mut self, records: Vec<Row>) -> Result<()> {
        self.written += records.len() as u64;
        if self.sink.is(Mistake::WritesThrough) {
            self.sink.lock().loose.extend(records);
            return Ok(());
        }
        self.open.lock().unwrap().extend(records);
        Ok(())
    }

    fn cut(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        let mistake = self.sink.mistake;
        let generation = if mistake == Mistake::KeepsTheFirstOfAName { 0 } else { self.context.generation.0 };
        let key = (checkpoint.0, self.context.instance, generation);
        let rows = match mistake {
            Mistake::TakesRecordsWhenAnswering => Arc::clone(&self.open),
            Mistake::KeepsRecordsAfterPrepare => Arc::new(Mutex::new(self.open.lock().unwrap().clone())),
            Mistake::HasOnePlaceForOpenCuts => {
                *self.cut.lock().unwrap() = std::mem::take(&mut *self.open.lock().unwrap());
                Arc::clone(&self.cut)
            }
            _ => Arc::new(Mutex::new(std::mem::take(&mut *self.open.lock().unwrap()))),
        };
        let mut open =
            Open { sink: self.sink.clone(), key, rows, later: Arc::clone(&self.open), is_done: false };
        let (written, mine) = (self.written, Arc::clone(&self.mine));
        Ok(async move {
            match mistake {
                Mistake::Hangs => std::future::pending().await,
                Mistake::Panics => panic!("no more paper"),
                _ => {}
            }
            let count = open.prepare();
            if count == 0 && mistake != Mistake::PreparesEmptyParts {
                return Ok(Vec::new());
            }
            mine.lock().unwrap().push(key);
            let records = if mistake == Mistake::CountsAllEpochs { written } else { count };
            Ok(vec![Prepared { records, payload: serde_json::to_value(key).unwrap() }])
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut inside = self.sink.lock();
        for key in self.mine.lock().unwrap().iter() {
            match self.sink.mistake {
                Mistake::AbortsWhenDropped => drop(inside.prepared.remove(key)),
                Mistake::CommitsWhenDropped => {
                    if let Some(rows) = inside.prepared.remove(key) {
                        inside.committed.insert(*key, rows);
                    }
                }
                _ => {}
            }
        }
    }
}

fn key(committable: &Committable) -> Key {
    serde_json::from_value(committable.payload.clone()).unwrap()
}

impl Publisher {
    fn may(&self, inside: &Inside, listed: &[Committable]) -> Result<(), CommitError> {
        let own = listed.iter().all(|c| c.generation == self.context.generation);
        let fenced = match self.sink.mistake {
            Mistake::HasNoFence => false,
            Mistake::FencesOnlyItsOwnOutput => own && inside.fence != self.context.generation.0,
            _ => inside.fence != self.context.generation.0,
        };
        if fenced { Err(CommitError::Refused(Error::job("fenced"))) } else { Ok(()) }
    }

    fn lost(&self, committable: &Committable) -> Result<(), CommitError> {
        let Committable { checkpoint, records, .. } = committable;
        let whole =
            Error::external(format!("sink `out`: {records} records of checkpoint {checkpoint} are lost"));
        match self.sink.mistake {
            Mistake::AnswersOkForLostOutput => Ok(()),
            Mistake::RetriesLostOutput => Err(CommitError::Retry(whole)),
            Mistake::LosesInFewWords => Err(CommitError::Refused(Error::external("not found"))),
            _ => Err(CommitError::Refused(whole)),
        }
    }

    fn publish(&self, inside: &mut Inside, committable: &Committable) -> Result<(), CommitError> {
        let mut key = key(committable);
        if self.sink.is(Mistake::NumbersByTheCommittingStart) {
            let Some(rows) = inside.prepared.get(&key).cloned() else { return self.lost(committable) };
            key.2 = self.context.generation.0;
            inside.committed.insert(key, rows);
            return Ok(());
        }
        if self.sink.is(Mistake::IgnoresForeignInstances) && key.1 >= self.context.instances {
            return Ok(());
        }
        if let Some(rows) = inside.committed.get(&key).cloned() {
            return match self.sink.mistake {
                Mistake::RefusesWhatIsCommitted => Err(CommitError::Refused(Error::job("it exists already"))),
                Mistake::CommitsAgain => {
                    inside.loose.extend(rows);
                    Ok(())
                }
                _ => Ok(()),
            };
        }
        match inside.prepared.remove(&key) {
            Some(rows) => drop(inside.committed.insert(key, rows)),
            None => return self.lost(committable),
        }
        Ok(())
    }
}

impl Committer for Publisher {
    async fn check(&mut self) -> Result<()> {
        if self.sink.is(Mistake::FencesAtCheck) {
            self.sink.lock().fence = self.context.generation.0;
        }
        Ok(())
    }

    async fn recover(&mut self, listed: &[Committable]) -> Result<Vec<String>> {
        let mistake = self.sink.mistake;
        let mut inside = self.sink.lock();
        let SinkContext { lineage, generation, .. } = &self.context;
        let same = inside.owner.get_or_insert_with(|| lineage.clone()) == lineage;
        let higher = generation.0 > inside.fence;
        let ours = match mistake {
            Mistake::IgnoresTheLineage => true,
            Mistake::ForgetsTheLineageOfHigherStarts => same || higher,
            _ => same,
        };
        if !ours {
            return Err(Error::job("another run"));
        }
        if generation.0 < inside.fence && mistake != Mistake::LetsAnOlderStartTakeOver {
            return Err(Error::job("an older start"));
        }
        inside.fence = generation.0;
        inside.recoveries += 1;
        let mut keep: Vec<Key> = listed.iter().map(key).collect();
        match mistake {
            Mistake::LeavesOrphans => return Ok(Vec::new()),
            Mistake::RemovesWhatIsListed => keep.clear(),
            Mistake::RemovesAfterManyStarts if inside.recoveries > 4 => keep.clear(),
            Mistake::PublishesAtRecovery => {
                for key in &keep {
                    if let Some(rows) = inside.prepared.remove(key) {
                        inside.committed.insert(*key, rows);
                    }
                }
            }
            _ => {}
        }
        let orphans: Vec<Key> = inside.prepared.keys().filter(|key| !keep.contains(key)).copied().collect();
        orphans.iter().for_each(|key| drop(inside.prepared.remove(key)));
        let said = orphans.iter().map(|key| format!("removed {key:?}"));
        Ok(if mistake == Mistake::RemovesInSilence { Vec::new() } else { said.collect() })
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        let mistake = self.sink.mistake;
        let mut inside = self.sink.lock();
        self.may(&inside, committables)?;
        let newest = committables.iter().map(|c| c.checkpoint).max();
        let some = committables.iter().any(|c| inside.committed.contains_key(&key(c)));
        if mistake == Mistake::AllOrNothing && some {
            return Ok(());
        }
        let token = inside.committed.keys().map(|key| key.0).max();
        for committable in committables {
            let old = Some(committable.checkpoint) < newest;
            match mistake {
                Mistake::KeepsOneTokenForAllInstances if Some(committable.checkpoint.0) <= token => {}
                Mistake::PassesOverOlderStarts if committable.generation < self.context.generation => {}
                Mistake::DropsOlderCheckpoints if old && committable.generation < self.context.generation => {
                }
                Mistake::CommitsTheLastOnly if old => {}
                _ => self.publish(&mut inside, committable)?,
            }
        }
        if mistake == Mistake::CommitsAllThatIsPrepared && !committables.is_empty() {
            let all = std::mem::take(&mut inside.prepared);
            inside.committed.extend(all);
        }
        if std::mem::take(&mut inside.lose_answer) {
            match mistake {
                Mistake::RefusesAfterALostAnswer => {
                    return Err(CommitError::Refused(Error::external("connection lost")));
                }
                Mistake::DoublesAfterALostAnswer => {
                    let again: Vec<Row> = inside.committed.values().flatten().cloned().collect();
                    inside.loose.extend(again);
                }
                _ => {}
            }
            return Err(CommitError::Retry(Error::external("connection lost")));
        }
        Ok(())
    }
}
