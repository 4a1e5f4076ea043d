//! Lets one thread out of several run at a time: the one whose turn it is.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

/// Whose turn it is: the controller's, or one of its workers'.
pub(crate) struct Lockstep {
    /// 0: the controller; n + 1: worker n.
    holder: AtomicUsize,
    /// Nobody waits any more.
    dismissed: AtomicBool,
    /// The thread that gave the last turn to a worker, or made this.
    controller: Mutex<Thread>,
    workers: Vec<Runner>,
}

#[derive(Default)]
struct Runner {
    thread: OnceLock<Thread>,
    gone: AtomicBool,
}

/// Gives its turn back when its thread ends, however that comes about.
struct Membership(Arc<Lockstep>, usize);

impl Drop for Membership {
    fn drop(&mut self) {
        let Self(lockstep, worker) = self;
        lockstep.workers[*worker].gone.store(true, SeqCst);
        lockstep.pass(*worker);
    }
}

thread_local! {
    static MEMBERSHIP: RefCell<Option<Membership>> = const { RefCell::new(None) };
}

impl Lockstep {
    /// The calling thread is the controller for now, and it is its turn.
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            holder: AtomicUsize::new(0),
            dismissed: AtomicBool::new(false),
            controller: Mutex::new(std::thread::current()),
            workers: (0..workers).map(|_| Runner::default()).collect(),
        })
    }

    fn controller(&self) -> MutexGuard<'_, Thread> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread is this worker from now on; waits for its turn.
    pub(crate) fn join(self: &Arc<Self>, worker: usize) {
        MEMBERSHIP.set(Some(Membership(Arc::clone(self), worker)));
        let _ = self.workers[worker].thread.set(std::thread::current());
        self.controller().unpark();
        self.wait(worker);
    }

    /// Gives the turn to the controller and waits for the next one; false if all are to leave.
    pub(crate) fn pass_and_wait(&self, worker: usize) -> bool {
        self.pass(worker);
        self.wait(worker)
    }

    fn pass(&self, worker: usize) {
        if self.holder.compare_exchange(worker + 1, 0, SeqCst, SeqCst).is_ok() {
            self.controller().unpark();
        }
    }

    fn wait(&self, worker: usize) -> bool {
        loop {
            if self.dismissed.load(SeqCst) {
                return false;
            }
            if self.holder.load(SeqCst) == worker + 1 {
                return true;
            }
            std::thread::park();
        }
    }

    /// Called by the controller, which is the calling thread from now on: lets a worker run until it gives
    /// its turn back or ends.
    pub(crate) fn give(&self, worker: usize) {
        *self.controller() = std::thread::current();
        let runner = &self.workers[worker];
        while runner.thread.get().is_none() {
            std::thread::park();
        }
        self.holder.store(worker + 1, SeqCst);
        if runner.gone.load(SeqCst) {
            self.holder.store(0, SeqCst);
            return;
        }
        runner.thread.get().inspect(|thread| thread.unpark());
        while self.holder.load(SeqCst) != 0 {
            std::thread::park();
        }
    }

    /// Called by the controller: all leave.
    pub(crate) fn dismiss(&self) {
        self.dismissed.store(true, SeqCst);
        for runner in &self.workers {
            runner.thread.get().inspect(|thread| thread.unpark());
        }
    }
}
