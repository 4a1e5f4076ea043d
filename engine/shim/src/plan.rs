//! What is asked for, by variables of the environment, and where the counts are kept.
//!
//! - `STAUNCH_ATTACK_ROOT`: the folder; what is done elsewhere is not counted;
//! - `STAUNCH_ATTACK_COUNTS`: a file of [`BYTES`] bytes, shared with whoever watches: three numbers, and what was struck;
//! - `STAUNCH_ATTACK=FAULT:NTH:OPERATION:PLACE`: strike at the NTH operation of this name (or `*`) on a path that
//!   begins with PLACE, seen from the folder;
//! - `STAUNCH_ATTACK_TRACE`: a file to which each operation is added as a line.

use crate::strike::Fault;
use std::ffi::{CStr, c_int};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering::SeqCst};

/// Length of the file of counts.
pub const BYTES: usize = 4096;
/// Where in it the text begins that says what was struck.
const TEXT: usize = 64;

/// In the file of counts.
#[repr(C)]
pub(crate) struct Counts {
    /// Operations below the folder.
    pub(crate) all: AtomicU64,
    /// Those that the plan asks for.
    pub(crate) matching: AtomicU64,
    /// The number among all of the one that was struck; 0: none.
    pub(crate) struck: AtomicU64,
}

/// What is asked for.
pub(crate) struct Plan {
    pub(crate) root: &'static [u8],
    pub(crate) counts: &'static Counts,
    pub(crate) fault: Option<Fault>,
    pub(crate) nth: u64,
    pub(crate) operation: &'static [u8],
    pub(crate) place: &'static [u8],
    /// Open for adding to it, or -1.
    pub(crate) trace: c_int,
}

const UNKNOWN: u8 = 0;
const BEING_READ: u8 = 1;
const ARMED: u8 = 2;
const IDLE: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
static PLAN: AtomicPtr<Plan> = AtomicPtr::new(ptr::null_mut());

/// The plan, if there is one. It is read at the first operation, when a process has one thread.
pub(crate) fn plan() -> Option<&'static Plan> {
    if STATE.load(SeqCst) == UNKNOWN && STATE.compare_exchange(UNKNOWN, BEING_READ, SeqCst, SeqCst).is_ok() {
        let read = read();
        PLAN.store(read, SeqCst);
        STATE.store(if read.is_null() { IDLE } else { ARMED }, SeqCst);
    }
    // SAFETY: it is null, or points to a plan that is never changed and never freed.
    unsafe { PLAN.load(SeqCst).as_ref() }
}

fn variable(name: &'static CStr) -> Option<&'static [u8]> {
    // SAFETY: the name ends with a zero, and the environment of a test is not changed while it runs.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: as above: it is null, or a text that ends with a zero and stays.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// Memory of its own for the plan: `malloc` may be in the middle of something.
fn read() -> *mut Plan {
    let Some(plan) = parsed() else { return ptr::null_mut() };
    // SAFETY: a new mapping; the kernel chooses the place.
    let memory = unsafe {
        let (read_write, private) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(ptr::null_mut(), BYTES, read_write, private, -1, 0)
    };
    if memory == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    // SAFETY: a page is larger than a plan, aligned, and nobody else knows it.
    unsafe { memory.cast::<Plan>().write(plan) };
    memory.cast()
}

fn parsed() -> Option<Plan> {
    let root = variable(c"STAUNCH_ATTACK_ROOT")?;
    let counts = shared(c"STAUNCH_ATTACK_COUNTS")?;
    let trace =
        opened(c"STAUNCH_ATTACK_TRACE", libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT).unwrap_or(-1);
    let mut parts = variable(c"STAUNCH_ATTACK").unwrap_or_default().splitn(4, |byte| *byte == b':');
    let fault = parts.next().and_then(Fault::named);
    let digits = parts.next().unwrap_or_default().iter();
    let nth =
        digits.fold(0_u64, |n, digit| n.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0'))));
    let operation = parts.next().unwrap_or_default();
    Some(Plan { root, counts, fault, nth, operation, place: parts.next().unwrap_or_default(), trace })
}

fn opened(name: &'static CStr, flags: c_int) -> Option<c_int> {
    let path = variable(name)?;
    // SAFETY: the path is what `getenv` gave, and ends with a zero. Not `open`: that is ours here.
    let file = unsafe {
        libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags | libc::O_CLOEXEC, 0o644)
    };
    c_int::try_from(file).ok().filter(|file| *file >= 0)
}

fn shared(name: &'static CStr) -> Option<&'static Counts> {
    let file = opened(name, libc::O_RDWR)?;
    // SAFETY: a new mapping of a file that whoever started us has made this long.
    let memory = unsafe {
        libc::mmap(ptr::null_mut(), BYTES, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file, 0)
    };
    // SAFETY: the mapping is aligned, longer than the counts, and stays; they are atomic.
    (memory != libc::MAP_FAILED).then(|| unsafe { &*memory.cast::<Counts>() })
}

/// Writes down which operation was struck. Called once, because one is.
pub(crate) fn note(counts: &'static Counts, parts: [&[u8]; 3]) {
    let mut to = TEXT;
    for byte in parts.into_iter().flatten() {
        if to + 1 < BYTES {
            // SAFETY: inside of the mapping, which is this long, and behind the numbers.
            unsafe { ptr::from_ref(counts).cast::<u8>().cast_mut().add(to).write_volatile(*byte) };
            to += 1;
        }
    }
}
