//! What a soak does to the job, step by step: a pure function of the seed.
//!
//! Steps are timed by the output that was seen, not by the clock, as far as that goes. What a seed does not
//! reproduce: how far the job comes until a step, and between which two instructions a signal arrives.

use std::time::Duration;

/// What is done to the running process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Deed {
    /// It is killed with SIGKILL while it runs.
    Kill,
    /// It is killed with SIGKILL a few milliseconds after its start: while it recovers.
    KillInRecovery,
    /// A second copy is started beside it, and must be refused. Then it is killed.
    DoubleStart,
    /// The same without the lock, as on a storage that has none: the second copy takes over, and the first
    /// must end. Then the second one is killed.
    TakeOver,
    /// It is stopped, another one takes over, and it wakes up beside it. Then that one is killed.
    Zombie,
    /// A second copy is started beside it without the lock, as in a take-over, and both are killed at one moment.
    KillBoth,
    /// It is stopped, another one is started in its place, and both are killed at one moment: it never wakes up.
    KillBothAsleep,
}

impl Deed {
    /// All of them.
    pub const ALL: [Deed; 7] = [
        Deed::Kill,
        Deed::KillInRecovery,
        Deed::DoubleStart,
        Deed::TakeOver,
        Deed::Zombie,
        Deed::KillBoth,
        Deed::KillBothAsleep,
    ];

    /// Whether another process takes the job over from it.
    pub(super) fn replaces(self) -> bool {
        matches!(self, Deed::TakeOver | Deed::Zombie | Deed::KillBoth | Deed::KillBothAsleep)
    }
}

/// One step: a life, and what is done to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Workers of this life.
    pub workers: u32,
    /// Workers of a second copy, if there is one.
    pub other_workers: u32,
    /// Growths of the output to wait for.
    pub commits: u64,
    /// And this long after them.
    pub delay: Duration,
    /// What is done then.
    pub deed: Deed,
    /// How long two processes are there before both are killed.
    pub together: Duration,
}

/// The endless list of steps of a seed.
#[derive(Clone, Debug)]
pub struct Schedule {
    state: u64,
}

impl Schedule {
    /// The steps of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random() % limit
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let deed = match self.below(100) {
            0..69 => Deed::Kill,
            69..81 => Deed::KillInRecovery,
            81..86 => Deed::DoubleStart,
            86..90 => Deed::TakeOver,
            90..94 => Deed::Zombie,
            94..97 => Deed::KillBoth,
            _ => Deed::KillBothAsleep,
        };
        let workers = 1 + self.below(4) as u32;
        let other_workers = 1 + self.below(4) as u32;
        let commits = if deed == Deed::KillInRecovery { 0 } else { self.below(16) };
        let most = if deed == Deed::KillInRecovery { 100 } else { 60 };
        let delay = Duration::from_millis(self.below(most));
        // From "it has just been started" to "it has taken over and works".
        let together = Duration::from_millis(self.below(400));
        Some(Step { workers, other_workers, commits, delay, deed, together })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule() {
        let steps = |seed| Schedule::new(seed).take(1000).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    #[test]
    fn a_schedule_has_every_deed_and_every_number_of_workers() {
        let steps: Vec<Step> = Schedule::new(1).take(300).collect();
        for deed in Deed::ALL {
            assert!(steps.iter().any(|step| step.deed == deed), "{deed:?}");
        }
        for workers in 1..=4 {
            assert!(steps.iter().any(|step| step.workers == workers), "{workers}");
        }
    }
}
