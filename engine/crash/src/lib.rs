//! Named crash points: places in the protocol at which a test can make the process die, stop or fail.
//!
//! In ordinary builds [`point`] is an empty inlined function. With the feature `enabled` a process obeys
//! two variables of its environment:
//!
//! - `STAUNCH_CRASH=NAME:ACTION[:NTH]` - at the `NTH` hit (default 1) of the point `NAME` do `ACTION`:
//!   `kill` (SIGKILL to itself), `stop` (SIGSTOP to itself: a zombie, if somebody wakes it), `error` (the
//!   point returns an I/O error), `sleep` (one second);
//! - `STAUNCH_CRASH_HITS=FILE` - every hit appends the point's name as a line: a count that survives
//!   the process, so that a test can tell a point that was passed from one that never was.
//!
//! A test that runs the engine in its own process says what happens by [`on_this_thread`] instead.
//!
//! The points are listed in [`POINTS`]; a test that arms an unknown one fails at once.
//!
//! The same feature plants bugs, to test the proof itself: with `STAUNCH_BUG=NAME` the code at the place
//! of that name does the wrong thing ([`BUGS`]), and a check must notice.

/// Every point there is, in the order of the protocol.
pub const POINTS: &[&str] = &[
    // A checkpoint is being taken.
    "barrier.sent",
    "source.positions_captured",
    "state.aligned",
    "state.frozen",
    "state.file_written",
    "storage.temporary_written",
    "storage.temporary_synced",
    "storage.visible",
    "sink.preparing",
    "sink.prepared",
    // The decision.
    "decision.due",
    "decision.temporary_synced",
    "decision.visible",
    "decision.made",
    // Phase two.
    "commit.due",
    "commit.some_done",
    "commit.at_target",
    "commit.done",
    "expire.some_deleted",
    // A start.
    "recovery.claimed",
    "recovery.sink_fenced",
    "recovery.recommitted",
    "recovery.state_loaded",
    "recovery.split_opened",
];

/// Every bug that can be planted.
pub const BUGS: &[&str] = &[
    // A restart does not publish what its checkpoint lists.
    "recommit_skipped",
    // Positions in a checkpoint are those of the checkpoint before it.
    "positions_late",
    // Records of a later epoch are processed before the barrier.
    "stash_off",
    // Expiring a checkpoint deletes files that a newer one still needs.
    "shared_file_deleted",
];

/// Whether the bug `name` is planted: never, in ordinary builds.
#[inline(always)]
#[cfg(not(feature = "enabled"))]
pub fn bug(_name: &'static str) -> bool {
    false
}

/// Passes the point `name`.
///
/// # Errors
/// Only when a test asked for one here.
#[inline(always)]
#[cfg(not(feature = "enabled"))]
pub fn point(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "enabled")]
pub use armed::{Handler, bug, on_this_thread, point};

/// Passes a point at which nothing can fail; an asked-for error does nothing.
#[inline(always)]
pub fn pass(name: &'static str) {
    // By contract of this function.
    let _ = point(name);
}

#[cfg(feature = "enabled")]
mod armed {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::fs::{File, OpenOptions};
    use std::io::{Error, Result, Write};
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};

    /// Says what happens at a point, given its name.
    pub type Handler = Arc<dyn Fn(&'static str) -> Result<()> + Send + Sync>;

    thread_local! {
        static HANDLER: RefCell<Option<Handler>> = const { RefCell::new(None) };
    }

    /// From now on `handler` alone says what happens at the points that this thread passes; `None` gives
    /// them back to the environment. For the simulator, whose threads belong to many processes.
    pub fn on_this_thread(handler: Option<Handler>) {
        HANDLER.set(handler);
    }

    struct Armed {
        name: String,
        action: String,
        nth: u64,
    }

    struct State {
        armed: Option<Armed>,
        hits: Option<File>,
        counts: Mutex<HashMap<&'static str, u64>>,
    }

    fn state() -> &'static State {
        static STATE: OnceLock<State> = OnceLock::new();
        STATE.get_or_init(|| State {
            armed: std::env::var("STAUNCH_CRASH").ok().map(|text| parse(&text)),
            hits: std::env::var_os("STAUNCH_CRASH_HITS").map(|path| {
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&path)
                    .unwrap_or_else(|e| panic!("STAUNCH_CRASH_HITS: cannot open {}: {e}", path.display()))
            }),
            counts: Mutex::default(),
        })
    }

    fn parse(text: &str) -> Armed {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default().to_owned();
        assert!(super::POINTS.contains(&name.as_str()), "STAUNCH_CRASH: there is no point {name:?}");
        let action = parts.next().unwrap_or("kill").to_owned();
        let known = ["kill", "stop", "error", "sleep"].contains(&action.as_str());
        assert!(known, "STAUNCH_CRASH: {action:?} is not kill, stop, error or sleep");
        let nth = parts.next().map_or(1, |n| n.parse().expect("STAUNCH_CRASH: the third part is a number"));
        Armed { name, action, nth }
    }

    /// Whether the bug `name` is planted.
    pub fn bug(name: &'static str) -> bool {
        static PLANTED: OnceLock<Option<String>> = OnceLock::new();
        let planted = PLANTED.get_or_init(|| std::env::var("STAUNCH_BUG").ok()).as_deref();
        if let Some(planted) = planted {
            assert!(super::BUGS.contains(&planted), "STAUNCH_BUG: there is no bug {planted:?}");
        }
        planted == Some(name)
    }

    /// See the documentation of the crate.
    pub fn point(name: &'static str) -> Result<()> {
        debug_assert!(super::POINTS.contains(&name), "{name} is not in the list of points");
        if let Some(handler) = HANDLER.with_borrow(Clone::clone) {
            return handler(name);
        }
        let state = state();
        if let Some(mut hits) = state.hits.as_ref() {
            hits.write_all(format!("{name}\n").as_bytes())?;
        }
        let Some(armed) = state.armed.as_ref().filter(|armed| armed.name == name) else { return Ok(()) };
        let mut counts = state.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name).or_default();
        *count += 1;
        if *count != armed.nth {
            return Ok(());
        }
        drop(counts);
        match armed.action.as_str() {
            "kill" => signal(libc::SIGKILL),
            "stop" => signal(libc::SIGSTOP),
            "sleep" => std::thread::sleep(std::time::Duration::from_secs(1)),
            _ => return Err(Error::other(format!("asked for at crash point {name}"))),
        }
        Ok(())
    }

    fn signal(signal: i32) {
        // SAFETY: `kill` and `getpid` take no pointers.
        unsafe { libc::kill(libc::getpid(), signal) };
        // The signal reaches the process before the call returns, or as soon as another thread runs.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
