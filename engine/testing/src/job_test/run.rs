//! Runs the scripts of a test: one step after the other, each until the job has got there.

use super::feed::Gauge;
use super::script::{Crash, Step};
use super::{JobTest, Program};
use crate::simulation::fate::{Fate, Trace};
use crate::simulation::random::Random;
use crate::simulation::scratch::Scratch;
use crate::simulation::storage::Access;
use crate::simulation::world::{Turn, next_turn};
use staunch::core::doubles::Doubles;
use staunch::core::plan::What;
use staunch::core::simulation::{Actor, Process, Setup, Started};
use staunch::core::{Controls, InMemoryStorage, Metrics, Outcome, Request, RunConfig, crash};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Moves within which a step of a script must be done.
const PATIENCE: u64 = 200_000;
/// Crashes and stops that one test may have.
const LIVES: u32 = 10_000;

struct Runner<'t> {
    test: &'t JobTest,
    random: Random,
    blobs: InMemoryStorage,
    /// Where steps keep state on disk; removed at the end.
    scratch: Scratch,
    time: Duration,
    workers: usize,
    lives: u32,
    /// The point at which the next process dies while it starts.
    in_start: Option<&'static str>,
}

struct Life {
    process: Box<Process>,
    fate: Fate,
    controls: Controls,
}

/// How far a process was moved.
enum Moved {
    /// As far as was wanted.
    There,
    Died,
    Ended(staunch::core::Result<Outcome>),
}

/// Runs a test.
pub(super) fn run(test: &JobTest) -> Result<(), String> {
    check_sinks(test)?;
    let mut runner = Runner {
        test,
        random: Random::new(test.seed),
        blobs: InMemoryStorage::new(),
        scratch: Scratch::new(),
        time: Duration::ZERO,
        workers: test.config.workers,
        lives: 0,
        in_start: None,
    };
    if test.batch > 0 {
        test.scripts.iter().for_each(|(_, gauge, _)| gauge.limit_batches(test.batch));
    }
    runner.run()
}

