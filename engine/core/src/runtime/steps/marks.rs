//! Watermarks on their way from sources to the steps that need them.
//!
//! They travel beside the data, broadcast to every worker, at the tick in which they were made. A
//! consumer applies those of tick t once its input is complete up to t, so every record that a watermark
//! speaks of has been seen. Exact, and the same in every run.

use crate::runtime::process::tick::Tick;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::Operator;

/// A watermark of one source instance, addressed to one worker.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) target: u32,
    /// Number of the source in its job.
    pub(crate) source: u32,
    pub(crate) instance: u32,
    /// Milliseconds; meaningless while idle. [`Timestamp::MAX`]: the instance is at its end.
    pub(crate) time: i64,
    /// All splits of the instance are idle: it does not hold anything back.
    pub(crate) idle: bool,
}

pub(crate) type MarkFlow<'s> = timely::dataflow::Stream<'s, Tick, Vec<Mark>>;

/// The watermarks of a stream: those of all sources that it comes from.
#[derive(Clone)]
pub(crate) struct Marks<'s> {
    pub(crate) flow: MarkFlow<'s>,
    pub(crate) sources: BTreeSet<u32>,
}

impl<'s> Marks<'s> {
    /// Delivers the marks of a source to the workers that they are addressed to.
    pub(crate) fn broadcast(flow: MarkFlow<'s>, source: u32) -> Self {
        let flow = flow.unary::<timely::container::NoopBuilder<Vec<Mark>>, _, _, _>(
            Exchange::new(|mark: &Mark| u64::from(mark.target)),
            "watermarks",
            |_, _| {
                |input, output| {
                    input.for_each(|time, marks| {
                        output.session_with_builder(&time).give_container(marks);
                    });
                }
            },
        );
        Self { flow, sources: BTreeSet::from([source]) }
    }

    /// The watermarks of both: the union's watermark is the minimum.
    pub(crate) fn union(self, other: Self) -> Self {
        let sources = &self.sources | &other.sources;
        Self { flow: self.flow.concat(other.flow), sources }
    }
}

/// The combined watermark at one consumer: the minimum over all instances of all its sources.
pub(crate) struct Combined {
    instances: HashMap<(u32, u32), Option<i64>>,
    expected: usize,
    now: i64,
}

impl Combined {
    /// `restored` is the watermark that had been applied at the restored checkpoint; it never goes back.
    pub(crate) fn new(expected: usize, restored: Option<i64>) -> Self {
        let now = restored.unwrap_or(Timestamp::MIN.as_millis());
        Self { instances: HashMap::with_capacity(expected), expected, now }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    /// What goes into the checkpoint.
    pub(crate) fn applied(&self) -> Option<i64> {
        (self.now != Timestamp::MIN.as_millis()).then_some(self.now)
    }

    pub(crate) fn update(&mut self, mark: &Mark) {
        self.instances.insert((mark.source, mark.instance), (!mark.idle).then_some(mark.time));
    }

    /// The new combined watermark, if it has advanced.
    pub(crate) fn advance(&mut self) -> Option<Timestamp> {
        if self.instances.len() < self.expected {
            return None;
        }
        let end = Timestamp::MAX.as_millis();
        let active = self.instances.values().flatten().copied().filter(|time| *time != end);
        // An instance at its end holds nothing back, but while others are only idle it must not make
        // the watermark jump to the end of time either.
        let lowest = match active.min() {
            Some(lowest) => lowest,
            None if self.instances.values().all(|time| *time == Some(end)) => end,
            None => return None,
        };
        if lowest <= self.now {
            return None;
        }
        self.now = lowest;
        Some(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(instance: u32, time: i64, idle: bool) -> Mark {
        Mark { target: 0, source: 0, instance, time, idle }
    }

    #[test]
    fn the_watermark_is_the_minimum_over_all_instances_once_each_has_spoken() {
        let mut combined = Combined::new(2, None);
        combined.update(&mark(0, 100, false));
        assert_eq!(combined.advance(), None);
        combined.update(&mark(1, 50, false));
        assert_eq!(combined.advance(), Some(Timestamp::from_millis(50)));
        combined.update(&mark(1, 200, false));
        assert_eq!(combined.advance(), Some(Timestamp::from_millis(100)));
    }

    #[test]
    fn an_idle_instance_holds_nothing_back_and_all_idle_hold_the_watermark_where_it_is() {
        let mut combined = Combined::new(2, None);
        combined.update(&mark(0, 100, false));
        combined.update(&mark(1, 0, true));
        assert_eq!(combined.advance(), Some(Timestamp::from_millis(100)));
        combined.update(&mark(0, 100, true));
        assert_eq!(combined.advance(), None);
    }

    #[test]
    fn an_instance_at_its_end_does_not_fire_what_an_idle_one_may_still_get() {
        let mut combined = Combined::new(2, None);
        combined.update(&mark(0, i64::MAX, false));
        combined.update(&mark(1, 0, true));
        assert_eq!(combined.advance(), None);
        combined.update(&mark(1, i64::MAX, false));
        assert_eq!(combined.advance(), Some(Timestamp::MAX));
    }

    #[test]
    fn a_restored_watermark_never_goes_back() {
        let mut combined = Combined::new(1, Some(70));
        combined.update(&mark(0, 60, false));
        assert_eq!(combined.advance(), None);
        assert_eq!(combined.applied(), Some(70));
    }
}
