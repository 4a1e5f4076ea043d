//! Runs one case, and has the oracles judge.

use super::cases::{Case, Life, Strike};
use super::fault::{Ends, Fault};
use crate::audit::Expected;
use crate::observer::Observer;
use crate::oracle::{Evidence, Failure, Oracle};
use crate::process::{kill, terminate, wait, wait_stopped, wake};
use crate::victim::{self, LOCKED, Victim};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Longest time that one life may take before it counts as hanging.
pub(super) const LIFE: Duration = Duration::from_secs(60);
/// How long a process hangs before it is asked to stop: its own limits have passed, or not.
const HANGS: Duration = Duration::from_millis(700);
/// Longest time to the end of a process that hangs, once it was asked: the limits of a life, and a busy machine.
const STOPPING: Duration = Duration::from_secs(30);
/// How long publishing may take where something hangs.
const COMMIT_TIMEOUT: &str = "2s";
/// Starts that may be refused while a stopped process has the database for itself.
const REFUSED: u32 = 3;
/// What a start says while a stopped process is about to make or to recover the database's shared memory.
const HALF_LOCKED: &str = "locking protocol";
/// Length of the file of counts, as the shim has it.
const COUNTS: usize = 4096;
/// Where in it is the number of the operation that was struck.
const STRUCK: usize = 16;
/// And what it was.
const TEXT: usize = 64;
/// Newest checkpoint of the life before: there is something to restore, and to expire.
pub(super) const BEFORE_CHECKPOINT: u32 = 5;
/// Records a second in the life before, and in a struck one.
const BEFORE_RATE: u64 = 800;
const RATE: u64 = 16_000;

/// How a struck life ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ended {
    /// It was killed.
    Killed,
    /// The job became complete all the same.
    Well,
    /// With an error that says where.
    Error,
}

/// What came out of a case in which everything was as it must be.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was struck, and how the life ended.
    pub struck: Vec<(String, Ended)>,
    /// What the oracles looked at.
    pub evidence: Evidence,
}

/// The library that strikes, and what it shares with us.
pub(super) struct Shim {
    library: PathBuf,
    dir: PathBuf,
}

impl Shim {
    pub(super) const TRACE: &str = "STAUNCH_ATTACK_TRACE";

    fn new(program: &Path, dir: &Path) -> Result<Self, Failure> {
        // Beside the programs if it was asked for by name, among what they depend on otherwise.
        let beside = program.parent().unwrap_or(dir);
        let places = [beside.join("deps/libstaunch_shim.so"), beside.join("libstaunch_shim.so")];
        let library = places.iter().find(|place| place.exists());
        let missing = || {
            Failure::Trouble(format!("{} is not there: build the crate staunch-shim", places[0].display()))
        };
        Ok(Self { library: library.ok_or_else(missing)?.clone(), dir: dir.to_owned() })
    }

    fn counts(&self) -> PathBuf {
        self.dir.join("counts")
    }

    /// A life in which this is struck; nothing is counted yet.
    pub(super) fn life(&self, strike: Option<&Strike>, workers: u32) -> Result<victim::Life, Failure> {
        fs::write(self.counts(), [0; COUNTS]).map_err(Failure::trouble)?;
        let mut variables: Vec<(&'static str, OsString)> = vec![
            ("LD_PRELOAD", self.library.clone().into()),
            ("STAUNCH_ATTACK_ROOT", self.dir.join("disk").into()),
            ("STAUNCH_ATTACK_COUNTS", self.counts().into()),
            // It is written to at every point, and not by the job.
            ("STAUNCH_CRASH_HITS", self.dir.join("hits").into()),
        ];
        variables.extend(strike.map(|strike| ("STAUNCH_ATTACK", strike.to_string().into())));
        Ok(victim::Life { workers, variables, impatient: strike.is_some(), ..victim::Life::default() })
    }

    /// What was struck, if something was.
    fn struck(&self) -> Option<String> {
        let bytes = fs::read(self.counts()).ok()?;
        let number = u64::from_ne_bytes(bytes.get(STRUCK..STRUCK + 8)?.try_into().ok()?);
        let text = bytes.get(TEXT..)?.split(|byte| *byte == 0).next()?;
        (number > 0).then(|| format!("operation {number}, {}", String::from_utf8_lossy(text)))
    }
}

/// The sort of place that a path is in: what is above its own name, as far as that says what it is for.
pub(super) fn place(path: &str) -> &str {
    let words = if path.starts_with("output/parts/") { 3 } else { 2 };
    let end = path.match_indices('/').nth(words - 1).map_or(path.len(), |(at, _)| at);
    let place = &path[..end];
    // All part files are of one sort.
    place.find("/part-").map_or(place, |at| &place[..at + "/part-".len()])
}

