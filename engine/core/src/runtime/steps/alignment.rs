//! Alignment on barriers, written once for every stateful step and every sink.
//!
//! A step works on one epoch. What arrives of later epochs is put aside, with the capability that keeps
//! its time open, until the frontier shows that the current epoch is complete. How much can be put
//! aside is bounded by the sources' flow control.
//!
//! At least once, nothing is put aside: a record of a later epoch is processed before the barrier, gets
//! into the checkpoint, and is read again after a restart.

use crate::config::Guarantee;
use crate::metrics::Stash;
use crate::runtime::process::agreed::Agreed;
use crate::runtime::process::tick::{Tick, epoch};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub(crate) struct Alignment<B> {
    epoch: u32,
    guarantee: Guarantee,
    /// With the number of records in each.
    stash: VecDeque<(Tick, usize, B)>,
    stashed: usize,
    metrics: Stash,
    /// When the first record of a later epoch arrived: from then on this step waits for its peers.
    waiting_since: Option<Instant>,
}

impl<B> Alignment<B> {
    pub(crate) fn of(agreed: &Agreed, metrics: Stash) -> Self {
        Self::new(agreed.first_epoch.0, agreed.guarantee, metrics)
    }

    fn new(epoch: u32, guarantee: Guarantee, metrics: Stash) -> Self {
        metrics.holds(0);
        Self { epoch, guarantee, stash: VecDeque::new(), stashed: 0, metrics, waiting_since: None }
    }

    /// The epoch that is being worked on.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether something of this time may be processed now.
    pub(crate) fn admits(&self, tick: Tick) -> bool {
        epoch(tick) == self.epoch
            || self.guarantee == Guarantee::AtLeastOnce
            || crate::crash::bug("stash_off")
    }

    /// Puts something of a later epoch aside, so many records.
    pub(crate) fn stash(&mut self, tick: Tick, records: usize, batch: B) {
        debug_assert!(epoch(tick) > self.epoch, "an epoch that is closed got a record");
        if self.waiting_since.is_none() {
            crate::crash::pass("step.some_inputs_aligned");
            self.waiting_since = Some(Instant::now());
        }
        self.stash.push_back((tick, records, batch));
        self.stashed += records;
        self.metrics.holds(self.stashed);
    }

    /// Whether the current epoch is complete. An empty frontier says nothing about epochs: it appears
    /// only when a dataflow is torn down.
    pub(crate) fn is_complete(&self, frontier: Option<Tick>) -> bool {
        frontier.is_some_and(|f| epoch(f) > self.epoch)
    }

    /// Begins the next epoch; returns what was put aside for it, in the order of arrival, and how long
    /// the step waited for the barrier.
    pub(crate) fn next_epoch(&mut self) -> (Vec<(Tick, B)>, Duration) {
        let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.epoch += 1;
        let mut due = Vec::new();
        let mut later = VecDeque::new();
        for (tick, records, batch) in self.stash.drain(..) {
            if epoch(tick) == self.epoch {
                self.stashed -= records;
                due.push((tick, batch));
            } else {
                later.push_back((tick, records, batch));
            }
        }
        self.stash = later;
        self.metrics.holds(self.stashed);
        if !self.stash.is_empty() {
            self.waiting_since = Some(Instant::now());
        }
        (due, waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::runtime::process::tick::tick;

    fn alignment(guarantee: Guarantee) -> Alignment<char> {
        Alignment::new(3, guarantee, Metrics::new("test").step("step", 0).stash)
    }

    #[test]
    fn records_of_a_later_epoch_wait_until_the_barrier_and_keep_their_order() {
        let mut alignment = alignment(Guarantee::ExactlyOnce);
        let metered =
            |alignment: &Alignment<char>| (alignment.metrics.records.get(), alignment.metrics.max.get());
        assert!(alignment.admits(tick(3, 9)));
        assert!(!alignment.admits(tick(4, 0)));
        assert_eq!(metered(&alignment), (0, 0));
        alignment.stash(tick(4, 1), 1, 'a');
        alignment.stash(tick(5, 0), 20, 'b');
        alignment.stash(tick(4, 0), 300, 'c');
        assert_eq!(metered(&alignment), (321, 321));
        assert!(!alignment.is_complete(Some(tick(3, 10))));
        assert!(!alignment.is_complete(None));
        assert!(alignment.is_complete(Some(tick(4, 0))));
        assert_eq!(alignment.next_epoch().0, vec![(tick(4, 1), 'a'), (tick(4, 0), 'c')]);
        assert_eq!(metered(&alignment), (20, 321));
        assert_eq!(alignment.next_epoch().0, vec![(tick(5, 0), 'b')]);
        assert_eq!(metered(&alignment), (0, 321));
        assert_eq!(alignment.epoch(), 5);
    }

    #[test]
    fn at_least_once_no_record_waits() {
        let alignment = alignment(Guarantee::AtLeastOnce);
        assert!(alignment.admits(tick(4, 0)));
        assert!(!alignment.is_complete(Some(tick(3, 10))), "the barrier is where it was");
    }
}
