//! Waiting for processes, stopping and waking them.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits for the end of a process, with a limit.
///
/// # Errors
/// It did not end in time (it is killed then), or cannot be waited for.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus, String> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
            Ok(None) => {
                let killed = kill(child);
                return Err(format!("it did not end within {limit:?} (killed: {killed:?})"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Kills a process with SIGKILL and waits for its end.
///
/// # Errors
/// It cannot be waited for.
pub fn kill(child: &mut Child) -> io::Result<ExitStatus> {
    // Fails only if it ended by itself meanwhile, which the status tells.
    let _ = child.kill();
    child.wait()
}

/// Waits until a process has stopped itself; false if it ended instead.
///
/// # Errors
/// Neither happened in time; it is killed then.
pub fn wait_stopped(child: &mut Child, limit: Duration) -> Result<bool, String> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if child.try_wait().map_err(|e| e.to_string())?.is_some() {
            return Ok(false);
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if state == Some('T') {
            return Ok(true);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let killed = kill(child);
    Err(format!("it neither stopped nor ended (killed: {killed:?})"))
}

/// Stops a process: it does nothing until it is woken.
pub fn stop(child: &Child) {
    signal(child, libc::SIGSTOP);
}

/// Asks a process to stop (SIGTERM).
pub fn terminate(child: &Child) {
    signal(child, libc::SIGTERM);
}

/// Wakes a stopped process.
pub fn wake(child: &Child) {
    signal(child, libc::SIGCONT);
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: `kill` takes no pointers; the child is ours and not yet waited for.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}
