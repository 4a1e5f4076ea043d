//! What befalls one simulated process: whether each of its effects on the outside succeeds, fails, or is
//! the last thing it ever did.

use super::random::Random;
use staunch::core::Error;
use staunch::core::error::Kind;
use staunch::core::simulation::Died;
use std::collections::BTreeMap;
use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the error of an effect that failed begins with.
pub const FAILED_EFFECT: &str = "simulated:";
/// The same for a crash point.
const FAILED_POINT: &str = "asked for at crash point";
/// What an error of a commit names that was tried again until its time was over.
const OUT_OF_TIME: &str = "(--commit-timeout)";

/// Crash points that take their random numbers elsewhere, so that seeds that once found a bug stay the runs they
/// were.
pub const ADDED_LATER: &[&str] = &["sink.half_flushed", "sink.cut", "splits.stored"];

/// How an effect goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is done, and the process learns so.
    Done,
    /// It is not done, and the process learns so.
    Failed,
    /// It is done, and the process is told that nobody knows.
    DoneUnknown,
    /// It is not done, and the process is told that nobody knows.
    NotDoneUnknown,
    /// It is done, and the process dies of it.
    DoneDead,
    /// It is not done, because the process is dead.
    Dead,
}

impl Verdict {
    /// Whether the effect takes place.
    pub fn takes_place(self) -> bool {
        matches!(self, Self::Done | Self::DoneUnknown | Self::DoneDead)
    }
}

/// The fate of one process; clones are the same one.
#[derive(Clone, Debug)]
pub struct Fate(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    name: String,
    alive: bool,
    random: Random,
    /// For what was added later.
    more: Random,
    /// Effects until it dies.
    dies_in: Option<u64>,
    /// The crash point at which it dies, of which worker, and at which hit.
    dies_at: Option<(&'static str, Option<u32>, u64)>,
    /// Effects that fail, out of a thousand.
    failing: u64,
    /// Effects and crash points that failed, or of which it was told that nobody knows.
    failed: u64,
    trace: Trace,
    hits: BTreeMap<&'static str, u64>,
    gate: Option<Arc<Gate>>,
}

/// Where a process waits before each effect, and at each crash point, until its [`Keeper`] lets it go on.
#[derive(Debug)]
struct Gate {
    here: Sender<()>,
    go: Mutex<Receiver<()>>,
}

/// Keeps the gate of a process that moves on another thread.
pub struct Keeper {
    here: Receiver<()>,
    go: Sender<()>,
}

impl Keeper {
    /// Calls `at_gate` whenever the process waits, until its move is over, which is when it drops the
    /// [`Pass`].
    pub fn attend(&self, mut at_gate: impl FnMut()) {
        while self.here.recv().is_ok() {
            at_gate();
            if self.go.send(()).is_err() {
                break;
            }
        }
    }
}

/// Ends a gate when it is dropped: the process does not wait any more.
pub struct Pass(Fate);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.state().gate = None;
    }
}

/// What happened in a run: a fingerprint, and the lines if they are wanted.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    fingerprint: u64,
    count: u64,
    print: bool,
}

impl Trace {
    /// A trace that also prints its lines.
    pub fn printing(print: bool) -> Self {
        let trace = Self::default();
        trace.lines().print = print;
        trace
    }

    /// Adds a line.
    pub fn note(&self, line: std::fmt::Arguments<'_>) {
        let mut lines = self.lines();
        let text = line.to_string();
        lines.mix(text.as_bytes());
        lines.count += 1;
        if lines.print {
            println!("{:6} {text}", lines.count);
        }
    }

    /// Adds a number to the fingerprint, but no line.
    pub fn mix(&self, number: u64) {
        self.lines().mix(&number.to_le_bytes());
    }

    /// The same for runs that went the same way.
    pub fn fingerprint(&self) -> u64 {
        self.lines().fingerprint
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// FNV-1a.
    fn mix(&mut self, bytes: &[u8]) {
        let mut hash = self.fingerprint ^ 0xcbf2_9ce4_8422_2325;
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.fingerprint = hash;
    }
}

impl Fate {
    /// A process that lives on, and whose effects fail `failing` times out of a thousand.
    pub fn new(name: impl Into<String>, random: Random, failing: u64, trace: Trace) -> Self {
        let (name, alive, hits) = (name.into(), true, BTreeMap::new());
        Self(Arc::new(Mutex::new(State {
            name,
            alive,
            more: Random::new(!random.clone().bits()),
            random,
            dies_in: None,
            dies_at: None,
            failing,
            failed: 0,
            trace,
            hits,
            gate: None,
        })))
    }

    /// From now on the process waits at a gate, until the pass is dropped.
    pub fn gate(&self) -> (Keeper, Pass) {
        let ((here, arrivals), (go, told)) = (channel(), channel());
        self.state().gate = Some(Arc::new(Gate { here, go: Mutex::new(told) }));
        (Keeper { here: arrivals, go }, Pass(self.clone()))
    }

