//! A collection as a source.

use serde::{Deserialize, Serialize};
use staunch_core::context::SourceContext;
use staunch_core::source::{Progress, Records, Source, SplitReader};
use staunch_core::{Error, Result};
use std::sync::Arc;
use std::task::Context;

/// A source that yields these records, and ends.
pub fn collection<T: Clone + Send + Sync + 'static>(records: impl Into<Vec<T>>) -> Collection<T> {
    Collection { records: Arc::new(records.into()), splits: 1 }
}

/// A collection as a source; made by [`collection`].
#[derive(Debug)]
pub struct Collection<T> {
    records: Arc<Vec<T>>,
    splits: u32,
}

impl<T> Clone for Collection<T> {
    fn clone(&self) -> Self {
        Self { records: Arc::clone(&self.records), splits: self.splits }
    }
}

impl<T> Collection<T> {
    /// Deals the records out to so many splits, one by one: record `i` is in split `i % splits`.
    #[must_use]
    pub fn splits(mut self, splits: u32) -> Self {
        self.splits = splits.max(1);
        self
    }
}

/// One of the splits of a collection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CollectionSplit {
    /// Its number.
    index: u32,
    /// How many there were: with another number the records would be dealt out differently.
    of: u32,
}

impl<T: Clone + Send + Sync + 'static> Source for Collection<T> {
    type Record = T;
    type Split = CollectionSplit;
    type Position = u64;
    type Reader = CollectionReader<T>;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, CollectionSplit)>> {
        let split = |index: u32| (index.to_string(), CollectionSplit { index, of: self.splits });
        Ok((0..self.splits).map(split).collect())
    }

    async fn open(&self, split: CollectionSplit, at: Option<u64>, _: &SourceContext) -> Result<Self::Reader> {
        let CollectionSplit { index, of } = split;
        let next = at.unwrap_or(0);
        let length =
            (self.records.len() as u64).saturating_sub(u64::from(index)).div_ceil(u64::from(of.max(1)));
        if of != self.splits || next > length {
            return Err(Error::job(format!(
                "the checkpoint stands at record {next} of split {index} of {of}, but the collection now has {} \
                 records in {} splits; give the same collection again, or start without the checkpoint",
                self.records.len(),
                self.splits
            )));
        }
        Ok(CollectionReader { records: Arc::clone(&self.records), index, of, next })
    }
}

/// Reads one split of a collection.
#[derive(Debug)]
pub struct CollectionReader<T> {
    records: Arc<Vec<T>>,
    index: u32,
    of: u32,
    next: u64,
}

impl<T: Clone + Send + Sync + 'static> SplitReader for CollectionReader<T> {
    type Record = T;
    type Position = u64;

    fn poll(&mut self, _cx: &mut Context<'_>, out: &mut Records<T>) -> Result<Progress> {
        while out.room() > 0 {
            let at = usize::try_from(u64::from(self.index) + self.next * u64::from(self.of));
            let Some(record) = at.ok().and_then(|at| self.records.get(at)) else {
                return Ok(Progress::End);
            };
            out.push(record.clone(), size_of::<T>().max(1));
            self.next += 1;
        }
        Ok(Progress::Ready)
    }

    fn position(&self) -> u64 {
        self.next
    }
}
