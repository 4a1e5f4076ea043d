//! What can be asked of a running job from outside, and how it ended.

use crossbeam_channel::{Receiver, Sender, unbounded};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Take a last checkpoint, commit, end. The input does not end: windows do not fire, and a rerun
    /// continues.
    Stop,
    /// Behave as if all input had ended: windows fire, the job is complete.
    Drain,
    /// Take a checkpoint now, like those that time brings. Dropped while one is under way.
    Checkpoint,
    /// Take a checkpoint that is kept under this name.
    Savepoint(String),
}

/// The remote control of a job; clones control the same job.
#[derive(Clone, Debug)]
pub struct Controls {
    sender: Sender<Request>,
    receiver: Receiver<Request>,
}

impl Default for Controls {
    fn default() -> Self {
        let (sender, receiver) = unbounded();
        Self { sender, receiver }
    }
}

impl Controls {
    /// Asks the job. Requests made before it runs, or after it has ended, wait for the next run.
    pub fn request(&self, request: Request) {
        // This value holds a receiver, so the channel is open.
        let _ = self.sender.send(request);
    }

    pub(crate) fn requests(&self) -> &Receiver<Request> {
        &self.receiver
    }
}

/// How a run ended well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All input is processed and all output committed; the job is complete.
    Finished,
    /// Stopped on request with everything committed; the next run continues.
    Stopped,
    /// There was nothing to do: an earlier run has completed the job.
    AlreadyFinished,
}
