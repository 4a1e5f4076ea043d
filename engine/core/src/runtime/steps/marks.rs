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
    /// What it would be by the split that is ahead of all others; meaningless while active.
    pub(crate) highest: i64,
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

/// What an instance has said last.
enum Said {
    Active(i64),
    /// With its highest.
    Idle(i64),
    /// At its end, with its highest.
    Ended(i64),
}

/// The combined watermark at one consumer: the minimum over all instances of all its sources; the maximum once
/// none of them is active, so that it does not matter in which order they fell silent.
pub(crate) struct Combined {
    instances: HashMap<(u32, u32), Said>,
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
        let said = match mark.time {
            _ if mark.idle => Said::Idle(mark.highest),
            time if time == Timestamp::MAX.as_millis() => Said::Ended(mark.highest),
            time => Said::Active(time),
        };
        self.instances.insert((mark.source, mark.instance), said);
    }

    /// The new combined watermark, if it has advanced.
    pub(crate) fn advance(&mut self) -> Option<Timestamp> {
        if self.instances.len() < self.expected {
            return None;
        }
        let (mut lowest, mut highest, mut all_ended) = (None, Timestamp::MIN.as_millis(), true);
        for said in self.instances.values() {
            match said {
                Said::Active(time) => lowest = Some(lowest.map_or(*time, |lowest: i64| lowest.min(*time))),
                Said::Idle(time) | Said::Ended(time) => highest = highest.max(*time),
            }
            all_ended &= matches!(said, Said::Ended(_));
        }
        let now = match lowest {
            Some(lowest) => lowest,
            None if all_ended => Timestamp::MAX.as_millis(),
            // An instance at its end holds nothing back, but while others are only idle it must not make
            // the watermark jump to the end of time either.
            None => highest,
        };
        if now <= self.now {
            return None;
        }
        self.now = now;
        Some(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(instance: u32, time: i64, idle: bool) -> Mark {
        let highest = if time == i64::MAX { i64::MIN } else { time };
        Mark { target: 0, source: 0, instance, time, highest, idle }
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
    fn an_idle_instance_holds_nothing_back() {
        let mut combined = Combined::new(2, None);
        combined.update(&mark(0, 100, false));
        combined.update(&mark(1, 0, true));
        assert_eq!(combined.advance(), Some(Timestamp::from_millis(100)));
        combined.update(&mark(0, 100, true));
        assert_eq!(combined.advance(), None);
    }

    #[test]
    fn when_all_instances_are_idle_the_watermark_is_the_highest_in_whatever_order_they_became_so() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut combined = Combined::new(3, None);
            let times = [100, 50, 60];
            (0..3).for_each(|instance| combined.update(&mark(instance as u32, times[instance], false)));
            assert_eq!(combined.advance(), Some(Timestamp::from_millis(50)));
            for instance in order {
                combined.update(&mark(instance as u32, times[instance], true));
                combined.advance();
            }
            assert_eq!(combined.now(), Timestamp::from_millis(100));
        }
    }

    #[test]
    fn an_instance_that_ended_ahead_of_the_idle_ones_counts_with_its_last_event_time() {
        let mut combined = Combined::new(2, None);
        combined.update(&mark(1, 50, true));
        combined.update(&Mark {
            target: 0,
            source: 0,
            instance: 0,
            time: i64::MAX,
            highest: 100,
            idle: false,
        });
        assert_eq!(combined.advance(), Some(Timestamp::from_millis(100)));
    }

    #[test]
    fn an_instance_at_its_end_does_not_fire_what_an_idle_one_may_still_get() {
        let mut combined = Combined::new(2, None);
        combined.update(&mark(0, i64::MAX, false));
        combined.update(&mark(1, i64::MIN, true));
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
