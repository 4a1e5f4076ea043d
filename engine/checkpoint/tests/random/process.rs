//! One process: the runtime as the crate's documentation asks it to be, one step at a time.

use crate::step::{Message, Outcome, Publish, Step};
use crate::world::{World, position};
use staunch_checkpoint::{
    Action, CheckpointId, Committable, Coordinator, Event, Expiry, FileKind, FileRef, Generation, Guarantee,
    Kind, Part, Published, Record, Recovery, Report, Setup, Shard, SplitPart, StopReason, log, retention,
};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone)]
enum Phase {
    Claiming { recovery: Box<Recovery>, created: bool },
    Running(Box<Coordinator>),
    Gone,
}

#[derive(Clone)]
pub struct Process {
    phase: Phase,
    pub ended: Option<StopReason>,
    generation: Generation,
    position: u64,
    epoch_from: u64,
    input_ended: bool,
    chain: Vec<FileRef>,
    /// One ordered channel a part.
    channels: Vec<(Part, VecDeque<Message>)>,
    delivered: Vec<Event>,
    publish: Option<Publish>,
    last_publish: Option<Publish>,
    confirming: bool,
    commits: Vec<(String, Vec<Committable>, usize)>,
    answers: Vec<Event>,
    expiries: VecDeque<Expiry>,
    current: CheckpointId,
}

impl Process {
    pub fn new(recovery: Recovery) -> Self {
        let mut process = Self::gone();
        process.phase = Phase::Claiming { recovery: Box::new(recovery), created: false };
        process
    }

    pub fn gone() -> Self {
        Self {
            phase: Phase::Gone,
            ended: None,
            generation: Generation(0),
            position: 0,
            epoch_from: 0,
            input_ended: false,
            chain: Vec::new(),
            channels: Vec::new(),
            delivered: Vec::new(),
            publish: None,
            last_publish: None,
            confirming: false,
            commits: Vec::new(),
            answers: Vec::new(),
            expiries: VecDeque::new(),
            current: CheckpointId(0),
        }
    }

    pub fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    pub fn step(&mut self, world: &mut World, step: &Step) -> bool {
        match (&mut self.phase, step) {
            (Phase::Gone, _) => false,
            (_, Step::Crash) => {
                self.phase = Phase::Gone;
                true
            }
            (Phase::Claiming { .. }, _) => self.claim(world, step),
            (Phase::Running(_), _) => self.run(world, step),
        }
    }

