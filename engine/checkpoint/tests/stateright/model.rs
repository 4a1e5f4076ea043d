//! The protocol and its world as a stateright model: what can happen next, and what must hold.

use crate::bounds::{Bounds, Faults, Met, Mistake, Seen};
use crate::process::{Process, Step};
use crate::settle::Settled;
use crate::world::{Broken, Rules, World};
use stateright::{Model, Property};
use staunch_checkpoint::retention::Prepared;
use std::sync::Arc;

/// One state of everything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub world: World,
    /// Those that live, oldest first. Shared, because a step changes one of them.
    pub processes: Vec<Arc<Process>>,
    pub faults: Faults,
}

/// Something that happens. Numbers are places in what there is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    Start,
    Crash(usize),
    Of(usize, Step),
    /// A creation arrives whose process has given up waiting.
    Arrive(usize),
    /// See [`Faults::forgets`].
    Forget,
}

/// See the module.
pub struct Protocol {
    pub bounds: Bounds,
    pub mistake: Mistake,
    pub seen: Seen,
    pub settled: Settled,
}

impl Protocol {
    pub fn new(bounds: Bounds, mistake: Mistake) -> Self {
        assert!(bounds.records < 15 && bounds.sinks <= 2, "a set of records has 16 bits, sinks two names");
        Self { bounds, mistake, seen: Seen::default(), settled: Settled::default() }
    }

