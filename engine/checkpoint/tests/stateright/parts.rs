//! The parts of a job: what they do at a barrier, and what they say about it, in one ordered channel each.

use crate::bounds::{Bounds, Mistake};
use crate::world::{Rules, World, before, of_instance, position, prepared, sink_name};
use staunch_checkpoint::{
    CheckpointId, Committable, Event, FileKind, FileRef, Generation, Manifest, Part, Report, Shard, SplitPart,
};
use std::collections::{BTreeSet, VecDeque};

/// An acknowledgement on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    pub part: Part,
    pub checkpoint: CheckpointId,
    pub report: Report,
}

/// Deltas after which a chain of state files begins anew.
const LONGEST_CHAIN: usize = 2;

/// All parts of one process.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Channels {
    channels: Vec<(Part, VecDeque<Message>)>,
    /// Who has been heard of the newest barriers, by its own word.
    said: BTreeSet<(CheckpointId, Part)>,
    position: u8,
    /// Where the epoch begins.
    since: u8,
    chain: Vec<FileRef>,
}

impl Channels {
    /// The parts of a process that continues from a checkpoint.
    pub fn new(bounds: &Bounds, restored: Option<&Manifest>) -> Self {
        let mut parts = vec![Part::source("in", 0)];
        if bounds.states > 0 {
            parts.push(Part::state("n", 0));
        }
        for sink in 0..u32::from(bounds.sinks) {
            parts.extend((0..u32::from(bounds.instances)).map(|i| Part::sink(sink_name(sink), i)));
        }
        let position = restored.map_or(0, position);
        let shards = restored.iter().flat_map(|m| m.states.values()).flat_map(|state| &state.shards);
        Self {
            channels: parts.into_iter().map(|part| (part, VecDeque::new())).collect(),
            said: BTreeSet::new(),
            position,
            since: position,
            chain: shards.flat_map(|shard| shard.files.clone()).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.channels.len()
    }

    pub fn parts(&self) -> Vec<Part> {
        self.channels.iter().map(|(part, _)| part.clone()).collect()
    }

    /// Whether a part has a message on its way, behind so many others.
    pub fn has(&self, n: usize, behind: usize) -> bool {
        self.channels[n].1.len() > behind
    }

    pub fn are_empty(&self) -> bool {
        self.channels.iter().all(|(_, messages)| messages.is_empty())
    }

    /// A part whose next message is about this checkpoint, if others have yet to speak of it too, and if
    /// nothing else is on its way.
    pub fn one_of_several(&self, checkpoint: CheckpointId) -> Option<usize> {
        let about = |messages: &VecDeque<Message>| messages.iter().all(|m| m.checkpoint == checkpoint);
        let several = self.channels.iter().filter(|(_, messages)| !messages.is_empty()).count() > 1;
        let only = self.channels.iter().all(|(_, messages)| about(messages));
        let first = self.channels.iter().position(|(_, messages)| !messages.is_empty());
        first.filter(|_| several && only)
    }

    pub fn take(&mut self, n: usize, behind: usize) -> Option<Message> {
        self.channels[n].1.remove(behind)
    }

    /// The part's own word has arrived.
    pub fn note(&mut self, part: &Part, checkpoint: CheckpointId) {
        self.said.insert((checkpoint, part.clone()));
    }

    pub fn has_said(&self, part: &Part, checkpoint: CheckpointId) -> bool {
        self.said.contains(&(checkpoint, part.clone()))
    }

    /// What is on its way about a checkpoint.
    pub fn silent(&self, checkpoint: CheckpointId) -> impl Iterator<Item = &Message> {
        let all = self.channels.iter().flat_map(|(_, messages)| messages);
        all.filter(move |message| message.checkpoint == checkpoint)
    }

    pub fn is_at_end(&self, bounds: &Bounds) -> bool {
        self.position == bounds.records
    }

    /// Reads one record, if there is one.
    pub fn read(&mut self, bounds: &Bounds) {
        self.position = bounds.records.min(self.position + 1);
    }

    /// Every part does its share at once and makes it durable; only word of it takes its time. Whoever
    /// dies before that leaves less behind, and nobody heard of it either way.
    pub fn barrier(
        &mut self,
        rules: Rules<'_>,
        world: &mut World,
        checkpoint: CheckpointId,
        generation: Generation,
    ) {
        let (since, position) = (self.since, self.position);
        let early = rules.mistake == Mistake::StashOff && position < rules.bounds.records;
        let written = position + u8::from(early);
        self.since = written;
        self.said.retain(|(said, _)| said.0 + 1 >= checkpoint.0);
        let reported = if rules.mistake == Mistake::PositionsLate { since } else { position };
        for (part, messages) in &mut self.channels {
            let report = match part {
                Part::Source { .. } => Report::Source(vec![split(reported)]),
                Part::State { instance, .. } => {
                    let name = format!("{generation}-{checkpoint}");
                    let mut from = since;
                    if self.chain.len() >= LONGEST_CHAIN {
                        self.chain.clear();
                        from = 0;
                    }
                    world.files.insert(name.clone(), before(written) & !before(from));
                    self.chain.push(FileRef { name, kind: FileKind::Delta, offset: 0, bytes: 0, crc32c: 0 });
                    Report::State(Shard { worker: *instance, watermark_ms: None, files: self.chain.clone() })
                }
                Part::Sink { name, instance } => {
                    let epoch = before(written) & !before(since);
                    let mine = of_instance(epoch, *instance, rules.bounds.instances);
                    let records = u64::from(mine.count_ones());
                    let (instance, payload) = (*instance, serde_json::Value::Null);
                    let piece = Committable { checkpoint, instance, generation, records, payload };
                    if mine != 0 {
                        world.prepared.insert(prepared(name, &piece), mine);
                    }
                    Report::Sink(if mine == 0 { Vec::new() } else { vec![piece] })
                }
            };
            messages.push_back(Message { part: part.clone(), checkpoint, report });
        }
    }
}

/// An acknowledgement that its part never gave: of nothing at all.
pub fn forged(silent: &Message) -> Event {
    let report = match &silent.report {
        Report::Sink(_) => Report::Sink(Vec::new()),
        Report::State(shard) => Report::State(Shard { files: Vec::new(), ..shard.clone() }),
        Report::Source(_) => Report::Source(Vec::new()),
    };
    Event::Ack { part: silent.part.clone(), checkpoint: silent.checkpoint, report }
}

fn split(position: u8) -> SplitPart {
    SplitPart {
        id: "s".into(),
        split: serde_json::Value::Null,
        position: Some(position.into()),
        finished: false,
        max_event_time_ms: None,
    }
}
