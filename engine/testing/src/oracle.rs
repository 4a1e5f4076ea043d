//! What must hold of a job that was broken, whatever was done to it: five oracles, and what they say.
//!
//! None of them shares code with the engine. They read what the job leaves behind like a stranger.

use std::fmt;
use std::time::Duration;

/// Who judges.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Oracle {
    /// Each output names its input: none missing, none twice, none of nowhere. See [`crate::audit`].
    Identity,
    /// The running count and sum of a key are those of the prefix. See [`crate::audit`].
    PrefixSums,
    /// While the job runs and breaks, what was seen stays, and nothing is seen twice. See
    /// [`crate::observer`].
    Observer,
    /// A complete job leaves nothing behind that is not needed. See [`crate::quiescence`].
    Quiescence,
    /// When the faults are over, output appears within a bound, and the job becomes complete.
    Liveness,
    /// A process that ends because of a fault says where, with an exit code that says what helps. Only the attack
    /// knows what fault there was, see [`crate::attack`].
    Ending,
}

impl Oracle {
    /// Those that judge whatever was done.
    pub const ALL: [Oracle; 5] =
        [Oracle::Identity, Oracle::PrefixSums, Oracle::Observer, Oracle::Quiescence, Oracle::Liveness];
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Oracle::Identity => "identity audit",
            Oracle::PrefixSums => "prefix sums",
            Oracle::Observer => "live observer",
            Oracle::Quiescence => "quiescence",
            Oracle::Liveness => "liveness",
            Oracle::Ending => "ending",
        })
    }
}

/// Why a run failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// An oracle saw what must not be.
    Violation(Oracle, String),
    /// The fault that was asked for did not happen: the run proves nothing.
    NeverHit(String),
    /// The test itself could not do its work.
    Trouble(String),
}

impl Failure {
    /// The oracle that saw it, if one did.
    #[must_use]
    pub fn oracle(&self) -> Option<Oracle> {
        match self {
            Failure::Violation(oracle, _) => Some(*oracle),
            Failure::NeverHit(_) | Failure::Trouble(_) => None,
        }
    }

    pub(crate) fn trouble(error: impl fmt::Display) -> Self {
        Failure::Trouble(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Violation(oracle, what) => write!(f, "{oracle}: {what}"),
            Failure::NeverHit(what) => write!(f, "the point was never hit: {what}"),
            Failure::Trouble(what) => write!(f, "the test itself failed: {what}"),
        }
    }
}

impl std::error::Error for Failure {}

/// What the oracles looked at in one run in which they found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// Rows compared, over all sinks that there were.
    pub rows: u64,
    /// Looks of the observer.
    pub looks: u64,
    /// From the first start after the fault until output appeared or the job was complete.
    pub recovery: Duration,
    /// Names and contents that a power cut took away.
    pub lost: usize,
    /// A stopped process held the database's lock until it woke up, so that nobody could replace it.
    pub locked_out: bool,
}
