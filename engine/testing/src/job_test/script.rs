//! What happens to one input in a test, in order.

/// Where a process dies: the arrows of the checkpoint protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// At once, between two steps of the protocol.
    Now,
    /// Sources have noted their positions, nothing is written.
    AfterPositions,
    /// A step has frozen its state, and none of it is written.
    AfterFreeze,
    /// Sinks are about to prepare what was written.
    BeforePrepare,
    /// A sink has prepared, and the coordinator does not know.
    AfterPrepare,
    /// All have answered, and nothing is decided.
    BeforeDecision,
    /// The checkpoint is decided, and nothing of it is published.
    AfterDecision,
    /// A committer is about to publish.
    BeforeCommit,
    /// Something is published, and the answer is lost.
    MidCommit,
    /// All is published, and the coordinator knows.
    AfterCommit,
    /// At the next start, after the job was taken over.
    InRecovery,
    /// At the next start, after pending output was published, and before anything is read.
    AfterRecommit,
    /// At a point of the list in [`staunch::core::crash::POINTS`], or of a real sink's own, `my_sink/half_sent`.
    /// One that only a start passes is called `recovery.…`, or `my_sink/recovery.…`.
    At(&'static str),
}

impl Crash {
    /// The name of the crash point; `None` for no point in particular.
    pub(super) fn point(self) -> Option<&'static str> {
        Some(match self {
            Self::Now => return None,
            Self::AfterPositions => "source.positions_captured",
            Self::AfterFreeze => "state.frozen",
            Self::BeforePrepare => "sink.preparing",
            Self::AfterPrepare => "sink.prepared",
            Self::BeforeDecision => "decision.due",
            Self::AfterDecision => "decision.made",
            Self::BeforeCommit => "commit.due",
            Self::MidCommit => "commit.at_target",
            Self::AfterCommit => "commit.done",
            Self::InRecovery => "recovery.claimed",
            Self::AfterRecommit => "recovery.recommitted",
            Self::At(name) => name,
        })
    }

    /// Whether it is at a point that only a start passes.
    pub(super) fn at_start(self) -> bool {
        // Of a point of one's own, what is behind the sink's name.
        let name = self.point().and_then(|point| point.rsplit('/').next());
        name.is_some_and(|name| name.starts_with("recovery."))
    }
}

/// One step of a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// So many more records can be read.
    Release(u64),
    Barrier,
    /// Where, and on which worker.
    Crash(Crash, Option<u32>),
    Workers(usize),
    End,
}

/// What happens to one input: made by [`script`], given to [`JobTest::feed`](super::JobTest::feed).
#[derive(Clone, Debug)]
pub struct Script<T> {
    pub(super) records: Vec<T>,
    pub(super) steps: Vec<Step>,
}

/// A script in which nothing happens yet.
pub fn script<T>() -> Script<T> {
    Script { records: Vec::new(), steps: Vec::new() }
}

impl<T> Script<T> {
    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// These records come. The script goes on when all of them have been read.
    #[must_use]
    pub fn records(mut self, records: impl IntoIterator<Item = T>) -> Self {
        let before = self.records.len();
        self.records.extend(records);
        let released = (self.records.len() - before) as u64;
        self.step(Step::Release(released))
    }

    /// A checkpoint is taken. The script goes on when its output is published; before a
    /// [`Script::crash`] it goes on at once.
    #[must_use]
    pub fn barrier(self) -> Self {
        self.step(Step::Barrier)
    }

    /// The process dies and is started again: at the next pass of that point. The test fails if it never
    /// passes there.
    #[must_use]
    pub fn crash(self, at: Crash) -> Self {
        self.step(Step::Crash(at, None))
    }

    /// As [`Script::crash`], when this worker passes the point. For points of one worker (positions, state,
    /// prepare); the others are passed by none.
    #[must_use]
    pub fn crash_on_worker(self, at: Crash, worker: u32) -> Self {
        self.step(Step::Crash(at, Some(worker)))
    }

    /// The job is stopped, and goes on with this number of workers.
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        self.step(Step::Workers(workers))
    }

    /// The same records, all in one step.
    pub(crate) fn all_at_once(mut self) -> Self {
        self.steps = vec![Step::Release(self.records.len() as u64)];
        self
    }

    /// No further records come. A script without it ends by itself.
    #[must_use]
    pub fn end(self) -> Self {
        self.step(Step::End)
    }
}