/// A sink writes for real only if the test says so.
fn check_sinks(test: &JobTest) -> Result<(), String> {
    let plan = staunch::core::plan(|job: &staunch::core::Job<'_>| (test.program)(job));
    let plan = plan.map_err(|error| error.to_string())?;
    let sinks = plan.nodes.iter().filter_map(|node| match &node.what {
        What::Sink { name, .. } => Some(name.as_str()),
        _ => None,
    });
    let sinks: BTreeSet<&str> = sinks.collect();
    let is_there = |name: &&String| sinks.contains(name.as_str());
    if let Some(nowhere) = test.real.iter().find(|name| !is_there(name)) {
        return Err(format!("the test keeps a sink `{nowhere}`, which this job does not have"));
    }
    if let Some(both) = test.real.iter().find(|name| test.collected.contains(*name)) {
        return Err(format!("sink `{both}` can be collected or kept, not both"));
    }
    let is_named = |sink: &str| test.real.contains(sink) || test.collected.contains(sink);
    match sinks.iter().find(|sink| !is_named(sink)) {
        Some(sink) => Err(format!(
            "sink `{sink}` would write for real: .collect(\"{sink}\") puts a double in its place, \
             .real_sink(\"{sink}\") keeps it"
        )),
        None => Ok(()),
    }
}

impl Runner<'_> {
    fn run(&mut self) -> Result<(), String> {
        let test = self.test;
        let mut scripts: Vec<(&str, &Gauge, VecDeque<Step>)> = test
            .scripts
            .iter()
            .map(|(name, gauge, steps)| (name.as_str(), &**gauge, steps.iter().copied().collect()))
            .collect();
        let mut life = self.start()?;
        while scripts.iter().any(|(_, _, steps)| !steps.is_empty()) {
            for (name, gauge, steps) in &mut scripts {
                let Some(step) = steps.pop_front() else { continue };
                let then = steps.front().copied();
                let what = || format!("source `{name}`: {step:?}");
                life = self.step(life, gauge, step, then, steps).map_err(|e| format!("{}: {e}", what()))?;
            }
        }
        scripts.iter().for_each(|(_, gauge, _)| gauge.end());
        match self.until(&mut life, |_| false)? {
            Moved::Ended(Ok(Outcome::Finished)) => Ok(()),
            Moved::Ended(other) => {
                Err(format!("at the end of all scripts the job should finish: {}", say(&other)))
            }
            Moved::There | Moved::Died => Err("the process died at the end".into()),
        }
    }

    fn step(
        &mut self,
        mut life: Life,
        gauge: &Gauge,
        step: Step,
        then: Option<Step>,
        steps: &mut VecDeque<Step>,
    ) -> Result<Life, String> {
        match (step, then) {
            (Step::Release(records), _) => {
                gauge.release(records);
                self.alive(&mut life, |_| gauge.is_read())?;
                Ok(life)
            }
            (Step::End, _) => {
                gauge.end();
                Ok(life)
            }
            (Step::Barrier, Some(Step::Crash(at, worker))) if at.point().is_some() && !at.at_start() => {
                steps.pop_front();
                self.arm(&life, at, worker);
                life.controls.request(Request::Checkpoint);
                self.die(life, at)
            }
            (Step::Barrier, _) => {
                let before = life.process.settled_checkpoint();
                life.controls.request(Request::Checkpoint);
                self.alive(&mut life, |life| life.process.settled_checkpoint() > before)?;
                Ok(life)
            }
            (Step::Crash(at, worker), _) => match at.point() {
                Some(_) if !at.at_start() => {
                    self.arm(&life, at, worker);
                    self.die(life, at)
                }
                point => {
                    self.in_start = point;
                    life.fate.die();
                    drop(life);
                    self.start()
                }
            },
            (Step::Workers(workers), _) => {
                life.controls.request(Request::Stop);
                match self.until(&mut life, |_| false)? {
                    Moved::Ended(Ok(Outcome::Stopped)) => {
                        self.workers = workers;
                        drop(life);
                        self.start()
                    }
                    Moved::Ended(other) => Err(format!("the job should stop: {}", say(&other))),
                    Moved::There | Moved::Died => Err("the process died".into()),
                }
            }
        }
    }

    fn arm(&self, life: &Life, at: Crash, worker: Option<u32>) {
        if let Some(point) = at.point() {
            life.fate.die_at(point, worker, 1);
        }
    }

    /// Moves a process until it dies, and starts the next.
    fn die(&mut self, mut life: Life, at: Crash) -> Result<Life, String> {
        match self.until(&mut life, |_| false) {
            Ok(Moved::Died) => {
                drop(life);
                self.start()
            }
            Ok(Moved::Ended(outcome)) => Err(format!("{at:?} was never passed: {}", say(&outcome))),
            Ok(Moved::There) | Err(_) => Err(format!("{at:?} was never passed")),
        }
    }

    /// Moves a process until something is so; anything else is an error.
    fn alive(&mut self, life: &mut Life, is_so: impl Fn(&Life) -> bool) -> Result<(), String> {
        match self.until(life, is_so)? {
            Moved::There => Ok(()),
            Moved::Ended(outcome) => Err(format!("the job has ended: {}", say(&outcome))),
            Moved::Died => Err("the process died".into()),
        }
    }

    fn until(&mut self, life: &mut Life, is_so: impl Fn(&Life) -> bool) -> Result<Moved, String> {
        for _ in 0..PATIENCE {
            if !life.fate.is_alive() {
                return Ok(Moved::Died);
            }
            if is_so(life) {
                return Ok(Moved::There);
            }
            let outcome = match next_turn(&mut self.random, &[40, 20, 20, 10, 10], &life.process) {
                Turn::Move(actor) => life.process.act(actor),
                Turn::Pass(moment) => {
                    self.time += moment;
                    life.process.pass_time(moment);
                    life.process.act(Actor::Clock)
                }
            };
            if let Some(outcome) = outcome {
                return Ok(if life.fate.is_alive() { Moved::Ended(outcome) } else { Moved::Died });
            }
        }
        Err(format!("it does not get on (schedule {})", self.test.seed))
    }

    /// Starts a process, again if it was to die in its start.
    fn start(&mut self) -> Result<Life, String> {
        loop {
            self.lives += 1;
            if self.lives > LIVES {
                return Err("the job was started too often".into());
            }
            let fate = Fate::new(format!("life {}", self.lives), self.random.fork(), 0, Trace::default());
            let armed = self.in_start.take();
            if let Some(point) = armed {
                fate.die_at(point, None, 1);
            }
            let controls = Controls::default();
            let started = self.start_once(&fate, controls.clone());
            match (started, fate.is_alive()) {
                (Ok(Started::Running(process)), true) => {
                    if let Some(point) = armed {
                        return Err(format!("{point} was never passed"));
                    }
                    return Ok(Life { process, fate, controls });
                }
                (_, false) => {}
                (Ok(Started::AlreadyFinished), true) => return Err("the job is complete already".into()),
                (Err(error), true) => return Err(error.to_string()),
            }
        }
    }

    fn start_once(&self, fate: &Fate, controls: Controls) -> staunch::core::Result<Started> {
        let mut doubles = Doubles::default();
        self.test.stands.iter().for_each(|stand| stand(fate, &mut doubles));
        let program: Program = Arc::clone(&self.test.program);
        let at_point: crash::Handler = {
            let fate = fate.clone();
            Arc::new(move |point, worker| fate.pass(point, worker))
        };
        let setup = Setup {
            config: RunConfig {
                workers: self.workers,
                state_dir: Some(self.scratch.path().to_owned()),
                ..self.test.config.clone()
            },
            storage: Arc::new(Access::new(self.blobs.clone(), fate.clone())),
            lineage: "test".into(),
            controls,
            metrics: Metrics::new("test"),
            time: self.time,
            at_point,
        };
        let build = move |job: &staunch::core::Job<'_>| {
            job.use_doubles(doubles.clone());
            program(job)
        };
        Process::start(build, setup)
    }
}

fn say(outcome: &staunch::core::Result<Outcome>) -> String {
    match outcome {
        Ok(outcome) => format!("{outcome:?}"),
        Err(error) => error.to_string(),
    }
}
