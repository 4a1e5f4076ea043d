//! One simulated run: processes that start, work, die, sleep as zombies and wake up, over one storage and
//! one set of targets, every choice made by the numbers of one seed.

use super::fate::{ADDED_LATER, Fate, Trace};
use super::job::{Targets, build};
use super::random::Random;
use super::scratch::Scratch;
use super::shape::Shape;
use super::storage::Access;
use staunch::core::simulation::{Actor, Process, Setup, Started};
use staunch::core::{
    CheckpointId, Controls, InMemoryStorage, Metrics, Outcome, Request, RunConfig, StartFrom, Storage, crash,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Moves within which the job must be complete, twice: first with faults, then without.
const PATIENCE: u64 = 60_000;
/// Moves within which the processes that were replaced must notice, once the job is complete.
const NOTICE: u64 = 30_000;
/// Lives that one run has at most; the last ones are without faults.
const LIVES: u32 = 40;

/// Runs the simulator; followed by its options.
const REPLAY: &str = "cargo run --release -p staunch-testing --features crash-points --bin simulate --";

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Processes that were started.
    pub lives: u32,
    /// Processes that died.
    pub crashes: u32,
    /// Processes that another one took the job from while they lived.
    pub zombies: u32,
    /// Processes that were asked to drain: to read no more, and to complete the job.
    pub drains: u32,
    /// Processes that went back to an older checkpoint.
    pub turns: u32,
    /// Times that state went out of the memory for it.
    pub spilled: u64,
    /// Jobs of two sources.
    pub unions: u32,
    /// Records that came too late for their windows.
    pub late: u64,
    /// Times that the clock on the wall of a process was set forward or back.
    pub clock_jumps: u32,
    /// Effects and crash points that failed, or of which it was told that nobody knows.
    pub failed: u64,
    /// Moves of all processes.
    pub moves: u64,
    /// Rows that became visible.
    pub rows: u64,
    /// Starts with another number of workers than the life before.
    pub rescales: u32,
    /// How often each crash point was passed.
    pub hits: BTreeMap<&'static str, u64>,
    /// The same for runs that went the same way.
    pub fingerprint: u64,
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what } = self;
        let bug =
            std::env::var("STAUNCH_BUG").map_or_else(|_| String::new(), |bug| format!("STAUNCH_BUG={bug} "));
        write!(f, "seed {seed}: {what}\nreplay it with: {bug}{REPLAY} --seed {seed}")
    }
}

impl std::error::Error for Violation {}

/// A process and what moves it.
struct Life {
    process: Box<Process>,
    fate: Fate,
    controls: Controls,
    random: Random,
    /// How often each kind of part moves.
    weights: [u64; 5],
}

/// How a process ended, if it did.
type Ended = Option<staunch::core::Result<Outcome>>;

impl Life {
    fn perform(&mut self, turn: Turn) -> Ended {
        let outcome = match turn {
            Turn::Move(actor) => self.process.act(actor),
            Turn::Pass(moment) => {
                self.process.pass_time(moment);
                self.process.act(Actor::Clock)
            }
        };
        if let Some(outcome) = &outcome {
            self.fate.note(format_args!("ends: {outcome:?}"));
        }
        outcome
    }
}

struct World {
    random: Random,
    /// For what was added later, so that seeds that once found a bug stay the runs they were.
    more: Random,
    trace: Trace,
    shape: Shape,
    targets: Targets,
    blobs: InMemoryStorage,
    config: RunConfig,
    /// Keeps what steps have on local disk.
    _scratch: Scratch,
    time: Duration,
    /// Faults that are still to come.
    faults: u32,
    failing: u64,
    zombies: Vec<Life>,
    /// A process that was replaced, or may be, said that the job is complete.
    said_complete: bool,
    /// Somebody tried to go back to an older checkpoint since a process ran last.
    turned: bool,
    /// Checkpoints that were left behind by going back: those between the two.
    left_behind: Vec<(u32, u32)>,
    report: Report,
    patience: u64,
}

