//! Carries a schedule out, job after job.

use super::schedule::{Deed, Schedule, Step};
use super::tally::Tally;
use crate::audit::Expected;
use crate::observer::Observer;
use crate::oracle::{Failure, Oracle};
use crate::process::{kill, stop, wait, wake};
use crate::victim::{CHECKPOINT_TIMEOUT, Life, Victim};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// A process that has been told to end, or that must, has this long.
const END: Duration = Duration::from_secs(60);
/// Within this time a living process shows new output, or is complete.
const LIVELY: Duration = Duration::from_secs(30);
/// Lives without a fault that a job may need at its end.
const LAST_LIVES: u32 = 6;

/// How much is to be done.
#[derive(Clone, Debug)]
pub struct Goal {
    /// Processes to kill.
    pub kills: u64,
    /// Records to audit.
    pub records: u64,
    /// Stop killing after this long, whatever was reached.
    pub time: Option<Duration>,
    /// Where the schedule begins.
    pub seed: u64,
    /// What one job has to do.
    pub job: Expected,
    /// Records a second, on all workers together; `None`: as many as it can.
    pub rate: Option<u64>,
    /// Promise, and require, only that nothing is lost.
    pub at_least_once: bool,
}

struct Soak<'a> {
    goal: &'a Goal,
    began: Instant,
    program: PathBuf,
    schedule: Schedule,
    tally: Tally,
    last_workers: u32,
    progress: &'a dyn Fn(&Tally),
}

/// Runs until the goal is reached.
///
/// # Errors
/// An oracle found something.
pub fn soak(goal: &Goal, program: &Path, progress: &dyn Fn(&Tally)) -> Result<Tally, Failure> {
    let mut soak = Soak {
        goal,
        began: Instant::now(),
        program: program.to_owned(),
        schedule: Schedule::new(goal.seed),
        tally: Tally::default(),
        last_workers: 0,
        progress,
    };
    while !soak.is_enough() {
        soak.job()?;
    }
    Ok(soak.tally)
}

/// What became of a life.
enum Fate {
    Dead,
    Complete,
}

