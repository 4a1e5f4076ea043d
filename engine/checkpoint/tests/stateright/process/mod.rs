//! One process: the engine's runtime around the real protocol, one instant at a time.
//!
//! `steps` says what can happen next, `slots` is how the log is used; here it is carried out.

mod slots;
mod steps;

use crate::bounds::{Faults, Met, Mistake};
use crate::parts::{Channels, Message, forged};
use crate::world::{Broken, Rules, World, names, prepared};
use staunch_checkpoint::{
    Action, Blame, CheckpointId, Committable, Coordinator, Event, Expiry, Generation, Kind, Manifest, Part,
    Record, Recovery, Report, Slot, StopReason,
};
use std::collections::{BTreeMap, VecDeque};
pub use steps::{Outcome, Step};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Claiming { recovery: Box<Recovery>, created: bool, tries: u8 },
    Fencing(Box<Recovery>),
    Running(Box<Coordinator>),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Publish {
    checkpoint: CheckpointId,
    slot: Slot,
    manifest: Box<Manifest>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Process {
    phase: Phase,
    pub generation: Generation,
    pub ended: Option<StopReason>,
    channels: Channels,
    /// What has arrived and may arrive again.
    pub arrived: BTreeMap<(Part, CheckpointId), Report>,
    pub confirmed: BTreeMap<String, CheckpointId>,
    /// A manifest on its way; with `look` its slot is read first.
    publish: Option<(Publish, bool)>,
    /// A manifest that was created and not yet confirmed.
    created: Option<Publish>,
    /// The last manifest offered, for reading its slot again.
    offered: Option<Publish>,
    /// Outstanding commits by sink: what is left of each.
    commits: BTreeMap<String, VecDeque<Committable>>,
    answers: Vec<(String, CheckpointId)>,
    expiries: VecDeque<Expiry>,
    /// Files that this start found without an owner.
    orphans: Vec<String>,
}

impl Process {
    pub fn start(rules: Rules<'_>, world: &mut World) -> Option<Self> {
        let recovery = Box::new(world.recover()?);
        let mut process = Self {
            generation: recovery.generation,
            phase: Phase::Claiming { recovery: recovery.clone(), created: false, tries: 1 },
            ended: None,
            channels: Channels::default(),
            arrived: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            publish: None,
            created: None,
            offered: None,
            commits: BTreeMap::new(),
            answers: Vec::new(),
            expiries: VecDeque::new(),
            orphans: Vec::new(),
        };
        if rules.mistake == Mistake::FenceSkipped {
            process.phase = Phase::Fencing(recovery);
        }
        Some(process)
    }

    /// Carries a step out, which [`Process::steps`] has offered.
    pub fn step(&mut self, rules: Rules<'_>, world: &mut World, faults: &mut Faults, step: Step) {
        match step {
            Step::Create(outcome) => {
                faults.unknown -= u8::from(outcome != Outcome::Known);
                match &self.phase {
                    Phase::Claiming { .. } => self.claim(rules, world, outcome),
                    _ => self.create(rules, world, outcome),
                }
            }
            Step::Confirm => self.confirm(rules, world),
            Step::Fence => self.begin(rules, world),
            Step::Sweep => world.delete_files(&std::mem::take(&mut self.orphans)),
            Step::Trigger => {
                let end = self.channels.is_at_end(rules.bounds);
                self.channels.read(rules.bounds);
                self.feed(rules, world, Event::Trigger(if end { Kind::Final } else { Kind::Periodic }));
            }
            Step::Savepoint => {
                faults.savepoints -= 1;
                self.channels.read(rules.bounds);
                self.feed(rules, world, Event::Trigger(Kind::Savepoint { name: "s".into() }));
            }
            Step::Stop => {
                faults.stops -= 1;
                self.feed(rules, world, Event::Trigger(Kind::Stop));
            }
            Step::Deliver(n) => self.deliver(rules, world, n, 0),
            Step::Overtake(n) => {
                faults.overtakes -= 1;
                self.deliver(rules, world, n, 1);
            }
            Step::Lose(n) => {
                faults.losses -= 1;
                self.channels.take(n, 0);
            }
            Step::Fail(n) => {
                faults.failures -= 1;
                let Some(Message { part, checkpoint, .. }) = self.channels.take(n, 0) else { return };
                self.feed(rules, world, Event::Failed { part, checkpoint, reason: String::new() });
            }
            Step::Repeat(n) => {
                faults.repeats -= 1;
                self.repeat(rules, world, n);
            }
            Step::Reconfirm(n) => {
                faults.repeats -= 1;
                let Some((sink, upto)) = self.confirmed.iter().nth(n) else { return };
                let again = Event::Committed { sink: sink.clone(), upto: *upto };
                self.feed(rules, world, again);
            }
            Step::Timeout => {
                faults.timeouts = faults.timeouts.saturating_sub(1);
                self.timeout(rules, world);
            }
            Step::Commit(n) => self.commit(rules, world, n),
            Step::Confirmed(n) => {
                let (sink, upto) = self.answers.remove(n);
                self.confirmed.insert(sink.clone(), upto);
                self.feed(rules, world, Event::Committed { sink, upto });
            }
            Step::Expire => self.expire(rules, world),
        }
    }

    fn deliver(&mut self, rules: Rules<'_>, world: &mut World, n: usize, behind: usize) {
        let Some(Message { part, checkpoint, report }) = self.channels.take(n, behind) else { return };
        if let Phase::Running(coordinator) = &self.phase
            && coordinator.undecided() != Some(checkpoint)
        {
            rules.seen.note(Met::LateAck);
        }
        self.channels.note(&part, checkpoint);
        self.arrived.insert((part.clone(), checkpoint), report.clone());
        self.feed(rules, world, Event::Ack { part, checkpoint, report });
    }

    fn repeat(&mut self, rules: Rules<'_>, world: &mut World, n: usize) {
        let Some(((part, checkpoint), report)) = self.arrived.iter().nth(n) else { return };
        let (part, checkpoint, report) = (part.clone(), *checkpoint, report.clone());
        if rules.mistake == Mistake::AckCountedTwice {
            let silent = self.channels.silent(checkpoint).next().map(forged);
            if let Some(forged) = silent {
                return self.feed(rules, world, forged);
            }
        }
        self.feed(rules, world, Event::Ack { part, checkpoint, report });
    }

    fn timeout(&mut self, rules: Rules<'_>, world: &mut World) {
        let Phase::Running(coordinator) = &self.phase else { return };
        let Some(checkpoint) = coordinator.undecided() else { return };
        if rules.mistake == Mistake::TimeoutDecides {
            let silent: Vec<Event> = self.channels.silent(checkpoint).map(forged).collect();
            return silent.into_iter().for_each(|event| self.feed(rules, world, event));
        }
        self.feed(rules, world, Event::Timeout { checkpoint });
    }

    fn commit(&mut self, rules: Rules<'_>, world: &mut World, n: usize) {
        let Some((sink, left)) = self.commits.iter_mut().nth(n) else { return };
        let (sink, Some(next)) = (sink.clone(), left.pop_front()) else { return };
        let done = left.is_empty();
        let checkpoint = next.checkpoint;
        if !world.commit(rules, self.generation, prepared(&sink, &next)) {
            let (reason, blame) = (String::new(), Blame::Job);
            return self.feed(rules, world, Event::CommitFailed { sink, checkpoint, reason, blame });
        }
        if done {
            self.commits.remove(&sink);
            if rules.mistake == Mistake::ConfirmationsLost {
                return;
            }
            self.answers.push((sink, checkpoint));
            self.answers.sort();
        }
    }

    fn expire(&mut self, rules: Rules<'_>, world: &mut World) {
        let Some(expiry) = self.expiries.front_mut() else { return };
        let files_first = rules.mistake == Mistake::FilesFirst && !expiry.files.is_empty();
        if !expiry.slots.is_empty() && !files_first {
            let slots = std::mem::take(&mut expiry.slots);
            if rules.mistake == Mistake::SharedFilesDeleted {
                let gone = slots.iter().filter_map(|slot| match world.record(*slot) {
                    Some(Record::Checkpoint(manifest)) => Some(names(manifest).map(str::to_owned)),
                    _ => None,
                });
                expiry.files.extend(gone.flatten());
            }
            world.expire_slots(rules, &slots);
        } else {
            world.delete_files(&std::mem::take(&mut expiry.files));
        }
        if expiry.is_empty() {
            self.expiries.pop_front();
        }
    }

    fn feed(&mut self, rules: Rules<'_>, world: &mut World, event: Event) {
        let Phase::Running(coordinator) = &mut self.phase else { return };
        let actions = coordinator.handle(event, 0);
        self.carry_out(rules, world, actions, false);
    }

    fn carry_out(&mut self, rules: Rules<'_>, world: &mut World, actions: Vec<Action>, skip_commits: bool) {
        for action in actions {
            if self.ended.is_some() {
                world.broken.insert(Broken::Contract);
            }
            match action {
                Action::Barrier { checkpoint, .. } => {
                    self.channels.barrier(rules, world, checkpoint, self.generation);
                }
                Action::Publish { checkpoint, slot, manifest, .. } => {
                    self.check_earned(world, checkpoint);
                    if rules.mistake == Mistake::CommitBeforeDecision {
                        for (sink, part) in &manifest.sinks {
                            self.commits.insert(sink.clone(), part.pending.iter().cloned().collect());
                        }
                        self.commits.retain(|_, pieces| !pieces.is_empty());
                    }
                    self.publish = Some((Publish { checkpoint, slot, manifest }, false));
                }
                Action::Reread { .. } => self.publish = self.offered.clone().map(|offered| (offered, true)),
                Action::Commit { sink, committables } if skip_commits => {
                    let upto = committables.iter().map(|c| c.checkpoint).max();
                    self.answers.extend(upto.map(|upto| (sink, upto)));
                }
                Action::Commit { sink, committables } => {
                    if committables.is_empty() || self.commits.contains_key(&sink) {
                        world.broken.insert(Broken::Contract);
                    }
                    self.commits.insert(sink, committables.into());
                }
                Action::Expire(expiry) => self.expiries.push_back(expiry),
                Action::Aborted { .. } => rules.seen.note(Met::Aborted),
                Action::Decided { checkpoint, .. } => {
                    world.check_belief(checkpoint, self.generation);
                }
                // No source of the model acknowledges, or ends.
                Action::Dropped { .. } | Action::Ended { .. } | Action::Acknowledge { .. } => {}
                Action::Stop(reason) => self.stop(rules, world, reason),
            }
        }
    }

    /// A manifest is offered to the log: every part must have acknowledged by its own word.
    fn check_earned(&self, world: &mut World, checkpoint: CheckpointId) {
        let all = self.channels.parts();
        let earned = all.into_iter().all(|part| self.channels.has_said(&part, checkpoint));
        if !earned {
            world.broken.insert(Broken::NotAcknowledged);
        }
    }

    fn stop(&mut self, rules: Rules<'_>, world: &mut World, reason: StopReason) {
        let complete = matches!(reason, StopReason::Finished | StopReason::Stopped);
        if complete && !self.commits.is_empty() {
            world.broken.insert(Broken::Contract);
        }
        if reason == StopReason::Fenced {
            rules.seen.note(Met::ZombieFenced);
        }
        self.ended = Some(reason);
    }

    /// A good end deletes what is due before the process goes.
    pub fn last_words(&mut self, rules: Rules<'_>, world: &mut World) {
        if matches!(self.ended, Some(StopReason::Finished)) {
            world.delete_files(&std::mem::take(&mut self.orphans));
        }
        if matches!(self.ended, Some(StopReason::Finished | StopReason::Stopped)) {
            while !self.expiries.is_empty() {
                self.expire(rules, world);
            }
        }
    }
}