/// Runs one seed.
///
/// # Errors
/// A promise was broken.
pub fn run(seed: u64, print: bool) -> Result<Report, Violation> {
    let mut world = World::new(seed, print);
    let outcome = world.run();
    let broken = world.targets.wrong().or(outcome.err());
    world.zombies.clear();
    world.report.rows = world.targets.visible();
    world.report.late = world.targets.late();
    world.report.fingerprint = world.trace.fingerprint();
    match broken {
        Some(what) => Err(Violation { seed, what }),
        None => Ok(world.report),
    }
}

impl World {
    fn new(seed: u64, print: bool) -> Self {
        let mut random = Random::new(seed);
        let mut more = Random::new(!seed);
        // For what was added later still.
        let mut later = Random::new(seed ^ 1 << 63);
        let shape = Shape::random(&mut random, &mut more, &mut later);
        let scratch = Scratch::new();
        let every = [None, Some(3), Some(10), Some(30)][random.weighted(&[1, 3, 4, 2])];
        let config = RunConfig {
            checkpoint_every: every.map(Duration::from_millis),
            checkpoint_timeout: Duration::from_millis(random.between(100, 500)),
            commit_timeout: Duration::from_secs(5),
            tolerated_failures: 1000,
            retained: random.between(1, 3) as usize,
            groups: random.between(3, 16) as u16,
            inflight_bytes: [600, 20_000][random.weighted(&[1, 2])],
            state_bytes: shape.state_bytes,
            state_dir: Some(scratch.path().to_owned()),
            ..RunConfig::new("simulated", scratch.path())
        };
        let trace = Trace::printing(print);
        trace.note(format_args!("{shape:?}"));
        Self {
            more,
            _scratch: scratch,
            targets: Targets::new(&shape),
            config,
            trace,
            blobs: InMemoryStorage::new(),
            time: Duration::ZERO,
            faults: if random.permille(50) { 0 } else { random.between(1, 7) as u32 },
            failing: [0, 0, 5, 30][random.weighted(&[1, 1, 2, 1])],
            zombies: Vec::new(),
            said_complete: false,
            turned: false,
            left_behind: Vec::new(),
            report: Report { unions: u32::from(shape.second > 0), ..Report::default() },
            patience: PATIENCE,
            shape,
            random,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        while self.report.lives < LIVES {
            self.report.lives += 1;
            if self.report.lives + 10 > LIVES {
                (self.faults, self.failing) = (0, 0);
            }
            if self.one_life()? {
                // Zombies find out that they are fenced, and may not change anything any more.
                for _ in 0..NOTICE {
                    self.move_zombies(1)?;
                }
                return match self.zombies.first() {
                    Some(zombie) => {
                        Err(format!("{} does not notice that it was replaced", zombie.fate.name()))
                    }
                    None => self.check_end(),
                };
            }
        }
        Err("the job is not complete after all its lives".into())
    }

    /// A job that is complete says so when it is started again, and leaves nothing behind.
    fn check_end(&mut self) -> Result<(), String> {
        (self.faults, self.failing) = (0, 0);
        let fate = Fate::new("last", self.random.fork(), 0, self.trace.clone());
        match self.start(&fate, Controls::default(), 1, StartFrom::Latest)? {
            Some(Started::AlreadyFinished) => {}
            _ => return Err("a complete job does not know that it is complete".into()),
        }
        self.targets.check_complete(&self.shape)
    }

    /// Starts a process; `None` if it did not come up.
    fn start(
        &mut self,
        fate: &Fate,
        controls: Controls,
        workers: usize,
        from: StartFrom,
    ) -> Result<Option<Started>, String> {
        self.turned |= from != StartFrom::Latest;
        if from != StartFrom::Latest {
            self.targets.deliver_again();
        }
        let (shape, targets, of) = (self.shape.clone(), self.targets.clone(), fate.clone());
        let at_point: crash::Handler = {
            let fate = fate.clone();
            Arc::new(move |point, worker| fate.pass(point, worker))
        };
        let setup = Setup {
            config: RunConfig { workers, from, ..self.config.clone() },
            storage: Arc::new(Access::new(self.blobs.clone(), fate.clone())),
            lineage: format!("lineage-{}", self.report.lives),
            controls,
            metrics: Metrics::new("simulated"),
            time: self.time,
            at_point,
        };
        let start = move || Process::start(move |job| build(job, &shape, &targets, &of), setup);
        match self.among_zombies(fate, start)? {
            Ok(Started::Running(_)) if self.said_complete && !self.turned => {
                Err("a process that was replaced said that the job is complete, and it is not".into())
            }
            Ok(started) => Ok(Some(started)),
            Err(error) if fate.explains(&error) => {
                self.trace.note(format_args!("the start failed: {error}"));
                Ok(None)
            }
            // Another process was still at work, and has deleted it meanwhile.
            Err(error) if from != StartFrom::Latest && error.to_string().contains("is not in the log") => {
                Ok(None)
            }
            Err(error) => Err(format!("a start failed without any fault: {error}")),
        }
    }

    /// A process from its start to its end; true if the job is complete.
    fn one_life(&mut self) -> Result<bool, String> {
        let fate = Fate::new(
            format!("life {}", self.report.lives),
            self.random.fork(),
            self.failing,
            self.trace.clone(),
        );
        self.doom(&fate);
        let workers = self.random.between(1, 3) as usize;
        self.report.rescales += u32::from(self.report.lives > 1 && self.config.workers != workers);
        self.config.workers = workers;
        let controls = Controls::default();
        let from = self.origin();
        let started = self.start(&fate, controls.clone(), workers, from)?;
        let complete = match started {
            Some(Started::Running(process)) => {
                // Nobody but this process can complete the job from now on.
                self.targets.drain(false);
                self.take_back(&process)?;
                let mut random = self.random.fork();
                let weights = weights(&mut random);
                self.work(Life { process, fate: fate.clone(), controls, random, weights })
            }
            Some(Started::AlreadyFinished) => Ok(true),
            None => Ok(false),
        };
        if !fate.is_alive() {
            self.report.crashes += 1;
        }
        self.report.failed += fate.failed();
        for (point, hits) in fate.hits() {
            *self.report.hits.entry(point).or_default() += hits;
        }
        complete
    }

    /// Where the next process begins: now and then at a checkpoint that is not the newest.
    fn origin(&mut self) -> StartFrom {
        if self.faults == 0 || !self.more.permille(400) {
            return StartFrom::Latest;
        }
        let is_left_behind =
            |id: u32| self.left_behind.iter().any(|(after, before)| (*after < id) && (id < *before));
        let mut there = checkpoints(&self.blobs);
        there.retain(|id| !is_left_behind(*id));
        // The newest one is where it goes on anyway.
        if there.len() < 2 {
            return StartFrom::Latest;
        }
        let chosen = there[self.more.below(there.len() as u64 - 1) as usize];
        self.faults -= 1;
        self.trace.note(format_args!("somebody goes back to checkpoint {chosen} of {there:?}"));
        StartFrom::Checkpoint(CheckpointId(chosen))
    }

    /// A process runs. If somebody went back, what the checkpoints published that were left behind is taken out of the
    /// targets, as whoever goes back has to do. Otherwise there is nothing of the kind.
    fn take_back(&mut self, process: &Process) -> Result<(), String> {
        let restored = process.restored();
        let rows = self.targets.go_back(restored);
        if !self.turned {
            return match rows {
                0 => Ok(()),
                rows => Err(format!(
                    "{rows} rows are visible of checkpoints after {restored:?}, which is restored"
                )),
            };
        }
        (self.turned, self.said_complete) = (false, false);
        self.report.turns += 1;
        self.left_behind.push((restored.unwrap_or(0), process.first_checkpoint()));
        self.trace.note(format_args!("went back to {restored:?}; {rows} rows are taken out of the targets"));
        Ok(())
    }

    /// Decides how a process ends, if it is not to end well.
    fn doom(&mut self, fate: &Fate) {
        if self.faults == 0 {
            return;
        }
        match self.random.below(6) {
            0 => fate.die_in(self.random.between(1, 40)),
            1 => fate.die_in(self.random.between(1, 400)),
            2 => fate.die_in(self.random.between(20, 2_000)),
            3 | 4 => {
                let mut points = reachable();
                points.retain(|point| !ADDED_LATER.contains(point));
                let mut point = points[self.random.below(points.len() as u64) as usize];
                if self.more.below(points.len() as u64) == 0 {
                    point = ADDED_LATER[self.more.below(ADDED_LATER.len() as u64) as usize];
                }
                fate.die_at(point, None, self.random.between(1, 4));
            }
            _ => return,
        }
        self.faults -= 1;
    }

    /// Moves a process until it ends, dies, or is left behind as a zombie; true if the job is complete.
    fn work(&mut self, mut life: Life) -> Result<bool, String> {
        let before = self.report.spilled;
        loop {
            if !life.fate.is_alive() {
                return Ok(false);
            }
            self.patience -= 1;
            if self.patience == 0 {
                self.be_kind(&life)?;
            }
            if let Some(outcome) = self.step_among_zombies(&mut life)? {
                drop(life.process);
                return match outcome {
                    Ok(Outcome::Finished | Outcome::AlreadyFinished) => Ok(true),
                    Ok(Outcome::Stopped) => self.targets.check_stopped(&life.fate.name()).map(|()| false),
                    Err(error) if life.fate.explains(&error) => Ok(false),
                    Err(error) => Err(format!("a process failed without any fault: {error}")),
                };
            }
            self.report.spilled = before + life.process.spilled();
            if let Some(wrong) = self.targets.wrong() {
                return Err(wrong);
            }
            self.move_zombies(1)?;
            if self.more.permille(2) {
                self.jump(&mut life);
            }
            if self.faults > 0 && self.random.permille(2) {
                self.faults -= 1;
                match self.random.below(3) {
                    0 => life.fate.die(),
                    1 => {
                        self.trace.note(format_args!("left behind as a zombie"));
                        self.report.zombies += 1;
                        self.zombies.push(life);
                        return Ok(false);
                    }
                    _ => self.request(&life),
                }
            }
        }
    }

    /// From now on nothing fails; that is done once.
    fn be_kind(&mut self, life: &Life) -> Result<(), String> {
        if self.faults == 0 && self.failing == 0 {
            return Err("the job does not get anywhere".into());
        }
        (self.faults, self.failing, self.patience) = (0, 0, PATIENCE);
        life.fate.be_kind();
        self.trace.note(format_args!("nothing fails from now on"));
        Ok(())
    }

    fn request(&mut self, life: &Life) {
        let request = match self.random.below(4) {
            0 => Request::Stop,
            1 => Request::Checkpoint,
            2 => Request::Savepoint(format!("savepoint-{}", self.random.below(3))),
            _ => Request::Drain,
        };
        if request == Request::Drain {
            if !self.shape.tells_what_was_read() {
                return;
            }
            self.targets.drain(true);
            self.report.drains += 1;
        }
        self.trace.note(format_args!("request {request:?}"));
        life.controls.request(request);
    }

    /// The clock on the wall of a process is set wrong, or right again: nothing depends on it.
    fn jump(&mut self, life: &mut Life) {
        const DAY_MS: u64 = 86_400_000;
        let by_ms = self.more.below(60 * DAY_MS) as i64 - 30 * DAY_MS as i64;
        self.trace.note(format_args!("{}: its clock jumps by {by_ms} ms", life.fate.name()));
        life.process.jump(by_ms);
        self.report.clock_jumps += 1;
    }

    /// Some process moves, or time passes for it.
    fn step(&mut self, life: &mut Life) -> Ended {
        let turn = self.next_turn(life);
        life.perform(turn)
    }

    /// The same, and now and then zombies move in the middle of it.
    fn step_among_zombies(&mut self, life: &mut Life) -> Result<Ended, String> {
        if self.zombies.is_empty() || self.random.below(10) > 0 {
            return Ok(self.step(life));
        }
        let turn = self.next_turn(life);
        self.among_zombies(&life.fate.clone(), || life.perform(turn))
    }

    fn next_turn(&mut self, life: &mut Life) -> Turn {
        self.report.moves += 1;
        let turn = next_turn(&mut life.random, &life.weights, &life.process);
        if let Turn::Pass(moment) = turn {
            self.time += moment;
        }
        self.trace.mix(turn.number());
        turn
    }

    /// Does work of the process with this fate; whenever it has to do with the outside, zombies may move
    /// before it goes on.
    fn among_zombies<R: Send>(&mut self, fate: &Fate, work: impl FnOnce() -> R + Send) -> Result<R, String> {
        if self.zombies.is_empty() {
            return Ok(work());
        }
        let (keeper, pass) = fate.gate();
        let mut moved = Ok(());
        let done = std::thread::scope(|scope| {
            // A thread of its own can wait in the middle of its work.
            let worker = scope.spawn(move || {
                let _pass = pass;
                work()
            });
            keeper.attend(|| {
                if moved.is_ok() {
                    let moves = [1, 10, 300][self.random.weighted(&[30, 4, 1])];
                    moved = self.move_zombies(moves);
                }
            });
            worker.join()
        });
        moved?;
        done.map_err(|_| "a simulated process panicked outside of what it catches".into())
    }

    /// Zombies move now and then.
    fn move_zombies(&mut self, moves: u64) -> Result<(), String> {
        for _ in 0..moves {
            if self.zombies.is_empty() || self.random.below(2) == 0 {
                continue;
            }
            let at = self.random.below(self.zombies.len() as u64) as usize;
            let mut zombie = self.zombies.swap_remove(at);
            let ended = self.step(&mut zombie);
            self.report.crashes += u32::from(!zombie.fate.is_alive());
            match ended {
                None if zombie.fate.is_alive() => self.zombies.push(zombie),
                // Only if it decided that before it was replaced: the next start will tell.
                Some(Ok(Outcome::Finished | Outcome::AlreadyFinished)) => self.said_complete = true,
                _ => {}
            }
            if let Some(wrong) = self.targets.wrong() {
                return Err(wrong);
            }
        }
        Ok(())
    }
}

/// The checkpoints in the log, oldest first, as a stranger reads them.
fn checkpoints(blobs: &InMemoryStorage) -> Vec<u32> {
    let names = blobs.list("log/").unwrap_or_default();
    let body = |name: &String| {
        let record = blobs.get(name).ok()?;
        let body = record.iter().position(|byte| *byte == b'\n')?;
        let body: serde_json::Value = serde_json::from_slice(&record[body + 1..]).ok()?;
        u32::try_from(body.get("checkpoint")?.get("checkpoint")?.as_u64()?).ok()
    };
    let mut checkpoints: Vec<u32> = names.iter().filter_map(body).collect();
    checkpoints.sort_unstable();
    checkpoints.dedup();
    checkpoints
}

/// The crash points of a process whose storage and targets are simulated: all but those of files.
pub fn reachable() -> Vec<&'static str> {
    let of_files = ["storage.", "decision.torn", "decision.temporary_", "decision.visible"];
    let is_reachable = |point: &&str| !of_files.iter().any(|prefix| point.starts_with(prefix));
    crash::POINTS.iter().copied().filter(is_reachable).collect()
}

