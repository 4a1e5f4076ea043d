//! One process: the engine's runtime around the real protocol, one instant at a time.

use crate::bounds::{Faults, Met, Mistake};
use crate::parts::{Channels, Message, forged};
use crate::world::{Broken, Rules, World, names, prepared, sink_name};
use staunch_checkpoint::{
    Action, CheckpointId, Committable, Coordinator, Event, Expiry, Generation, Guarantee, Kind, Manifest,
    Part, Parts, Published, Record, Recovery, Report, Setup, Slot, StopReason, log, retention,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

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

    fn claim(&mut self, rules: Rules<'_>, world: &mut World, outcome: Outcome) {
        let Phase::Claiming { recovery, created, .. } = &mut self.phase else { return };
        let fence = Arc::new(Record::Fence(recovery.fence.clone()));
        let slot = recovery.slot;
        let there = match outcome {
            Outcome::Known => world.create(rules, slot, fence),
            Outcome::UnknownDone => {
                world.create(rules, slot, fence);
                false
            }
            Outcome::UnknownLater => {
                world.late.push((slot, fence));
                false
            }
            Outcome::UnknownNever | Outcome::Failed => false,
        };
        if there || (outcome == Outcome::Known && rules.mistake == Mistake::TakenFenceIsOurs) {
            *created = true;
        } else {
            self.look_again(rules, world);
        }
    }

    fn look_again(&mut self, rules: Rules<'_>, world: &mut World) {
        let Phase::Claiming { tries, .. } = self.phase else { return };
        if tries == rules.bounds.claims {
            self.ended = Some(StopReason::Fenced);
        } else if let Some(recovery) = world.recover() {
            self.generation = recovery.generation;
            self.phase = Phase::Claiming { recovery: Box::new(recovery), created: false, tries: tries + 1 };
        }
    }

    /// Lists the log after a creation: of the fence, or of a manifest.
    fn confirm(&mut self, rules: Rules<'_>, world: &mut World) {
        if let Phase::Claiming { recovery, .. } = &self.phase {
            let trusting = matches!(rules.mistake, Mistake::ConfirmSkipped | Mistake::TakenFenceIsOurs);
            if trusting || log::confirm(recovery.slot, &world.slots()) == Published::Created {
                self.phase = Phase::Fencing(recovery.clone());
            } else {
                rules.seen.note(Met::TurnedDown);
                self.look_again(rules, world);
            }
            return;
        }
        let Some(publish) = self.created.take() else { return };
        let outcome = match rules.mistake {
            Mistake::ConfirmSkipped => Published::Created,
            _ => log::confirm(publish.slot, &world.slots()),
        };
        if outcome == Published::Taken {
            rules.seen.note(Met::TurnedDown);
        }
        self.published(rules, world, publish, outcome);
    }

    /// The fence is confirmed: fence the target, recommit, look for what nobody refers to.
    fn begin(&mut self, rules: Rules<'_>, world: &mut World) {
        let Phase::Fencing(recovery) = &self.phase else { return };
        let recovery = recovery.clone();
        if !world.fence(rules, &recovery) {
            self.ended = Some(StopReason::Fenced);
            return;
        }
        let restored = recovery.restore.map(|(_, manifest)| manifest);
        let stored: Vec<String> = world.files.keys().cloned().collect();
        self.orphans = retention::orphans(&stored, world.manifests());
        if !self.orphans.is_empty() {
            rules.seen.note(Met::Swept);
        }
        self.channels = Channels::new(rules.bounds, restored.as_ref());
        let setup = Setup {
            job: "j".into(),
            lineage: recovery.lineage,
            generation: recovery.generation,
            groups: 1,
            workers: 1,
            parts: parts(rules),
            next_checkpoint: recovery.next_checkpoint,
            next_slot: if rules.mistake == Mistake::FenceSkipped {
                recovery.slot
            } else {
                recovery.slot.next()
            },
            restored,
            log: recovery.log,
            retained: usize::from(rules.bounds.retained),
            tolerated_failures: 3,
            guarantee: Guarantee::ExactlyOnce,
        };
        let mut coordinator = Box::new(Coordinator::new(setup));
        let actions = coordinator.start();
        self.phase = Phase::Running(coordinator);
        if actions.iter().any(|action| matches!(action, Action::Commit { .. })) {
            rules.seen.note(Met::Recommitted);
        }
        self.carry_out(rules, world, actions, rules.mistake == Mistake::RecommitSkipped);
    }

    fn create(&mut self, rules: Rules<'_>, world: &mut World, outcome: Outcome) {
        let Some((publish, look)) = self.publish.take() else { return };
        self.offered = Some(publish.clone());
        if look && world.record(publish.slot).is_some() {
            return self.recognise(rules, world, publish, true);
        }
        let record = Arc::new(Record::Checkpoint(publish.manifest.clone()));
        match outcome {
            Outcome::Known if world.create(rules, publish.slot, record.clone()) => {
                return self.created = Some(publish);
            }
            Outcome::Known => return self.recognise(rules, world, publish, false),
            Outcome::Failed => {
                return self.published(rules, world, publish, Published::Failed(String::new()));
            }
            Outcome::UnknownDone => drop(world.create(rules, publish.slot, record)),
            Outcome::UnknownLater => world.late.push((publish.slot, record)),
            Outcome::UnknownNever => {}
        }
        let outcome = match rules.mistake {
            Mistake::UnknownIsSuccess => Published::Created,
            _ => Published::Unknown(String::new()),
        };
        self.published(rules, world, publish, outcome);
    }

    fn recognise(&mut self, rules: Rules<'_>, world: &mut World, publish: Publish, again: bool) {
        match log::recognise(world.record(publish.slot), &publish.manifest) {
            Published::Created => {
                if again {
                    rules.seen.note(Met::UnknownFoundDone);
                }
                self.created = Some(publish);
            }
            outcome => self.published(rules, world, publish, outcome),
        }
    }

    fn published(&mut self, rules: Rules<'_>, world: &mut World, publish: Publish, outcome: Published) {
        let (checkpoint, slot) = (publish.checkpoint, publish.slot);
        self.feed(rules, world, Event::Published { checkpoint, slot, outcome });
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
            let reason = String::new();
            return self.feed(rules, world, Event::CommitFailed { sink, checkpoint, reason });
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
                Action::Publish { checkpoint, slot, manifest } => {
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
                Action::Dropped { .. } => {}
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

fn parts(rules: Rules<'_>) -> Parts {
    let bounds = rules.bounds;
    Parts {
        sources: vec![("in".into(), 1)],
        states: if bounds.states > 0 { vec![("n".into(), String::new(), 1)] } else { Vec::new() },
        sinks: (0..u32::from(bounds.sinks))
            .map(|n| (sink_name(n).into(), u32::from(bounds.instances)))
            .collect(),
    }
}
