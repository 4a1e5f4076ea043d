//! The log as a process uses it: a slot is claimed with a fence, later ones are offered manifests, and after
//! each creation the log is listed.

use super::{Outcome, Phase, Process, Publish};
use crate::bounds::{Met, Mistake};
use crate::parts::Channels;
use crate::world::{Rules, World, sink_name};
use staunch_checkpoint::{
    Action, Coordinator, Event, Guarantee, Parts, Published, Record, Setup, StatePart, StopReason, log,
    retention,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Process {
    pub(super) fn claim(&mut self, rules: Rules<'_>, world: &mut World, outcome: Outcome) {
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
    pub(super) fn confirm(&mut self, rules: Rules<'_>, world: &mut World) {
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
    pub(super) fn begin(&mut self, rules: Rules<'_>, world: &mut World) {
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
            segments: BTreeMap::new(),
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

    pub(super) fn create(&mut self, rules: Rules<'_>, world: &mut World, outcome: Outcome) {
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
}

fn parts(rules: Rules<'_>) -> Parts {
    let bounds = rules.bounds;
    Parts {
        sources: vec![("in".into(), 1)],
        acknowledging: BTreeSet::new(),
        states: if bounds.states > 0 { vec![("n".into(), StatePart::default(), 1)] } else { Vec::new() },
        sinks: (0..u32::from(bounds.sinks))
            .map(|n| (sink_name(n).into(), u32::from(bounds.instances)))
            .collect(),
    }
}