/// What happens next in a process.
pub(crate) enum Turn {
    /// A part of it moves.
    Move(Actor),
    /// Time passes for it.
    Pass(Duration),
}

impl Turn {
    /// One that no other turn has.
    fn number(&self) -> u64 {
        match self {
            Turn::Move(Actor::Coordinator) => 0,
            Turn::Move(Actor::Clock) => 1,
            Turn::Move(Actor::Io) => 2,
            Turn::Move(Actor::Worker(worker)) => 1_000 + *worker as u64,
            Turn::Move(Actor::Persister(persister)) => 2_000 + *persister as u64,
            Turn::Pass(moment) => 1_000_000 + moment.as_micros() as u64,
        }
    }
}

/// Chooses by the weights of workers, coordinator, I/O, persisters and time.
pub(crate) fn next_turn(random: &mut Random, weights: &[u64; 5], process: &Process) -> Turn {
    Turn::Move(match random.weighted(weights) {
        0 => Actor::Worker(random.below(process.workers() as u64) as usize),
        1 => Actor::Coordinator,
        2 => Actor::Io,
        3 if process.persisters() > 0 => Actor::Persister(random.below(process.persisters() as u64) as usize),
        3 => Actor::Clock,
        _ => return Turn::Pass(Duration::from_micros([200, 2_000, 20_000][random.weighted(&[20, 20, 1])])),
    })
}

/// Some parts are slow in some lives.
fn weights(random: &mut Random) -> [u64; 5] {
    let mut weight = |usual: u64| if random.permille(250) { usual.div_ceil(8) } else { usual };
    [weight(40), weight(20), weight(20), weight(10), weight(10)]
}