    fn rules(&self) -> Rules<'_> {
        Rules { bounds: &self.bounds, mistake: self.mistake, seen: &self.seen }
    }

    /// Carries out one thing that happens; false if it changes nothing. `seen` hears what was met.
    pub fn happen(&self, state: &mut State, happening: &Happening, seen: &Seen) -> bool {
        let rules = Rules { seen, ..self.rules() };
        let State { world, processes, faults } = state;
        match happening {
            Happening::Start => {
                faults.zombies -= u8::from(!processes.is_empty());
                if world.last.is_some() {
                    seen.note(Met::Restored);
                }
                processes.extend(Process::start(rules, world).map(Arc::new));
            }
            Happening::Crash(n) => {
                faults.crashes -= 1;
                let process = processes.remove(*n);
                if self.mistake == Mistake::PreparedNotDurable {
                    let of = |piece: &&Prepared| piece.generation == process.generation;
                    let lost: Vec<Prepared> = world.prepared.keys().filter(of).cloned().collect();
                    lost.iter().for_each(|piece| world.abort(piece));
                }
            }
            Happening::Arrive(n) => {
                let (slot, record) = world.late.remove(*n);
                world.create(rules, slot, record);
            }
            Happening::Forget => {
                faults.forgets -= 1;
                return world.forget_fences();
            }
            Happening::Of(n, step) => {
                let process = Arc::make_mut(&mut processes[*n]);
                process.step(rules, world, faults, *step);
                if process.ended.is_some() {
                    process.last_words(rules, world);
                    processes.remove(*n);
                }
            }
        }
        if faults.repeats == 0 {
            // What cannot arrive again makes no difference any more.
            for process in processes {
                if !process.arrived.is_empty() || !process.confirmed.is_empty() {
                    let process = Arc::make_mut(process);
                    process.arrived.clear();
                    process.confirmed.clear();
                }
            }
        }
        true
    }

    /// What can happen, trouble included as far as there is some left.
    pub fn possible(&self, state: &State, happenings: &mut Vec<Happening>) {
        let State { world, processes, faults } = state;
        if !world.broken.is_empty() {
            return;
        }
        let silent =
            |(n, process): (usize, &Arc<Process>)| Some(Happening::Of(n, process.silent_step(faults)?));
        if let Some(only) = processes.iter().enumerate().find_map(silent) {
            return happenings.push(only);
        }
        let mut steps = Vec::new();
        for (n, process) in processes.iter().enumerate() {
            process.steps(self.rules(), faults, &mut steps);
            happenings.extend(steps.drain(..).map(|step| Happening::Of(n, step)));
            if faults.crashes > 0 {
                happenings.push(Happening::Crash(n));
            }
        }
        happenings.extend((0..world.late.len()).map(Happening::Arrive));
        let restart = processes.is_empty() && !world.is_complete(&self.bounds);
        if restart || (faults.zombies > 0 && !processes.is_empty()) {
            happenings.push(Happening::Start);
        }
        if faults.forgets > 0 {
            happenings.push(Happening::Forget);
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Happening;

    fn init_states(&self) -> Vec<State> {
        vec![State { world: World::new(), processes: Vec::new(), faults: self.bounds.faults }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Happening>) {
        self.possible(state, actions);
    }

    fn next_state(&self, last: &State, action: Happening) -> Option<State> {
        let mut next = last.clone();
        self.happen(&mut next, &action, &self.seen).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = SAFETY.iter().map(|(_, property)| property()).collect::<Vec<_>>();
        properties
            .push(Property::always(RECOVERS, |model: &Self, state| model.settled.recovers(model, state)));
        properties.push(Property::eventually(ENDS, |model: &Self, state: &State| {
            let told_already = !state.world.broken.is_empty();
            told_already || state.processes.is_empty() && state.world.is_complete(&model.bounds)
        }));
        properties.extend(self.expected().into_iter().map(|property| property()));
        properties
    }
}

pub const RECOVERS: &str = "whenever everything dies, a start ends with each record committed once, and tidy";
pub const ENDS: &str = "the job ends, and each record is committed once";

macro_rules! safety {
    ($($broken:ident: $name:literal,)*) => {
        /// What must hold in every state.
        pub const SAFETY: &[(Broken, fn() -> Property<Protocol>)] = &[$((Broken::$broken, || {
            Property::always($name, |_, state: &State| !state.world.broken.contains(&Broken::$broken))
        }),)*];
    };
}

safety! {
    TwoDecisions: "a checkpoint is decided at most once, ids grow, and no decision is undone",
    ZombieDecided: "after a newer fence no older generation decides",
    NotAcknowledged: "a manifest is offered only when every part has acknowledged",
    NotPrepared: "what a decision lists was prepared, and its files are there",
    WrongCut: "a decision holds exactly the records before its position, in output and in state",
    FalseBelief: "a coordinator that takes a checkpoint for decided is right",
    DecidedAborted: "what a decision lists is there until it is committed",
    Undecided: "nothing is committed without a decision",
    ZombieCommitted: "a generation that was fenced at the target commits nothing",
    Doubled: "no record is committed twice",
    Gap: "what is committed of an instance has no gap",
    NeededDeleted: "expiring deletes nothing that is needed",
    IdReused: "no start may use an id of which the target holds output",
    Contract: "a coordinator keeps its contract: nothing after its end, one commit at a time",
}

macro_rules! sometimes {
    ($met:ident, $name:literal) => {
        (|| Property::sometimes($name, |model: &Protocol, _| model.seen.has(Met::$met)))
            as fn() -> Property<Self>
    };
}

impl Protocol {
    /// What these bounds must bring about, or the exploration has proved little.
    fn expected(&self) -> Vec<fn() -> Property<Self>> {
        let f = &self.bounds.faults;
        let starts = f.crashes + f.zombies > 0;
        let all = [
            (starts, sometimes!(Restored, "a start restores a checkpoint")),
            (starts, sometimes!(Recommitted, "a start commits what its checkpoint lists")),
            (
                starts && self.bounds.states > 0,
                sometimes!(Swept, "a start finds files that nobody refers to"),
            ),
            (f.zombies > 0, sometimes!(ZombieFenced, "a zombie loses its slot and ends")),
            (f.zombies > 0, sometimes!(ZombieRefused, "a zombie's commit is refused by the target")),
            (f.timeouts > 0, sometimes!(Aborted, "a checkpoint is abandoned")),
            (
                f.timeouts > 0,
                sometimes!(Carried, "output of an abandoned checkpoint is decided with a later one"),
            ),
            (f.timeouts > 0, sometimes!(LateAck, "an acknowledgement arrives after its checkpoint")),
            (f.unknown > 0, sometimes!(UnknownFoundDone, "a creation with unknown outcome is found done")),
            (
                f.zombies > 1 && f.forgets > 0,
                sometimes!(LateCreation, "a deleted slot is created again, and counts for nothing"),
            ),
            (f.zombies > 1, sometimes!(TurnedDown, "a creation is found out by a higher slot")),
            (true, sometimes!(Expired, "a record of the log expires")),
        ];
        all.into_iter().filter(|(expected, _)| *expected).map(|(_, property)| property).collect()
    }
}
