//! Counting an operation, and what is done to the one that is struck.

use crate::place::Place;
use crate::plan::{self, Plan, plan};
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;

/// How long a sleeping operation takes: longer than the victim's patience with a checkpoint.
static SLEEP: libc::timespec = libc::timespec { tv_sec: 1, tv_nsec: 0 };
/// For ever, as far as any victim can tell.
static FOR_EVER: libc::timespec = libc::timespec { tv_sec: 3_600, tv_nsec: 0 };

/// What is done to the operation.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// The process dies before it.
    KillBefore,
    /// The process dies after it.
    KillAfter,
    /// The process stops before it, until it is woken.
    Stop,
    /// It is not done, and fails with this number.
    Fail(c_int),
    /// It is done, and said to have failed with this number.
    Lie(c_int),
    /// It is done, and said to have failed as if somebody else had done it before.
    Repeated,
    /// Half of the bytes are read or written, and this is said.
    Short,
    /// Half of the bytes are written, and the process dies.
    Torn,
    /// It is done, late.
    Sleep,
    /// It does not come back.
    Hang,
}

impl Fault {
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"kill-before" => Fault::KillBefore,
            b"kill-after" => Fault::KillAfter,
            b"stop" => Fault::Stop,
            b"error" => Fault::Fail(libc::EIO),
            b"full" => Fault::Fail(libc::ENOSPC),
            b"interrupted" => Fault::Fail(libc::EINTR),
            b"forbidden" => Fault::Fail(libc::EACCES),
            b"descriptors" => Fault::Fail(libc::EMFILE),
            b"lie" => Fault::Lie(libc::EIO),
            b"repeated" => Fault::Repeated,
            b"short" => Fault::Short,
            b"torn" => Fault::Torn,
            b"sleep" => Fault::Sleep,
            b"hang" => Fault::Hang,
            _ => return None,
        })
    }
}

/// What an operation is called in plans and traces.
pub(crate) type Operation = &'static [u8];

/// What somebody hears who does a thing a second time.
fn done_before(operation: Operation) -> c_int {
    match operation {
        b"link" | b"mkdir" => libc::EEXIST,
        b"rename" | b"unlink" => libc::ENOENT,
        _ => libc::EIO,
    }
}

fn errno() -> *mut c_int {
    // SAFETY: it has no conditions.
    unsafe { libc::__errno_location() }
}

fn set_errno(number: c_int) {
    // SAFETY: the place belongs to this thread.
    unsafe { *errno() = number };
}

fn signal(number: c_int) {
    // SAFETY: both take no pointers.
    unsafe { libc::syscall(libc::SYS_kill, libc::getpid(), number) };
}

fn die() -> ! {
    loop {
        signal(libc::SIGKILL);
    }
}

fn sleep(time: &'static libc::timespec) {
    // SAFETY: the time is constant, and nothing is asked back.
    unsafe { libc::syscall(libc::SYS_nanosleep, ptr::from_ref(time), 0_usize) };
}

/// Has an operation done by `all`, unless it is the one to be struck; `half` does half of it, if there are halves.
pub(crate) fn through<R>(
    operation: Operation,
    find: impl FnOnce(&mut Place) -> bool,
    failed: R,
    all: impl Fn() -> R,
    half: impl Fn() -> R,
) -> R {
    let Some(plan) = plan() else { return all() };
    // SAFETY: the place belongs to this thread.
    let before = unsafe { *errno() };
    let fault = due(plan, operation, find);
    // `readdir` says its end by leaving it as it was.
    set_errno(before);
    match fault {
        None => all(),
        Some(Fault::KillBefore) => die(),
        Some(Fault::KillAfter) => {
            all();
            die()
        }
        Some(Fault::Stop) => {
            signal(libc::SIGSTOP);
            all()
        }
        Some(Fault::Fail(number)) => {
            set_errno(number);
            failed
        }
        Some(Fault::Lie(number)) => {
            all();
            set_errno(number);
            failed
        }
        Some(Fault::Repeated) => {
            all();
            set_errno(done_before(operation));
            failed
        }
        Some(Fault::Short) => half(),
        Some(Fault::Torn) => {
            half();
            die()
        }
        Some(Fault::Sleep) => {
            sleep(&SLEEP);
            all()
        }
        Some(Fault::Hang) => {
            sleep(&FOR_EVER);
            all()
        }
    }
}

/// Counts an operation. The fault, if it is its turn.
fn due(plan: &'static Plan, operation: Operation, find: impl FnOnce(&mut Place) -> bool) -> Option<Fault> {
    let mut place = Place::nowhere();
    let below = find(&mut place).then(|| place.below(plan)).flatten()?;
    let number = plan.counts.all.fetch_add(1, SeqCst).wrapping_add(1);
    if plan.trace >= 0 {
        trace(plan.trace, [operation, b" ", below, b"\n"]);
    }
    let asked = plan.operation == b"*" || plan.operation == operation;
    let fault = plan.fault.filter(|_| asked && below.starts_with(plan.place))?;
    if plan.counts.matching.fetch_add(1, SeqCst).wrapping_add(1) != plan.nth {
        return None;
    }
    plan::note(plan.counts, [operation, b" ", below]);
    plan.counts.struck.store(number, SeqCst);
    Some(fault)
}

/// One call, so that lines of several threads are not mixed.
fn trace(file: c_int, parts: [&[u8]; 4]) {
    let parts =
        parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    // SAFETY: the parts live until the call is over, and it only reads them. What is not written is lost, no more.
    unsafe { libc::syscall(libc::SYS_writev, file, parts.as_ptr(), parts.len()) };
}