    fn claim(&mut self, world: &mut World, step: &Step) -> bool {
        let Phase::Claiming { recovery, created } = &mut self.phase else { return false };
        match step {
            Step::Create(outcome) if !*created => {
                let bytes = Record::Fence(recovery.fence.clone()).encode(recovery.slot);
                match outcome {
                    Outcome::Known if world.create(recovery.slot, bytes.clone()) => {
                        *created = true;
                        return true;
                    }
                    Outcome::UnknownDone => drop(world.create(recovery.slot, bytes)),
                    Outcome::UnknownLater => world.create_later(recovery.slot, bytes),
                    Outcome::Known | Outcome::Failed => {}
                }
                **recovery = world.recover();
                true
            }
            Step::Confirm if *created => {
                let recovery = *recovery.clone();
                if log::confirm(recovery.slot, &world.slots()) == Published::Created {
                    self.begin(world, recovery);
                } else {
                    self.phase = Phase::Claiming { recovery: Box::new(world.recover()), created: false };
                }
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self, world: &mut World, recovery: Recovery) {
        let restored = recovery.restore.map(|(_, manifest)| manifest);
        world.abort_unlisted(restored.as_ref());
        let records = world.records();
        let manifests = records.iter().filter_map(|(_, record)| match record {
            Record::Checkpoint(manifest) => Some(&**manifest),
            Record::Fence(_) => None,
        });
        let stored: Vec<String> = world.files.iter().cloned().collect();
        for file in retention::orphans(&stored, manifests) {
            world.files.remove(&file);
        }
        world.check_files();
        self.generation = recovery.generation;
        self.position = restored.as_ref().map_or(0, position);
        self.epoch_from = self.position;
        let shards = restored.iter().flat_map(|m| m.states.values()).flat_map(|state| &state.shards);
        self.chain = shards.flat_map(|shard| shard.files.clone()).collect();
        let parts = world.parts.clone();
        self.channels = world.all_parts().into_iter().map(|part| (part, VecDeque::new())).collect();
        let setup = Setup {
            job: "job".into(),
            lineage: recovery.lineage,
            generation: recovery.generation,
            groups: 8,
            workers: 2,
            parts,
            next_checkpoint: recovery.next_checkpoint,
            next_slot: recovery.slot.next(),
            restored,
            segments: BTreeMap::new(),
            log: recovery.log,
            retained: 1,
            tolerated_failures: 3,
            guarantee: Guarantee::ExactlyOnce,
        };
        let mut coordinator = Coordinator::new(setup);
        let actions = coordinator.start();
        world.seen.recommits += actions.iter().filter(|a| matches!(a, Action::Commit { .. })).count() as u64;
        self.phase = Phase::Running(Box::new(coordinator));
        self.carry_out(world, actions);
    }

    fn run(&mut self, world: &mut World, step: &Step) -> bool {
        match step {
            Step::Trigger(kind) => {
                self.input_ended |= *kind == Kind::Final;
                self.feed(world, Event::Trigger(kind.clone()));
            }
            Step::Read(count) => {
                let Phase::Running(coordinator) = &self.phase else { return false };
                if self.input_ended || !coordinator.is_recommitted() {
                    return false;
                }
                self.position += count;
            }
            Step::Deliver(n) => {
                let Some(message) = self.next_message(*n) else { return false };
                let key = (self.generation.0, message.checkpoint.0, message.part.to_string());
                world.acknowledged.insert(key);
                let ack =
                    Event::Ack { part: message.part, checkpoint: message.checkpoint, report: message.report };
                self.delivered.push(ack.clone());
                self.feed(world, ack);
            }
            Step::Lose(n) => return self.next_message(*n).is_some(),
            Step::Fail(n) => {
                let Some(Message { part, checkpoint, .. }) = self.next_message(*n) else { return false };
                self.feed(world, Event::Failed { part, checkpoint, reason: "chance".into() });
            }
            Step::Repeat(n) => {
                let Some(event) = nth(&self.delivered, *n).cloned() else { return false };
                self.feed(world, event);
            }
            Step::Timeout => {
                let Phase::Running(coordinator) = &self.phase else { return false };
                let Some(checkpoint) = coordinator.undecided() else { return false };
                if self.publish.is_some() || self.confirming {
                    return false;
                }
                self.feed(world, Event::Timeout { checkpoint });
            }
            Step::Create(outcome) => return self.create(world, *outcome),
            Step::Confirm => {
                if !std::mem::take(&mut self.confirming) {
                    return false;
                }
                let Some(publish) = self.last_publish.clone() else { return false };
                self.answer(&publish, log::confirm(publish.slot, &world.slots()));
            }
            Step::Commit(n) => return self.commit(world, *n),
            Step::Answer(n) => {
                if self.answers.is_empty() {
                    return false;
                }
                let event = self.answers.remove(n % self.answers.len());
                // Only confirmations may be doubled: the log answers each request once.
                if matches!(event, Event::Committed { .. }) {
                    self.delivered.push(event.clone());
                }
                self.feed(world, event);
            }
            Step::Expire => {
                let Some(expiry) = self.expiries.pop_front() else { return false };
                world.expire(&expiry);
            }
            Step::Start | Step::Crash | Step::Ghost(_) => return false,
        }
        true
    }

    fn next_message(&mut self, n: usize) -> Option<Message> {
        let count = self.channels.len();
        self.channels[n % count].1.pop_front()
    }

    fn create(&mut self, world: &mut World, outcome: Outcome) -> bool {
        let Some(publish) = self.publish.take() else { return false };
        let bytes = Record::Checkpoint(publish.manifest.clone()).encode(publish.slot);
        let found = world.record(publish.slot);
        if publish.look && found.is_some() {
            self.recognise(found.as_ref(), publish);
            return true;
        }
        self.last_publish = Some(publish.clone());
        match outcome {
            Outcome::Known if world.create(publish.slot, bytes.clone()) => self.confirming = true,
            Outcome::Known => self.recognise(found.as_ref(), publish),
            Outcome::Failed => self.answer(&publish, Published::Failed("chance".into())),
            Outcome::UnknownDone | Outcome::UnknownLater => {
                world.seen.unknown += 1;
                match outcome {
                    Outcome::UnknownDone => drop(world.create(publish.slot, bytes)),
                    _ => world.create_later(publish.slot, bytes),
                }
                self.answer(&publish, Published::Unknown("chance".into()));
            }
        }
        true
    }

    fn recognise(&mut self, found: Option<&Record>, publish: Publish) {
        match log::recognise(found, &publish.manifest) {
            Published::Created => self.confirming = true,
            outcome => self.answer(&publish, outcome),
        }
        self.last_publish = Some(publish);
    }

    fn answer(&mut self, publish: &Publish, outcome: Published) {
        let (checkpoint, slot) = (publish.checkpoint, publish.slot);
        self.answers.push(Event::Published { checkpoint, slot, outcome });
    }

    fn commit(&mut self, world: &mut World, n: usize) -> bool {
        if self.commits.is_empty() {
            return false;
        }
        let index = n % self.commits.len();
        let (sink, committables, done) = &mut self.commits[index];
        world.commit(sink, &committables[*done]);
        *done += 1;
        if *done == committables.len() {
            let upto = committables[*done - 1].checkpoint;
            self.answers.push(Event::Committed { sink: sink.clone(), upto });
            self.commits.remove(index);
        }
        true
    }

    fn feed(&mut self, world: &mut World, event: Event) {
        let Phase::Running(coordinator) = &mut self.phase else { return };
        let actions = coordinator.handle(event, 0);
        self.carry_out(world, actions);
    }

    fn carry_out(&mut self, world: &mut World, actions: Vec<Action>) {
        for action in actions {
            assert!(self.ended.is_none(), "{action:?} after the end");
            match action {
                Action::Barrier { checkpoint, .. } => self.barrier(world, checkpoint),
                Action::Publish { checkpoint, slot, manifest, .. } => {
                    self.publish = Some(Publish { checkpoint, slot, manifest, look: false });
                }
                Action::Reread { .. } => {
                    self.publish = self.last_publish.clone().map(|publish| Publish { look: true, ..publish });
                }
                Action::Commit { sink, committables } => {
                    assert!(self.commits.iter().all(|(other, ..)| *other != sink), "two commits of {sink}");
                    assert!(!committables.is_empty());
                    self.commits.push((sink, committables, 0));
                }
                Action::Expire(expiry) => self.expiries.push_back(expiry),
                Action::Aborted { .. } => world.seen.aborted += 1,
                // No source of this world acknowledges, or ends.
                Action::Decided { .. }
                | Action::Dropped { .. }
                | Action::Ended { .. }
                | Action::Acknowledge { .. } => {}
                Action::Stop(reason) => {
                    match reason {
                        StopReason::Fenced => world.seen.fenced += 1,
                        StopReason::Finished | StopReason::Stopped => {
                            assert!(self.commits.is_empty(), "ended with output to commit");
                        }
                        _ => world.seen.stopped += 1,
                    }
                    self.ended = Some(reason);
                }
            }
        }
        if self.ended.is_some() {
            self.phase = Phase::Gone;
        }
    }

    /// Every part does its share of the epoch at once; only the messages about it take their time.
    fn barrier(&mut self, world: &mut World, checkpoint: CheckpointId) {
        assert!(checkpoint > self.current, "ids grow");
        self.current = checkpoint;
        let (from, to) = (self.epoch_from, self.position);
        self.epoch_from = to;
        for (part, channel) in &mut self.channels {
            let report = match part {
                Part::Source { .. } => Report::Source(vec![split(to)]),
                Part::State { instance, .. } => {
                    let file = format!("state/{}-{checkpoint}", self.generation);
                    world.files.insert(file.clone());
                    if self.chain.len() > 2 {
                        self.chain.clear();
                    }
                    self.chain.push(FileRef {
                        name: file,
                        kind: FileKind::Delta,
                        offset: 0,
                        bytes: 1,
                        crc32c: 0,
                    });
                    let files = self.chain.clone();
                    Report::State(Shard { worker: *instance, watermark_ms: None, files })
                }
                Part::Sink { name, instance } => {
                    let sinks = &world.parts.sinks;
                    let of = sinks.iter().find(|(sink, _)| sink == name).map_or(1, |(_, n)| u64::from(*n));
                    let mine: Vec<u64> = (from..to).filter(|r| r % of == u64::from(*instance)).collect();
                    let committable = Committable {
                        checkpoint,
                        instance: *instance,
                        generation: self.generation,
                        records: mine.len() as u64,
                        payload: serde_json::Value::Null,
                    };
                    let empty = mine.is_empty();
                    if !empty {
                        world.prepared.insert(crate::world::piece(name, &committable), mine);
                    }
                    let report = if empty { Vec::new() } else { vec![committable] };
                    Report::Sink(report)
                }
            };
            channel.push_back(Message { part: part.clone(), checkpoint, report });
        }
    }
}

fn split(position: u64) -> SplitPart {
    SplitPart {
        id: "only".into(),
        split: serde_json::Value::Null,
        position: Some(position.into()),
        finished: false,
        max_event_time_ms: None,
    }
}

fn nth<T>(items: &[T], n: usize) -> Option<&T> {
    if items.is_empty() { None } else { items.get(n % items.len()) }
}
