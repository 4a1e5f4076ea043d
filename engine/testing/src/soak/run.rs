//! Carries a schedule out, job after job.

use super::goal::{Broken, Goal};
use super::schedule::{Deed, Schedule, Step};
use super::tally::Tally;
use crate::observer::Observer;
use crate::oracle::{Failure, Oracle};
use crate::process::{kill, stop, wait, wake};
use crate::victim::{CHECKPOINT_TIMEOUT, LOCKED, Life, Victim};
use std::ops::{Deref, DerefMut};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A process that has been told to end, or that must, has this long.
const END: Duration = Duration::from_secs(60);
/// Within this time a living process shows new output, or is complete.
const LIVELY: Duration = Duration::from_secs(30);

/// What a process logs about the checkpoint that it restores: how many prepared pieces are listed there.
const IN_DOUBT: &str = "pending_output=";

struct Soak<'a> {
    goal: &'a Goal,
    began: Instant,
    program: PathBuf,
    schedule: Schedule,
    /// Steps of the schedule that have begun.
    steps: u64,
    tally: Tally,
    last_workers: u32,
    progress: &'a dyn Fn(&Tally),
}

/// Runs until the goal is reached.
///
/// # Errors
/// An oracle found something. What the job left behind is kept then.
pub fn soak(goal: &Goal, program: &Path, progress: &dyn Fn(&Tally)) -> Result<Tally, Broken> {
    let mut soak = Soak {
        goal,
        began: Instant::now(),
        program: program.to_owned(),
        schedule: Schedule::new(goal.seed),
        steps: 0,
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
    /// It lives, and the output has grown as far as was asked for.
    Alive,
    Dead,
    Complete,
}

/// A started process. It is killed when it is dropped, so that a failure leaves nobody behind who goes on
/// writing.
struct Started(Child);

impl Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Mostly it has ended, and this does nothing.
        let _ = kill(&mut self.0);
    }
}

/// What a process says that is refused because another one runs the job.
const REFUSED: &str = "job is already running";
/// What it says when it has taken the job over, and when the recovery is over.
const TAKEN_OVER: &str = "generation=";
const RUNNING: &str = " running workers=";

