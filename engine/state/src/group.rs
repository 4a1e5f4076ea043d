//! Key groups: the unit in which state is owned, stored and moved between workers.

use serde::{Deserialize, Serialize};

/// The number of key groups (max parallelism), fixed for the life of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Groups(u16);

impl Default for Groups {
    /// 128 groups.
    fn default() -> Self {
        Self(128)
    }
}

impl Groups {
    /// `count` groups; 0 is taken as 1.
    #[must_use]
    pub fn new(count: u16) -> Self {
        Self(count.max(1))
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> u16 {
        self.0
    }

    /// The group of a key, from its [`hash_key`](crate::hash_key): the high 32 bits, scaled by a
    /// multiply and a shift.
    #[inline(always)]
    #[must_use]
    pub fn of(self, hash: u64) -> u16 {
        (((hash >> 32) * u64::from(self.0)) >> 32) as u16
    }
}

/// Which worker owns which key group. A map from the first day, so that groups can later be moved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Assignment(Vec<u32>);

impl Assignment {
    /// Contiguous ranges of (almost) equal size: group `g` belongs to worker `g * workers / groups`.
    /// 0 workers is taken as 1. With more workers than groups some workers own nothing.
    #[must_use]
    pub fn even(groups: Groups, workers: u32) -> Self {
        let (count, workers) = (u64::from(groups.count()), u64::from(workers.max(1)));
        Self((0..count).map(|group| (group * workers / count) as u32).collect())
    }

    /// The worker that owns a group.
    ///
    /// # Panics
    /// The group is not below the number of groups.
    #[inline(always)]
    #[must_use]
    pub fn owner(&self, group: u16) -> u32 {
        self.0[usize::from(group)]
    }

    /// The groups of one worker, ascending.
    pub fn of_worker(&self, worker: u32) -> impl Iterator<Item = u16> + '_ {
        (0u16..).zip(&self.0).filter(move |(_, owner)| **owner == worker).map(|(group, _)| group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_key;

    #[test]
    fn every_group_has_one_owner_and_sizes_differ_by_at_most_one() {
        for workers in 1..=130 {
            let assignment = Assignment::even(Groups::default(), workers);
            let sizes: Vec<_> = (0..workers).map(|w| assignment.of_worker(w).count()).collect();
            assert_eq!(sizes.iter().sum::<usize>(), 128);
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            for w in 0..workers {
                assert!(assignment.of_worker(w).all(|group| assignment.owner(group) == w));
            }
        }
    }

    #[test]
    fn small_integers_fill_the_groups_evenly() {
        let groups = Groups::new(100);
        let mut counts = [0; 100];
        (0..100_000u64).for_each(|key| counts[usize::from(groups.of(hash_key(&key)))] += 1);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
