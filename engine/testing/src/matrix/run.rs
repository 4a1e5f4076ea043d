//! Runs one case, and has the oracles judge.

use super::cases::{Case, Fault};
use crate::audit::Expected;
use crate::observer::Observer;
use crate::oracle::{Evidence, Failure, Oracle};
use crate::process::{kill, wait, wait_stopped, wake};
use crate::victim::{CHECKPOINT_TIMEOUT, LOCKED, Life, Victim};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Longest time that one life may take before it counts as hanging.
const LIFE: Duration = Duration::from_secs(60);
/// Lives that a case may need to complete the job.
const LIVES: u32 = 6;
/// From the first start after the fault, output must appear within this time.
const LIVELY: Duration = Duration::from_secs(20);

/// What else a run of a case may vary.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// A bug planted in the victim, to see that it is noticed.
    pub bug: Option<&'static str>,
    /// Whether the victim only promises to lose nothing.
    pub at_least_once: bool,
}

impl Setting {
    /// As users run it.
    pub const USUAL: Setting = Setting { bug: None, at_least_once: false };
}

/// Runs one case in an empty directory, until all five oracles have judged.
///
/// # Errors
/// The point was never hit, or an oracle found something.
pub fn run(case: &Case, setting: &Setting, program: &Path, dir: &Path) -> Result<Evidence, Failure> {
    let mut victim = prepared(case, setting, program, dir);
    let mut observer = Observer::start(&victim);
    prelude(case, &mut victim)?;
    let broken = broken(case, &mut victim, &observer);
    let mut lost = 0;
    if case.fault == Fault::PowerCut && broken.is_ok() {
        // What was visible and not durable may be gone, and is published again: only the observer's
        // power was cut, too.
        observer.end()?;
        lost = victim.cut_power().map_err(Failure::trouble)?;
        observer = Observer::start(&victim);
    }
    // With the faults the slowness ends.
    victim.rate = None;
    let locked_out = matches!(broken, Ok(Broken::LockedOut));
    let completed = broken.and_then(|broken| match broken {
        Broken::Replaced(recovery) => Ok(recovery),
        Broken::Ended | Broken::LockedOut => complete(&mut victim, case.workers, &observer, None),
    });
    // Once more: a complete job cleans up after zombies, and changes nothing.
    let again = completed.is_ok().then(|| complete(&mut victim, case.workers, &observer, None));
    // First of all what the observer saw: everything else may follow from it.
    let seen = observer.end()?;
    let recovery = completed?;
    again.transpose()?;
    let evidence = victim.judge()?;
    seen.everything()?;
    Ok(Evidence { looks: seen.looks, recovery, lost, locked_out, ..evidence })
}

/// How the life with the fault ended.
enum Broken {
    /// Without anybody completing the job.
    Ended,
    /// Another process has replaced it, and completed the job; how long it took to begin.
    Replaced(Duration),
    /// While it slept it held the database's lock, and nobody could replace it.
    LockedOut,
}

/// As [`run`], without a judgement: runs the case and completes the job.
///
/// # Errors
/// The point was never hit, or the job does not become complete.
pub fn run_unjudged(case: &Case, setting: &Setting, program: &Path, dir: &Path) -> Result<Victim, Failure> {
    let mut victim = prepared(case, setting, program, dir);
    prelude(case, &mut victim)?;
    let mut child = victim.start(&armed(case)).map_err(Failure::trouble)?;
    killed(&mut child, &victim)?;
    for life in 1..=LIVES {
        let plain = Life { workers: next_workers(case.workers, life), ..Life::default() };
        let mut child = victim.start(&plain).map_err(Failure::trouble)?;
        if wait(&mut child, LIFE).map_err(Failure::Trouble)?.success() {
            return Ok(victim);
        }
    }
    Err(not_complete(&victim))
}

