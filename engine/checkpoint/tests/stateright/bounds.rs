//! How much may happen in one exploration, which mistake is planted, and what was met on the way.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Size of the job, and trouble that is in store for it. Everything is finite, and so is the exploration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Records of the source; one is read in each epoch, until the final checkpoint covers them all.
    pub records: u8,
    /// Sinks.
    pub sinks: u8,
    /// Instances of each sink.
    pub instances: u8,
    /// Stateful steps: none or one.
    pub states: u8,
    /// Checkpoints that retention keeps.
    pub retained: u8,
    /// How often a start claims a slot before it gives up, as the runtime's `CLAIMS`. Without a limit two
    /// starts can take the log from each other for ever.
    pub claims: u8,
    /// The trouble.
    pub faults: Faults,
}

impl Bounds {
    /// A small job without trouble.
    pub const SMALL: Bounds = Bounds {
        records: 2,
        sinks: 1,
        instances: 1,
        states: 1,
        retained: 1,
        claims: 2,
        faults: Faults::NONE,
    };
}

/// Trouble that may still come. Part of the state: every place for each piece of it is tried.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Faults {
    /// Processes that die.
    pub crashes: u8,
    /// Processes that start while others live: those are zombies from then on.
    pub zombies: u8,
    /// Checkpoints that take too long, though answers are still on their way.
    pub timeouts: u8,
    /// Acknowledgements that never arrive.
    pub losses: u8,
    /// Acknowledgements and confirmations that arrive again, at any later time.
    pub repeats: u8,
    /// Acknowledgements that overtake an earlier one of the same part.
    pub overtakes: u8,
    /// Parts that fail a checkpoint.
    pub failures: u8,
    /// Creations of a slot that fail, or whose answer is lost: done, not done, or done later.
    pub unknown: u8,
    /// Savepoints asked for.
    pub savepoints: u8,
    /// Stops asked for.
    pub stops: u8,
    /// Times that all fences but the newest disappear, as if very many generations had passed.
    pub forgets: u8,
}

impl Faults {
    /// No trouble.
    pub const NONE: Faults = Faults {
        crashes: 0,
        zombies: 0,
        timeouts: 0,
        losses: 0,
        repeats: 0,
        overtakes: 0,
        failures: 0,
        unknown: 0,
        savepoints: 0,
        stops: 0,
        forgets: 0,
    };

    /// Whether anything can still happen to messages between parts and coordinator, or in their place.
    pub fn touch_messages(&self) -> bool {
        let Self { timeouts, losses, repeats, overtakes, failures, .. } = self;
        [timeouts, losses, repeats, overtakes, failures].into_iter().any(|left| *left > 0)
    }
}

/// A mistake planted between the protocol and its world, to see it found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// None: the protocol as it is.
    None,
    /// Creating a slot overwrites what is there.
    LogOverwrites,
    /// After a creation nobody looks for higher slots.
    ConfirmSkipped,
    /// A start does not create its fence.
    FenceSkipped,
    /// A fence that is there already is taken for one's own.
    TakenFenceIsOurs,
    /// An unknown outcome is taken for success.
    UnknownIsSuccess,
    /// A second acknowledgement of a part counts for a part that is silent.
    AckCountedTwice,
    /// A checkpoint is decided when its time is over, whoever is silent.
    TimeoutDecides,
    /// A source reports where it stood one barrier ago.
    PositionsLate,
    /// A sink writes a record of the next epoch before its barrier.
    StashOff,
    /// Output is committed as soon as the decision is on its way.
    CommitBeforeDecision,
    /// A target that does not remember what it committed.
    CommitNotIdempotent,
    /// A target that lets every generation commit.
    TargetUnfenced,
    /// A start takes what its checkpoint lists for committed.
    RecommitSkipped,
    /// What a sink prepared is gone when its process dies.
    PreparedNotDurable,
    /// A start removes all prepared output, the listed too.
    ListedAborted,
    /// Expiring a checkpoint deletes files that another one needs.
    SharedFilesDeleted,
    /// Expiring a checkpoint deletes its files before its slot.
    FilesFirst,
    /// No confirmation of a commit ever arrives.
    ConfirmationsLost,
}

impl Mistake {
    /// Every mistake, by the name that the command line knows.
    pub const ALL: &[(&str, Mistake)] = &[
        ("none", Mistake::None),
        ("log-overwrites", Mistake::LogOverwrites),
        ("confirm-skipped", Mistake::ConfirmSkipped),
        ("fence-skipped", Mistake::FenceSkipped),
        ("taken-fence-is-ours", Mistake::TakenFenceIsOurs),
        ("unknown-is-success", Mistake::UnknownIsSuccess),
        ("ack-counted-twice", Mistake::AckCountedTwice),
        ("timeout-decides", Mistake::TimeoutDecides),
        ("positions-late", Mistake::PositionsLate),
        ("stash-off", Mistake::StashOff),
        ("commit-before-decision", Mistake::CommitBeforeDecision),
        ("commit-not-idempotent", Mistake::CommitNotIdempotent),
        ("target-unfenced", Mistake::TargetUnfenced),
        ("recommit-skipped", Mistake::RecommitSkipped),
        ("prepared-not-durable", Mistake::PreparedNotDurable),
        ("listed-aborted", Mistake::ListedAborted),
        ("shared-files-deleted", Mistake::SharedFilesDeleted),
        ("files-first", Mistake::FilesFirst),
        ("confirmations-lost", Mistake::ConfirmationsLost),
    ];
}

/// Something that an exploration should meet, or it has proved little.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    Aborted,
    Carried,
    LateAck,
    Restored,
    Recommitted,
    ZombieFenced,
    ZombieRefused,
    UnknownFoundDone,
    LateCreation,
    TurnedDown,
    Expired,
    Swept,
}

/// What was met. Beside the state, not in it: how a state was reached makes no difference to it.
#[derive(Debug, Default)]
pub struct Seen(AtomicU32);

impl Seen {
    pub fn note(&self, met: Met) {
        self.0.fetch_or(1 << met as u32, Relaxed);
    }

    pub fn has(&self, met: Met) -> bool {
        self.0.load(Relaxed) & (1 << met as u32) != 0
    }
}