impl Soak<'_> {
    fn is_enough(&self) -> bool {
        let timed_out = self.goal.time.is_some_and(|time| self.began.elapsed() > time);
        timed_out || (self.tally.kills >= self.goal.kills && self.tally.records >= self.goal.records)
    }

    /// One job, in a directory of its own.
    fn job(&mut self) -> Result<(), Broken> {
        let dir = tempfile::Builder::new().prefix("staunch-soak-").tempdir();
        let dir = dir.map_err(|error| self.broken(Failure::trouble(error), None))?;
        self.job_in(dir.path()).map_err(|failure| self.broken(failure, Some(dir)))
    }

    fn broken(&self, failure: Failure, dir: Option<TempDir>) -> Broken {
        Broken { failure, steps: self.steps, dir: dir.map(TempDir::keep), command: self.goal.command() }
    }

    /// One job, from its first start to its audit.
    fn job_in(&mut self, dir: &Path) -> Result<(), Failure> {
        let mut victim = Victim::new(&self.program, dir, self.goal.job);
        victim.rate = self.goal.rate;
        victim.every = "50ms".into();
        victim.at_least_once = self.goal.at_least_once;
        let observer = (!self.goal.at_least_once).then(|| Observer::start(&victim));
        let broken = self.break_until_complete(&mut victim, observer.as_ref());
        // First of all what the observer saw: everything else may follow from it.
        let seen = observer.map(Observer::end).transpose()?;
        broken?;
        self.judge(&victim)?;
        if let Some(seen) = seen {
            seen.everything()?;
            self.tally.looks += seen.looks;
        }
        self.tally.in_doubt += (1..=victim.lives()).map(|life| in_doubt(&victim.log(life))).sum::<u64>();
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
            self.steps += 1;
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
        while complete < 2 {
            let mut child = self.start(victim, 2)?;
            // Nothing is in its way: it ends well.
            self.await_output(&mut child, victim, observer, u64::MAX, false)?;
            complete += 1;
        }
        Ok(())
    }

    fn start(&mut self, victim: &mut Victim, workers: u32) -> Result<Started, Failure> {
        self.tally.starts += 1;
        self.tally.rescales += u64::from(self.last_workers != 0 && self.last_workers != workers);
        self.last_workers = workers;
        victim.start(&Life { workers, ..Life::default() }).map(Started).map_err(Failure::trouble)
    }

    /// Kills a process, the victim's life with this number. It may have completed the job just before, but it may
    /// not have failed.
    fn killed(&mut self, child: &mut Child, victim: &Victim, life: u32, deed: Deed) -> Result<Fate, Failure> {
        let status = kill(child).map_err(Failure::trouble)?;
        if status.success() {
            return Ok(Fate::Complete);
        }
        if status.signal() != Some(libc::SIGKILL) {
            // Whoever it was to replace may have the database for itself.
            let locked_out = deed.replaces() && victim.log(life).contains(LOCKED);
            return if locked_out { Ok(Fate::Dead) } else { Err(failed(status, victim, life)) };
        }
        self.count_kill(victim, life, deed);
        Ok(Fate::Dead)
    }

    fn count_kill(&mut self, victim: &Victim, life: u32, deed: Deed) {
        self.tally.kills += 1;
        *self.tally.deeds.entry(deed).or_default() += 1;
        let log = victim.log(life);
        self.tally.in_recovery += u64::from(log.contains(TAKEN_OVER) && !log.contains(RUNNING));
    }

    fn step(
        &mut self,
        step: &Step,
        victim: &mut Victim,
        observer: Option<&Observer>,
        recovers: bool,
    ) -> Result<Fate, Failure> {
        observer.inspect(|observer| observer.catch_up());
        let mut child = self.start(victim, step.workers)?;
        if step.deed != Deed::KillInRecovery
            && let Fate::Complete = self.await_output(&mut child, victim, observer, step.commits, recovers)?
        {
            return Ok(Fate::Complete);
        }
        std::thread::sleep(step.delay);
        let mut life = victim.lives();
        match step.deed {
            Deed::Kill | Deed::KillInRecovery => {}
            Deed::DoubleStart => {
                let mut second = self.start(victim, step.other_workers)?;
                if one_is_refused(&mut child, &mut second, victim, life)? {
                    child = second;
                    life += 1;
                }
            }
            Deed::TakeOver | Deed::Zombie => {
                child = self.replaced(step, &mut child, victim)?;
                life += 1;
            }
            Deed::KillBoth | Deed::KillBothAsleep => return self.both_killed(step, &mut child, victim),
        }
        self.killed(&mut child, victim, life, step.deed)
    }

    /// Has a second copy take over without a lock; the first one must end, and not well.
    fn replaced(&mut self, step: &Step, child: &mut Child, victim: &mut Victim) -> Result<Started, Failure> {
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
            let status = wait(&mut second, END).map_err(|why| stuck(&why, victim, life + 1))?;
            // Or if it kept the database locked: then the next start will say so.
            if !status.success() && !victim.log(life + 1).contains(LOCKED) {
                let what = format!(
                    "a process that was replaced claims that the job is complete; the other one: {}\nit",
                    victim.log(life + 1)
                );
                return Err(wrong(&what, victim, life));
            }
        }
        ended.map(|_| second)
    }

    /// Has a second copy take over without a lock, and kills both at one moment.
    fn both_killed(&mut self, step: &Step, first: &mut Child, victim: &mut Victim) -> Result<Fate, Failure> {
        let life = victim.lives();
        if step.deed == Deed::KillBothAsleep {
            stop(first);
        }
        // It may have ended, and taken its lock along.
        let _ = victim.break_lock();
        let mut second = self.start(victim, step.other_workers)?;
        std::thread::sleep(step.together);
        // Both before either is waited for. It fails only for one that was waited for already.
        let _ = (first.kill(), second.kill());
        let before = self.tally.kills;
        // Otherwise it has ended by itself: it was replaced, or had everything behind it.
        if kill(first).map_err(Failure::trouble)?.signal() == Some(libc::SIGKILL) {
            self.count_kill(victim, life, step.deed);
        }
        let fate = self.killed(&mut second, victim, life + 1, step.deed)?;
        self.tally.together += u64::from(self.tally.kills == before + 2);
        Ok(fate)
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
        let life = victim.lives();
        let began = Instant::now();
        // Without an observer: as if the output grew every tenth of a second.
        let seen = || observer.map_or_else(|| began.elapsed().as_millis() as u64 / 100, Observer::commits);
        let before = seen();
        let (mut last, mut last_at, mut recovery) = (before, began, None);
        loop {
            if let Some(status) = child.try_wait().map_err(Failure::trouble)? {
                // Whatever was done to those before it: this one has nothing in its way.
                return if status.success() { Ok(Fate::Complete) } else { Err(failed(status, victim, life)) };
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
                return Ok(Fate::Alive);
            }
            if last_at.elapsed() > LIVELY || observer.is_some_and(Observer::has_ended) {
                kill(child).map_err(Failure::trouble)?;
                return Err(stuck(&format!("no output within {LIVELY:?}"), victim, life));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Prepared pieces that the process of this log found in doubt.
fn in_doubt(log: &str) -> u64 {
    let number = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok();
    log.split(IN_DOUBT).skip(1).filter_map(number).sum()
}

/// Waits until one of two copies is refused, or both are done. True if the second one is left: the first one may not
/// have come as far as the lock when the second one was started.
fn one_is_refused(
    first: &mut Child,
    second: &mut Child,
    victim: &Victim,
    life: u32,
) -> Result<bool, Failure> {
    let began = Instant::now();
    let is_refused = |status: ExitStatus, life| !status.success() && victim.log(life).contains(REFUSED);
    loop {
        let ended = second.try_wait().map_err(Failure::trouble)?;
        // Asked after the second one: a first one that was done before it is seen to be.
        let first = first.try_wait().map_err(Failure::trouble)?;
        let first_is_refused = first.is_some_and(|status| is_refused(status, life));
        match ended {
            Some(status) if is_refused(status, life + 1) => return Ok(false),
            // Once the first one is done, or has gone, the second one may find that there is nothing to do.
            Some(status) if status.success() => {
                let is_right = first_is_refused || first.is_some_and(|first| first.success());
                return if is_right {
                    Ok(true)
                } else {
                    Err(wrong("a second copy was not refused", victim, life + 1))
                };
            }
            Some(status) => return Err(failed(status, victim, life + 1)),
            None if first_is_refused => return Ok(true),
            None if began.elapsed() > END => return Err(stuck("no copy is refused", victim, life + 1)),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn failed(status: ExitStatus, victim: &Victim, life: u32) -> Failure {
    stuck(&format!("a process that nobody disturbed ended with {status}"), victim, life)
}

fn stuck(why: &str, victim: &Victim, life: u32) -> Failure {
    Failure::Violation(Oracle::Liveness, format!("{why}: {}", victim.log(life)))
}

fn wrong(what: &str, victim: &Victim, life: u32) -> Failure {
    Failure::Violation(Oracle::Identity, format!("{what}: {}", victim.log(life)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_found_in_doubt_is_read_from_its_log() {
        let log = "INFO restoring; output of the checkpoint [...] generation=3 checkpoint=17 pending_output=12\n\
                   INFO running workers=2";
        assert_eq!(in_doubt(log), 12);
        assert_eq!(in_doubt("INFO starting from nothing generation=1\n"), 0);
    }
}
