//! A queue in memory that forgets what is acknowledged: the source that shows whether anything is told too early.
//!
//! It delivers again what was not acknowledged, and refuses a position that is gone. It outlives jobs, as a broker
//! does, so a test can stop or crash a job over it and start the next.

use staunch::core::context::SourceContext;
use staunch::core::sink::CommitError;
use staunch::core::source::{Acknowledger, Acknowledging, Progress, Records, Source, SplitReader};
use staunch::core::{Error, Result};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// A queue of some partitions, each of which is a split named by its number; clones are the same one.
pub struct Queue<T>(Arc<Mutex<Vec<Partition<T>>>>);

struct Partition<T> {
    /// How many are forgotten: the number of the first message that is there.
    forgotten: u64,
    messages: VecDeque<T>,
    ended: bool,
    wakers: Vec<Waker>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Queue<T> {
    /// An empty queue of so many partitions.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        let partition =
            |_| Partition { forgotten: 0, messages: VecDeque::new(), ended: false, wakers: Vec::new() };
        Self(Arc::new(Mutex::new((0..partitions).map(partition).collect())))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Partition<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, partition: u32, change: impl FnOnce(&mut Partition<T>)) {
        let mut partitions = self.lock();
        let Some(partition) = partitions.get_mut(partition as usize) else { return };
        change(partition);
        partition.wakers.drain(..).for_each(Waker::wake);
    }

    /// Sends messages to a partition.
    pub fn send(&self, partition: u32, messages: impl IntoIterator<Item = T>) {
        self.change(partition, |p| p.messages.extend(messages));
    }

    /// Nothing more comes in any partition.
    pub fn end(&self) {
        let partitions = self.lock().len() as u32;
        (0..partitions).for_each(|partition| self.change(partition, |p| p.ended = true));
    }

    /// How many messages of a partition are acknowledged, and forgotten.
    #[must_use]
    pub fn forgotten(&self, partition: u32) -> u64 {
        self.lock().get(partition as usize).map_or(0, |partition| partition.forgotten)
    }

    /// How many messages there are that are not acknowledged.
    #[must_use]
    pub fn left(&self) -> usize {
        self.lock().iter().map(|partition| partition.messages.len()).sum()
    }
}

impl<T: Clone + Send + 'static> Source for Queue<T> {
    type Record = T;
    type Split = u32;
    type Position = u64;
    type Reader = QueueReader<T>;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, u32)>> {
        Ok((0..self.lock().len() as u32).map(|partition| (partition.to_string(), partition)).collect())
    }

    async fn open(&self, partition: u32, at: Option<u64>, _: &SourceContext) -> Result<QueueReader<T>> {
        let partitions = self.lock();
        let of = partitions.get(partition as usize);
        let of = of.ok_or_else(|| Error::job(format!("the queue has no partition {partition}")))?;
        let (first, end) = (of.forgotten, of.forgotten + of.messages.len() as u64);
        let next = at.unwrap_or(first);
        if !(first..=end).contains(&next) {
            return Err(Error::job(format!(
                "partition {partition} has messages {first} to {end}, and the checkpoint stands at {next}; use the queue \
                 that the checkpoint is about"
            )));
        }
        Ok(QueueReader { queue: self.clone(), partition, next })
    }

    async fn acknowledger(&self, _: &SourceContext) -> Result<Option<Acknowledging<u64>>> {
        Ok(Some(Acknowledging::by(Forgetting(self.clone()))))
    }
}

/// Reads one partition.
pub struct QueueReader<T> {
    queue: Queue<T>,
    partition: u32,
    next: u64,
}

impl<T: Clone + Send + 'static> SplitReader for QueueReader<T> {
    type Record = T;
    type Position = u64;

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<T>) -> Result<Progress> {
        let mut partitions = self.queue.lock();
        let Some(partition) = partitions.get_mut(self.partition as usize) else { return Ok(Progress::End) };
        // What was delivered before, and is delivered again, is before this.
        let skip = self.next.checked_sub(partition.forgotten);
        let skip = skip.ok_or_else(|| Error::internal("a message was acknowledged before it was read"))?;
        let mut read = 0;
        for message in partition.messages.iter().skip(skip as usize).take(out.room()) {
            out.push(message.clone(), size_of::<T>().max(1));
            read += 1;
        }
        self.next += read;
        if read > 0 {
            return Ok(Progress::Ready);
        }
        if partition.ended && skip as usize >= partition.messages.len() {
            return Ok(Progress::End);
        }
        partition.wakers.push(cx.waker().clone());
        Ok(Progress::Idle)
    }

    fn position(&self) -> u64 {
        self.next
    }
}

struct Forgetting<T>(Queue<T>);

impl<T: Send + 'static> Acknowledger for Forgetting<T> {
    type Position = u64;

    async fn acknowledge(&mut self, upto: &[(String, u64)]) -> Result<(), CommitError> {
        let refused = |why: String| CommitError::Refused(Error::job(why));
        let mut partitions = self.0.lock();
        for (id, at) in upto {
            let partition = id.parse().ok().and_then(|number: usize| partitions.get_mut(number));
            let partition = partition.ok_or_else(|| refused(format!("the queue has no partition {id}")))?;
            if *at > partition.forgotten + partition.messages.len() as u64 {
                return Err(refused(format!("partition {id} has no {at} messages")));
            }
            while partition.forgotten < *at {
                partition.messages.pop_front();
                partition.forgotten += 1;
            }
        }
        Ok(())
    }
}