/// A victim that has lived as far as the case wants it to, in an empty directory.
pub(super) fn prepared(case: &Case, program: &Path, dir: &Path) -> Result<(Victim, Shim), Failure> {
    // What the system calls it, or the shim would not know it again.
    let dir = dir.canonicalize().map_err(Failure::trouble)?;
    let disk = dir.join("disk");
    fs::create_dir(&disk).map_err(Failure::trouble)?;
    let mut victim = Victim::new(program, &disk, Expected { records: 800, splits: 4, keys: 499 });
    victim.every = "15ms".into();
    victim.reads_files = true;
    // Without RocksDB there is nowhere to spill to.
    victim.state_memory = cfg!(feature = "rocksdb").then_some("16KiB");
    victim.write_input().map_err(Failure::trouble)?;
    if case.life == Life::Later {
        // Slow enough that it has not read everything by then on a disk that syncs slowly.
        victim.rate = Some(BEFORE_RATE);
        let before = victim::Life {
            workers: next(case.workers),
            crash: Some(format!("decision.made:kill:{BEFORE_CHECKPOINT}")),
            ..victim::Life::default()
        };
        let mut child = victim.start(&before).map_err(Failure::trouble)?;
        let status = wait(&mut child, LIFE).map_err(Failure::Trouble)?;
        if status.signal() != Some(libc::SIGKILL) {
            let what =
                format!("the life before was to be killed, and ended with {status}: {}", victim.last_log());
            return Err(Failure::Trouble(what));
        }
    }
    victim.rate = Some(RATE);
    Ok((victim, Shim::new(program, &dir)?))
}

fn next(workers: u32) -> u32 {
    workers % 3 + 1
}

/// Runs one case in an empty directory, until all oracles have judged.
///
/// # Errors
/// The first strike did not come about, or an oracle found something.
pub fn run(case: &Case, program: &Path, dir: &Path) -> Result<Outcome, Failure> {
    let (mut victim, shim) = prepared(case, program, dir)?;
    let observer = Observer::start(&victim);
    let lives = lives(case, &mut victim, &shim);
    // First of all what the observer saw: everything else may follow from it.
    let seen = observer.end()?;
    let (struck, recovery) = lives?;
    let evidence = victim.judge()?;
    seen.everything()?;
    Ok(Outcome { struck, evidence: Evidence { looks: seen.looks, recovery, ..evidence } })
}

/// The struck lives, and two after them; how long the first of these took.
fn lives(case: &Case, victim: &mut Victim, shim: &Shim) -> Result<(Vec<(String, Ended)>, Duration), Failure> {
    let (mut struck, mut workers) = (Vec::new(), case.workers);
    for (at, strike) in case.strikes.iter().enumerate() {
        match one(strike, workers, victim, shim)? {
            Some(what) => struck.push(what),
            // The job may be complete by now, and does little.
            None if at > 0 => {}
            None => return Err(Failure::NeverHit(strike.to_string())),
        }
        workers = next(workers);
    }
    victim.rate = None;
    let recovery = complete(victim, workers)?;
    // Once more: a complete job cleans up after zombies, and changes nothing.
    complete(victim, next(workers))?;
    Ok((struck, recovery))
}

/// One struck life.
fn one(
    strike: &Strike,
    workers: u32,
    victim: &mut Victim,
    shim: &Shim,
) -> Result<Option<(String, Ended)>, Failure> {
    let mut planned = shim.life(Some(strike), workers)?;
    if strike.fault == Fault::Hang {
        planned.commit_timeout = Some(COMMIT_TIMEOUT);
    }
    let mut child = victim.start(&planned).map_err(Failure::trouble)?;
    let life = victim.lives();
    let ended = match strike.fault {
        Fault::Stop => stopped(&mut child, workers, victim),
        Fault::Hang => hung(&mut child, shim, victim),
        _ => wait(&mut child, LIFE).map_err(|why| hanging(&why, victim, life)),
    };
    let struck = shim.struck();
    let what = struck.clone().unwrap_or_else(|| "nothing".into());
    let wrong = |failure| match failure {
        Failure::Violation(oracle, text) => Failure::Violation(oracle, format!("struck: {what}: {text}")),
        other => other,
    };
    let status = ended.map_err(wrong)?;
    if struck.is_none() && !status.success() {
        return Err(wrong(ending("an unstruck life", status, victim, life)));
    }
    let ended = judged(strike.fault, status, victim, life).map_err(wrong)?;
    Ok(struck.map(|struck| (struck, ended)))
}

pub(super) fn hanging(why: &str, victim: &Victim, life: u32) -> Failure {
    Failure::Violation(Oracle::Liveness, format!("{why}: {}", victim.log(life)))
}