    fn wait_at_gate(&self) {
        let gate = self.state().gate.clone();
        if let Some(gate) = gate
            && gate.here.send(()).is_ok()
        {
            // Nobody keeps the gate any more: it is open.
            let _ = gate.go.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It dies at this effect from now, the first being 1.
    pub fn die_in(&self, effects: u64) {
        self.state().dies_in = Some(effects);
    }

    /// It dies at a crash point, at this hit from now, the first being 1; only hits of `worker` count, if
    /// one is given.
    pub fn die_at(&self, point: &'static str, worker: Option<u32>, nth: u64) {
        self.state().dies_at = Some((point, worker, nth));
    }

    /// Nothing that it does from now on has an effect.
    pub fn die(&self) {
        self.state().die("killed");
    }

    /// Nothing fails from now on.
    pub fn be_kind(&self) {
        let mut state = self.state();
        (state.failing, state.dies_in, state.dies_at) = (0, None, None);
    }

    /// Whether an error of the process may come from what befell it: it names what failed here, or says that the
    /// time to try again was over and something did fail.
    pub fn explains(&self, error: &Error) -> bool {
        let text = error.to_string();
        let named = text.contains(FAILED_EFFECT) || text.contains(FAILED_POINT);
        let out_of_time = text.contains(OUT_OF_TIME) && self.state().failed > 0;
        !self.is_alive() || ((named || out_of_time) && error.kind() != Kind::Internal)
    }

    /// What the trace calls it.
    pub fn name(&self) -> String {
        self.state().name.clone()
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.state().alive
    }

    /// Adds a number to the fingerprint of the run.
    pub fn mix(&self, number: u64) {
        self.state().trace.mix(number);
    }

    /// A random number below `below`, of this process.
    pub fn below(&self, below: u64) -> u64 {
        self.state().random.below(below)
    }

    /// Adds a line to the trace.
    pub fn note(&self, line: std::fmt::Arguments<'_>) {
        let state = self.state();
        state.trace.note(format_args!("{}: {line}", state.name));
    }

    /// An effect on the outside: asked once for each, before it takes place.
    pub fn decide(&self, what: std::fmt::Arguments<'_>) -> Verdict {
        self.wait_at_gate();
        let mut state = self.state();
        if !state.alive {
            return Verdict::Dead;
        }
        let verdict = state.verdict();
        state.trace.note(format_args!("{}: {what}: {verdict:?}", state.name));
        match verdict {
            Verdict::Done => {}
            Verdict::Dead | Verdict::DoneDead => state.alive = false,
            Verdict::Failed | Verdict::DoneUnknown | Verdict::NotDoneUnknown => state.failed += 1,
        }
        verdict
    }

    /// The process passes a crash point.
    ///
    /// # Errors
    /// The point fails.
    ///
    /// # Panics
    /// Unwinds, silently, if the process is dead.
    pub fn pass(&self, point: &'static str, worker: Option<u32>) -> io::Result<()> {
        self.wait_at_gate();
        let mut state = self.state();
        *state.hits.entry(point).or_default() += 1;
        if let Some((name, of, nth)) = &mut state.dies_at
            && *name == point
            && (of.is_none() || *of == worker)
        {
            *nth -= 1;
            if *nth == 0 {
                state.dies_at = None;
                state.die(point);
            }
        }
        if !state.alive {
            drop(state);
            // It goes no further: not even to what it would do without asking its fate.
            resume_unwind(Box::new(Died));
        }
        let failing = state.failing;
        let fails = match ADDED_LATER.contains(&point) {
            true => state.more.permille(failing),
            false => state.random.permille(failing),
        };
        if fails {
            state.failed += 1;
            state.trace.note(format_args!("{}: crash point {point} fails", state.name));
            return Err(io::Error::other(format!("{FAILED_POINT} {point}")));
        }
        Ok(())
    }

    /// Effects and crash points that failed, or of which it was told that nobody knows.
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    /// How often each crash point was passed.
    pub fn hits(&self) -> BTreeMap<&'static str, u64> {
        self.state().hits.clone()
    }
}

impl State {
    fn die(&mut self, why: &str) {
        self.alive = false;
        self.trace.note(format_args!("{}: dies: {why}", self.name));
    }

    fn verdict(&mut self) -> Verdict {
        if let Some(left) = &mut self.dies_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return if self.random.below(2) == 0 { Verdict::Dead } else { Verdict::DoneDead };
            }
        }
        if !self.random.permille(self.failing) {
            return Verdict::Done;
        }
        match self.random.below(4) {
            0 => Verdict::DoneUnknown,
            1 => Verdict::NotDoneUnknown,
            _ => Verdict::Failed,
        }
    }
}
