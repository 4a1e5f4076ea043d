//! Sends keyed records to the worker that owns their key group.

use crate::batch::{BATCH_RECORDS, Batch};
use staunch_state::{Assignment, Groups};
use std::sync::Arc;
use timely::communication::Push;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pushers::exchange::Distributor;

/// Splits batches by key group. The map from groups to workers is data, so that groups can be moved.
pub(crate) struct Router<T> {
    assignment: Arc<Assignment>,
    groups: Groups,
    buffers: Vec<Batch<T>>,
}

impl<T> Router<T> {
    pub(crate) fn new(assignment: Arc<Assignment>, groups: Groups, workers: usize) -> Self {
        Self { assignment, groups, buffers: (0..workers).map(|_| Batch::default()).collect() }
    }
}

impl<T> Distributor<Batch<T>> for Router<T> {
    fn partition<Time: Clone, P: Push<Message<Time, Batch<T>>>>(
        &mut self,
        batch: &mut Batch<T>,
        time: &Time,
        pushers: &mut [P],
    ) {
        let timed = batch.is_timed();
        let times = std::mem::take(&mut batch.times);
        for (i, (item, hash)) in batch.items.drain(..).zip(batch.hashes.drain(..)).enumerate() {
            let owner = self.assignment.owner(self.groups.of(hash)) as usize;
            let buffer = &mut self.buffers[owner];
            if buffer.items.capacity() == 0 {
                buffer.items.reserve_exact(BATCH_RECORDS);
                buffer.hashes.reserve_exact(BATCH_RECORDS);
            }
            buffer.items.push(item);
            buffer.hashes.push(hash);
            if timed {
                buffer.times.push(times[i]);
            }
            if buffer.items.len() >= BATCH_RECORDS {
                Message::push_at(buffer, time.clone(), &mut pushers[owner]);
                clear(buffer);
            }
        }
    }

    fn flush<Time: Clone, P: Push<Message<Time, Batch<T>>>>(&mut self, time: &Time, pushers: &mut [P]) {
        for (buffer, pusher) in self.buffers.iter_mut().zip(pushers) {
            if !buffer.is_empty() {
                Message::push_at(buffer, time.clone(), pusher);
                clear(buffer);
            }
        }
    }
}

/// A channel may hand back a spent container with its allocation; only the contents must go.
fn clear<T>(batch: &mut Batch<T>) {
    batch.items.clear();
    batch.times.clear();
    batch.hashes.clear();
}