fn prepared(case: &Case, setting: &Setting, program: &Path, dir: &Path) -> Victim {
    let stores_splits = case.point == "splits.stored";
    // Each with so many splits that they are stored several times; the same number of records.
    let (records, splits) = if stores_splits { (25, 400) } else { (2_500, 4) };
    let expected = Expected { records, splits, keys: 97 };
    let mut victim = Victim::new(program, dir, expected);
    victim.bug = setting.bug;
    victim.sinks = case.sinks;
    victim.at_least_once = setting.at_least_once;
    victim.disk_log = case.fault == Fault::PowerCut;
    if case.fault == Fault::Zombie {
        // Slow enough that the zombie wakes up before the other one is done.
        victim.rate = Some(4_000);
    } else if case.nth > 2
        || !case.before.is_empty()
        || case.with.is_some()
        || stores_splits
        || case.point.starts_with("expire.")
    {
        // Slow enough that there are enough checkpoints even on a disk that syncs slowly, with something left
        // to do after them.
        victim.rate = Some(3_000);
    }
    if case.point == "commit.all_done" {
        // Long enough between checkpoints that all commits of one are done before the next.
        victim.every = "200ms".into();
        victim.rate = Some(3_000);
    }
    victim
}

/// The lives before the one in question.
fn prelude(case: &Case, victim: &mut Victim) -> Result<(), Failure> {
    for crash in &case.before {
        let workers = if case.workers == 2 { 3 } else { 2 };
        let life = Life { workers, crash: Some((*crash).into()), ..Life::default() };
        let mut child = victim.start(&life).map_err(Failure::trouble)?;
        killed(&mut child, victim)?;
    }
    Ok(())
}

fn armed(case: &Case) -> Life {
    let worker = case.worker.map(|worker| format!(":{worker}")).unwrap_or_default();
    let mut crash = format!("{}:{}:{}{worker}", case.point, case.fault.action(), case.nth);
    if let Some(with) = case.with {
        crash.push_str(&format!(",{with}"));
    }
    Life { workers: case.workers, crash: Some(crash), ..Life::default() }
}

fn killed(child: &mut Child, victim: &Victim) -> Result<(), Failure> {
    let status = wait(child, LIFE).map_err(|why| hanging(&why, victim))?;
    if status.signal() == Some(libc::SIGKILL) {
        return Ok(());
    }
    Err(Failure::NeverHit(format!("ended with {status}: {}", victim.last_log())))
}

fn hanging(why: &str, victim: &Victim) -> Failure {
    Failure::Violation(Oracle::Liveness, format!("{why}: {}", victim.last_log()))
}

/// The life in question.
fn broken(case: &Case, victim: &mut Victim, observer: &Observer) -> Result<Broken, Failure> {
    let hits_before = victim.hits(case.point, case.worker);
    let mut child = victim.start(&armed(case)).map_err(Failure::trouble)?;
    match case.fault {
        Fault::Kill | Fault::PowerCut => killed(&mut child, victim).map(|()| Broken::Ended),
        Fault::Error | Fault::Lost | Fault::Doubled | Fault::Delayed => {
            wait(&mut child, LIFE).map_err(|why| hanging(&why, victim))?;
            if victim.hits(case.point, case.worker) < hits_before + case.nth {
                return Err(Failure::NeverHit(victim.last_log()));
            }
            Ok(Broken::Ended)
        }
        Fault::Zombie | Fault::LateZombie => {
            let ended = zombie(case, &mut child, victim, observer);
            if ended.is_err() {
                // The failure tells more than how the zombie ended.
                let _ = kill(&mut child);
            }
            ended
        }
    }
}

