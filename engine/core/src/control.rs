//! What can be asked of a running job from outside, what it answers and tells, and how it ended.

mod answer;
mod events;

pub use answer::Answer;
pub(crate) use answer::Teller;
pub use events::{Events, JobEvent};

use crate::error::{Error, Result};
use crossbeam_channel::{Receiver, Sender, unbounded};
use staunch_checkpoint::CheckpointId;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Take a last checkpoint, commit, end. The input does not end: windows do not fire, and a rerun
    /// continues.
    Stop,
    /// Behave as if all input had ended: windows fire, the job is complete.
    Drain,
    /// Take a checkpoint now, like those that time brings. Refused while one is under way.
    Checkpoint,
    /// Take a checkpoint that is kept under this name.
    Savepoint(String),
}

/// A request, and whoever waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) teller: Teller,
}

/// The remote control of a job; clones control the same job.
///
/// Requests made before a run, or after it has ended, wait for the next run of the same controls.
#[derive(Clone, Debug)]
pub struct Controls {
    sender: Sender<Asked>,
    receiver: Receiver<Asked>,
    /// Stops that were asked for and not heard yet: a start looks at it while it waits.
    stops: Arc<AtomicUsize>,
    events: events::Listeners,
}

impl Default for Controls {
    fn default() -> Self {
        let (sender, receiver) = unbounded();
        Self { sender, receiver, stops: Arc::default(), events: events::Listeners::default() }
    }
}

impl Controls {
    /// Asks the job, and waits for no answer.
    pub fn request(&self, request: Request) {
        drop(self.ask(request));
    }

    /// Asks the job. The answer is the checkpoint that was taken for it: for [`Request::Stop`] and [`Request::Drain`]
    /// the last one, once everything is committed and the run is over.
    pub fn ask(&self, request: Request) -> Answer {
        let (teller, answer) = answer::pair();
        if request == Request::Stop {
            self.stops.fetch_add(1, SeqCst);
        }
        // This value holds a receiver, so the channel is open.
        let _ = self.sender.send(Asked { request, teller });
        answer
    }

    /// Takes a last checkpoint, commits, and ends the run; the next one continues.
    pub fn stop(&self) -> Answer {
        self.ask(Request::Stop)
    }

    /// Ends the run as if all input had ended: the job is complete.
    pub fn drain(&self) -> Answer {
        self.ask(Request::Drain)
    }

    /// Takes a checkpoint now.
    pub fn checkpoint(&self) -> Answer {
        self.ask(Request::Checkpoint)
    }

    /// Takes a checkpoint that is kept under this name.
    pub fn savepoint(&self, name: impl Into<String>) -> Answer {
        self.ask(Request::Savepoint(name.into()))
    }

    /// What happens to the job from now on. There may be several listeners; none holds the job back.
    #[must_use]
    pub fn events(&self) -> Events {
        self.events.add()
    }

    pub(crate) fn tell(&self, event: impl FnOnce() -> JobEvent) {
        self.events.tell(event);
    }

    /// The last events of a run.
    pub(crate) fn tell_end(&self, outcome: &Result<Outcome>) {
        match outcome {
            Ok(outcome) => self.tell(|| JobEvent::Ended { outcome: *outcome }),
            Err(error) => self.tell(|| JobEvent::Failed {
                kind: error.kind(),
                step: error.step().map(str::to_owned),
                text: error.to_string(),
            }),
        }
    }

    pub(crate) fn is_stop_asked(&self) -> bool {
        self.stops.load(SeqCst) > 0
    }

    /// The channel of requests; what comes out of it must be given to [`Controls::heard`].
    pub(crate) fn requests(&self) -> &Receiver<Asked> {
        &self.receiver
    }

    /// A request was taken out of the channel.
    pub(crate) fn heard(&self, asked: &Asked) {
        if asked.request == Request::Stop {
            self.stops.fetch_sub(1, SeqCst);
        }
    }

    /// Refuses what was asked up to the stop that ended a start.
    pub(crate) fn drop_until_stop(&self, why: &str) {
        while let Ok(asked) = self.receiver.try_recv() {
            self.heard(&asked);
            let is_stop = asked.request == Request::Stop;
            asked
                .teller
                .tell(Err(Error::external(format!("{:?} was not carried out: {why}", asked.request))));
            if is_stop {
                return;
            }
        }
    }
}

/// The answer to a request.
pub(crate) type Told = Result<CheckpointId>;

/// How a run ended well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All input is processed and all output committed; the job is complete.
    Finished,
    /// Stopped on request with everything committed, or before anything was read; the next run continues.
    Stopped,
    /// There was nothing to do: an earlier run has completed the job.
    AlreadyFinished,
}
