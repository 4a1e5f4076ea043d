//! What can happen in a process next: the work that waits, and the trouble that is left.

use super::{Phase, Process};
use crate::bounds::Faults;
use crate::world::Rules;
use staunch_checkpoint::{Coordinator, Kind};

/// What becomes of the creation of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Whoever asked hears of it.
    Known,
    /// Done, and the answer is lost.
    UnknownDone,
    /// Not done, and the answer is lost.
    UnknownNever,
    /// Done later, and the answer is lost.
    UnknownLater,
    /// Certainly not done.
    Failed,
}

/// One thing that happens in a process. Numbers are places in what there is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// The fence or the manifest is put into its slot.
    Create(Outcome),
    /// The log is listed after a creation.
    Confirm,
    /// A start fences the target and removes prepared output that is not listed.
    Fence,
    /// A start removes state files that nobody refers to.
    Sweep,
    /// A barrier, after one more record if there is one; a final one if not.
    Trigger,
    Savepoint,
    Stop,
    /// A part's next acknowledgement arrives.
    Deliver(usize),
    /// Its next but one does.
    Overtake(usize),
    /// Its next one never does.
    Lose(usize),
    /// The part fails in its place.
    Fail(usize),
    /// An acknowledgement of earlier arrives again.
    Repeat(usize),
    /// A confirmation of earlier arrives again.
    Reconfirm(usize),
    Timeout,
    /// One more piece of an outstanding commit.
    Commit(usize),
    /// A confirmation of a commit arrives.
    Confirmed(usize),
    /// What expired is deleted: slots, then files.
    Expire,
}

impl Process {
    /// What can happen to this process now, trouble included as far as there is some left.
    pub fn steps(&self, rules: Rules<'_>, faults: &Faults, steps: &mut Vec<Step>) {
        match &self.phase {
            Phase::Claiming { created: true, .. } => steps.push(Step::Confirm),
            Phase::Claiming { .. } => Self::creations(faults, steps),
            Phase::Fencing(_) => steps.push(Step::Fence),
            Phase::Running(coordinator) => self.steps_of_a_run(coordinator, rules, faults, steps),
        }
    }

    fn creations(faults: &Faults, steps: &mut Vec<Step>) {
        steps.push(Step::Create(Outcome::Known));
        if faults.unknown > 0 {
            let trouble =
                [Outcome::UnknownDone, Outcome::UnknownNever, Outcome::UnknownLater, Outcome::Failed];
            steps.extend(trouble.map(Step::Create));
        }
    }

    fn steps_of_a_run(
        &self,
        coordinator: &Coordinator,
        rules: Rules<'_>,
        faults: &Faults,
        steps: &mut Vec<Step>,
    ) {
        if self.publish.is_some() {
            Self::creations(faults, steps);
        }
        if self.created.is_some() {
            steps.push(Step::Confirm);
        }
        steps.extend((0..self.commits.len()).map(Step::Commit));
        steps.extend((0..self.answers.len()).map(Step::Confirmed));
        if !coordinator.is_recommitted() {
            return;
        }
        if !self.orphans.is_empty() {
            return steps.push(Step::Sweep);
        }
        let mut arriving = (0..self.channels.len()).filter(|n| self.channels.has(*n, 0)).map(Step::Deliver);
        if faults.touch_messages() {
            steps.extend(arriving);
        } else {
            steps.extend(arriving.next());
        }
        if !self.expiries.is_empty() {
            steps.push(Step::Expire);
        }
        let undecided = coordinator.undecided().is_some();
        if !undecided && !self.is_ending() {
            steps.push(Step::Trigger);
            if faults.savepoints > 0 && !self.channels.is_at_end(rules.bounds) {
                steps.push(Step::Savepoint);
            }
            if faults.stops > 0 {
                steps.push(Step::Stop);
            }
        }
        let waits = undecided && self.publish.is_none() && self.created.is_none();
        // Without it a lost acknowledgement would be the end of the story, and a clock always goes on.
        if waits && (faults.timeouts > 0 || self.channels.are_empty()) {
            steps.push(Step::Timeout);
        }
        let of = |any: u8, behind: usize| {
            (0..self.channels.len()).filter(move |n| any > 0 && self.channels.has(*n, behind))
        };
        steps.extend(of(faults.losses, 0).map(Step::Lose));
        steps.extend(of(faults.failures, 0).map(Step::Fail));
        steps.extend(of(faults.overtakes, 1).map(Step::Overtake));
        if faults.repeats > 0 {
            steps.extend((0..self.arrived.len()).map(Step::Repeat));
            steps.extend((0..self.confirmed.len()).map(Step::Reconfirm));
        }
    }

    /// The one step that need be looked at next, if there is such a one: an acknowledgement that does not
    /// complete its checkpoint changes nothing but its own entry in the coordinator. With no trouble left
    /// for messages it makes no difference before or after which other step it comes.
    pub fn silent_step(&self, faults: &Faults) -> Option<Step> {
        let Phase::Running(coordinator) = &self.phase else { return None };
        let (true, Some(undecided)) = (self.orphans.is_empty(), coordinator.undecided()) else { return None };
        if faults.touch_messages() || !coordinator.is_recommitted() {
            return None;
        }
        self.channels.one_of_several(undecided).map(Step::Deliver)
    }

    /// A last checkpoint is decided, and only its commits are awaited.
    fn is_ending(&self) -> bool {
        self.offered.as_ref().is_some_and(|publish| {
            matches!(publish.manifest.kind, Kind::Final | Kind::Stop)
                && matches!(&self.phase, Phase::Running(c) if c.undecided().is_none())
        })
    }
}
