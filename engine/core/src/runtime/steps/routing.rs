//! Gives records their keys, and sends them to the worker that owns the key's group.
//!
//! One pass over the records does both: [`keyed`] puts each into a batch of its owner, so that
//! [`Router`], the dataflow's side of the exchange, only forwards whole batches.

use crate::batch::{BATCH_RECORDS, Batch};
use crate::runtime::Flow;
use crate::runtime::life::worker::Site;
use crate::runtime::process::tick::Tick;
use staunch_state::{Assignment, Groups, StateKey, hash_key};
use std::sync::Arc;
use timely::communication::Push;
use timely::container::NoopBuilder;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::operators::InputCapability;
use timely::dataflow::operators::generic::Operator;

/// Which worker owns a key. The map from groups to workers is data, so that groups can be moved.
#[derive(Clone)]
pub(crate) struct Owners {
    assignment: Arc<Assignment>,
    groups: Groups,
}

impl Owners {
    pub(crate) fn of_site(site: &Site<'_>) -> Self {
        let (assignment, groups) = site.routing();
        Self { assignment, groups }
    }

    #[inline(always)]
    fn of(&self, hash: u64) -> usize {
        self.assignment.owner(self.groups.of(hash)) as usize
    }
}

/// Turns records into keys and values, in batches that have one owner each.
pub(crate) fn keyed<'s, T, K, V>(
    site: &Site<'s>,
    flow: Flow<'s, T>,
    key: impl Fn(&T) -> K + 'static,
    value: impl Fn(T) -> V + 'static,
) -> Flow<'s, (K, V)>
where
    T: 'static,
    K: StateKey,
    V: 'static,
{
    let workers = site.live.as_ref().map_or(1, |worker| worker.peers);
    let mut sorted = Sorted::new(Owners::of_site(site), workers);
    flow.unary::<NoopBuilder<Batch<(K, V)>>, _, _, _>(Pipeline, "key_by", move |_, _| {
        move |input, output| {
            // Batches of one time fill each other up; none waits for the next activation.
            let mut open: Option<InputCapability<Tick>> = None;
            input.for_each(|time, batch| {
                if let Some(before) = open.take_if(|open| open.time() != time.time()) {
                    let mut session = output.session_with_builder(&before);
                    sorted.flush(|batch| session.give_container(batch));
                }
                let time = &*open.get_or_insert(time);
                let mut session = output.session_with_builder(time);
                sorted.add(std::mem::take(batch), &key, &value, |batch| session.give_container(batch));
            });
            if let Some(time) = open {
                let mut session = output.session_with_builder(&time);
                sorted.flush(|batch| session.give_container(batch));
            }
        }
    })
}

/// Batches being filled, one for each owner.
struct Sorted<T> {
    owners: Owners,
    buffers: Vec<Batch<T>>,
}

impl<K: StateKey, V> Sorted<(K, V)> {
    fn new(owners: Owners, workers: usize) -> Self {
        Self { owners, buffers: (0..workers).map(|_| Batch::default()).collect() }
    }

    /// Adds records in their order, and ships what is full.
    fn add<T>(
        &mut self,
        batch: Batch<T>,
        key: impl Fn(&T) -> K,
        value: impl Fn(T) -> V,
        mut ship: impl FnMut(&mut Batch<(K, V)>),
    ) {
        // Room for a fair share; what is sparse must not travel in large allocations.
        let share = batch.items.len().div_ceil(self.buffers.len()).min(BATCH_RECORDS);
        let mut times = batch.times.into_iter();
        for item in batch.items {
            let key = key(&item);
            let hash = hash_key(&key);
            let buffer = &mut self.buffers[self.owners.of(hash)];
            if buffer.items.capacity() == 0 {
                buffer.items.reserve_exact(share);
                buffer.hashes.reserve_exact(share);
            }
            buffer.items.push((key, value(item)));
            buffer.hashes.push(hash);
            if let Some(time) = times.next() {
                buffer.times.push(time);
            }
            if buffer.items.len() >= BATCH_RECORDS {
                ship(&mut std::mem::take(buffer));
            }
        }
    }

    fn flush(&mut self, mut ship: impl FnMut(&mut Batch<(K, V)>)) {
        for buffer in self.buffers.iter_mut().filter(|buffer| !buffer.is_empty()) {
            ship(&mut std::mem::take(buffer));
        }
    }
}

/// Forwards batches that have one owner each, as [`keyed`] makes them.
pub(crate) struct Router(pub(crate) Owners);

impl<T> Distributor<Batch<T>> for Router {
    fn partition<Time: Clone, P: Push<Message<Time, Batch<T>>>>(
        &mut self,
        batch: &mut Batch<T>,
        time: &Time,
        pushers: &mut [P],
    ) {
        let Some(first) = batch.hashes.first() else { return };
        let owner = self.0.of(*first);
        debug_assert!(batch.hashes.iter().all(|hash| self.0.of(*hash) == owner), "a batch has one owner");
        Message::push_at(batch, time.clone(), &mut pushers[owner]);
        // A channel may hand back a spent batch, contents and all.
        *batch = Batch::default();
    }

    fn flush<Time: Clone, P: Push<Message<Time, Batch<T>>>>(&mut self, _: &Time, _: &mut [P]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_to_batches_of_one_owner_each_in_their_order_and_with_their_times() {
        let groups = Groups::new(128);
        let owners = Owners { assignment: Arc::new(Assignment::even(groups, 3)), groups };
        let mut sorted = Sorted::new(owners.clone(), 3);
        let mut shipped: Vec<Batch<(u64, i64)>> = Vec::new();
        let records = 5 * BATCH_RECORDS as i64;
        for from in (0..records).step_by(1000) {
            let items: Vec<i64> = (from..records.min(from + 1000)).collect();
            let batch = Batch { times: items.iter().map(|n| n * 10).collect(), items, hashes: Vec::new() };
            sorted.add(batch, |n| (*n % 100) as u64, |n| n, |batch| shipped.push(std::mem::take(batch)));
        }
        sorted.flush(|batch| shipped.push(std::mem::take(batch)));
        let mut seen = [Vec::new(), Vec::new(), Vec::new()];
        for batch in &shipped {
            assert!(!batch.is_empty() && batch.len() <= BATCH_RECORDS);
            let owner = owners.of(batch.hashes[0]);
            for (((key, n), hash), time) in batch.items.iter().zip(&batch.hashes).zip(&batch.times) {
                assert_eq!((*hash, *time, owners.of(*hash)), (hash_key(key), n * 10, owner));
                seen[owner].push(*n);
            }
        }
        assert!(seen.iter().all(|numbers| numbers.is_sorted()));
        assert_eq!(seen.iter().map(Vec::len).sum::<usize>(), records as usize);
    }
}
