//! The end of a job's process: with the right exit code, whether or not all threads have left.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What the names of a job's threads begin with. (The system keeps 15 characters of a name.)
const OURS: [&str; 3] = ["staunch-", "persist ", "timely:"];
/// Threads that live as long as the process; the reading ones are shared by all readers.
const ALWAYS: [&str; 4] = ["staunch-signals", "staunch-http", "staunch-guard", "staunch-read"];
/// How long threads may take to leave, once the library has given up waiting for them or has seen them off.
const LEAVE: Duration = Duration::from_secs(2);

/// Ends the process. Threads that are stuck in the outside are named in the log; they may hold anything, so the process
/// then ends without running what it has registered for its end.
pub(crate) fn leave(code: u8) -> ExitCode {
    let until = Instant::now() + LEAVE;
    let mut left = ours();
    while !left.is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
        left = ours();
    }
    if left.is_empty() {
        return ExitCode::from(code);
    }
    tracing::warn!(threads = left.join(", "), "these threads do not end; the process ends without them");
    let _ = std::io::stdout().flush();
    signal_hook::low_level::exit(i32::from(code))
}

/// The names of a job's threads that there are, if the system tells.
fn ours() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let names = names.map(|name| name.trim_end().to_owned());
    let ours = |name: &String| OURS.iter().any(|our| name.starts_with(our)) && !ALWAYS.contains(&&**name);
    let mut names: Vec<String> = names.filter(ours).collect();
    names.sort_unstable();
    names
}