fn zombie(
    case: &Case,
    child: &mut Child,
    victim: &mut Victim,
    observer: &Observer,
) -> Result<Broken, Failure> {
    let life = victim.lives();
    if !wait_stopped(child, LIFE).map_err(|why| hanging(&why, victim))? {
        return Err(Failure::NeverHit(victim.last_log()));
    }
    victim.break_lock().map_err(Failure::trouble)?;
    let zombie = Sleeper { child: &*child, life, asleep: AtomicBool::new(true) };
    let completed = if case.fault == Fault::LateZombie {
        let completed = complete(victim, case.workers, observer, Some(&zombie));
        zombie.wake();
        completed
    } else {
        let (completed, was_beside) = std::thread::scope(|scope| {
            let done = Arc::new(AtomicBool::new(false));
            let waker = scope.spawn({
                let (done, zombie) = (Arc::clone(&done), &zombie);
                move || {
                    std::thread::sleep(2 * CHECKPOINT_TIMEOUT);
                    zombie.wake();
                    !done.load(SeqCst)
                }
            });
            let completed = complete(victim, case.workers, observer, Some(&zombie));
            done.store(true, SeqCst);
            (completed, waker.join().unwrap_or(false))
        });
        if completed.is_ok() && !was_beside {
            return Err(Failure::NeverHit("the other process was done before the zombie woke up".into()));
        }
        completed
    };
    let status: ExitStatus = wait(child, LIFE).map_err(|why| hanging(&why, victim))?;
    if status.success() && !has_started_again(victim, life) {
        let what = format!("the zombie claims to have completed the job: {}", victim.log(life));
        return Err(Failure::Violation(Oracle::Identity, what));
    }
    match completed {
        // Safe, and over as soon as it wakes up or dies.
        Err(Failure::Violation(Oracle::Liveness, why)) if why.contains(LOCKED) => Ok(Broken::LockedOut),
        other => other.map(Broken::Replaced),
    }
}

/// What a process says that ends because a later start has replaced it, depending on where it notices.
const TAKEN_OVER: [&str; 2] = ["another process has taken the job over", "was taken over"];

/// A stopped process.
struct Sleeper<'a> {
    child: &'a Child,
    life: u32,
    asleep: AtomicBool,
}

impl Sleeper<'_> {
    fn wake(&self) {
        wake(self.child);
        self.asleep.store(false, SeqCst);
    }
}

/// A process that was stopped before it had taken the job over looks again when it wakes up, and is then a start
/// like any other: perhaps of a complete job, perhaps one that takes it over from whoever runs it.
fn has_started_again(victim: &Victim, life: u32) -> bool {
    victim.log(life).contains("another process starts this job too; looking again")
}

fn next_workers(workers: u32, life: u32) -> u32 {
    (workers + life) % 3 + 1
}

fn not_complete(victim: &Victim) -> Failure {
    let what = format!("the job is not complete after {LIVES} lives: {}", victim.last_log());
    Failure::Violation(Oracle::Liveness, what)
}

/// Runs a life without a fault, which must complete the job. Only if a sleeping process holds the database's lock, or
/// takes the job over as a later start, it may take more of them, each on another number of workers. Returns the time until output appeared.
fn complete(
    victim: &mut Victim,
    workers: u32,
    observer: &Observer,
    sleeper: Option<&Sleeper<'_>>,
) -> Result<Duration, Failure> {
    observer.catch_up();
    let began = Instant::now();
    let before = observer.commits();
    let mut recovery = None;
    for life in 1..=LIVES {
        let plain = Life { workers: next_workers(workers, life), ..Life::default() };
        let asleep = sleeper.is_some_and(|sleeper| sleeper.asleep.load(SeqCst));
        let mut child = victim.start(&plain).map_err(Failure::trouble)?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(Failure::trouble)? {
                break status;
            }
            if recovery.is_none() && observer.commits() > before {
                recovery = Some(began.elapsed());
            }
            let silent = recovery.is_none() && began.elapsed() > LIVELY;
            if silent || observer.has_ended() || began.elapsed() > LIFE {
                kill(&mut child).map_err(Failure::trouble)?;
                let what = format!("no output within {LIVELY:?}: {}", victim.last_log());
                return Err(Failure::Violation(Oracle::Liveness, what));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if status.success() {
            return Ok(recovery.unwrap_or_else(|| began.elapsed()));
        }
        let log = victim.last_log();
        let replaced = sleeper.is_some_and(|sleeper| has_started_again(victim, sleeper.life));
        let taken_over = TAKEN_OVER.iter().any(|said| log.contains(said));
        let is_due = (asleep && log.contains(LOCKED)) || (replaced && taken_over);
        if !is_due {
            let what = format!("a start without a fault ended with {status}: {}", victim.last_log());
            return Err(Failure::Violation(Oracle::Liveness, what));
        }
    }
    Err(not_complete(victim))
}
