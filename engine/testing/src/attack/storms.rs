//! What people and supervisors do to a job at its worst moments: seven copies at once, restarts that never come to
//! anything, `--from` by somebody whose start keeps dying.

use super::cases::{Case, Life, Strike};
use super::fault::Fault;
use super::run::{BEFORE_CHECKPOINT, LIFE, Shim, complete, hanging, prepared};
use crate::observer::Observer;
use crate::oracle::{Evidence, Failure, Oracle};
use crate::process::{kill, wait};
use crate::quiescence;
use crate::simulation::random::Random;
use crate::victim::{self, Victim};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::str::FromStr;
use std::time::Duration;

/// Copies that are started at once.
const COPIES: u32 = 7;
/// How often all of them are killed before they are left alone.
const ROUNDS: u32 = 4;
/// Starts that are killed one after the other.
const RESTARTS: u32 = 16;
/// Starts with `--from` that die, at most.
const FROMS: u32 = 5;
/// File operations of a start with `--from` before it dies: most are part of its recovery.
const FROM_OPERATIONS: u64 = 400;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Storm {
    /// Seven copies are started at once; all are killed, some rounds long.
    Copies,
    /// The same, and somebody removes the lock all the time: they replace each other.
    CopiesWithoutLock,
    /// It is started and killed again and again, mostly before it has done anything.
    Restarts,
    /// `--from` the newest checkpoint, by a start that dies at some file operation, and once more, until it lives.
    From,
    /// The same with the checkpoint before it: what was published after that one may be published twice, and no more.
    FromOlder,
}

impl Storm {
    /// All of them.
    pub const ALL: [Storm; 5] =
        [Storm::Copies, Storm::CopiesWithoutLock, Storm::Restarts, Storm::From, Storm::FromOlder];
}

impl Storm {
    /// Its name as an option of `attack`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Storm::Copies => "copies",
            Storm::CopiesWithoutLock => "copies-without-lock",
            Storm::Restarts => "restarts",
            Storm::From => "from",
            Storm::FromOlder => "from-older",
        }
    }
}

impl FromStr for Storm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Storm::ALL.into_iter().find(|storm| storm.name() == name);
        found.ok_or_else(|| {
            format!("there is no storm {name:?}; there are {}", Storm::ALL.map(Storm::name).join(", "))
        })
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Storm::Copies => "seven copies",
            Storm::CopiesWithoutLock => "seven copies without a lock",
            Storm::Restarts => "restarts",
            Storm::From => "--from the newest",
            Storm::FromOlder => "--from an older one",
        })
    }
}

/// Carries a storm out in an empty directory, and has the oracles judge.
///
/// # Errors
/// An oracle found something.
pub fn storm(storm: Storm, seed: u64, program: &Path, dir: &Path) -> Result<Evidence, Failure> {
    let case = Case { life: Life::Later, workers: 1 + (seed % 3) as u32, strikes: Vec::new() };
    let (mut victim, shim) = prepared(&case, program, dir)?;
    let mut random = Random::new(seed);
    if storm == Storm::FromOlder {
        return older(&mut victim, &shim, &mut random);
    }
    let observer = Observer::start(&victim);
    let lives = match storm {
        Storm::Copies => copies(&mut victim, false, &mut random),
        Storm::CopiesWithoutLock => copies(&mut victim, true, &mut random),
        Storm::Restarts => restarts(&mut victim, &mut random),
        Storm::From | Storm::FromOlder => from(&mut victim, BEFORE_CHECKPOINT, &shim, &mut random),
    };
    let recovery = lives.and_then(|()| completed(&mut victim));
    // First of all what the observer saw: everything else may follow from it.
    let seen = observer.end()?;
    let recovery = recovery?;
    let evidence = victim.judge()?;
    seen.everything()?;
    Ok(Evidence { looks: seen.looks, recovery, ..evidence })
}

/// Two lives that nobody touches: the second one cleans up.
fn completed(victim: &mut Victim) -> Result<Duration, Failure> {
    victim.rate = None;
    let recovery = complete(victim, 2)?;
    complete(victim, 3)?;
    Ok(recovery)
}

fn start(victim: &mut Victim, workers: u32) -> Result<(u32, Child), Failure> {
    let plain = victim::Life { workers, ..victim::Life::default() };
    let child = victim.start(&plain).map_err(Failure::trouble)?;
    Ok((victim.lives(), child))
}

