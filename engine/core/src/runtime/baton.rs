//! Lets one thread out of several run at a time: whoever holds the baton.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

/// The baton of a controller and its workers.
pub(crate) struct Baton {
    /// 0: the controller; n + 1: worker n.
    holder: AtomicUsize,
    /// Nobody waits any more.
    dismissed: AtomicBool,
    /// The thread that gave the baton last, or made it.
    controller: Mutex<Thread>,
    workers: Vec<Runner>,
}

#[derive(Default)]
struct Runner {
    thread: OnceLock<Thread>,
    gone: AtomicBool,
}

/// Gives the baton back when its thread ends, however that comes about.
struct Membership(Arc<Baton>, usize);

impl Drop for Membership {
    fn drop(&mut self) {
        let Self(baton, worker) = self;
        baton.workers[*worker].gone.store(true, SeqCst);
        baton.pass(*worker);
    }
}

thread_local! {
    static MEMBERSHIP: RefCell<Option<Membership>> = const { RefCell::new(None) };
}

impl Baton {
    /// The calling thread is the controller, for now, and holds the baton.
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

    /// The calling thread is this worker from now on; waits for the baton.
    pub(crate) fn join(self: &Arc<Self>, worker: usize) {
        MEMBERSHIP.set(Some(Membership(Arc::clone(self), worker)));
        let _ = self.workers[worker].thread.set(std::thread::current());
        self.controller().unpark();
        self.wait(worker);
    }

    /// Passes the baton to the controller and waits until it is back; false if all are to leave.
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

    /// Called by the controller, which is the calling thread from now on: lets a worker run until it passes
    /// the baton or ends.
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