fn ending(who: &str, status: ExitStatus, victim: &Victim, life: u32) -> Failure {
    Failure::Violation(Oracle::Ending, format!("{who} ended with {status}: {}", victim.log(life)))
}

/// Whether a struck process ended as it may.
fn judged(fault: Fault, status: ExitStatus, victim: &Victim, life: u32) -> Result<Ended, Failure> {
    let ends = fault.ends();
    if status.success() {
        return Ok(Ended::Well);
    }
    if ends == Ends::Killed && status.signal() == Some(libc::SIGKILL) {
        return Ok(Ended::Killed);
    }
    let log = victim.log(life);
    let error = log.lines().rev().find(|line| line.starts_with("error:")).unwrap_or_default();
    let place = victim.checkpoints().parent().map(|dir| dir.display().to_string()).unwrap_or_default();
    let parts = ["step `", "state `", "source `", "sink `"];
    let names_a_place = error.contains(&place) || parts.iter().any(|part| error.contains(part));
    let is_right = match ends {
        Ends::Passing | Ends::Asked => status.code() == Some(1) && names_a_place,
        Ends::Either => matches!(status.code(), Some(1 | 2)) && names_a_place,
        // It is told that it was replaced, wherever it notices.
        Ends::Stopped => matches!(status.code(), Some(1 | 2)) && !error.is_empty(),
        Ends::Killed | Ends::Well => false,
    };
    if is_right && !log.contains("panicked at") {
        return Ok(Ended::Error);
    }
    Err(ending("the struck life", status, victim, life))
}

/// Waits until the process hangs somewhere, and asks it to stop.
fn hung(child: &mut Child, shim: &Shim, victim: &Victim) -> Result<ExitStatus, Failure> {
    let life = victim.lives();
    let began = Instant::now();
    while shim.struck().is_none() && began.elapsed() < LIFE {
        if let Some(status) = child.try_wait().map_err(Failure::trouble)? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(HANGS);
    terminate(child);
    wait(child, STOPPING).map_err(|why| hanging(&format!("asked to stop, {why}"), victim, life))
}

/// Waits until the process has stopped itself, has others complete the job, and wakes it up.
fn stopped(child: &mut Child, workers: u32, victim: &mut Victim) -> Result<ExitStatus, Failure> {
    let life = victim.lives();
    if !wait_stopped(child, LIFE).map_err(|why| hanging(&why, victim, life))? {
        return child.wait().map_err(Failure::trouble);
    }
    let completed = replaced(workers, victim);
    wake(child);
    let status = wait(child, LIFE).map_err(|why| hanging(&why, victim, life));
    if completed.is_err() {
        // It has ended, or is killed by now.
        let _ = kill(child);
    }
    completed.and(status)
}

/// Has another process complete the job beside a stopped one, unless that one has the database for itself.
fn replaced(mut workers: u32, victim: &mut Victim) -> Result<(), Failure> {
    match victim.break_lock() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Failure::trouble(error)),
        _ => {}
    }
    for _ in 0..REFUSED {
        workers = next(workers);
        match complete(victim, workers) {
            Err(Failure::Violation(_, why)) if why.contains(LOCKED) || why.contains(HALF_LOCKED) => {}
            other => return other.map(drop),
        }
    }
    // It is safe, and over as soon as the other one wakes up.
    Ok(())
}

/// A life that nobody strikes: it needs no help.
pub(super) fn complete(victim: &mut Victim, workers: u32) -> Result<Duration, Failure> {
    let began = Instant::now();
    let plain = victim::Life { workers, ..victim::Life::default() };
    let mut child = victim.start(&plain).map_err(Failure::trouble)?;
    let life = victim.lives();
    let status = wait(&mut child, LIFE).map_err(|why| hanging(&why, victim, life))?;
    if status.success() {
        return Ok(began.elapsed());
    }
    let what = format!("a start without a fault ended with {status}: {}", victim.log(life));
    Err(Failure::Violation(Oracle::Liveness, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_folder_that_says_what_a_file_is_for() {
        for (path, expected) in [
            ("", ""),
            ("rows.db-wal", "rows.db-wal"),
            ("checkpoints", "checkpoints"),
            ("checkpoints/log/0000000001", "checkpoints/log"),
            ("checkpoints/state/running/0/1.base", "checkpoints/state"),
            ("output/parts", "output/parts"),
            ("output/parts/part-0000000001-0000.jsonl", "output/parts/part-"),
            ("output/parts/.pending/part-1", "output/parts/.pending"),
        ] {
            assert_eq!(place(path), expected, "{path}");
        }
    }
}
