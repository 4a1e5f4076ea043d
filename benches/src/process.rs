//! Child processes that measure one variant; the memory and processor time of a process.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use std::process::{Command, Stdio};

/// Memory of this process in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most it ever was.
    pub peak: u64,
}

/// Memory of this process.
///
/// # Errors
/// The system does not say (it is not Linux).
pub fn memory() -> Result<Memory> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("memory is read from /proc, which Linux has")?;
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.map(|kib| kib << 10).with_context(|| format!("/proc/self/status has no {name}"))
    };
    Ok(Memory { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

/// Clock ticks a second in `/proc`: the same on all Linux systems that Rust supports.
const TICKS: f64 = 100.0;

/// Processor time that all threads of this process have used, in seconds.
///
/// # Errors
/// The system does not say (it is not Linux).
pub fn processor_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("processor time is read from /proc")?;
    // The second field is the program's name in parentheses; user and system time are fields 14 and 15.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS)
}

/// Runs this program again with other arguments, and reads the last line of what it prints as JSON.
///
/// # Errors
/// It cannot be started, fails, or prints something else.
pub fn ask<T: DeserializeOwned>(arguments: &[String]) -> Result<T> {
    let program = std::env::current_exe()?;
    let output = Command::new(program).args(arguments).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("`{}` failed: {}", arguments.join(" "), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = text.lines().last().unwrap_or_default();
    serde_json::from_str(answer).with_context(|| format!("`{}` answered {answer:?}", arguments.join(" ")))
}
