//! Named crash points: places in the protocol at which a test can make the process die, stop or fail.
//!
//! In ordinary builds all functions here are empty and inlined. With the feature `enabled` a process obeys
//! variables of its environment:
//!
//! - `STAUNCH_CRASH=NAME:ACTION[:NTH[:WORKER]]`, or several of these with commas between them - at the
//!   `NTH` hit (default 1) of the point `NAME`, counting only those of `WORKER` if one is given, do
//!   `ACTION`: `kill` (SIGKILL to itself), `stop` (SIGSTOP to itself: a zombie, if somebody wakes it),
//!   `error` (the point returns an I/O error), `sleep` (one second). At points that are messages there are
//!   also `drop`, `double` and `delay` (until two more have passed there);
//! - `STAUNCH_CRASH_HITS=FILE` - every hit appends the point's name as a line, with the worker if there is
//!   one: a count that survives the process, so that a test can tell a point that was passed from one that
//!   never was;
//! - `STAUNCH_BUG=NAME` - the code at the place of that name does the wrong thing, to test the proof itself:
//!   a check must notice;
//! - `STAUNCH_DISK_LOG=FILE` - what was written and synced, in order ([`disk`]), so that a test can take
//!   away what a power cut would.
//!
//! A test that runs the engine in its own process says what happens by [`on_this_thread`] instead. A test
//! that arms an unknown point, or plants an unknown bug, fails at once: see [`POINTS`] and [`BUGS`].
//!
//! A connector of your own may have points of its own. Their names have a `/` in them (`my_sink/half_sent`) and
//! are in no list: a test that arms a wrong one notices it by its hits, of which there are none.
//!
//! The worker of a point is that of the thread ([`this_thread_is_worker`]), or is given with the point where
//! the work of an instance is done on other threads.

pub mod disk;
mod points;

#[cfg(feature = "enabled")]
mod armed;

pub use points::{BUGS, POINTS, is_point};

#[cfg(feature = "enabled")]
pub use armed::{Handler, bug, message, on_this_thread, point, point_of, this_thread_is_worker};

/// Whether the bug `name` is planted: never, in ordinary builds.
#[inline(always)]
#[cfg(not(feature = "enabled"))]
pub fn bug(_name: &'static str) -> bool {
    false
}

/// Says that everything on this thread is the work of a worker.
#[inline(always)]
#[cfg(not(feature = "enabled"))]
pub fn this_thread_is_worker(_worker: u32) {}

/// Passes the point `name`.
///
/// # Errors
/// Only when a test asked for one here.
#[inline(always)]
#[cfg(not(feature = "enabled"))]
pub fn point(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}

/// Passes the point `name` for a worker whose thread this is not.
///
/// # Errors
/// Only when a test asked for one here.
#[inline(always)]
#[cfg(not(feature = "enabled"))]
pub fn point_of(_name: &'static str, _worker: u32) -> std::io::Result<()> {
    Ok(())
}

/// Sends a message of a worker through the point `name`: it may be lost, doubled or delayed there.
#[inline(always)]
#[cfg(not(feature = "enabled"))]
pub fn message<M>(_name: &'static str, _worker: u32, message: M, send: impl Fn(M)) {
    send(message);
}

/// Passes a point at which nothing can fail; an asked-for error does nothing.
#[inline(always)]
pub fn pass(name: &'static str) {
    // By contract of this function.
    let _ = point(name);
}
