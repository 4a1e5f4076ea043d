//! A source that the test feeds by hand, like a log with partitions.

use staunch::core::context::SourceContext;
use staunch::core::source::{Progress, Records, Source, SplitReader};
use staunch::prelude::*;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

/// A topic; clones are the same one. It outlives jobs.
pub struct Topic<T> {
    partitions: Arc<Vec<Mutex<Partition<T>>>>,
    /// New partitions may come: the source never ends by itself.
    discover: Option<Duration>,
    /// Partitions that are listed.
    listed: Arc<Mutex<BTreeSet<u32>>>,
}

struct Partition<T> {
    records: Vec<T>,
    ended: bool,
    failure: Option<Failure>,
    waker: Option<Waker>,
    polls: u64,
}

/// How a partition fails at its next poll.
#[derive(Clone, Copy)]
pub enum Failure {
    Error,
    Panic,
}

impl<T> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self {
            partitions: Arc::clone(&self.partitions),
            discover: self.discover,
            listed: Arc::clone(&self.listed),
        }
    }
}

impl<T> Topic<T> {
    pub fn new(partitions: u32) -> Self {
        let partition = |_| {
            Mutex::new(Partition { records: Vec::new(), ended: false, failure: None, waker: None, polls: 0 })
        };
        Self {
            partitions: Arc::new((0..partitions).map(partition).collect()),
            discover: None,
            listed: Arc::new(Mutex::new((0..partitions).collect())),
        }
    }

    /// At first only these partitions are found; [`Topic::list`] adds others.
    pub fn discovering(mut self, every: Duration, listed: impl IntoIterator<Item = u32>) -> Self {
        self.discover = Some(every);
        *self.listed.lock().unwrap() = listed.into_iter().collect();
        self
    }

    pub fn list(&self, partition: u32) {
        self.listed.lock().unwrap().insert(partition);
    }

    fn change(&self, partition: u32, change: impl FnOnce(&mut Partition<T>)) {
        let mut partition = self.partitions[partition as usize].lock().unwrap();
        change(&mut partition);
        if let Some(waker) = partition.waker.take() {
            waker.wake();
        }
    }

    pub fn push(&self, partition: u32, records: impl IntoIterator<Item = T>) {
        self.change(partition, |p| p.records.extend(records));
    }

    pub fn end(&self, partition: u32) {
        self.change(partition, |p| p.ended = true);
    }

    pub fn end_all(&self) {
        (0..self.partitions.len() as u32).for_each(|partition| self.end(partition));
    }

    pub fn fail(&self, partition: u32, failure: Failure) {
        self.change(partition, |p| p.failure = Some(failure));
    }

    /// How often the partition was polled.
    pub fn polls(&self, partition: u32) -> u64 {
        self.partitions[partition as usize].lock().unwrap().polls
    }
}

impl<T: Clone + Send + 'static> Source for Topic<T> {
    type Record = T;
    type Split = u32;
    type Position = usize;
    type Reader = TopicReader<T>;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, u32)>> {
        Ok(self.listed.lock().unwrap().iter().map(|p| (format!("partition-{p}"), *p)).collect())
    }

    fn discover_every(&self) -> Option<Duration> {
        self.discover
    }

    async fn open(&self, split: u32, at: Option<usize>, _: &SourceContext) -> Result<TopicReader<T>> {
        Ok(TopicReader { topic: self.clone(), partition: split as usize, next: at.unwrap_or(0) })
    }
}

pub struct TopicReader<T> {
    topic: Topic<T>,
    partition: usize,
    next: usize,
}

impl<T: Clone + Send + 'static> SplitReader for TopicReader<T> {
    type Record = T;
    type Position = usize;

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<T>) -> Result<Progress> {
        let mut partition = match self.topic.partitions[self.partition].lock() {
            Ok(partition) => partition,
            Err(poisoned) => poisoned.into_inner(),
        };
        partition.polls += 1;
        match partition.failure.take() {
            None => {}
            Some(Failure::Error) => return Err(Error::external("the broker went away")),
            Some(Failure::Panic) => panic!("the reader panics"),
        }
        let until = partition.records.len().min(self.next + out.room());
        out.extend(partition.records[self.next..until].iter().cloned(), (until - self.next) * size_of::<T>());
        let read = until - self.next;
        self.next = until;
        if read > 0 {
            return Ok(Progress::Ready);
        }
        if partition.ended {
            return Ok(Progress::End);
        }
        partition.waker = Some(cx.waker().clone());
        Ok(Progress::Idle)
    }

    fn position(&self) -> usize {
        self.next
    }
}