impl Soak<'_> {
    fn is_enough(&self) -> bool {
        let timed_out = self.goal.time.is_some_and(|time| self.began.elapsed() > time);
        timed_out || (self.tally.kills >= self.goal.kills && self.tally.records >= self.goal.records)
    }

    /// One job, from its first start to its audit.
    fn job(&mut self) -> Result<(), Failure> {
        let dir = tempfile::tempdir().map_err(Failure::trouble)?;
        let mut victim = Victim::new(&self.program, dir.path(), self.goal.job);
        victim.rate = self.goal.rate;
        victim.every = "50ms".into();
        victim.at_least_once = self.goal.at_least_once;
        let observer = (!self.goal.at_least_once).then(|| Observer::start(&victim));
        let broken = self.break_until_complete(&mut victim, observer.as_ref());
        // First of all what the observer saw: everything else may follow from it.
        self.tally.looks += observer.map(Observer::end).transpose()?.unwrap_or(0);
        broken?;
        self.judge(&victim)?;
        self.tally.jobs += 1;
        self.tally.records += self.goal.job.total();
        (self.progress)(&self.tally);
        Ok(())
    }

    fn judge(&mut self, victim: &Victim) -> Result<(), Failure> {
        if !self.goal.at_least_once {
            self.tally.rows += victim.judge()?.rows;
            return Ok(());
        }
        let (all, rows) = victim.findings()?;
        self.tally.rows += rows;
        for (sink, findings) in all {
            self.tally.doubled += findings.doubled;
            if findings.missing + findings.foreign > 0 {
                return Err(Failure::Violation(Oracle::Identity, format!("{sink}: {findings:?}")));
            }
        }
        Ok(())
    }

    fn break_until_complete(
        &mut self,
        victim: &mut Victim,
        observer: Option<&Observer>,
    ) -> Result<(), Failure> {
        let mut recovers = false;
        while self.tally.kills < self.goal.kills
            || self.tally.records + self.goal.job.total() < self.goal.records
        {
            let Some(step) = self.schedule.next() else { break };
            if let Fate::Complete = self.step(&step, victim, observer, recovers)? {
                return self.finish(1, victim, observer);
            }
            recovers = true;
            (self.progress)(&self.tally);
            if self.goal.time.is_some_and(|time| self.began.elapsed() > time) {
                break;
            }
        }
        self.finish(0, victim, observer)
    }

    /// Lives without a fault until two have said that the job is complete: the second one cleans up.
    fn finish(
        &mut self,
        mut complete: u32,
        victim: &mut Victim,
        observer: Option<&Observer>,
    ) -> Result<(), Failure> {
        for _ in 0..LAST_LIVES {
            let mut child = self.start(victim, 2)?;
            if let Fate::Complete = self.await_output(&mut child, victim, observer, u64::MAX, false)? {
                complete += 1;
            }
            if complete == 2 {
                return Ok(());
            }
        }
        let what = format!("not complete after {LAST_LIVES} lives without a fault: {}", victim.last_log());
        Err(Failure::Violation(Oracle::Liveness, what))
    }

    fn start(&mut self, victim: &mut Victim, workers: u32) -> Result<Child, Failure> {
        self.tally.starts += 1;
        self.tally.rescales += u64::from(self.last_workers != 0 && self.last_workers != workers);
        self.last_workers = workers;
        victim.start(&Life { workers, crash: None }).map_err(Failure::trouble)
    }

    fn killed(&mut self, child: &mut Child) -> Result<(), Failure> {
        let status = kill(child).map_err(Failure::trouble)?;
        use std::os::unix::process::ExitStatusExt;
        self.tally.kills += u64::from(status.signal() == Some(libc::SIGKILL));
        Ok(())
    }

    fn step(
        &mut self,
        step: &Step,
        victim: &mut Victim,
        observer: Option<&Observer>,
        recovers: bool,
    ) -> Result<Fate, Failure> {
        let mut child = self.start(victim, step.workers)?;
        if step.deed != Deed::KillInRecovery
            && let Fate::Complete = self.await_output(&mut child, victim, observer, step.commits, recovers)?
        {
            return Ok(Fate::Complete);
        }
        std::thread::sleep(step.delay);
        *self.tally.deeds.entry(step.deed).or_default() += 1;
        match step.deed {
            Deed::Kill | Deed::KillInRecovery => {}
            Deed::DoubleStart => {
                let life = victim.lives();
                let mut second = self.start(victim, step.other_workers)?;
                let status = wait(&mut second, END).map_err(|why| stuck(&why, victim, life + 1))?;
                let first = child.try_wait().map_err(Failure::trouble)?;
                if status.success() && !first.is_some_and(|first| first.success()) {
                    return Err(wrong("a second copy was not refused", victim, life + 1));
                }
            }
            Deed::TakeOver | Deed::Zombie => {
                let mut second = self.replaced(step, &mut child, victim, observer)?;
                self.killed(&mut second)?;
                return Ok(Fate::Dead);
            }
        }
        self.killed(&mut child)?;
        Ok(Fate::Dead)
    }

    /// Has a second copy take over without a lock; the first one must end, and not well.
    fn replaced(
        &mut self,
        step: &Step,
        child: &mut Child,
        victim: &mut Victim,
        observer: Option<&Observer>,
    ) -> Result<Child, Failure> {
        let life = victim.lives();
        if step.deed == Deed::Zombie {
            stop(child);
        }
        // It may have ended, and taken its lock along.
        let _ = victim.break_lock();
        let mut second = self.start(victim, step.other_workers)?;
        if step.deed == Deed::Zombie {
            std::thread::sleep(2 * CHECKPOINT_TIMEOUT);
            wake(child);
        }
        let ended = wait(child, END).map_err(|why| stuck(&why, victim, life));
        if ended.as_ref().is_ok_and(std::process::ExitStatus::success) {
            // Possible if it had everything behind it: then the job is complete for the second one, too.
            self.await_output(&mut second, victim, observer, u64::MAX, false)?;
            let status = second.try_wait().map_err(Failure::trouble)?;
            if !status.is_some_and(|status| status.success()) {
                let what = format!(
                    "a process that was replaced claims that the job is complete; the other one: {}\nit",
                    victim.log(life + 1)
                );
                return Err(wrong(&what, victim, life));
            }
        }
        ended.map(|_| second)
    }

    /// Waits until the output has grown `commits` times, or the process has ended.
    fn await_output(
        &mut self,
        child: &mut Child,
        victim: &Victim,
        observer: Option<&Observer>,
        commits: u64,
        recovers: bool,
    ) -> Result<Fate, Failure> {
        let began = Instant::now();
        // Without an observer: as if the output grew every tenth of a second.
        let seen = || observer.map_or_else(|| began.elapsed().as_millis() as u64 / 100, Observer::commits);
        let before = seen();
        let (mut last, mut last_at, mut recovery) = (before, began, None);
        loop {
            if let Some(status) = child.try_wait().map_err(Failure::trouble)? {
                return Ok(if status.success() { Fate::Complete } else { Fate::Dead });
            }
            let now = seen();
            if now > last {
                if recovers && recovery.is_none() && observer.is_some() {
                    recovery = Some(began.elapsed());
                    self.tally.recoveries.push(began.elapsed());
                }
                (last, last_at) = (now, Instant::now());
            }
            if now - before >= commits {
                return Ok(Fate::Dead);
            }
            if last_at.elapsed() > LIVELY || observer.is_some_and(Observer::has_ended) {
                kill(child).map_err(Failure::trouble)?;
                return Err(stuck(&format!("no output within {LIVELY:?}"), victim, victim.lives()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn stuck(why: &str, victim: &Victim, life: u32) -> Failure {
    Failure::Violation(Oracle::Liveness, format!("{why}: {}", victim.log(life)))
}

fn wrong(what: &str, victim: &Victim, life: u32) -> Failure {
    Failure::Violation(Oracle::Identity, format!("{what}: {}", victim.log(life)))
}