/// How a process may end that others are beside: killed; because the job is complete; because of the others, and
/// says so. Whether it says that the job is complete.
fn beside(child: &mut Child, life: u32, victim: &Victim) -> Result<bool, Failure> {
    let status = wait(child, LIFE).map_err(|why| hanging(&why, victim, life))?;
    let log = victim.log(life);
    let is_told = log.lines().any(|line| line.starts_with("error:")) && !log.contains("panicked at");
    if status.success() || status.signal() == Some(libc::SIGKILL) {
        return Ok(status.success());
    }
    if matches!(status.code(), Some(1 | 2)) && is_told {
        return Ok(false);
    }
    Err(Failure::Violation(Oracle::Ending, format!("a copy ended with {status}: {log}")))
}

fn copies(victim: &mut Victim, without_lock: bool, random: &mut Random) -> Result<(), Failure> {
    for round in 0..ROUNDS {
        let mut all = Vec::new();
        for copy in 0..COPIES {
            all.push(start(victim, 1 + (round + copy) % 3)?);
            if without_lock {
                // It may not be there, or belong to nobody.
                let _ = victim.break_lock();
            }
        }
        std::thread::sleep(Duration::from_millis(random.below(400)));
        // All before any is waited for. It fails only for one that has ended.
        all.iter_mut().for_each(|(_, child)| drop(child.kill()));
        let mut is_complete = false;
        for (life, child) in &mut all {
            is_complete |= beside(child, *life, victim)?;
        }
        if is_complete {
            // A copy that says so must be right, whatever the others did.
            victim.judge_rows()?;
        }
    }
    Ok(())
}

fn restarts(victim: &mut Victim, random: &mut Random) -> Result<(), Failure> {
    for _ in 0..RESTARTS {
        let (life, mut child) = start(victim, 1 + random.below(3) as u32)?;
        std::thread::sleep(Duration::from_millis(random.below(120)));
        let status = kill(&mut child).map_err(Failure::trouble)?;
        if !status.success() && status.signal() != Some(libc::SIGKILL) {
            let what = format!("a start without a fault ended with {status}: {}", victim.log(life));
            return Err(Failure::Violation(Oracle::Liveness, what));
        }
    }
    Ok(())
}

/// Starts that die, and one that lives; whoever starts it says each time where it is to begin. Nothing is decided by
/// those that die, so each of them is right to say it again.
fn from(victim: &mut Victim, checkpoint: u32, shim: &Shim, random: &mut Random) -> Result<(), Failure> {
    let every = std::mem::replace(&mut victim.every, "off".into());
    // Slow enough that none of them comes to the end of its input.
    victim.rate = Some(800);
    for _ in 0..FROMS {
        let (nth, operation, place) = (1 + random.below(FROM_OPERATIONS), "*".into(), String::new());
        let strike = Strike { fault: Fault::KillBefore, nth, operation, place };
        let life = victim::Life {
            from: Some(checkpoint),
            impatient: false,
            ..shim.life(Some(&strike), 1 + random.below(3) as u32)?
        };
        let mut child = victim.start(&life).map_err(Failure::trouble)?;
        let number = victim.lives();
        let status = wait(&mut child, LIFE).map_err(|why| hanging(&why, victim, number))?;
        if status.success() {
            return Ok(());
        }
        if status.signal() != Some(libc::SIGKILL) {
            let what =
                format!("a start with --from {checkpoint} ended with {status}: {}", victim.log(number));
            return Err(Failure::Violation(Oracle::Liveness, what));
        }
    }
    victim.every = every;
    victim.rate = None;
    let life = victim::Life { workers: 2, from: Some(checkpoint), ..victim::Life::default() };
    let mut child = victim.start(&life).map_err(Failure::trouble)?;
    let number = victim.lives();
    let status = wait(&mut child, LIFE).map_err(|why| hanging(&why, victim, number))?;
    if status.success() {
        return Ok(());
    }
    let what =
        format!("the start with --from {checkpoint} that lives ended with {status}: {}", victim.log(number));
    Err(Failure::Violation(Oracle::Liveness, what))
}

fn older(victim: &mut Victim, shim: &Shim, random: &mut Random) -> Result<Evidence, Failure> {
    let total = victim.expected.total();
    let before: Vec<u64> =
        victim.findings()?.0.iter().map(|(_, findings)| total - findings.missing).collect();
    from(victim, BEFORE_CHECKPOINT - 1, shim, random)?;
    let recovery = completed(victim)?;
    let (all, rows) = victim.findings()?;
    for ((sink, findings), before) in all.into_iter().zip(before) {
        if findings.missing + findings.foreign > 0 || findings.doubled > before {
            let what = format!("{sink}: {findings:?}, and {before} rows were there before");
            return Err(Failure::Violation(Oracle::Identity, what));
        }
    }
    let left = quiescence::leftovers(victim).map_err(Failure::Trouble)?;
    if !left.is_empty() {
        return Err(Failure::Violation(Oracle::Quiescence, left.join("; ")));
    }
    Ok(Evidence { rows, recovery, ..Evidence::default() })
}
