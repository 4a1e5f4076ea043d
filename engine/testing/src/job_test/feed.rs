//! The source that a script feeds: one split, of records that become readable step by step.

use staunch::core::context::SourceContext;
use staunch::core::source::{Progress, Records, Source, SplitReader};
use staunch::core::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::Context;

/// How far a feed is; shared by the script and all processes.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    released: AtomicU64,
    ended: AtomicBool,
    /// Where the reader of the running process stands.
    read: AtomicU64,
    /// Most records in one batch.
    most: AtomicU64,
}

impl Gauge {
    pub(super) fn release(&self, more: u64) {
        self.released.fetch_add(more, SeqCst);
    }

    pub(super) fn end(&self) {
        self.ended.store(true, SeqCst);
    }

    pub(super) fn limit_batches(&self, records: u64) {
        self.most.store(records, SeqCst);
    }

    /// Whether all that can be read is read.
    pub(super) fn is_read(&self) -> bool {
        self.read.load(SeqCst) == self.released.load(SeqCst)
    }
}

pub(super) struct Fed<T> {
    pub(super) records: Arc<Vec<T>>,
    pub(super) gauge: Arc<Gauge>,
}

impl<T: Clone + Send + Sync + 'static> Source for Fed<T> {
    type Record = T;
    type Split = ();
    type Position = u64;
    type Reader = FedReader<T>;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, ())>> {
        Ok(vec![("script".into(), ())])
    }

    async fn open(&self, (): (), at: Option<u64>, _: &SourceContext) -> Result<FedReader<T>> {
        let next = at.unwrap_or(0);
        if next > self.gauge.released.load(SeqCst) {
            return Err(Error::internal(format!("a checkpoint is at record {next}, which was never read")));
        }
        self.gauge.read.store(next, SeqCst);
        Ok(FedReader { records: Arc::clone(&self.records), gauge: Arc::clone(&self.gauge), next })
    }
}

pub(super) struct FedReader<T> {
    records: Arc<Vec<T>>,
    gauge: Arc<Gauge>,
    next: u64,
}

impl<T: Clone + Send + Sync + 'static> SplitReader for FedReader<T> {
    type Record = T;
    type Position = u64;

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<T>) -> Result<Progress> {
        let released = self.gauge.released.load(SeqCst);
        let most = match self.gauge.most.load(SeqCst) {
            0 => out.room() as u64,
            most => most.min(out.room() as u64),
        };
        let until = released.min(self.next + most);
        let batch = self.records.get(self.next as usize..until as usize).unwrap_or_default();
        out.extend(batch.iter().cloned(), size_of_val(batch).max(batch.len()));
        self.next = until;
        self.gauge.read.store(until, SeqCst);
        if until == released && self.gauge.ended.load(SeqCst) {
            return Ok(Progress::End);
        }
        // Nothing tells this reader of new records: the simulation asks it again.
        cx.waker().wake_by_ref();
        Ok(if batch.is_empty() { Progress::Idle } else { Progress::Ready })
    }

    fn position(&self) -> u64 {
        self.next
    }
}
